import os
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest

from pseudo_maps.shards import (
    ShardError,
    ShardReader,
)
from pseudo_maps.shards.reader import read_places
from tests.pseudo_maps.shard_making import MAP_SIZE, flip_byte, make_shard


def test_every_flipped_byte_of_a_chunk_is_noticed(path):
    make_shard(path, ["a", "b"])
    with h5py.File(path) as file:
        places = read_places(file, path=path)
    start, size = int(places.offsets[1]), int(places.sizes[1])
    assert size > 20
    for offset in range(start, start + size):
        flip_byte(path, offset)
        with ShardReader(path) as reader:
            with pytest.raises(ShardError, match="row 1: checksum"):
                reader.read_uint8(1)
            reader.read_uint8(0)
        flip_byte(path, offset)
    with ShardReader(path) as reader:
        reader.read_uint8(1)


def test_truncated_and_foreign_files_are_refused(path):
    make_shard(path, ["a", "b"])
    content = path.read_bytes()
    for name, damaged in [
        ("empty.h5", b""),
        ("text.h5", b"not a shard"),
        ("half.h5", content[: len(content) // 2]),
        ("end.h5", content[:-1]),
    ]:
        other = path.with_name(name)
        other.write_bytes(damaged)
        with pytest.raises(ShardError, match=name):
            ShardReader(other)
    with pytest.raises(FileNotFoundError):
        ShardReader(path.with_name("absent.h5"))


def test_a_file_that_ends_inside_a_map_is_noticed(path):
    make_shard(path, ["a"])
    with ShardReader(path) as reader:
        path.chmod(0o644)
        os.truncate(path, int(reader._places.offsets[0]) + 10)
        with pytest.raises(ShardError, match="ends after 10 of"):
            reader.read_uint8(0)


def edited(path, change):
    make_shard(path, ["a", "b"])
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        change(file)


def set_version(file):
    file.attrs["schema_version"] = 2


def drop_version(file):
    del file.attrs["schema_version"]


def drop_table(file):
    del file["images"]


def replace_table(file, table):
    del file["images"]
    file.create_dataset("images", data=table, chunks=table.shape, fletcher32=True)


def rename_column(file):
    table = file["images"][()]
    names = list(table.dtype.names)
    names[1] = "name"
    table.dtype.names = tuple(names)
    replace_table(file, table)


def float_column(file):
    table = file["images"][()]
    replace_table(file, table.astype([(n, "<f4" if n == "peak" else table.dtype[n]) for n in table.dtype.names]))


def short_table(file):
    replace_table(file, file["images"][:1])


def plain_maps(file):
    maps = file["saliency/maps"][()]
    del file["saliency/maps"]
    file["saliency/maps"] = maps


def unchecked_maps(file):
    maps = file["saliency/maps"][()]
    del file["saliency/maps"]
    file.create_dataset("saliency/maps", data=maps, chunks=(1, MAP_SIZE, MAP_SIZE), compression="gzip")


def empty_maps(file):
    del file["saliency/maps"]
    file.create_dataset(
        "saliency/maps",
        shape=(2, MAP_SIZE, MAP_SIZE),
        dtype="u1",
        chunks=(1, MAP_SIZE, MAP_SIZE),
        compression="gzip",
        fletcher32=True,
    )


def list_provenance(file):
    file.attrs["provenance"] = np.bytes_(b"[1]")


def bad_provenance(file):
    file.attrs["provenance"] = np.bytes_(b"{")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_version, "schema version 2, expected 1"),
        (drop_version, "schema version absent, expected 1"),
        (drop_table, "/images is no dataset of this file, stored in chunks"),
        (rename_column, "'name'"),
        (float_column, "column peak of /images is float32, expected <f8"),
        (short_table, r"shape \(1,\), expected \(2,\)"),
        (plain_maps, "/saliency/maps is no dataset of this file, stored in chunks"),
        (unchecked_maps, r"filters \[1\], expected \[1, 3\]"),
        (empty_maps, "row 0 of /saliency/maps has no compressed chunk with a checksum .2 such rows"),
        (list_provenance, "provenance is list"),
        (bad_provenance, "cannot read it"),
    ],
)
def test_other_layouts_are_refused(path, change, message):
    edited(path, change)
    with pytest.raises(ShardError, match=message) as caught:
        ShardReader(path)
    assert str(path) in str(caught.value)


def test_a_chunk_that_is_no_map_is_refused(path):
    import zlib

    from pseudo_maps.shards.fletcher32 import append_checksum

    def replace_chunks(file):
        maps = file["saliency/maps"].id
        maps.write_direct_chunk((0, 0, 0), append_checksum(b"no zlib data"))
        maps.write_direct_chunk((1, 0, 0), append_checksum(zlib.compress(b"short")))

    edited(path, replace_chunks)
    with ShardReader(path) as reader:
        with pytest.raises(ShardError, match="row 0: not a compressed map"):
            reader.read_uint8(0)
        with pytest.raises(ShardError, match="row 1: the chunk holds 5 bytes, expected 144"):
            reader.read_uint8(1)


def test_opening_leaves_no_descriptor_behind(path):
    make_shard(path, ["a"])
    ShardReader(path).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        ShardReader(path).close()
        ShardReader(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_share_a_reader(path):
    ids = [f"i{number}" for number in range(20)]
    stored = make_shard(path, ids)
    wrong = []
    with ShardReader(path) as reader:

        def read_all(seed):
            for row in np.random.default_rng(seed).integers(0, 20, 200).tolist():
                if not np.array_equal(reader.read_uint8(row), stored[row]):
                    wrong.append(row)

        threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_heavy_packages_are_not_imported():
    code = (
        "import sys, pseudo_maps.shards; "
        "print([name for name in ('torch', 'numba', 'cv2', 'scipy', 'skimage') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
