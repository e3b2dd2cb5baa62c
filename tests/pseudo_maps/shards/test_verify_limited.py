"""Folders of the first images of a data set, as ``--limit`` makes them, are whole folders of those."""

from collections import Counter
from pathlib import Path

import pytest

from pseudo_maps.shards import shard_name
from pseudo_maps.shards.manifest import manifest_path
from pseudo_maps.shards.verify import Problem, verify_folder
from tests.pseudo_maps.shard_making import make_folder, make_shard

IDS = [f"val_{number}" for number in range(9)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete folder of the first 7 of 9 images, in 3 shards."""
    make_folder(tmp_path, failed=["val_4"])
    return tmp_path


def against(folder: Path, ids: list[str]) -> list[Problem]:
    return verify_folder(folder, expected_ids={"val": ids})


def test_the_first_images_of_the_data_are_no_problem(folder: Path) -> None:
    assert against(folder, IDS) == []


@pytest.mark.parametrize("ids", [["new", *IDS], IDS[1:], ["val_1", "val_0", *IDS[2:]]])
def test_other_images_than_the_first_are_one(folder: Path, ids: list[str]) -> None:
    (problem,) = against(folder, ids)
    assert problem.kind == "data" and "--limit" not in problem.message


def test_a_wrong_row_among_the_first_images_is_found(folder: Path) -> None:
    shard = folder / shard_name("val", 1, 3)
    make_shard(shard, ["val_3", "val_5", "val_4"])
    (problem,) = against(folder, IDS)
    assert (problem.path, problem.kind) == (shard, "ids")


def test_without_a_manifest_the_limit_to_make_it_with_is_named(folder: Path) -> None:
    manifest_path(folder, "val").unlink()
    problems = against(folder, IDS)
    assert [problem.kind for problem in problems] == ["manifest", "data"]
    assert "give --limit 7 when the manifest is made again" in problems[1].message


def test_rows_are_counted_by_status(folder: Path) -> None:
    counts: Counter[str] = Counter()
    verify_folder(folder, on_rows=lambda split, statuses: counts.update({split: 1, **statuses}))
    assert counts == {"val": 3, "ok": 6, "decode": 1}
