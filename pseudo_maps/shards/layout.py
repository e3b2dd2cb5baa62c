"""Layout of a shard: names, limits, the row of its table, and the checks that need no file."""

import json
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pseudo_maps import __version__

SCHEMA_VERSION = 1
"""Version of the layout that SHARD_FORMAT.md describes; readers refuse every other one."""

STATUS_OK = "ok"
"""Status of a row whose map was made; every other status is a failure code, and its map is all zero."""

STATUS_TIMEOUT = "timeout"
"""Status of a row whose image or map file took longer to read, or its map to make, than the limit."""

STATUSES_OF_LOST_PROCESSES = frozenset({"crashed", STATUS_TIMEOUT, "out-of-memory"})
"""Statuses of images that their process did not survive: they are not decoded again where nothing contains them."""

FULL_SCALE = 255
"""Stored value of a map's peak: viewers such as HDFView do not stretch contrast."""

GZIP_LEVEL = 4
"""6-11 KB a 224x224 map and 0.15 ms a read; the only compression that every viewer opens."""

MAPS_PATH = "/saliency/maps"
TABLE_PATH = "/images"
BY_NAME_GROUP = "by_name"
UNCLASSIFIED = "unclassified"
"""Group below /by_name of images without a class."""

LARGEST_MAP_PX = 16_384
"""Side of a map, 268 MB: a foreign file that states more is not read."""
PROVENANCE_KEYS = ("configuration", "package_version", "schema_version")
PROVENANCE_LIMIT_BYTES = 60_000
"""An HDF5 attribute is one object header message of at most 65,535 bytes; the rest is left for its header."""

STRING_FIELDS = ("image_id", "path", "wnid", "status")
NUMBER_FIELDS = {"row": "<i4", "label": "<i4", "height": "<i4", "width": "<i4", "peak": "<f8", "proposals": "<i4"}
TABLE_FIELDS = ("row", "image_id", "path", "wnid", "label", "height", "width", "peak", "proposals", "status")
"""Columns of /images, in order."""

_SHARD_NAME = re.compile(r"(?P<split>[A-Za-z0-9][A-Za-z0-9_.-]*)-(?P<index>\d{5,})-of-(?P<count>\d{5,})\.h5")
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_INT32_MAX = int(np.iinfo(np.int32).max)


class ShardError(ValueError):
    """A shard, or what is to be stored in one, is invalid; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRow:
    """One row of a shard's table: an image and its map."""

    image_id: str
    """Unique inside a split (``ImageRecord.image_id``)."""
    path: str
    """POSIX path of the image file relative to the data root."""
    wnid: str
    """Class name, empty when unknown."""
    label: int
    """Class index, -1 when unknown."""
    height: int
    width: int
    """Pixels of the image file, 0 when unknown because the image failed."""
    peak: float
    """Maximum of the map before it was scaled to 255; 0 for an empty map and for a failed image."""
    proposals: int
    """Number of proposals averaged."""
    status: str
    """``STATUS_OK`` or a failure code."""


def shard_name(split: str, index: int, count: int) -> str:
    """File name of shard ``index`` (0-based) of ``count``; ValueError for an index outside or an illegal split.

    Examples
    --------
    >>> shard_name("val", 12, 1282)
    'val-00012-of-01282.h5'
    """
    check_split(split)
    if not 0 <= index < count:
        raise ValueError(f"shard index {index} of {count}: expected 0 <= index < count")
    return f"{split}-{index:05d}-of-{count:05d}.h5"


def parse_shard_name(name: str) -> tuple[str, int, int]:
    """Split, 0-based index and count of a shard's file name; ValueError for a name that ``shard_name`` cannot give."""
    found = _SHARD_NAME.fullmatch(name)
    if found is not None:
        split, index, count = found["split"], int(found["index"]), int(found["count"])
        if index < count and shard_name(split, index, count) == name:
            return split, index, count
    raise ValueError(f"{name!r} is not a shard's name, expected one like val-00012-of-01282.h5")


def is_split(text: str) -> bool:
    """Whether ``text`` can be the name of a split, and so start a file name."""
    return _SPLIT_NAME.fullmatch(text) is not None


def check_split(split: str) -> None:
    """Raise ValueError unless ``split`` can start a file name."""
    if not is_split(split):
        raise ValueError(f"split {split!r}: expected letters, digits, '_', '.' and '-', not starting with a sign")


def split_of_shard(name: str) -> str | None:
    """Split of a shard's file name; None for another name."""
    try:
        return parse_shard_name(name)[0]
    except ValueError:
        return None


def list_shards(folder: Path, split: str) -> dict[tuple[int, int], Path]:
    """Paths of the shards of ``split`` in ``folder`` by (index, count), in order of count and index."""
    found = {}
    for entry in os.scandir(folder):
        try:
            name_split, index, count = parse_shard_name(entry.name)
        except ValueError:
            continue
        if name_split == split:
            found[index, count] = folder / entry.name
    return dict(sorted(found.items(), key=lambda item: (item[0][1], item[0][0])))


def checksum_path(shard: Path) -> Path:
    """Path of the file with the shard's SHA-256, in the format of ``sha256sum``."""
    return shard.with_name(shard.name + ".sha256")


def quantise_map(map_hw: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], float]:
    """Scale a map to its peak: ``round(255 * map / peak)`` as uint8, and the peak.

    Parameters
    ----------
    map_hw
        (H, W) float32, finite and not negative, any scale.

    Returns
    -------
    stored_hw
        (H, W) uint8. Halves are rounded to even (``numpy.rint``), in float64, so the peak is exactly 255.
    peak
        Maximum of ``map_hw``; 0.0 for a map without any value above 0, whose ``stored_hw`` is all zero.

    ValueError for another dtype or number of axes, an empty map, NaN, infinity or a negative value.
    """
    if map_hw.dtype != np.float32 or map_hw.ndim != 2 or map_hw.size == 0:
        raise ValueError(f"map: expected (H, W) float32, found {map_hw.shape} {map_hw.dtype}")
    if not np.isfinite(map_hw).all():
        raise ValueError("map: found NaN or infinity, expected finite values")
    if float(map_hw.min()) < 0:
        raise ValueError(f"map: found the negative value {float(map_hw.min())}, expected values of at least 0")
    peak = float(map_hw.max())
    if peak == 0:
        return np.zeros(map_hw.shape, dtype=np.uint8), 0.0
    return np.rint(FULL_SCALE * map_hw.astype(np.float64) / peak).astype(np.uint8), peak


def row_problem(map_hw: npt.NDArray[np.uint8], row: MapRow) -> str | None:
    """Contradiction between a stored map and its row, or None.

    A map reaches 255, or is all zero with peak 0, as that of every row whose status is not ok.
    """
    if not math.isfinite(row.peak) or row.peak < 0:
        return f"peak {row.peak}, expected a finite number of at least 0"
    highest = int(map_hw.max())
    if row.status != STATUS_OK:
        if highest != 0 or row.peak != 0:
            return f"status {row.status!r} with map maximum {highest} and peak {row.peak}, expected 0 and 0"
    elif row.peak == 0 and highest != 0:
        return f"map maximum {highest} with peak 0, expected 0"
    elif row.peak > 0 and highest != FULL_SCALE:
        return f"map maximum {highest} with peak {row.peak}, expected {FULL_SCALE} (scaled to its peak)"
    return None


def field_problem(row: MapRow) -> str | None:
    """Reason why a row cannot be stored, or None: NUL, text that is not UTF-8, numbers outside int32."""
    for name in STRING_FIELDS:
        text = getattr(row, name)
        if "\0" in text:
            return f"{name} {text!r} holds NUL, which ends a fixed-length string"
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{name} {text!r} cannot be encoded as UTF-8"
    if not row.image_id or not row.status:
        return "empty image_id or status"
    lowest = {"label": -_INT32_MAX, "height": 0, "width": 0, "proposals": 0}
    for name, low in lowest.items():
        value = getattr(row, name)
        if not low <= value <= _INT32_MAX:
            return f"{name} {value}, expected {low} to {_INT32_MAX}"
    return None


def encode_table(rows: Sequence[MapRow]) -> npt.NDArray[Any]:
    """(N,) compound array for /images; strings are as long as the longest of the shard, at least 1 byte."""
    columns: dict[str, Any] = {"row": range(len(rows))}
    columns |= {name: [getattr(row, name) for row in rows] for name in TABLE_FIELDS if name != "row"}
    types: dict[str, Any] = dict(NUMBER_FIELDS)
    for name in STRING_FIELDS:
        columns[name] = [text.encode() for text in columns[name]]
        types[name] = h5py.string_dtype("utf-8", max([1, *map(len, columns[name])]))
    table = np.zeros(len(rows), dtype=[(name, types[name]) for name in TABLE_FIELDS])
    for name in TABLE_FIELDS:
        table[name] = columns[name]
    return table


def decode_row(record: np.void) -> MapRow:
    """One row of the stored table as ``MapRow``."""
    values = {name: record[name].item() for name in TABLE_FIELDS if name != "row"}
    for name in STRING_FIELDS:
        values[name] = values[name].decode()
    return MapRow(**values)


def by_name_links(rows: Sequence[MapRow]) -> Iterator[tuple[int, str, str]]:
    """Row, group and link name below /by_name of every row: the image id's last component without extension.

    Where the group has that name already, ``~<row>`` is appended until it is new.
    """
    taken: set[tuple[str, str]] = set()
    for row_index, row in enumerate(rows):
        group = _link_name(row.wnid) or UNCLASSIFIED
        link = _link_name(posixpath.splitext(posixpath.basename(row.image_id.rstrip("/")))[0]) or "unnamed"
        while (group, link) in taken:
            link = f"{link}~{row_index}"
        taken.add((group, link))
        yield row_index, group, link


def _link_name(text: str) -> str:
    """``text`` as one HDF5 link: '/' separates links and '.' means the group itself, so both become '_'."""
    return "_" * len(text) if text in (".", "..") else text.replace("/", "_")


def make_provenance(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a shard made now from everything that decides its maps, as JSON values."""
    return {"configuration": dict(configuration), "package_version": __version__, "schema_version": SCHEMA_VERSION}


def encode_provenance(provenance: Mapping[str, Any]) -> bytes:
    """Provenance as ASCII JSON with sorted keys; ShardError for a missing key, another schema version, or too long."""
    missing = [key for key in PROVENANCE_KEYS if key not in provenance]
    if missing:
        raise ShardError(f"provenance lacks {', '.join(missing)}; make_provenance(configuration) gives them")
    if provenance["schema_version"] != SCHEMA_VERSION:
        raise ShardError(
            f"provenance states schema version {provenance['schema_version']!r}, expected {SCHEMA_VERSION}"
        )
    encoded = canonical_json(provenance).encode("ascii")
    if len(encoded) > PROVENANCE_LIMIT_BYTES:
        raise ShardError(
            f"provenance takes {len(encoded)} bytes as JSON, at most {PROVENANCE_LIMIT_BYTES} fit an HDF5 "
            "attribute; store digests of long values"
        )
    return encoded


def canonical_json(value: Mapping[str, Any]) -> str:
    """ASCII JSON with sorted keys and no spaces; ShardError for values that JSON cannot hold."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ShardError(f"provenance and configuration have to be JSON values: {error}") from error
