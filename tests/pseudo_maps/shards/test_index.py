import multiprocessing
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping

import h5py
import numpy as np
import pytest

from pseudo_maps.shards import MapIndex, ShardError, ShardReader, make_provenance, shard_name
from pseudo_maps.shards.fletcher32 import append_checksum
from pseudo_maps.shards.layout import checksum_path, encode_provenance
from pseudo_maps.shards.manifest import manifest_path
from pseudo_maps.shards.writer import write_shard_file
from tests.counts import full
from tests.pseudo_maps.shard_making import CONFIGURATION, FULL, flip_byte, make_folder, make_row, make_shard

fork_is_meant = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
"""Python 3.12 and later warn of forking beside the threads of a linear algebra library."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def remove(path):
    path.unlink()
    checksum_path(path).unlink()


# Finding ids


def test_ids_are_found_as_a_dict_finds_them(folder):
    letters = np.random.default_rng(3).choice(list("abé/.\U0001f600"), size=(200, 9))
    texts = list(dict.fromkeys("".join(row[: 1 + number % 9]) for number, row in enumerate(letters)))
    ids, others = texts[:60], texts[60:]
    # Shards whose longest ids differ have columns of different widths.
    parts = [ids[:1], ids[1:40], ids[40:]]
    for shard, part in enumerate(parts):
        make_shard(folder / shard_name("val", shard, len(parts)), part)
    index = MapIndex(folder, "val")
    assert list(index) == ids
    assert [index.row(text).image_id for text in ids] == ids
    others += ["a\0", "\ud800", ""]
    assert index.missing(others) == others and not any(text in index for text in others)


# Reading


def test_every_map_is_found(folder):
    ids, stored = make_folder(folder, images=7, shard_size=3, failed=["val_4"])
    other_ids, other_stored = make_folder(folder, split="train", images=2)
    index = MapIndex(folder, "val")
    assert len(index) == 7 and list(index) == ids
    assert index.map_shape == stored[0].shape
    assert index.provenance["configuration"] == CONFIGURATION
    for number, image_id in enumerate(ids):
        assert image_id in index
        np.testing.assert_array_equal(index.read_uint8(image_id), stored[number])
        with ShardReader(folder / shard_name("val", number // 3, 3)) as reader:
            row = reader.rows[number % 3]
            for scale in ("peak", "true"):
                np.testing.assert_array_equal(
                    index.read(image_id, map_scale=scale), reader.read(number % 3, map_scale=scale)
                )
        assert index.row(image_id) == row
        assert row.image_id == image_id
        assert index.status(image_id) == row.status
    np.testing.assert_array_equal(index.read("val_0"), index.read("val_0", map_scale="peak"))
    assert index.counts() == {"ok": 6, "decode": 1}
    assert index.missing(["val_6", "x", "val_0", "val_7"]) == ["x", "val_7"]
    assert "train_0" not in index and 3 not in index
    np.testing.assert_array_equal(MapIndex(folder, "train").read_uint8(other_ids[1]), other_stored[1])


def test_an_index_is_a_mapping_that_reads_when_asked(folder):
    make_folder(folder, images=3)
    index = MapIndex(folder, "val")
    assert isinstance(index, Mapping) and list(index.keys()) == list(index)
    for image_id, saliency in index.items():
        np.testing.assert_array_equal(saliency, index.read(image_id))
    assert index.get("nobody") is None
    assert repr(index) == f"MapIndex({str(folder)!r}, 'val': 3 maps of {index.map_shape[1]}x{index.map_shape[0]})"
    # Not by reading all maps.
    assert index == index and index != MapIndex(folder, "val") and hash(index) == hash(index)


def test_unknown_ids_are_key_errors(folder):
    make_folder(folder)
    index = MapIndex(folder, "val")
    for call in (index.read, index.read_uint8, index.status, index.row):
        with pytest.raises(KeyError, match="no shard of val holds the image id 'absent'"):
            call("absent")
    with pytest.raises(ValueError, match="map_scale 'full'"):
        index.read("val_0", map_scale="full")


def test_a_damaged_map_is_noticed(folder):
    make_folder(folder)
    path = folder / shard_name("val", 1, 3)
    with h5py.File(path) as file:
        place = file["saliency/maps"].id.get_chunk_info(2)
    flip_byte(path, place.byte_offset + 5)
    index = MapIndex(folder, "val")
    index.read("val_4")
    with pytest.raises(ShardError, match=r"val-00001-of-00003.h5: row 2: checksum"):
        index.read("val_5")


# Folders that are not one complete set


def test_missing_shards_are_named(folder):
    make_folder(folder, images=11, shard_size=1)
    for number in (0, 7):
        remove(folder / shard_name("val", number, 11))
    manifest_path(folder, "val").unlink()
    with pytest.raises(ShardError, match=r"2 of 11 .* val-00000-of-00011.h5, val-00007-of-00011.h5;"):
        MapIndex(folder, "val")
    index = MapIndex(folder, "val", allow_incomplete=True)
    assert len(index) == 9
    assert index.missing(f"val_{number}" for number in range(11)) == ["val_0", "val_7"]
    index.read("val_10")


def test_many_missing_shards_are_cut_short(folder):
    make_folder(folder, images=20, shard_size=1)
    for number in range(1, 20):
        remove(folder / shard_name("val", number, 20))
    with pytest.raises(ShardError, match=r"19 of 20 .*val-00008-of-00020.h5, \.\.\.;"):
        MapIndex(folder, "val")


@pytest.mark.parametrize("allow_incomplete", [False, True])
def test_no_shard(folder, allow_incomplete):
    make_folder(folder, split="train")
    with pytest.raises(ShardError, match=r"no shard of the split 'val' \(expected files like val-00000-of-00001.h5"):
        MapIndex(folder, "val", allow_incomplete=allow_incomplete)


@pytest.mark.parametrize(
    ("images", "shards", "message"),
    [
        (0, {(0, 1): ["a"], (0, 2): ["b"]}, r"numbered of \[1, 2\]: expected those of one run"),
        (4, {(0, 1): ["val_0"]}, r"numbered of \[1, 2\], the manifest states 2"),
        (4, {(1, 2): ["val_2", "val_3", "val_4"]}, "hold 5 rows, the manifest states 4"),
        (
            0,
            {(0, 2): ["x", "a"], (1, 2): ["y", "z", "a"]},
            "val-00001-of-00002.h5: row 2: image id 'a' is also row 1 of val-00000-of-00002.h5",
        ),
    ],
)
def test_shards_that_contradict_each_other_or_the_manifest(folder, images, shards, message):
    if images:
        make_folder(folder, images=images, shard_size=2)
    for (index, count), ids in shards.items():
        make_shard(folder / shard_name("val", index, count), ids)
    with pytest.raises(ShardError, match=message):
        MapIndex(folder, "val")


def test_two_configurations(folder):
    make_shard(folder / shard_name("val", 0, 2), ["a"])
    other = CONFIGURATION | {"proposals": {"seeds": 31}}
    make_shard(folder / shard_name("val", 1, 2), ["b"], configuration=other)
    with pytest.raises(ShardError) as caught:
        MapIndex(folder, "val")
    message = str(caught.value)
    assert "val-00001-of-00002.h5: made with other settings than val-00000-of-00002.h5" in message
    assert "configuration.proposals.seeds: 31 here, 30 there" in message
    assert "method" not in message


def test_a_configuration_that_is_not_the_manifests(folder):
    make_folder(folder, images=1)
    make_shard(folder / shard_name("val", 0, 1), ["val_0"], configuration={"method": "other"})
    with pytest.raises(ShardError, match=r"than the manifest:\n  configuration.method: \"other\" here"):
        MapIndex(folder, "val")


def test_bad_arguments(folder):
    make_folder(folder)
    with pytest.raises(ValueError, match="max_open_files 0"):
        MapIndex(folder, "val", max_open_files=0)
    with pytest.raises(ValueError, match="split 'a/b'"):
        MapIndex(folder, "a/b")
    with pytest.raises(FileNotFoundError):
        MapIndex(folder / "absent", "val")


# Files, threads and processes


def open_shards():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return [link for link in links if link.endswith(".h5")]


def test_open_files_are_bounded(folder):
    ids, stored = make_folder(folder, images=12, shard_size=1)
    index = MapIndex(folder, "val", max_open_files=3)
    elsewhere = set(open_shards())

    def opened():
        return [link for link in open_shards() if link not in elsewhere]

    for number in [*range(12), 11, 10, 0, 11]:
        np.testing.assert_array_equal(index.read_uint8(ids[number]), stored[number])
        assert len(opened()) <= 3
    # The least recently used goes first.
    assert sorted(os.path.basename(link)[:9] for link in opened()) == ["val-00000", "val-00010", "val-00011"]
    assert not any(link.startswith(os.path.realpath(folder)) for link in elsewhere)
    del index
    assert opened() == []


def test_a_limit_of_open_files_is_respected(folder, monkeypatch):
    shards, limit = full(80, 300), full(64, 256)
    # So many times a hundredth of a second, or a tenth on a busy disk.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    chunk = append_checksum(zlib.compress(FULL.tobytes()))
    for number in range(shards):
        write_shard_file(
            folder / shard_name("val", number, shards),
            chunks=[chunk],
            rows=[make_row(f"val_{number}")],
            map_shape=FULL.shape,
            provenance=encode_provenance(make_provenance(CONFIGURATION)),
            by_name=False,
        )
    program = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n"
        "from pseudo_maps.shards import MapIndex\n"
        "index = MapIndex(sys.argv[1], 'val')\n"
        "print(sum(int(index.read_uint8(image_id).min()) for _ in range(2) for image_id in index))\n"
        "greedy = MapIndex(sys.argv[1], 'val', max_open_files=1000)\n"
        "print(sum(int(greedy.read_uint8(image_id).min()) for image_id in greedy))\n"
        "try:\n"
        "    [open(os.devnull) for _ in range(1000)]\n"
        "except OSError as error:\n"
        "    print(os.strerror(error.errno))\n"
    )
    result = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    # The last line shows that the limit was in force.
    assert (result.stdout, result.stderr) == (f"{2 * shards * 255}\n{shards * 255}\nToo many open files\n", "")


def read_many(index, ids, stored, seed, wrong):
    try:
        for number in np.random.default_rng(seed).integers(0, len(ids), 150).tolist():
            if not np.array_equal(index.read_uint8(ids[number]), stored[number]):
                wrong.append(number)
    except Exception as error:
        wrong.append(repr(error))


def test_threads_share_an_index_with_one_open_file(folder):
    ids, stored = make_folder(folder, images=12, shard_size=2)
    index = MapIndex(folder, "val", max_open_files=1)
    wrong = []
    threads = [threading.Thread(target=read_many, args=(index, ids, stored, seed, wrong)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def report_reads(index, ids, stored, queue):
    wrong = []
    read_many(index, ids, stored, os.getpid(), wrong)
    queue.put(wrong)


@fork_is_meant
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_what_the_parent_reads(folder, method):
    ids, stored = make_folder(folder, images=12, shard_size=2)
    index = MapIndex(folder, "val", max_open_files=2)
    index.read(ids[0])
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=report_reads, args=(index, ids, stored, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    wrong = []
    read_many(index, ids, stored, 5, wrong)
    assert [queue.get(timeout=60) for _ in workers] == [[], []]
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert wrong == []
