"""HDF5 shard reader: the table and the places of the chunks through HDF5, the maps straight from the file."""

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from pseudo_maps.files import open_regular_file
from pseudo_maps.shards.fletcher32 import CHECKSUM_BYTES, fletcher32
from pseudo_maps.shards.layout import (
    FULL_SCALE,
    LARGEST_MAP_PX,
    MAPS_PATH,
    NUMBER_FIELDS,
    SCHEMA_VERSION,
    STRING_FIELDS,
    TABLE_FIELDS,
    TABLE_PATH,
    MapRow,
    ShardError,
)

_TABLE_FILTERS = [h5py.h5z.FILTER_FLETCHER32]
_MAP_FILTERS = [h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32]
"""Filters of the maps in the order of writing, undone by ``ShardFile.read_map``."""


@dataclass(frozen=True, slots=True)
class ShardHead:
    """Everything of a shard but its maps."""

    table: npt.NDArray[Any]
    """(N,) compound array as stored, strings as UTF-8 bytes."""
    provenance: dict[str, Any]
    map_shape: tuple[int, int]
    """(H, W) of every map."""


@dataclass(frozen=True, slots=True)
class ChunkPlaces:
    """Where the compressed maps of a shard lie, by row."""

    offsets: npt.NDArray[np.int64]
    """(N,) bytes from the start of the file."""
    sizes: npt.NDArray[np.int32]
    """(N,) bytes, checksum included."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a shard for reading; ShardError for a damaged file.

    Works without file locks where the file system has none (NFS, Lustre). Errors of the system (no such file, no
    permission, too many open files, no regular file) stay OSErrors with their errno: the shard may be good.
    """
    # HDF5 would wait for a FIFO without end.
    os.close(open_regular_file(path))
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except ShardError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ShardError(
            f"{path}: HDF5 cannot read it ({error}); remove it with its .sha256 and make it again"
        ) from error


def read_head(file: h5py.File, *, path: Path) -> ShardHead:
    """Read the table and the provenance; ShardError for another schema version or layout."""
    version = file.attrs.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ShardError(
            f"{path}: schema version {'absent' if version is None else version}, expected {SCHEMA_VERSION}; "
            "make the shard again, or read it with the package version that made it"
        )
    if file.userblock_size:
        # HDF5 releases differ in whether a chunk's address counts from the file's start or from its end.
        raise ShardError(f"{path}: has a user block of {file.userblock_size} bytes, expected none")
    table = _own_dataset(file, TABLE_PATH, filters=_TABLE_FILTERS, path=path)
    # Read off once: h5py makes the dtype anew at every look, 20 microseconds each.
    columns, names = table.dtype, table.dtype.names
    if names != TABLE_FIELDS:
        raise ShardError(f"{path}: {TABLE_PATH} has the columns {names}, expected {TABLE_FIELDS}")
    for name in TABLE_FIELDS:
        found = columns[name]
        if (found.kind != "S") if name in STRING_FIELDS else (found != np.dtype(NUMBER_FIELDS[name])):
            expected = "a fixed-length string" if name in STRING_FIELDS else NUMBER_FIELDS[name]
            raise ShardError(f"{path}: column {name} of {TABLE_PATH} is {found}, expected {expected}")
    # It is stored as it is, so that more than the file has is not there.
    size = os.stat(path).st_size
    if table.nbytes > size:
        raise ShardError(f"{path}: {TABLE_PATH} states {table.nbytes} bytes in a file of {size}")
    maps = _own_dataset(file, MAPS_PATH, filters=_MAP_FILTERS, path=path)
    shape = maps.shape
    if len(shape) != 3 or maps.dtype != np.uint8 or maps.chunks != (1, *shape[1:]):
        raise ShardError(f"{path}: {MAPS_PATH} is {maps}, expected (N, H, W) uint8 in chunks of one map")
    if max(shape[1:]) > LARGEST_MAP_PX:
        raise ShardError(f"{path}: {MAPS_PATH} has maps of {shape[1]}x{shape[2]}, more than {LARGEST_MAP_PX} a side")
    if table.shape != shape[:1]:
        raise ShardError(f"{path}: {TABLE_PATH} has shape {table.shape}, expected {shape[:1]} as {MAPS_PATH}")
    provenance = json.loads(bytes(file.attrs["provenance"]))
    if not isinstance(provenance, dict):
        raise ShardError(f"{path}: provenance is {type(provenance).__name__}, expected a JSON object")
    return ShardHead(table=table[()], provenance=provenance, map_shape=(shape[1], shape[2]))


def _own_dataset(file: h5py.File, name: str, *, filters: Sequence[int], path: Path) -> h5py.Dataset:
    """A chunked dataset of this very file; ShardError for one elsewhere (a link, external or virtual storage)."""
    parts = name.strip("/").split("/")
    groups = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    dataset = file[name] if all(isinstance(file.get(one, getlink=True), h5py.HardLink) for one in groups) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.chunks is None:
        raise ShardError(f"{path}: {name} is no dataset of this file, stored in chunks")
    settings = dataset.id.get_create_plist()
    found = [settings.get_filter(position)[0] for position in range(settings.get_nfilters())]
    if found != filters:
        raise ShardError(f"{path}: {name} has the HDF5 filters {found}, expected {filters} (1: deflate, 3: fletcher32)")
    return dataset


def read_places(file: h5py.File, *, path: Path) -> ChunkPlaces:
    """Find every chunk of the maps: about 1.5 ms for 1000 rows, paid once a shard."""
    maps = file[MAPS_PATH]
    offsets = np.full(maps.shape[0], -1, dtype=np.int64)
    sizes = np.zeros(maps.shape[0], dtype=np.int32)

    def note(chunk: Any) -> None:
        # A mask tells of filters that were left out.
        if not chunk.filter_mask:
            row = chunk.chunk_offset[0]
            offsets[row], sizes[row] = chunk.byte_offset, chunk.size

    maps.id.chunk_iter(note)
    if len(offsets) and (offsets + sizes).max() > os.stat(path).st_size:
        raise ShardError(f"{path}: a chunk of {MAPS_PATH} ends behind the file; it is truncated, make it again")
    bad = np.flatnonzero((offsets < 0) | (sizes <= CHECKSUM_BYTES))
    if len(bad):
        raise ShardError(
            f"{path}: row {bad[0]} of {MAPS_PATH} has no compressed chunk with a checksum "
            f"({len(bad)} such rows); make the shard again"
        )
    return ChunkPlaces(offsets=offsets, sizes=sizes)


def scale_map(stored_hw: npt.NDArray[np.uint8], *, peak: float, map_scale: str) -> npt.NDArray[np.float32]:
    """(H, W) float32: ``stored / 255`` for "peak", ``stored / 255 * peak`` for "true", else ValueError."""
    map_hw: npt.NDArray[np.float32] = np.divide(stored_hw, np.float32(FULL_SCALE), dtype=np.float32)
    if map_scale == "true":
        map_hw *= np.float32(peak)
    elif map_scale != "peak":
        raise ValueError(f"map_scale {map_scale!r}, expected 'peak' or 'true'")
    return map_hw


class ShardFile:
    """Open file descriptor that is closed with the last reference.

    Reads by position, so threads and forked processes may share it, and a bounded cache may drop one that another
    thread is still reading from.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = open_regular_file(path)
        self._path = path

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; further reads raise ShardError."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read_map(self, row: int, *, places: ChunkPlaces, map_shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """(H, W) uint8, writable, of ``row``, ``0 <= row < N``; ShardError where the file is truncated or damaged."""
        if self._descriptor < 0:
            raise ShardError(f"{self._path}: the reader is closed")
        size = int(places.sizes[row])
        chunk = os.pread(self._descriptor, size, int(places.offsets[row]))
        if len(chunk) != size:
            raise ShardError(
                f"{self._path}: row {row}: the file ends after {len(chunk)} of {size} bytes; it is "
                "truncated, remove it with its .sha256 and make it again"
            )
        body, stated = memoryview(chunk)[:-CHECKSUM_BYTES], int.from_bytes(chunk[-CHECKSUM_BYTES:], "little")
        computed = fletcher32(body)
        if computed != stated:
            raise ShardError(
                f"{self._path}: row {row}: checksum {computed:08x}, expected {stated:08x}; the file is damaged, "
                "remove it with its .sha256 and make it again"
            )
        height, width = map_shape
        try:
            # No more than a map, whatever a foreign chunk holds; 12 microseconds more than without this limit.
            pixels = zlib.decompressobj().decompress(body, height * width + 1)
        except zlib.error as error:
            raise ShardError(
                f"{self._path}: row {row}: not a compressed map ({error}); make the shard again"
            ) from error
        if len(pixels) != height * width:
            raise ShardError(
                f"{self._path}: row {row}: the chunk holds {len(pixels)} bytes, expected {height * width} "
                f"({height}x{width}); make the shard again"
            )
        # A copy, because an array over bytes is read-only and torch.from_numpy warns about those.
        return np.frombuffer(pixels, dtype=np.uint8).reshape(map_shape).copy()


class ShardReader:
    """One shard: its table, its provenance and its maps.

    Raises
    ------
    ShardError
        Not a shard, another schema version, another layout, or damage that shows on opening.
    OSError
        The file is missing or not readable.

    Notes
    -----
    HDF5 is used on opening only. Afterwards a map costs one positioned read, the checksum and decompression: about
    0.13 ms at 224x224. Threads may share a reader.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file = ShardFile(self._path)
        try:
            with open_hdf5(self._path) as file:
                head = read_head(file, path=self._path)
                self._places = read_places(file, path=self._path)
        except BaseException:
            self._file.close()
            raise
        self._stored_table = head.table
        self.provenance: dict[str, Any] = head.provenance
        """``configuration``, ``package_version`` and ``schema_version``, as JSON values."""
        self.map_shape: tuple[int, int] = head.map_shape
        """(H, W) of every map."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._stored_table)

    def close(self) -> None:
        """Close the file; table and provenance stay available."""
        self._file.close()

    @cached_property
    def rows(self) -> list[MapRow]:
        """The N rows of ``table``."""
        names = [name for name in TABLE_FIELDS if name != "row"]
        return [MapRow(**dict(zip(names, row, strict=True))) for row in self.table[names].tolist()]

    @cached_property
    def table(self) -> npt.NDArray[Any]:
        """(N,) structured array with the columns of ``/images``, strings as numpy ``U``; ShardError for no UTF-8."""
        columns = {name: self._stored_table[name] for name in TABLE_FIELDS}
        for name in STRING_FIELDS:
            try:
                columns[name] = np.char.decode(columns[name], "utf-8")
            except UnicodeDecodeError as error:
                raise ShardError(f"{self._path}: column {name} is not UTF-8 ({error})") from error
        table = np.empty(len(self), dtype=[(name, column.dtype) for name, column in columns.items()])
        for name, column in columns.items():
            table[name] = column
        return table

    def read_uint8(self, row: int) -> npt.NDArray[np.uint8]:
        """(H, W) uint8 as stored: 255 at the peak, all zero for a row whose status is not ok.

        IndexError unless ``0 <= row < N``; ShardError for a damaged map (the checksum is compared on every read).
        """
        if not 0 <= row < len(self):
            raise IndexError(f"{self._path}: row {row}, expected 0 <= row < {len(self)}")
        return self._file.read_map(row, places=self._places, map_shape=self.map_shape)

    def read(self, row: int, *, map_scale: str) -> npt.NDArray[np.float32]:
        """(H, W) float32 of one row: ``stored / 255`` for ``map_scale`` "peak", ``stored / 255 * peak`` for "true".

        The latter is the map before it was scaled, up to half a step of ``peak / 255``. Errors as ``read_uint8``, and
        ValueError for another ``map_scale``.
        """
        peak = float(self._stored_table["peak"][row]) if 0 <= row < len(self) else 0.0
        return scale_map(self.read_uint8(row), peak=peak, map_scale=map_scale)
