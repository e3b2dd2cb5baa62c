"""Index of all shards of a split: maps by image id, small enough for every worker of a data loader."""

import hashlib
import os
import resource
import shlex
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pseudo_maps.files import differences
from pseudo_maps.shards.layout import (
    STATUS_OK,
    MapRow,
    ShardError,
    check_split,
    checksum_path,
    decode_row,
    list_shards,
    shard_name,
)
from pseudo_maps.shards.manifest import Manifest, manifest_path, read_manifest
from pseudo_maps.shards.reader import (
    ChunkPlaces,
    ShardFile,
    ShardHead,
    open_hdf5,
    read_head,
    read_places,
    scale_map,
)
from pseudo_maps.wording import counted

_NAMED_AT_MOST = 8
"""Missing shards that an error lists by name."""


class MapIndex(Mapping[str, npt.NDArray[np.float32]]):
    """Maps of one split by image id, over all its shards: a mapping whose values are read when they are asked for.

    Parameters
    ----------
    folder
        Folder of the shards; other splits may lie there too.
    split
        Split whose shards are read.
    max_open_files
        Shards kept open at once in each process, at least 1; never more than a quarter of ``ulimit -n``.
    allow_incomplete
        Accept a folder in which shards are missing: their images are not in the index.

    Raises
    ------
    ShardError
        No shard, missing shards, shards of two numberings, configurations or map sizes, an image id that is
        there twice, a shard that cannot be read, or numbers that differ from the manifest's.
    ManifestError
        The manifest is invalid; without one nothing is compared.
    FileNotFoundError
        The folder is missing.

    Notes
    -----
    Opening reads the tables only: about 2 ms a shard of 1000 rows. Per image it keeps the id and 25 bytes. A map costs
    one positioned read, the checksum and decompression: about 0.14 ms at 224x224, and 2 ms more for the first map of a
    shard in a process.

    Threads and forked processes may share an index; a process that gets it pickled opens its own files.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str,
        *,
        max_open_files: int = 32,
        allow_incomplete: bool = False,
    ) -> None:
        check_split(split)
        if max_open_files < 1:
            raise ValueError(f"max_open_files {max_open_files}, expected at least 1")
        self._folder = Path(folder)
        self._split = split
        self._max_open_files = max_open_files
        manifest = read_manifest(folder, split) if manifest_path(folder, split).exists() else None
        self._paths = _complete_shards(self._folder, split, manifest, allow_incomplete=allow_incomplete)
        self._read_tables(manifest)
        if manifest is not None and not allow_incomplete and len(self) != manifest.images:
            raise ShardError(
                f"{self._folder}: the shards of {split} hold {counted(len(self), 'row')}, the manifest states "
                f"{manifest.images}; `{_verify_line(self._folder)}` tells which are wrong"
            )
        self._make_caches()

    def _read_tables(self, manifest: Manifest | None) -> None:
        ids, peaks, statuses, sizes, first_rows = [], [], [], [], [0]
        for shard, path in enumerate(self._paths):
            with open_hdf5(path) as file:
                head = read_head(file, path=path)
            if shard == 0:
                self.map_shape: tuple[int, int] = head.map_shape
                """(H, W) of every map."""
                self.provenance: dict[str, Any] = head.provenance
                """Provenance that all shards share."""
            self._check_alike(head, path=path, manifest=manifest if shard == 0 else None)
            # Copies, because a column of the table would keep the whole table in memory.
            ids.append(head.table["image_id"].copy())
            peaks.append(head.table["peak"].copy())
            statuses.append(head.table["status"].copy())
            sizes.append(np.stack([head.table["width"], head.table["height"]], axis=1))
            first_rows.append(first_rows[-1] + len(head.table))
        self._first_rows = first_rows
        self._peaks: npt.NDArray[np.float64] = np.concatenate(peaks)
        self._sizes: npt.NDArray[np.int32] = np.concatenate(sizes)
        names, codes = np.unique(np.concatenate(statuses), return_inverse=True)
        self._status_names: list[str] = [name.decode(errors="replace") for name in names.tolist()]
        self._statuses = codes.astype(np.min_scalar_type(len(names)))
        # Sorted arrays: 5 microseconds a search. A dict of 1.3 million ids would take 0.3 GB, which every forked loader
        # worker would copy, because reading an object changes its reference count.
        self._ids: npt.NDArray[np.bytes_] = np.concatenate(ids)
        self._order = np.argsort(self._ids, kind="stable")
        in_order = self._ids[self._order]
        twice = np.flatnonzero(in_order[1:] == in_order[:-1])
        if len(twice):
            (one, row_one), (two, row_two) = (self._place(int(self._order[twice[0] + later])) for later in (0, 1))
            raise ShardError(
                f"{self._paths[two]}: row {row_two}: image id {bytes(in_order[twice[0]]).decode()!r} is also row "
                f"{row_one} of {self._paths[one].name}; expected ids that are unique in the split"
            )

    def _check_alike(self, head: ShardHead, *, path: Path, manifest: Manifest | None) -> None:
        if head.map_shape != self.map_shape:
            raise ShardError(f"{path}: maps of {head.map_shape}, expected {self.map_shape} as in {self._paths[0].name}")
        expected, reference = self.provenance, self._paths[0].name
        if manifest is not None:
            expected, reference = head.provenance | manifest.provenance, "the manifest"
        lines = differences(head.provenance, expected, names=("here", "there"))
        if lines:
            raise ShardError(
                f"{path}: made with other settings than {reference}:\n  " + "\n  ".join(lines) + "\nMake the shards "
                "that differ again, or keep the two sets in two folders."
            )

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        """Image ids in the order of the shards and their rows."""
        return (self._ids.item(position).decode() for position in range(len(self._ids)))

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and self._find(image_id) >= 0

    def __getitem__(self, image_id: str) -> npt.NDArray[np.float32]:
        """(H, W) float32 with peak 1, as ``read``."""
        return self.read(image_id)

    def __repr__(self) -> str:
        height, width = self.map_shape
        return f"MapIndex({str(self._folder)!r}, {self._split!r}: {counted(len(self), 'map')} of {width}x{height})"

    # Comparing the items, as other mappings do, would read every map.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _make_caches(self) -> None:
        # Thread-safe without a lock of their own, which a fork could find held.
        # Of the files that this process may open, three quarters are for everything else.
        may_open = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._open = lru_cache(maxsize=min(self._max_open_files, may_open))(ShardFile)
        self._places = cache(_places_of)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_places")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_caches()

    def status(self, image_id: str) -> str:
        """Status of an image: ``STATUS_OK`` or a failure code; KeyError when it is in no shard."""
        return self._status_names[int(self._statuses[self._position(image_id)])]

    def peak(self, image_id: str) -> float:
        """Maximum of an image's map before scaling, 0 for a failed image; KeyError for an unknown id."""
        return float(self._peaks[self._position(image_id)])

    def size(self, image_id: str) -> tuple[int, int] | None:
        """Width and height in pixels of the image that the map was made of; None of a failed image; KeyError."""
        width, height = self._sizes[self._position(image_id)].tolist()
        return (width, height) if width and height else None

    def shard_path(self, image_id: str) -> Path:
        """The shard that holds an image's map; KeyError for an unknown id."""
        return self._paths[self._place(self._position(image_id))[0]]

    def row(self, image_id: str) -> MapRow:
        """The table's row of an image, read from its shard in about 2 ms; errors as ``read_uint8``."""
        shard, row = self._place(self._position(image_id))
        path = self._paths[shard]
        with open_hdf5(path) as file:
            return decode_row(read_head(file, path=path).table[row])

    def read_uint8(self, image_id: str) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 as stored: 255 at the peak. See ``status`` first: the map of a failed image is zero.

        KeyError when the image is in no shard; ShardError for a damaged map (the checksum is compared on every read).
        """
        return self._read_at(self._position(image_id))

    def read(self, image_id: str, *, map_scale: str = "peak") -> npt.NDArray[np.float32]:
        """(H, W) float32: ``stored / 255`` for ``map_scale`` "peak", ``stored / 255 * peak`` for "true".

        Errors as ``read_uint8``, and ValueError for another ``map_scale``.
        """
        position = self._position(image_id)
        return scale_map(self._read_at(position), peak=float(self._peaks[position]), map_scale=map_scale)

    def counts(self) -> dict[str, int]:
        """Number of images by status, ``STATUS_OK`` first."""
        numbers = np.bincount(self._statuses, minlength=len(self._status_names)).tolist()
        return {STATUS_OK: 0} | dict(zip(self._status_names, numbers, strict=True))

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of ``ids`` that are in no shard, in their order."""
        return [image_id for image_id in ids if self._find(image_id) < 0]

    def digest(self) -> str | None:
        """SHA-256 (hexadecimal) of the checksum files of all shards in order; None where one is missing."""
        sums = [checksum_path(path) for path in self._paths]
        if not all(path.is_file() for path in sums):
            return None
        return hashlib.sha256(b"".join(path.read_bytes() for path in sums)).hexdigest()

    def _find(self, image_id: str) -> int:
        """Position of an id in the concatenation of all tables, -1 when it is not there."""
        encoded = image_id.encode(errors="surrogatepass")
        slot = bisect_left(self._order, encoded, key=self._ids.item)
        if slot < len(self._order) and self._ids.item(self._order[slot]) == encoded:
            return int(self._order[slot])
        return -1

    def _position(self, image_id: str) -> int:
        position = self._find(image_id)
        if position < 0:
            raise KeyError(
                f"{self._folder}: no shard of {self._split} holds the image id {image_id!r}, "
                f"expected one such as {self._ids.item(0).decode()!r}"
            )
        return position

    def _place(self, position: int) -> tuple[int, int]:
        """Shard and row of a position in the concatenation of all tables."""
        shard = bisect_right(self._first_rows, position) - 1
        return shard, position - self._first_rows[shard]

    def _read_at(self, position: int) -> npt.NDArray[np.uint8]:
        shard, row = self._place(position)
        path = self._paths[shard]
        return self._open(path).read_map(row, places=self._places(path), map_shape=self.map_shape)


def _places_of(path: Path) -> ChunkPlaces:
    with open_hdf5(path) as file:
        return read_places(file, path=path)


def _complete_shards(folder: Path, split: str, manifest: Manifest | None, *, allow_incomplete: bool) -> list[Path]:
    """Paths of the shards in order; ShardError unless they are all shards of one numbering."""
    found = list_shards(folder, split)
    if not found:
        raise ShardError(f"{folder}: no shard of the split {split!r} (expected files like {shard_name(split, 0, 1)})")
    counts = sorted({count for _, count in found})
    if manifest is not None and counts != [manifest.shards]:
        raise ShardError(
            f"{folder}: shards of {split} are numbered of {counts}, the manifest states {manifest.shards}; "
            f"`{_verify_line(folder)}` tells which are wrong"
        )
    if len(counts) > 1:
        raise ShardError(f"{folder}: shards of {split} are numbered of {counts}: expected those of one run only")
    count = counts[0]
    missing = [shard_name(split, index, count) for index in range(count) if (index, count) not in found]
    if missing and not allow_incomplete:
        named = ", ".join(missing[:_NAMED_AT_MOST]) + (", ..." if len(missing) > _NAMED_AT_MOST else "")
        raise ShardError(
            f"{folder}: {len(missing)} of {counted(count, 'shard')} of {split} missing: {named}; "
            f"`{_verify_line(folder)} --data DATA` prints the command that makes them"
        )
    return list(found.values())


def _verify_line(folder: Path) -> str:
    return shlex.join(["wsol-prep", "verify", str(folder)])
