import os
import stat
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from pseudo_maps.shards import (
    SCHEMA_VERSION,
    ShardError,
    ShardReader,
    make_provenance,
    quantise_map,
)
from pseudo_maps.shards import writer as writer_module
from pseudo_maps.shards.layout import PROVENANCE_LIMIT_BYTES
from tests.pseudo_maps.shard_making import (
    CONFIGURATION,
    EMPTY,
    FULL,
    MAP_SIZE,
    make_map,
    make_row,
    make_shard,
    writer_of,
)


def test_read_gives_what_was_written(path):
    ids = [f"image_{number}" for number in range(5)]
    stored = make_shard(path, ids, failed=("image_2",))
    with ShardReader(path) as reader:
        assert len(reader) == 5
        assert reader.map_shape == (MAP_SIZE, MAP_SIZE)
        assert reader.provenance == {
            "configuration": CONFIGURATION,
            "package_version": make_provenance({})["package_version"],
            "schema_version": SCHEMA_VERSION,
        }
        assert [row.image_id for row in reader.rows] == ids
        assert reader.rows[0] == make_row("image_0", peak=float(make_map(0).max()))
        assert reader.rows[2].status == "decode"
        for row in range(5):
            np.testing.assert_array_equal(reader.read_uint8(row), stored[row])
            by_peak = reader.read(row, map_scale="peak")
            assert by_peak.dtype == np.float32
            np.testing.assert_array_equal(by_peak, (stored[row] / 255).astype(np.float32))
        true = reader.read(3, map_scale="true")
        np.testing.assert_allclose(true, make_map(3), atol=make_map(3).max() / 255 * 0.51)
        assert reader.read_uint8(0).flags.writeable
        with pytest.raises(ValueError, match="map_scale 'full', expected 'peak' or 'true'"):
            reader.read(0, map_scale="full")
        for row in (-1, 5):
            with pytest.raises(IndexError, match=f"row {row}, expected 0 <= row < 5"):
                reader.read(row, map_scale="peak")
    with pytest.raises(ShardError, match="closed"):
        reader.read_uint8(0)


def test_table_holds_every_field_and_any_text(path):
    rows = [
        make_row("später/画像_1", wnid="", label=-1, path="ordner ä/x.png", peak=0.1 + 0.2),
        make_row("x", wnid="n1", height=0, width=2**31 - 1, proposals=0, peak=1e-30),
    ]
    with writer_of(path, rows=2) as writer:
        for number, row in enumerate(rows):
            writer.write(number, FULL, row)
        writer.commit()
    with ShardReader(path) as reader:
        assert reader.rows == rows
        table = reader.table
    assert table.dtype.names is not None
    for name in table.dtype.names:
        expected = [0, 1] if name == "row" else [getattr(row, name) for row in rows]
        assert table[name].tolist() == expected
    assert table["image_id"].dtype.kind == "U"


def test_h5py_reads_the_same_maps(path):
    stored = make_shard(path, ["a", "b", "c"], by_name=True)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["saliency/maps"][()], stored)
        for name, map_hw in zip("abc", stored, strict=True):
            np.testing.assert_array_equal(file[f"by_name/n01440764/{name}"][()], map_hw)


def test_bytes_depend_on_the_content_only(tmp_path):
    ids = [f"i{number}" for number in range(6)]
    first, second = tmp_path / "val-00000-of-00001.h5", tmp_path / "later" / "val-00000-of-00001.h5"
    second.parent.mkdir()
    make_shard(first, ids, by_name=True)
    # HDF5 stores times in whole seconds.
    made_s = int(time.time())
    while int(time.time()) == made_s:
        time.sleep(0.01)
    make_shard(second, ids, by_name=True, order=[3, 5, 0, 1, 4, 2])
    assert first.read_bytes() == second.read_bytes()
    sums = [target.with_name(target.name + ".sha256").read_bytes() for target in (first, second)]
    assert sums[0] == sums[1]


def test_bytes_do_not_depend_on_who_else_holds_the_objects(tmp_path):
    """A profiler that keeps frames, as dask's does while it samples, keeps the datasets in them open."""
    ids = [f"i{number}" for number in range(40)]
    first, second = tmp_path / "val-00000-of-00001.h5", tmp_path / "held" / "val-00000-of-00001.h5"
    second.parent.mkdir()
    make_shard(first, ids, by_name=True)
    held = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, value: held.append((frame, value)))
    try:
        make_shard(second, ids, by_name=True)
    finally:
        sys.setprofile(before)
    assert any(frame.f_code.co_name == "create_dataset" for frame, _ in held)
    assert first.read_bytes() == second.read_bytes()


def test_commit_leaves_a_read_only_shard_and_its_checksum(path):
    make_shard(path, ["a"])
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".sha256"]
    for name in os.listdir(path.parent):
        assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o444
    subprocess.run(["sha256sum", "--check", "--strict", path.name + ".sha256"], cwd=path.parent, check=True)


def test_commit_replaces_a_shard(path):
    make_shard(path, ["a"])
    make_shard(path, ["b", "c"])
    with ShardReader(path) as reader:
        assert [row.image_id for row in reader.rows] == ["b", "c"]


def test_nothing_stays_without_commit(path):
    with writer_of(path) as writer:
        writer.write(0, FULL, make_row("a"))
    assert os.listdir(path.parent) == []
    with pytest.raises(ShardError, match="finished"):
        writer.commit()

    with pytest.raises(KeyboardInterrupt), writer_of(path) as writer:
        writer.write(0, FULL, make_row("a"))
        raise KeyboardInterrupt
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("step", ["write_shard_file", "file_sha256"])
def test_a_failing_commit_leaves_nothing(path, monkeypatch, step):
    original = getattr(writer_module, step)

    def fail(*args, **options):
        original(*args, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module, step, fail)
    with pytest.raises(OSError, match="No space"), writer_of(path) as writer:
        writer.write(0, FULL, make_row("a"))
        writer.commit()
    assert os.listdir(path.parent) == []


def test_a_failing_rename_leaves_nothing(path, monkeypatch):
    original = os.replace

    def fail(source, target):
        if str(target).endswith(".h5"):
            raise OSError(5, "Input/output error")
        original(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"), writer_of(path) as writer:
        writer.write(0, FULL, make_row("a"))
        writer.commit()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    ("map_hw", "row", "message"),
    [
        (EMPTY, make_row("a", peak=0.0, status="timeout"), None),
        (EMPTY, make_row("a", peak=0.0), None),
        (FULL, make_row("a", peak=0.0, status="timeout"), "status 'timeout' with map maximum 255"),
        (EMPTY, make_row("a", peak=0.5, status="timeout"), "peak 0.5, expected 0 and 0"),
        (FULL - 1, make_row("a"), "map maximum 254 with peak 0.5, expected 255"),
        (EMPTY, make_row("a"), "map maximum 0 with peak 0.5, expected 255"),
        (FULL, make_row("a", peak=0.0), "map maximum 255 with peak 0, expected 0"),
        (FULL, make_row("a", peak=float("nan")), "peak nan"),
        (FULL, make_row("a", peak=-1.0), "peak -1.0"),
        (FULL[:-1], make_row("a"), r"map is \(11, 12\) uint8, expected \(12, 12\) uint8"),
        (FULL.astype(np.float32), make_row("a"), "float32, expected"),
        (FULL, make_row("a\0b"), "holds NUL"),
        (FULL, make_row("a", path="\ud800"), "cannot be encoded"),
        (FULL, make_row(""), "empty image_id"),
        (FULL, make_row("a", height=-1), "height -1"),
        (FULL, make_row("a", label=2**31), "label 2147483648"),
    ],
)
def test_maps_and_rows_that_contradict_are_refused(path, map_hw, row, message):
    with writer_of(path) as writer:
        if message is None:
            writer.write(0, map_hw, row)
        else:
            with pytest.raises(ShardError, match=message) as caught:
                writer.write(0, map_hw, row)
            assert f"{path}: row 0" in str(caught.value)


def test_rows_come_exactly_once(path):
    with writer_of(path, rows=3) as writer:
        writer.write(2, FULL, make_row("a"))
        with pytest.raises(ShardError, match="row 2: written before"):
            writer.write(2, FULL, make_row("b"))
        with pytest.raises(ShardError, match="row 1: image id 'a' is row 2 already"):
            writer.write(1, FULL, make_row("a"))
        for outside in (3, -1):
            with pytest.raises(ShardError, match="expected 0 <= row < 3"):
                writer.write(outside, FULL, make_row("c"))
        writer.write(0, FULL, make_row("c"))
        with pytest.raises(ShardError, match="1 of 3 rows were not written, the first is row 1"):
            writer.commit()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({"configuration": {}}, "lacks package_version, schema_version"),
        (make_provenance({}) | {"schema_version": 99}, "schema version 99"),
        (make_provenance({"x": float("nan")}), "JSON"),
        (make_provenance({"x": {1, 2}}), "JSON"),
        (make_provenance({"x": "a" * PROVENANCE_LIMIT_BYTES}), "at most 60000"),
    ],
)
def test_provenance_that_cannot_be_stored(path, provenance, message):
    with pytest.raises(ShardError, match=message):
        writer_of(path, provenance=provenance)


def test_longest_provenance_fits(path):
    rest = PROVENANCE_LIMIT_BYTES - len(writer_module.encode_provenance(make_provenance({"x": ""})))
    provenance = make_provenance({"x": "a" * rest})
    with writer_of(path, provenance=provenance) as writer:
        writer.write(0, FULL, make_row("a"))
        writer.commit()
    assert ShardReader(path).provenance == provenance


@pytest.mark.parametrize("changes", [{"rows": 0}, {"map_size": 0}])
def test_empty_shards_are_refused(path, changes):
    with pytest.raises(ShardError, match="at least 1"):
        writer_of(path, **changes)


def test_maps_that_another_process_compressed_give_the_same_bytes(tmp_path):
    for name in ("maps.h5", "chunks.h5"):
        with writer_of(tmp_path / name, rows=2) as writer:
            for number in range(2):
                map_uint8, peak = quantise_map(make_map(number))
                row = make_row(str(number), peak=peak)
                if name == "maps.h5":
                    writer.write(number, map_uint8, row)
                else:
                    writer.write_chunk(number, writer_module.compress_map(map_uint8), row)
            writer.commit()
    assert (tmp_path / "maps.h5").read_bytes() == (tmp_path / "chunks.h5").read_bytes()


@pytest.mark.parametrize("position", [0, 5, -1])
def test_a_compressed_map_that_was_damaged_on_the_way_is_refused(path, position):
    chunk = bytearray(writer_module.compress_map(quantise_map(make_map(1))[0]))
    chunk[position] ^= 0x08
    with writer_of(path) as writer, pytest.raises(ShardError, match=r"row 0 .*damaged"):
        writer.write_chunk(0, bytes(chunk), make_row("a"))
