"""A step is kept only while its line, all that it read and all that it made are as they were."""

import os
from pathlib import Path

import pytest

from pipelines.experiments.finished_steps import FileSet, FinishedSteps, files_state, named_files

STEP = {"line": "make it", "reads": "in", "makes": "out"}


def record_of(folder: Path) -> FinishedSteps:
    """Read anew, as the next call of the program does."""
    return FinishedSteps(folder / "results" / "record.json")


def test_a_step_that_was_finished_is_known_to_the_next_call(tmp_path: Path) -> None:
    assert not record_of(tmp_path).is_finished("first", **STEP) and record_of(tmp_path).line("first") is None
    record_of(tmp_path).finish("first", **STEP)
    record_of(tmp_path).finish("second", **STEP)
    assert record_of(tmp_path).is_finished("first", **STEP) and record_of(tmp_path).is_finished("second", **STEP)
    for key in STEP:
        assert not record_of(tmp_path).is_finished("first", **{**STEP, key: "other"})


def test_a_step_that_was_only_begun_is_not_finished(tmp_path: Path) -> None:
    record_of(tmp_path).finish("first", **STEP)
    record_of(tmp_path).begin("first", line="make it", is_new=True)
    assert not record_of(tmp_path).is_finished("first", **STEP)
    assert record_of(tmp_path).line("first") == "make it"


def test_results_keep_the_line_that_they_were_begun_with(tmp_path: Path) -> None:
    record_of(tmp_path).begin("first", line="make it", is_new=True)
    record_of(tmp_path).begin("first", line="make it so", is_new=False)
    assert record_of(tmp_path).line("first") == "make it"
    record_of(tmp_path).begin("first", line="make it so", is_new=True)
    assert record_of(tmp_path).line("first") == "make it so"
    record_of(tmp_path).begin("older than the record", line="make it", is_new=False)
    assert record_of(tmp_path).line("older than the record") is None


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"version": "0", "steps": {}}', '{"steps": {}}'])
def test_a_record_of_another_version_or_damaged_is_empty(tmp_path: Path, content: str) -> None:
    record_of(tmp_path).finish("first", **STEP)
    (tmp_path / "results" / "record.json").write_text(content)
    assert not record_of(tmp_path).is_finished("first", **STEP)
    record_of(tmp_path).finish("second", **STEP)
    assert record_of(tmp_path).is_finished("second", **STEP)


def test_every_change_of_a_file_is_another_state(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    for name in ("val-0.h5", "train-0.h5", "deep/val-1.h5"):
        (folder / name).write_text("abc")
    whole, val = FileSet(path=folder), FileSet(path=folder, patterns=("val-*",))
    assert [path.name for path in val.files()] == ["val-0.h5"] and len(whole.files()) == 3
    seen = [files_state([whole])]
    assert files_state([whole]) == seen[0] and files_state([whole], further="data") != seen[0]
    of_val = files_state([val])
    os.utime(folder / "train-0.h5", ns=(1, 1))
    seen.append(files_state([whole]))
    (folder / "deep" / "val-1.h5").rename(folder / "deep" / "val-2.h5")
    seen.append(files_state([whole]))
    (folder / "train-0.h5").unlink()
    seen.append(files_state([whole]))
    assert len(set(seen)) == 4
    assert files_state([val]) == of_val
    (folder / "val-0.h5").write_text("abcd")
    assert files_state([val]) != of_val


def test_files_that_a_line_names_are_read_by_it(tmp_path: Path) -> None:
    weights = tmp_path / "f.pt"
    weights.write_text("one")
    assert named_files(["--perceptual-weights", str(weights), "--data", str(tmp_path)]) == [FileSet(path=weights)]
    assert FileSet(path=weights).files() == [weights] and FileSet(path=tmp_path / "nothing").files() == []
