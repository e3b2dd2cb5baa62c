import os
from pathlib import Path

import pytest

from pseudo_maps.files import host_name
from pseudo_maps.shards import shard_name
from pseudo_maps.shards.layout import checksum_path
from pseudo_maps.shards.manifest import manifest_path
from pseudo_maps.shards.repair import repair_folder
from pseudo_maps.shards.verify import Problem, file_state, verify_folder
from tests.pseudo_maps.shard_making import flip_byte, make_folder, make_shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete folder of 7 images in 3 shards."""
    make_folder(tmp_path)
    return tmp_path


@pytest.fixture
def shard(folder: Path) -> Path:
    """A shard of it with a flipped byte."""
    path = folder / shard_name("val", 1, 3)
    flip_byte(path, 900)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only_reason(folder: Path, problems: list[Problem]) -> str:
    """Why the one file that is bad was left; nothing else may have happened."""
    before = contents(folder)
    repair = repair_folder(problems)
    assert repair.removed == [] and contents(folder) == before
    ((path, reason),) = repair.left
    assert path == problems[0].path
    return reason


def test_without_problems_nothing_happens(folder: Path) -> None:
    before = contents(folder)
    repair = repair_folder(verify_folder(folder))
    assert (repair.removed, repair.left, contents(folder)) == ([], [], before)


def test_a_shard_goes_once_and_before_its_checksum(folder: Path, shard: Path) -> None:
    problems = verify_folder(folder)
    assert repair_folder(problems * 2).removed == [shard, checksum_path(shard)]


def test_a_shard_that_was_made_again_meanwhile_stays(folder: Path, shard: Path) -> None:
    problems = verify_folder(folder)
    make_shard(shard, ["val_3", "val_4", "val_5"], first_map=3)
    assert "has changed since it was checked" in only_reason(folder, problems)
    assert verify_folder(folder) == []


def test_a_checksum_whose_shard_came_meanwhile_stays(folder: Path, shard: Path) -> None:
    away = shard.rename(folder.parent / "away")
    problems = [problem for problem in verify_folder(folder) if problem.kind == "stray"]
    away.rename(shard)
    assert "its shard is there by now" in only_reason(folder, problems)


@pytest.mark.parametrize("suffix", ["", ".sha256"])
def test_a_shard_that_a_running_process_is_making_stays(folder: Path, shard: Path, suffix: str, dead_pid: int) -> None:
    problems = verify_folder(folder)
    partial = folder / f".{shard.name}{suffix}.{host_name()}.{os.getpid()}.tmp"
    partial.touch()
    assert "a running process is making the shard" in only_reason(folder, problems)
    partial.rename(folder / f".{shard.name}{suffix}.{host_name()}.{dead_pid}.tmp")
    assert repair_folder(problems).removed == [shard, checksum_path(shard)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize(("user", "name"), [(65534, "nobody"), (3_999_999_999, "3999999999")])
def test_another_users_file_stays_and_is_named(folder: Path, shard: Path, user: int, name: str) -> None:
    os.chown(shard, user, -1)
    reason = only_reason(folder, verify_folder(folder))
    assert reason.startswith("it belongs to the user") and name in reason


def test_what_the_system_refuses_is_told_and_the_rest_goes_on(folder: Path, shard: Path) -> None:
    problems = verify_folder(folder)
    checksum_path(shard).unlink()
    checksum_path(shard).mkdir()
    other = folder / shard_name("val", 2, 3)
    flip_byte(other, 900)
    problems += [problem for problem in verify_folder(folder) if problem.path == other]
    repair = repair_folder(problems)
    assert repair.removed == [shard, other, checksum_path(other)]
    ((path, reason),) = repair.left
    assert path == checksum_path(shard) and reason.startswith("it cannot be removed: ")


def test_other_names_are_never_removed(folder: Path) -> None:
    names = ["notes.txt", manifest_path(folder, "val").name, "val-00000-of-00003.h5.bak", "a.sha256"]
    for name in names:
        (folder / name).touch()
        problem = Problem(path=folder / name, kind="checksum", message="", judged=file_state(folder / name))
        assert "neither a shard" in only_reason(folder, [problem])
