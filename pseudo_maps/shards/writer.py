"""HDF5 shard writer; SHARD_FORMAT.md describes the layout.

Every dataset is made without times, so equal rows give equal bytes.
"""

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5a, h5d, h5g, h5p, h5r, h5s, h5t

from pseudo_maps.files import file_sha256, replacing
from pseudo_maps.shards.fletcher32 import CHECKSUM_BYTES, append_checksum, fletcher32
from pseudo_maps.shards.layout import (
    BY_NAME_GROUP,
    GZIP_LEVEL,
    LARGEST_MAP_PX,
    MAPS_PATH,
    SCHEMA_VERSION,
    TABLE_PATH,
    MapRow,
    ShardError,
    by_name_links,
    checksum_path,
    encode_provenance,
    encode_table,
    field_problem,
    row_problem,
)

_READ_ONLY = 0o444
"""Mode of a finished shard: a killed viewer that had it open for writing would leave it marked as open."""

_LIBRARY_VERSIONS = ("earliest", "v110")
"""File format bounds: the oldest structures, which every viewer reads and which hold no times; virtual datasets need
1.10. Spelled out because HDF5 changes its default."""

# HDF5 Image and Palette Specification 1.2.
_IMAGE_ATTRIBUTES = {"CLASS": b"IMAGE", "IMAGE_VERSION": b"1.2", "IMAGE_SUBCLASS": b"IMAGE_INDEXED"}
_PALETTE_ATTRIBUTES = {
    "CLASS": b"PALETTE",
    "PAL_VERSION": b"1.2",
    "PAL_TYPE": b"STANDARD8",
    "PAL_COLORMODEL": b"RGB",
}


_Attribute: TypeAlias = tuple[bytes, h5t.TypeID, h5t.TypeID, npt.NDArray[Any]]
"""Name, types in the file and in memory (which take longer to make than the attribute itself), and value."""


class ShardWriter:
    """Collects the maps of one shard in memory and writes the file in one step.

    Parameters
    ----------
    path
        Path of the shard. Its folder has to exist; a file of that name is replaced at ``commit``.
    rows
        Number of rows N, at least 1.
    map_size
        Height and width in pixels of every map.
    provenance
        JSON values under ``configuration``, ``package_version`` and ``schema_version`` as
        ``make_provenance`` gives them. Nothing that depends on when, where or with how many jobs.
    by_name
        Make a virtual dataset a row under ``/by_name``, for viewers.

    Raises
    ------
    ShardError
        Provenance that cannot be stored, a number of rows or a map size below 1, or one above ``LARGEST_MAP_PX``.

    Notes
    -----
    Maps are kept compressed (about 10 KB each) and written in row order, so the file does not depend on the order of
    the calls. Leaving the context without ``commit`` writes nothing. Equal inputs give equal bytes with the same zlib,
    HDF5 and h5py.

    Examples
    --------
    >>> import tempfile
    >>> from pseudo_maps.shards import STATUS_OK, ShardReader, make_provenance, quantise_map, shard_name
    >>> folder = tempfile.TemporaryDirectory()
    >>> stored_hw, peak = quantise_map(np.array([[0.0, 0.2], [0.3, 0.4]], dtype=np.float32))
    >>> row = MapRow(image_id="a", path="a.png", wnid="", label=-1, height=20, width=20, peak=peak,
    ...     proposals=9, status=STATUS_OK)
    >>> target = Path(folder.name) / shard_name("val", 0, 1)
    >>> made_by = make_provenance({"working_size": 500})
    >>> with ShardWriter(target, rows=1, map_size=2, provenance=made_by) as writer:
    ...     writer.write(0, stored_hw, row)
    ...     writer.commit()
    >>> with ShardReader(target) as reader:
    ...     reader.read_uint8(0).tolist()
    [[0, 128], [191, 255]]
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rows: int,
        map_size: int,
        provenance: Mapping[str, Any],
        by_name: bool = True,
    ) -> None:
        if rows < 1 or not 1 <= map_size <= LARGEST_MAP_PX:
            raise ShardError(
                f"{path}: {rows} rows of map size {map_size}, expected at least 1 of each, and at most {LARGEST_MAP_PX}"
            )
        self._path = Path(path)
        self._provenance = encode_provenance(provenance)
        self._map_shape = (map_size, map_size)
        self._by_name = by_name
        self._count = rows
        self._added: dict[int, tuple[bytes, MapRow]] = {}
        self._row_of_id: dict[str, int] = {}
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def write(self, row_index: int, map_hw_uint8: npt.NDArray[np.uint8], row: MapRow) -> None:
        """Add the map and the table row of one row, ``0 <= row_index < N``; each once, in any order.

        ``map_hw_uint8`` is (H, W) uint8 from ``quantise_map``: its maximum is 255 unless the peak is 0; all zero for a
        row whose status is not ok. ShardError for an index outside the shard or given before, an image id given before,
        another shape or dtype, or a map and a row that contradict each other.
        """
        where = f"{self._path}: row {row_index}"
        if map_hw_uint8.dtype != np.uint8 or map_hw_uint8.shape != self._map_shape:
            raise ShardError(
                f"{where}: map is {map_hw_uint8.shape} {map_hw_uint8.dtype}, expected {self._map_shape} uint8"
            )
        problem = row_problem(map_hw_uint8, row)
        if problem is not None:
            raise ShardError(f"{where} ({row.image_id}): {problem}")
        self._add(row_index, compress_map(map_hw_uint8), row)

    def write_chunk(self, row_index: int, chunk: bytes, row: MapRow) -> None:
        """As ``write``, for a map that another process has checked (``row_problem``) and compressed (``compress_map``).

        Here only the checksum is compared, since decompressing would take longer than all the rest.
        """
        body, stated = chunk[:-CHECKSUM_BYTES], chunk[-CHECKSUM_BYTES:]
        if fletcher32(body).to_bytes(CHECKSUM_BYTES, "little") != stated:
            raise ShardError(f"{self._path}: row {row_index} ({row.image_id}): the compressed map is damaged")
        self._add(row_index, chunk, row)

    def _add(self, row_index: int, chunk: bytes, row: MapRow) -> None:
        where = f"{self._path}: row {row_index}"
        if not self._open:
            raise ShardError(f"{where}: the writer is finished")
        if not 0 <= row_index < self._count:
            raise ShardError(f"{where}: expected 0 <= row < {self._count}")
        if row_index in self._added:
            raise ShardError(f"{where}: written before, expected once")
        problem = field_problem(row)
        if problem is not None:
            raise ShardError(f"{where} ({row.image_id}): {problem}")
        first = self._row_of_id.setdefault(row.image_id, row_index)
        if first != row_index:
            raise ShardError(f"{where}: image id {row.image_id!r} is row {first} already, expected unique ids")
        self._added[row_index] = (chunk, row)

    def commit(self) -> None:
        """Write the file and its checksum file atomically and read-only; afterwards the shard is complete.

        The checksum file gets its name first, so a shard that has its name always has its checksum. ShardError when
        rows are missing or the writer is finished; OSError, with nothing left behind, when it cannot be written.
        """
        if not self._open:
            raise ShardError(f"{self._path}: the writer is finished")
        missing = [row_index for row_index in range(self._count) if row_index not in self._added]
        if missing:
            raise ShardError(
                f"{self._path}: {len(missing)} of {self._count} rows were not written, the first is row {missing[0]}"
            )
        added = [self._added[row_index] for row_index in range(self._count)]
        target_sum = checksum_path(self._path)
        existed = self._path.exists()
        try:
            with replacing(self._path) as temporary:
                write_shard_file(
                    temporary,
                    chunks=[chunk for chunk, _ in added],
                    rows=[row for _, row in added],
                    map_shape=self._map_shape,
                    provenance=self._provenance,
                    by_name=self._by_name,
                )
                temporary.chmod(_READ_ONLY)
                with replacing(target_sum) as temporary_sum:
                    temporary_sum.write_text(f"{file_sha256(temporary)}  {self._path.name}\n", encoding="utf-8")
                    temporary_sum.chmod(_READ_ONLY)
        except OSError:
            if not existed:
                target_sum.unlink(missing_ok=True)
            raise
        self._finish()

    def _finish(self) -> None:
        self._open = False
        self._added.clear()


def compress_map(map_hw_uint8: npt.NDArray[np.uint8]) -> bytes:
    """A (H, W) uint8 map as the chunk that a shard stores: zlib's bytes, then their Fletcher-32."""
    return append_checksum(zlib.compress(map_hw_uint8.tobytes(), GZIP_LEVEL))


def write_shard_file(
    path: Path,
    *,
    chunks: Sequence[bytes],
    rows: Sequence[MapRow],
    map_shape: tuple[int, int],
    provenance: bytes,
    by_name: bool,
) -> None:
    """Write one shard, or overwrite it, from N chunks of ``compress_map`` and their N rows in the same order.

    ``map_shape`` is (H, W) of every map, ``provenance`` ASCII JSON. /by_name costs about 0.3 ms and 0.7-1.7 KB a map.
    """
    # HDF5 fails on a full disk in ways that end the process, so it writes to memory and Python to the disk.
    with h5py.File(path, "w", driver="core", backing_store=False, libver=_LIBRARY_VERSIONS) as file:
        file.attrs["NX_class"] = np.bytes_(b"NXroot")
        file.attrs["default"] = np.bytes_(b"saliency")
        file.attrs["schema_version"] = np.int64(SCHEMA_VERSION)
        file.attrs["provenance"] = np.bytes_(provenance)
        palette = _write_palette(file)
        _write_maps(file, chunks=chunks, map_shape=map_shape, palette=palette)
        data = encode_table(rows)
        table = file.create_dataset(TABLE_PATH, data=data, chunks=(len(rows),), fletcher32=True, track_times=False)
        # Where a chunk stands in the file is settled when it leaves the cache: at the latest when its dataset is
        # closed, which waits for whoever else holds the object, such as dask's profiler sampling the frames.
        table.flush()
        if by_name:
            _write_by_name(file, rows=rows, map_shape=map_shape, palette=palette)
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)


def _write_palette(file: h5py.File) -> h5py.Dataset:
    """A grey ramp: the brightness on the screen is the stored value."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    palette = file.create_dataset("palette", data=ramp, track_times=False)
    _set(palette.id, _typed(_PALETTE_ATTRIBUTES))
    return palette


def _write_maps(file: h5py.File, *, chunks: Sequence[bytes], map_shape: tuple[int, int], palette: h5py.Dataset) -> None:
    group = file.create_group("saliency")
    _set(group.id, _typed({"NX_class": b"NXdata", "signal": b"maps"}))
    group.attrs["axes"] = np.array([b"row", b"y", b"x"])
    maps = group.create_dataset(
        "maps",
        shape=(len(chunks), *map_shape),
        dtype=np.uint8,
        chunks=(1, *map_shape),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
        fletcher32=True,
        track_times=False,
    )
    long_name = b"pseudo saliency map, 255 at the peak of each image"
    _set(maps.id, _image_attributes(palette, interpretation=b"image", long_name=long_name))
    for row_index, chunk in enumerate(chunks):
        maps.id.write_direct_chunk((row_index, 0, 0), chunk)
    # Plain numbers beside the maps. Attached as dimension scales they would empty the group in ViTables, and
    # a text axis makes H5Web refuse it.
    for name, length in zip(("row", "y", "x"), (len(chunks), *map_shape), strict=True):
        group.create_dataset(name, data=np.arange(length, dtype="<i4"), track_times=False)


def _write_by_name(
    file: h5py.File, *, rows: Sequence[MapRow], map_shape: tuple[int, int], palette: h5py.Dataset
) -> None:
    """One virtual dataset a row. h5py's own way of making them stores the time, hence the property list."""
    stack_space = h5s.create_simple((len(rows), *map_shape))
    map_space = h5s.create_simple(map_shape)
    by_name = h5g.create(file.id, BY_NAME_GROUP.encode())
    groups: dict[str, h5g.GroupID] = {}
    attributes = _image_attributes(palette, interpretation=b"image")
    for row_index, group, link in by_name_links(rows):
        if group not in groups:
            groups[group] = h5g.create(by_name, group.encode())
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_obj_track_times(False)
        stack_space.select_hyperslab((row_index, 0, 0), (1, *map_shape))
        # '.' is this file under whatever name it has, so the links survive renaming and copying.
        properties.set_virtual(map_space, b".", MAPS_PATH.encode(), stack_space)
        dataset = h5d.create(groups[group], link.encode(), h5t.STD_U8LE, map_space, dcpl=properties)
        _set(dataset, attributes)


def _image_attributes(palette: h5py.Dataset, **further: bytes) -> list[_Attribute]:
    reference = np.empty((), dtype=h5py.ref_dtype)
    reference[()] = h5r.create(palette.id, b".", h5r.OBJECT)
    return _typed({**_IMAGE_ATTRIBUTES, "PALETTE": reference, **further})


def _typed(values: Mapping[str, Any]) -> list[_Attribute]:
    """Attributes, texts with a fixed length: with variable-length ones HDFView shows a table instead of a picture."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    kinds = {name: h5t.py_create(array.dtype) for name, array in arrays.items()}
    stored = {**kinds, "PALETTE": h5t.STD_REF_OBJ}
    return [(name.encode(), stored[name], kinds[name], array) for name, array in arrays.items()]


def _set(target: h5g.GroupID | h5d.DatasetID, attributes: Iterable[_Attribute]) -> None:
    scalar = h5s.create(h5s.SCALAR)
    for name, stored_type, memory_type, value in attributes:
        h5a.create(target, name, stored_type, scalar).write(value, mtype=memory_type)
