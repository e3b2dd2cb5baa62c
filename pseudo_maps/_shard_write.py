"""Compressed maps and their rows to one HDF5 shard file, laid out as SHARD_FORMAT.md says.

Nothing here depends on the clock: every dataset is made without times, so equal rows give equal bytes.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5a, h5d, h5g, h5p, h5r, h5s, h5t

from pseudo_maps._shard_layout import (
    BY_NAME_GROUP,
    GZIP_LEVEL,
    MAPS_PATH,
    SCHEMA_VERSION,
    TABLE_PATH,
    MapRow,
    by_name_links,
    encode_table,
)

__all__ = ["write_shard_file"]

LIBRARY_VERSIONS = ("earliest", "v110")
"""File format bounds: the oldest structures that do, which every viewer reads and which hold no times.

Spelled out because HDF5 changes its default; 1.10 is what virtual datasets need.
"""

IMAGE_ATTRIBUTES: Mapping[str, bytes] = {
    "CLASS": b"IMAGE",
    "IMAGE_VERSION": b"1.2",
    "IMAGE_SUBCLASS": b"IMAGE_INDEXED",
}
"""HDF5 Image and Palette Specification 1.2."""

PALETTE_ATTRIBUTES: Mapping[str, bytes] = {
    "CLASS": b"PALETTE",
    "PAL_VERSION": b"1.2",
    "PAL_TYPE": b"STANDARD8",
    "PAL_COLORMODEL": b"RGB",
}


def write_shard_file(
    path: Path,
    *,
    chunks: Sequence[bytes],
    rows: Sequence[MapRow],
    map_shape: tuple[int, int],
    provenance: bytes,
    by_name: bool,
) -> None:
    """Write one shard to ``path`` and sync it to the disk.

    Parameters
    ----------
    path
        File to create; overwritten when it exists.
    chunks
        N compressed maps, each ending in its Fletcher-32, in row order.
    rows
        The N rows of the table.
    map_shape
        (H, W) of every map.
    provenance
        ASCII JSON.
    by_name
        Whether to make /by_name, which costs about 0.3 ms and 0.7-1.7 KB a map.
    """
    # HDF5 fails on a full disk in ways that end the process, so it writes to memory and Python to the disk.
    with h5py.File(path, "w", driver="core", backing_store=False, libver=LIBRARY_VERSIONS) as file:
        file.attrs["NX_class"] = np.bytes_(b"NXroot")
        file.attrs["default"] = np.bytes_(b"saliency")
        file.attrs["schema_version"] = np.int64(SCHEMA_VERSION)
        file.attrs["provenance"] = np.bytes_(provenance)
        palette = _write_palette(file)
        _write_maps(file, chunks=chunks, map_shape=map_shape, palette=palette)
        table = file.create_dataset(
            TABLE_PATH,
            data=encode_table(rows),
            chunks=(len(rows),),
            fletcher32=True,
            track_times=False,
        )
        # Where a chunk stands in the file is settled when it leaves the cache: at the latest when its dataset is
        # closed, which waits for whoever else holds the object, such as dask's profiler sampling the frames.
        table.flush()
        if by_name:
            _write_by_name(file, rows=rows, map_shape=map_shape, palette=palette)
        file.flush()
        image = file.id.get_file_image()
    with path.open("wb") as written:
        written.write(image)
        written.flush()
        os.fsync(written.fileno())


def _write_palette(file: h5py.File) -> h5py.Dataset:
    """A grey ramp: the brightness on the screen is the stored value."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    palette = file.create_dataset("palette", data=ramp, track_times=False)
    _set(palette.id, _texts(PALETTE_ATTRIBUTES))
    return palette


def _write_maps(file: h5py.File, *, chunks: Sequence[bytes], map_shape: tuple[int, int], palette: h5py.Dataset) -> None:
    group = file.create_group("saliency")
    _set(group.id, _texts({"NX_class": b"NXdata", "signal": b"maps"}))
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
    axes = {"interpretation": b"image", "long_name": b"pseudo saliency map, 255 at the peak of each image"}
    _set(maps.id, [*_texts(IMAGE_ATTRIBUTES), _palette_reference(palette.id), *_texts(axes)])
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
    attributes = [*_texts(IMAGE_ATTRIBUTES), _palette_reference(palette.id), *_texts({"interpretation": b"image"})]
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


class _Attribute(NamedTuple):
    """A scalar attribute with its HDF5 types, which take longer to make than the attribute itself."""

    name: bytes
    stored_type: h5t.TypeID
    memory_type: h5t.TypeID
    value: npt.NDArray[Any]


def _texts(values: Mapping[str, bytes]) -> list[_Attribute]:
    """Attributes as fixed-length strings: with variable-length ones HDFView shows a table, no picture."""
    arrays = {name: np.array(text) for name, text in values.items()}
    kinds = {name: h5t.py_create(array.dtype) for name, array in arrays.items()}
    return [_Attribute(name.encode(), kinds[name], kinds[name], array) for name, array in arrays.items()]


def _palette_reference(palette: h5d.DatasetID) -> _Attribute:
    reference = np.empty((), dtype=h5py.ref_dtype)
    reference[()] = h5r.create(palette, b".", h5r.OBJECT)
    return _Attribute(b"PALETTE", h5t.STD_REF_OBJ, h5t.py_create(reference.dtype), reference)


def _set(target: h5g.GroupID | h5d.DatasetID, attributes: Iterable[_Attribute]) -> None:
    scalar = h5s.create(h5s.SCALAR)
    for attribute in attributes:
        h5a.create(target, attribute.name, attribute.stored_type, scalar).write(
            attribute.value, mtype=attribute.memory_type
        )
