import errno
import hashlib
import json
import multiprocessing
import os
from dataclasses import asdict, replace

import pytest

from pseudo_maps.shards import ShardError
from pseudo_maps.shards.manifest import (
    Manifest,
    ManifestError,
    ManifestMismatch,
    agree_on_manifest,
    found_splits,
    ids_digest,
    manifest_path,
    read_manifest,
)

MANIFEST = Manifest(
    split="val",
    images=7,
    shards=3,
    shard_size=3,
    ids_sha256=ids_digest("abcdefg"),
    configuration={"method": "geodesic", "proposals": {"seeds": 30, "levels": (1, 2)}},
)


fork_is_meant = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
"""Python 3.12 and later warn of forking beside the threads of a linear algebra library."""


@pytest.fixture
def without_hard_links(monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


def test_ids_digest_by_hand():
    assert ids_digest(["ab", "ä"]) == hashlib.sha256(b"ab\x00\xc3\xa4\x00").hexdigest()
    assert ids_digest(["a", "b"]) != ids_digest(["b", "a"])
    assert ids_digest(["ab", "c"]) != ids_digest(["a", "bc"])
    assert ids_digest([]) == hashlib.sha256().hexdigest()


def test_first_call_writes_and_others_agree(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path, "val")
    assert agree_on_manifest(tmp_path, MANIFEST) is True
    before = manifest_path(tmp_path, "val").read_bytes()
    assert agree_on_manifest(tmp_path, MANIFEST) is False
    assert read_manifest(tmp_path, "val") == MANIFEST
    assert manifest_path(tmp_path, "val").read_bytes() == before
    assert os.listdir(tmp_path) == ["val.manifest.json"]
    assert json.loads(before)["configuration"]["proposals"] == {"levels": [1, 2], "seeds": 30}


def test_splits_share_a_folder(tmp_path):
    agree_on_manifest(tmp_path, MANIFEST)
    agree_on_manifest(tmp_path, replace(MANIFEST, split="train", images=8))
    assert read_manifest(tmp_path, "val").images == 7
    assert read_manifest(tmp_path, "train").images == 8
    for name in ("test-00000-of-00002.h5", "test-00000.h5", "x.sha256", ".hidden.manifest.json", "a b.manifest.json"):
        (tmp_path / name).touch()
    assert found_splits(tmp_path) == ["test", "train", "val"]


def test_every_difference_is_named_with_both_values(tmp_path):
    agree_on_manifest(tmp_path, MANIFEST)
    other = replace(
        MANIFEST,
        images=5,
        shards=2,
        package_version="9.9",
        configuration={"method": "geodesic", "proposals": {"seeds": 31, "levels": [1, 2]}, "extra": 1},
    )
    before = manifest_path(tmp_path, "val").read_bytes()
    with pytest.raises(ManifestMismatch) as caught:
        agree_on_manifest(tmp_path, other)
    message = str(caught.value)
    for line in (
        "images: 7 stored, 5 now",
        "shards: 3 stored, 2 now",
        f'package_version: "{MANIFEST.package_version}" stored, "9.9" now',
        "configuration.proposals.seeds: 30 stored, 31 now",
        "configuration.extra: nothing stored, 1 now",
        "another output folder",
        str(tmp_path),
    ):
        assert line in message
    for same in ("method", "levels", "ids_sha256", "shard_size", "schema_version"):
        assert same not in message
    assert manifest_path(tmp_path, "val").read_bytes() == before


@pytest.mark.parametrize("key", ["package_version", "schema_version", "ids_sha256"])
def test_one_difference_is_enough(tmp_path, key):
    agree_on_manifest(tmp_path, MANIFEST)
    with pytest.raises(ManifestMismatch, match=f"\n  {key}: "):
        agree_on_manifest(tmp_path, replace(MANIFEST, **{key: 99 if key == "schema_version" else "other"}))


def agree_in_process(folder, seeds, queue):
    configuration = {"seeds": seeds}
    try:
        queue.put(agree_on_manifest(folder, replace(MANIFEST, configuration=configuration)))
    except ManifestMismatch:
        queue.put("mismatch")


@fork_is_meant
def test_one_of_many_processes_writes(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=agree_in_process, args=(tmp_path, 1, queue)) for _ in range(8)]
    for worker in workers:
        worker.start()
    answers = sorted(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
    assert answers == [False] * 7 + [True]
    agree_in_process(tmp_path, 2, queue)
    assert queue.get(timeout=60) == "mismatch"
    assert os.listdir(tmp_path) == ["val.manifest.json"]


def test_a_task_that_came_first_is_not_overwritten(tmp_path, monkeypatch):
    """Another task makes its manifest after this one has looked and before it links its own."""
    original = os.link

    def link_late(source, target):
        monkeypatch.setattr(os, "link", original)
        other = replace(MANIFEST, package_version="other")
        manifest_path(tmp_path, "val").write_text(json.dumps(asdict(other)))
        original(source, target)

    monkeypatch.setattr(os, "link", link_late)
    with pytest.raises(ManifestMismatch, match='package_version: "other" stored'):
        agree_on_manifest(tmp_path, MANIFEST)
    assert os.listdir(tmp_path) == ["val.manifest.json"]


def test_without_hard_links(tmp_path, without_hard_links):
    assert agree_on_manifest(tmp_path, MANIFEST) is True
    assert agree_on_manifest(tmp_path, MANIFEST) is False
    assert os.listdir(tmp_path) == ["val.manifest.json"]
    with pytest.raises(ManifestMismatch):
        agree_on_manifest(tmp_path, replace(MANIFEST, package_version="other"))


def test_other_failures_of_link_are_not_hidden(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="Input/output"):
        agree_on_manifest(tmp_path, MANIFEST)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: "", "not a manifest"),
        (lambda content: "{", "not a manifest"),
        (lambda content: "\xff", "not a manifest"),
        (lambda content: "[]", "expected an object with the keys"),
        (lambda content: json.dumps(content | {"more": 1}), "expected an object with the keys"),
        (lambda content: json.dumps({key: content[key] for key in content if key != "images"}), "the keys .*images"),
        (lambda content: json.dumps(content | {"images": "7"}), r"Expected `int`, got `str`.*images"),
        (lambda content: json.dumps(content | {"images": True}), r"Expected `int`, got `bool`.*images"),
        (lambda content: json.dumps(content | {"split": "train"}), "is of the split 'train', expected 'val'"),
        (lambda content: json.dumps(content | {"shards": 4}), "4 shards of 3 rows for 7 images"),
    ],
)
def test_damaged_manifests_are_named(tmp_path, change, message):
    path = manifest_path(tmp_path, "val")
    path.write_text(change(json.loads(json.dumps(asdict(MANIFEST)))), encoding="latin-1")
    for call in (lambda: read_manifest(tmp_path, "val"), lambda: agree_on_manifest(tmp_path, MANIFEST)):
        with pytest.raises(ManifestError, match=message) as caught:
            call()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("changes", [{"shards": 2}, {"images": 0, "shards": 0}, {"shard_size": 0}, {"split": "a/b"}])
def test_impossible_manifests_are_refused(changes):
    with pytest.raises(ValueError, match="expected"):
        replace(MANIFEST, **changes)


def test_configurations_that_are_no_json_are_refused():
    with pytest.raises(ShardError, match="JSON"):
        replace(MANIFEST, configuration={"x": float("inf")})


def test_shard_rows():
    assert [MANIFEST.shard_rows(index) for index in range(3)] == [3, 3, 1]
    assert [replace(MANIFEST, images=9).shard_rows(index) for index in range(3)] == [3, 3, 3]
