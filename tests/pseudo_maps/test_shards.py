import os
import stat
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pseudo_maps import shards as shards_module
from pseudo_maps._shard_layout import PROVENANCE_LIMIT_BYTES, by_name_links, differences
from pseudo_maps._shard_read import read_places
from pseudo_maps.shards import (
    SCHEMA_VERSION,
    STATUS_OK,
    ShardError,
    ShardReader,
    ShardWriter,
    make_provenance,
    parse_shard_name,
    quantise_map,
    shard_name,
)
from tests.pseudo_maps.shard_making import CONFIGURATION, MAP_SIZE, flip_byte, make_map, make_row, make_shard

FULL = np.full((MAP_SIZE, MAP_SIZE), 255, dtype=np.uint8)
EMPTY = np.zeros((MAP_SIZE, MAP_SIZE), dtype=np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "val-00000-of-00001.h5"


def writer_of(path, *, rows=1, **changes):
    options = {"map_size": MAP_SIZE, "provenance": make_provenance(CONFIGURATION)} | changes
    return ShardWriter(path, rows=rows, **options)


# Names and scaling


def test_shard_names():
    assert shard_name("val", 12, 1282) == "val-00012-of-01282.h5"
    assert parse_shard_name("val-00012-of-01282.h5") == ("val", 12, 1282)


@given(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True), st.integers(1, 2_000_000), st.data())
def test_shard_names_read_back(split, count, data):
    index = data.draw(st.integers(0, count - 1))
    assert parse_shard_name(shard_name(split, index, count)) == (split, index, count)


@pytest.mark.parametrize(
    "name",
    [
        "val-00001-of-00001.h5",
        "val-0-of-1.h5",
        "val-000000-of-00001.h5",
        "val-00000-of-00001.h5.sha256",
        ".val-00000-of-00001.h5",
        "-00000-of-00001.h5",
        "a/b-00000-of-00001.h5",
        "val-00000-of-00001.h5\n",
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="not a shard's name"):
        parse_shard_name(name)


@pytest.mark.parametrize(("split", "index"), [("val", 3), ("val", -1), ("a/b", 0), ("", 0), (".x", 0)])
def test_shard_name_refuses(split, index):
    with pytest.raises(ValueError, match="expected"):
        shard_name(split, index, 3)


def test_quantise_by_hand():
    # 255 * .1 / .4 = 63.75 up; 255 * .2 / .4 = 127.5 half to even is 128; 255 * .002 / .4 = 1.275 down.
    stored, peak = quantise_map(np.array([[0.1, 0.2], [0.4, 0.002]], dtype=np.float32) * np.float32(1))
    assert stored.tolist() == [[64, 128], [255, 1]]
    assert peak == np.float32(0.4)
    assert quantise_map(np.array([[1, 510]], dtype=np.float32))[0].tolist() == [[0, 255]]  # 0.5 is even at 0
    assert quantise_map(np.array([[3, 510]], dtype=np.float32))[0].tolist() == [[2, 255]]  # 1.5 is even at 2


finite = st.floats(0, float(np.finfo(np.float32).max), width=32)


@given(hnp.arrays(np.float32, (3, 4), elements=finite))
def test_quantised_maps_reach_255_and_are_off_by_half_a_step(map_hw):
    stored, peak = quantise_map(map_hw)
    assert stored.dtype == np.uint8
    assert peak == map_hw.max()
    if peak == 0:
        assert not stored.any()
    else:
        assert stored.max() == 255
        error = np.abs(stored * (peak / 255) - map_hw.astype(np.float64))
        assert (error <= peak / 255 * 0.5000001).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([[np.nan]], np.float32),
        np.array([[np.inf]], np.float32),
        np.array([[-1e-9, 1]], np.float32),
        np.ones((2, 2), np.float64),
        np.ones(4, np.float32),
        np.ones((0, 3), np.float32),
    ],
)
def test_quantise_refuses(values):
    with pytest.raises(ValueError, match="map: "):
        quantise_map(values)


# Writing and reading


def test_read_gives_what_was_written(path):
    ids = [f"image_{number}" for number in range(5)]
    stored = make_shard(path, ids, failed=("image_2",))
    with ShardReader(path) as reader:
        assert len(reader) == 5
        assert reader.map_shape == (MAP_SIZE, MAP_SIZE)
        assert reader.provenance == {
            "configuration": CONFIGURATION,
            "package_version": shards_module.make_provenance({})["package_version"],
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
    time.sleep(1.1)  # HDF5 stores times in whole seconds.
    make_shard(second, ids, by_name=True, order=[3, 5, 0, 1, 4, 2])
    assert first.read_bytes() == second.read_bytes()
    sums = [target.with_name(target.name + ".sha256").read_bytes() for target in (first, second)]
    assert sums[0] == sums[1]


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


@pytest.mark.parametrize("step", ["write_shard_file", "file_sha256", "_write_synced"])
def test_a_failing_commit_leaves_nothing(path, monkeypatch, step):
    original = getattr(shards_module, step)

    def fail(*args, **options):
        original(*args, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards_module, step, fail)
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
    rest = PROVENANCE_LIMIT_BYTES - len(shards_module.encode_provenance(make_provenance({"x": ""})))
    provenance = make_provenance({"x": "a" * rest})
    with writer_of(path, provenance=provenance) as writer:
        writer.write(0, FULL, make_row("a"))
        writer.commit()
    assert ShardReader(path).provenance == provenance


@pytest.mark.parametrize("changes", [{"rows": 0}, {"map_size": 0}])
def test_empty_shards_are_refused(path, changes):
    with pytest.raises(ShardError, match="at least 1"):
        writer_of(path, **changes)


# Damage


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


def rename_column(file):
    table = file["images"][()]
    names = list(table.dtype.names)
    names[1] = "name"
    table.dtype.names = tuple(names)
    del file["images"]
    file["images"] = table


def float_column(file):
    table = file["images"][()]
    del file["images"]
    file["images"] = table.astype([(n, "<f4" if n == "peak" else table.dtype[n]) for n in table.dtype.names])


def short_table(file):
    table = file["images"][:1]
    del file["images"]
    file["images"] = table


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
        (drop_table, "/images has the columns None"),
        (rename_column, "'name'"),
        (float_column, "column peak of /images is float32, expected <f8"),
        (short_table, r"shape \(1,\), expected \(2,\)"),
        (plain_maps, "chunks of one map"),
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

    from pseudo_maps._fletcher32 import append_checksum

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


# Names under /by_name, and comparison of configurations


def test_by_name_links():
    ids = [
        ("n01/n01_5.JPEG", "n01"),
        ("other/n01_5.png", "n01"),
        ("n01_5", ""),
        ("folder/.", "a/b"),
        ("..", "."),
        ("deep/er/x", "a_b"),
        ("deep/x", "a_b"),
        ("x~6", "a_b"),
    ]
    links = list(by_name_links([make_row(image_id, wnid=wnid) for image_id, wnid in ids]))
    assert links == [
        (0, "n01", "n01_5"),
        (1, "n01", "n01_5~1"),
        (2, "unclassified", "n01_5"),
        (3, "a_b", "_"),
        (4, "_", "__"),
        (5, "a_b", "x"),
        (6, "a_b", "x~6"),
        (7, "a_b", "x~6~7"),
    ]


text = st.text(alphabet="ab./~1_", min_size=1, max_size=4)


@given(st.lists(st.tuples(text, text), max_size=12, unique_by=lambda pair: pair[0]))
def test_by_name_links_are_unique_and_legal(pairs):
    links = list(by_name_links([make_row(image_id, wnid=wnid) for image_id, wnid in pairs]))
    assert [row for row, _, _ in links] == list(range(len(pairs)))
    assert len({(group, link) for _, group, link in links}) == len(pairs)
    for _, group, link in links:
        assert group not in ("", ".", "..") and link not in ("", ".", "..")
        assert "/" not in group + link


def test_differences_name_dotted_keys():
    found = {"a": {"b": 1, "c": [1, 2]}, "d": True, "e": 1}
    expected = {"a": {"b": 2, "c": [1, 2]}, "d": 1, "f": None}
    assert differences(found, expected) == [
        "a.b: found 1, expected 2",
        "d: found True, expected 1",
        "e: found 1, expected nothing",
        "f: found nothing, expected None",
    ]
    assert differences(found, found) == []


def test_status_ok_is_ok():
    assert STATUS_OK == "ok"
