import json
import os
import random
import time

import h5py
import numpy as np
import pytest

from pseudo_maps.files import host_name
from pseudo_maps.shards import shard_name
from pseudo_maps.shards.layout import checksum_path
from pseudo_maps.shards.manifest import manifest_path
from pseudo_maps.shards.repair import repair_folder
from pseudo_maps.shards.verify import verify_folder
from tests.pseudo_maps.shard_making import CONFIGURATION, flip_byte, make_folder, make_shard, renew_checksum


@pytest.fixture
def folder(tmp_path):
    """A complete folder of 7 images in 3 shards."""
    make_folder(tmp_path, failed=["val_4"])
    return tmp_path


@pytest.fixture
def shard(folder):
    return folder / shard_name("val", 1, 3)


def found(folder, **options):
    return [(problem.path.name, problem.kind) for problem in verify_folder(folder, **options)]


def only_problem(folder, **options):
    problems = verify_folder(folder, **options)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def edit(path, change):
    """Change a shard through HDF5 and give it a checksum that agrees, as a faulty writer would."""
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        change(file)
    renew_checksum(path)


def assert_rerun_completes(folder, *, removed):
    """Repair removes ``removed`` with their checksums and nothing else; making them again completes the folder."""
    before = set(os.listdir(folder))
    repair = repair_folder(verify_folder(folder))
    gone = before - set(os.listdir(folder))
    assert repair.left == [] and {path.name for path in repair.removed} == gone
    assert gone == {name for shard in removed for name in (shard, shard + ".sha256") if name in before}
    for index in range(3):
        path = folder / shard_name("val", index, 3)
        if not path.exists():
            ids = [f"val_{number}" for number in range(index * 3, min(7, index * 3 + 3))]
            make_shard(path, ids, failed=["val_4"], first_map=index * 3)
    assert verify_folder(folder) == []


def test_a_whole_folder_has_no_problem(folder):
    steps = []
    ids = [f"val_{number}" for number in range(7)]
    assert verify_folder(folder, expected_ids={"val": ids}, progress=lambda *step: steps.append(step)) == []
    assert steps == [(1, 3), (2, 3), (3, 3)]
    make_folder(folder, split="train", images=2)
    assert verify_folder(folder) == []


def test_any_flipped_byte_anywhere(folder, shard):
    size = shard.stat().st_size
    for offset in [0, 8, size - 1, *random.Random(0).sample(range(size), 60)]:
        flip_byte(shard, offset)
        problem = only_problem(folder)
        assert (problem.path, problem.kind) == (shard, "checksum")
        assert "SHA-256" in problem.message
        flip_byte(shard, offset)
    assert verify_folder(folder) == []
    flip_byte(shard, size // 2)
    assert_rerun_completes(folder, removed=[shard.name])


def test_a_flipped_byte_in_a_map_under_a_good_sha256(folder, shard):
    with h5py.File(shard) as file:
        offset = file["saliency/maps"].id.get_chunk_info(1).byte_offset
    flip_byte(shard, offset + 3)
    renew_checksum(shard)
    problem = only_problem(folder)
    assert (problem.path, problem.kind) == (shard, "map")
    assert "row 1 (val_4): " in problem.message and "checksum" in problem.message
    assert_rerun_completes(folder, removed=[shard.name])


def test_a_truncated_file(folder, shard):
    shard.chmod(0o644)
    os.truncate(shard, shard.stat().st_size - 100)
    assert found(folder) == [(shard.name, "checksum")]
    renew_checksum(shard)
    assert found(folder) == [(shard.name, "unreadable")]
    assert_rerun_completes(folder, removed=[shard.name])


@pytest.mark.parametrize("damage", ["absent", "empty", "other name", "flipped"])
def test_a_bad_checksum_file(folder, shard, damage):
    path = checksum_path(shard)
    text = path.read_text()
    path.unlink()
    if damage != "absent":
        changed = {"empty": "", "other name": text.replace("val-", "train-"), "flipped": text[1:] + "0"}
        path.write_text(changed[damage])
    assert found(folder) == [(shard.name, "checksum")]
    assert_rerun_completes(folder, removed=[shard.name])


def test_a_missing_shard(folder, shard):
    shard.unlink()
    checksum_path(shard).unlink()
    text = f"missing: {shard}: the shard is missing; give the command of the folder again to make it"
    assert str(only_problem(folder)) == text
    assert_rerun_completes(folder, removed=[])


def test_a_missing_shard_whose_checksum_stayed(folder, shard):
    shard.unlink()
    assert found(folder) == [(shard.name, "missing"), (shard.name + ".sha256", "stray")]
    assert_rerun_completes(folder, removed=[shard.name])


def test_wrong_ids(folder, shard):
    make_shard(shard, ["val_3", "val_5", "val_4"])
    problem = only_problem(folder)
    assert (problem.path.name, problem.kind, problem.judged) == ("val.manifest.json", "manifest", None)
    assert "--data" in problem.message
    problem = only_problem(folder, expected_ids={"val": [f"val_{number}" for number in range(7)]})
    assert (problem.path, problem.kind) == (shard, "ids")
    assert "row 1 is the image 'val_5', the data have 'val_4' there" in problem.message
    assert [path.name for path in repair_folder([problem]).removed] == [shard.name, shard.name + ".sha256"]


def table(**columns):
    def change(file):
        table = file["images"][()]
        for name, (row, value) in columns.items():
            table[name][row] = value
        file["images"][...] = table

    return change


def darker(file):
    file["saliency/maps"][...] = file["saliency/maps"][()] // 2


def other_schema(file):
    file.attrs["schema_version"] = 99


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (table(row=(2, 1)), "table", "row 2: its number is 1"),
        (table(height=(0, -5)), "table", "row 0: height -5"),
        (table(status=(0, b"decode")), "map", "row 0 (val_3): status 'decode' with map maximum 255"),
        (table(status=(1, b"ok"), peak=(1, 0.5)), "map", "row 1 (val_4): map maximum 0 with peak 0.5"),
        (table(peak=(2, np.nan)), "map", "row 2 (val_5): peak nan"),
        (table(path=(1, b"\xff")), "unreadable", "not UTF-8"),
        (darker, "map", "(and 1 row more)"),
        (other_schema, "unreadable", "schema version 99, expected 1"),
    ],
)
def test_a_shard_that_contradicts_itself(folder, shard, change, kind, message):
    edit(shard, change)
    problem = only_problem(folder)
    assert (problem.path, problem.kind) == (shard, kind) and message in problem.message
    assert_rerun_completes(folder, removed=[shard.name])


@pytest.mark.parametrize(
    ("ids", "configuration", "kind", "message"),
    [
        (["val_3", "val_4", "val_5", "more"], CONFIGURATION, "rows", "has 4 rows, expected 3"),
        (
            ["val_3", "val_0", "val_5"],
            CONFIGURATION,
            "table",
            "image id 'val_0' is also row 0 of",
        ),
        (
            ["val_3", "val_4", "val_5"],
            {"method": "other"},
            "configuration",
            'configuration.method: "other" in the shard, "geodesic" in the manifest',
        ),
    ],
)
def test_a_shard_that_contradicts_the_others(folder, shard, ids, configuration, kind, message):
    make_shard(shard, ids, configuration=configuration)
    problem = only_problem(folder)
    assert (problem.path, problem.kind) == (shard, kind) and message in problem.message
    assert_rerun_completes(folder, removed=[shard.name])


def test_stray_shards(folder):
    stray = folder / shard_name("val", 0, 9)
    make_shard(stray, ["val_0"])
    problem = only_problem(folder)
    assert (problem.path, problem.kind) == (stray, "stray")
    assert_rerun_completes(folder, removed=[stray.name])


def make_older(path, *, hours):
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))


def test_temporary_files(folder, shard, dead_pid):
    host = host_name()
    missing = folder / shard_name("val", 2, 3)
    missing.unlink()
    checksum_path(missing).unlink()
    in_use = [
        f".{shard.name}.{host}.{os.getpid()}.tmp",
        f".{shard.name}.sha256.{host}.{os.getpid()}.tmp",
        f".{shard.name}.{host}.{os.getpid()}.x0123abcd.tmp",
        ".val.manifest.json.node8.14.tmp",
    ]
    others = ["notes.txt", ".hidden.tmp", "val-00000-of-00003.npy", ".train-00000-of-00001.h5.elsewhere.7.tmp"]
    stale = [
        f".{shard.name}.{host}.{dead_pid}.tmp",
        f".{shard.name}.node7.12.x0123abcd.tmp",
        f".{missing.name}.{host}.{dead_pid}.x0123abcd.tmp",
        f".{shard.name}.sha256.node7.h5.12.tmp",
        ".val.manifest.json.node7.13.tmp",
    ]
    for name in in_use + others + stale:
        (folder / name).touch()
    for name in (stale[1], stale[3], stale[4], others[3]):
        make_older(folder / name, hours=2)
    expected = sorted([(name, "temporary") for name in stale] + [(missing.name, "missing")])
    assert sorted(found(folder, splits=["val"])) == expected
    repair = repair_folder(verify_folder(folder, splits=["val"]))
    assert sorted(path.name for path in repair.removed) == sorted(stale)
    assert set(in_use + others) <= set(os.listdir(folder))


def test_no_manifest(folder):
    manifest_path(folder, "val").unlink()
    problem = only_problem(folder)
    assert (problem.path.name, problem.kind) == ("val.manifest.json", "manifest")
    assert "is missing" in problem.message
    (folder / shard_name("val", 2, 3)).unlink()
    checksum_path(folder / shard_name("val", 2, 3)).unlink()
    make_shard(folder / shard_name("val", 0, 9), ["x"])
    assert "numbered of [3, 9]" in verify_folder(folder)[1].message
    assert repair_folder(verify_folder(folder)).removed == []


@pytest.mark.parametrize("text", ["{", "[]", '{"split": "val"}'])
def test_a_damaged_manifest_is_reported_with_the_cure_and_kept(folder, text):
    path = manifest_path(folder, "val")
    path.write_text(text)
    problem = only_problem(folder)
    assert (problem.path, problem.kind, problem.judged) == (path, "manifest", None)
    assert "remove it when no task is running and give its command again" in problem.message


def test_a_folder_of_another_schema_version_is_left_to_the_package_that_made_it(folder):
    path = manifest_path(folder, "val")
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    for index in range(3):
        edit(folder / shard_name("val", index, 3), lambda file: file.attrs.__setitem__("schema_version", 2))
    problems = verify_folder(folder)
    assert [problem.kind for problem in problems] == ["manifest", *["unreadable"] * 3]
    assert "states schema version 2, expected 1; verify with the package version" in problems[0].message
    assert [problem.judged for problem in problems] == [None] * 4


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"configuration": {"method": "other"}}, ["configuration"] * 3),
        ({"images": 28, "shard_size": 10}, ["rows"] * 3),
        ({"shard_size": 1, "shards": 7}, ["stray"] * 3 + ["missing"] * 7),
    ],
    ids=["configuration", "rows", "count"],
)
def test_a_manifest_that_no_shard_agrees_with_condemns_none(folder, change, kinds):
    path = manifest_path(folder, "val")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    problems = verify_folder(folder)
    assert sorted(problem.kind for problem in problems) == sorted([*kinds, "manifest"])
    assert [problem.judged for problem in problems] == [None] * len(problems)
    (told,) = (problem for problem in problems if problem.kind == "manifest")
    assert told.path == path and "no shard of val is valid" in told.message


@pytest.mark.parametrize("has_manifest", [True, False])
def test_checksum_files_that_stayed_behind_condemn_no_shard(folder, shard, has_manifest):
    if not has_manifest:
        manifest_path(folder, "val").unlink()
    first, second, third = sorted(folder.glob("*.sha256"))
    second.unlink()
    (told,) = (problem for problem in verify_folder(folder) if problem.kind == "checksum")
    assert told.path == shard and told.judged is not None, "the other two are in order"
    first.unlink()
    third.unlink()
    problems = [
        problem for problem in verify_folder(folder) if "is missing, so nothing tells which" not in str(problem)
    ]
    assert [problem.kind for problem in problems] == ["checksum"] * 3 + ["manifest"]
    assert [problem.judged for problem in problems] == [None] * 4


# --- against the data


def of_data(folder, ids):
    problem = only_problem(folder, expected_ids={"val": ids})
    assert (problem.path.name, problem.kind, problem.judged) == ("val.manifest.json", "data", None)
    return problem.message


def test_images_too_many_and_missing_are_named(folder):
    ids = [f"val_{number}" for number in range(7)]
    message = of_data(folder, ids[:6])
    assert "states 7 images, the data have 6" in message
    assert "1 of the shards are not in the data: 'val_6';" in message and "in no shard" not in message
    message = of_data(folder, [*ids[:6], "new", "more"])
    assert "2 of the data are in no shard: 'new', 'more';" in message
    assert "1 of the shards are not in the data: 'val_6';" in message
    message = of_data(folder, [f"other_{number}" for number in range(9)])
    assert "9 of the data are in no shard: 'other_0', 'other_1', 'other_2', 'other_3', 'other_4', ...;" in message


def test_images_in_another_order_are_told(folder):
    assert "the same in another order" in of_data(folder, [f"val_{number}" for number in (1, 0, 2, 3, 4, 5, 6)])


def test_the_images_of_a_missing_shard_are_named(folder, shard):
    shard.unlink()
    checksum_path(shard).unlink()
    ids = [f"val_{number}" for number in range(7)]
    problem = only_problem(folder, expected_ids={"val": ids})
    assert "the shard of 3 images, 'val_3' to 'val_5', is missing" in problem.message
    problems = verify_folder(folder, expected_ids={"val": ids[:6]})
    assert [problem.kind for problem in problems] == ["missing", "data"]
    assert problems[1].message.endswith("make the missing shards first")


def test_a_split_of_the_data_without_any_shard(folder):
    assert found(folder, expected_ids={"train": ["a"]}) == [("train.manifest.json", "manifest")]


def test_an_empty_folder_is_not_in_order(tmp_path):
    assert only_problem(tmp_path).kind == "missing"
    with pytest.raises(FileNotFoundError):
        verify_folder(tmp_path / "absent")


# --- what cannot be read


def test_what_is_no_file_is_no_shard_and_stays(folder, shard):
    shard.unlink()
    shard.mkdir()
    problem = only_problem(folder)
    assert (problem.path, problem.kind, problem.judged) == (shard, "closed", None)
    assert "Is a directory" in problem.message
    shard.rmdir()
    shard.symlink_to(folder / "nowhere")
    problem = only_problem(folder)
    assert (problem.path, problem.kind, problem.judged) == (shard, "missing", None)


def test_a_link_to_a_shard_is_as_good_as_the_shard(folder, shard):
    (folder / "elsewhere").mkdir()
    target = shard.rename(folder / "elsewhere" / "store")
    shard.symlink_to(target)
    assert verify_folder(folder) == []
    flip_byte(target, 900)
    repair = repair_folder([only_problem(folder)])
    assert [path.name for path in repair.removed] == [shard.name, shard.name + ".sha256"]
    assert target.exists(), "only what is in the folder is removed"
