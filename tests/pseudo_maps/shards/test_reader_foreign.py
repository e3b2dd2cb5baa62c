"""Shards that somebody else made to be read: links, storage elsewhere, sizes that nothing bounds."""

import os
import zlib

import h5py
import numpy as np
import pytest

from pseudo_maps.files import file_sha256
from pseudo_maps.shards import MapIndex, ShardError, ShardReader
from pseudo_maps.shards.fletcher32 import append_checksum
from pseudo_maps.shards.layout import LARGEST_MAP_PX
from pseudo_maps.shards.reader import open_hdf5
from tests.pseudo_maps.shard_making import MAP_SIZE, make_shard


def secret(file, rows=2):
    """A file outside, long enough for the table."""
    path = os.path.join(os.path.dirname(file.filename), "secret")
    with open(path, "wb") as opened:
        opened.write(b"s" * rows * file["images"].dtype.itemsize)
    return path


def table_stored_elsewhere(file):
    dtype, path = file["images"].dtype, secret(file)
    del file["images"]
    file.create_dataset("images", shape=(2,), dtype=dtype, external=[(path, 0, h5py.h5f.UNLIMITED)])


def other_shard(file):
    other = os.path.join(os.path.dirname(file.filename), "other.h5")
    with h5py.File(other, "w") as copy:
        for name in ("images", "saliency"):
            file.copy(name, copy)
    return other


def table_linked_elsewhere(file):
    other = other_shard(file)
    del file["images"]
    file["images"] = h5py.ExternalLink(other, "/images")


def maps_linked_elsewhere(file):
    other = other_shard(file)
    del file["saliency"]
    file["saliency"] = h5py.ExternalLink(other, "/saliency")


def virtual_table(file):
    other, dtype = other_shard(file), file["images"].dtype
    layout = h5py.VirtualLayout(shape=(2,), dtype=dtype)
    layout[:] = h5py.VirtualSource(other, "images", shape=(2,))
    del file["images"]
    file.create_virtual_dataset("images", layout)


def table_of_nothing(file):
    """Ten thousand million rows, of which none is stored."""
    dtype = file["images"].dtype
    del file["images"]
    file.create_dataset("images", shape=(10**10,), dtype=dtype, chunks=(1000,), fletcher32=True)


def inflated_table(file):
    table = np.zeros(100_000, dtype=file["images"].dtype)
    del file["images"]
    file.create_dataset("images", data=table, chunks=(10_000,), compression="gzip", fletcher32=True)


def huge_maps(file):
    del file["saliency/maps"]
    shape = (2, LARGEST_MAP_PX + 1, 1)
    file.create_dataset(
        "saliency/maps", shape=shape, dtype="u1", chunks=(1, *shape[1:]), compression=4, fletcher32=True
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (table_stored_elsewhere, "/images is no dataset of this file, stored in chunks"),
        (table_linked_elsewhere, "/images is no dataset of this file, stored in chunks"),
        (maps_linked_elsewhere, "/saliency/maps is no dataset of this file, stored in chunks"),
        (virtual_table, "/images is no dataset of this file, stored in chunks"),
        (table_of_nothing, r"/images states \d+ bytes in a file of \d+"),
        (inflated_table, r"/images has the HDF5 filters \[1, 3\], expected \[3\]"),
        (huge_maps, "/saliency/maps has maps of 16385x1, more than 16384 a side"),
    ],
)
def test_what_is_elsewhere_or_larger_than_the_file_is_refused_in_one_line(path, change, message):
    make_shard(path, ["a", "b"])
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ShardError, match=message) as caught:
        ShardReader(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises(ShardError, match=message):
        MapIndex(path.parent, "val").status("a")


def test_a_chunk_is_not_inflated_beyond_a_map(path):
    import tracemalloc

    make_shard(path, ["a"])
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        bomb = append_checksum(zlib.compress(bytes(200 << 20)))
        file["saliency/maps"].id.write_direct_chunk((0, 0, 0), bomb)
    with ShardReader(path) as reader:
        tracemalloc.start()
        with pytest.raises(ShardError, match=f"row 0: the chunk holds .* bytes, expected {MAP_SIZE**2}"):
            reader.read_uint8(0)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
        tracemalloc.stop()


def test_a_fifo_is_no_shard(path):
    make_shard(path, ["a"])
    path.unlink()
    os.mkfifo(path)
    for read in (ShardReader, file_sha256, lambda fifo: open_hdf5(fifo).__enter__()):
        with pytest.raises(OSError, match="not a regular file"):
            read(path)


def test_any_damaged_byte_is_noticed_or_harmless(path):
    """Also in HDF5's own index of the chunks, of which damage came out as an IndexError."""
    make_shard(path, ["a", "b"])
    whole = path.read_bytes()
    path.chmod(0o644)
    generator = np.random.default_rng(3)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            with ShardReader(path) as reader:
                rows = reader.rows
                for row in range(len(rows)):
                    reader.read_uint8(row)
        except ShardError as error:
            assert str(path) in str(error)
