"""A step is kept only while its settings, all that it read and all that it made are as they were."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.experiments.steps import FileSet, Step, StepRecord, command_line, files_state
from tests.pipelines.table_runs import data_identity


@pytest.fixture
def step(tmp_path: Path) -> Step:
    made = tmp_path / "made"
    made.mkdir()
    (made / "result").write_text("1")
    return Step(
        name="first", stage="training", program="wsol-train", arguments=("--epochs", "1"), makes=FileSet(path=made)
    )


def record_of(folder: Path) -> StepRecord:
    """Read anew, as the next call of the program does."""
    return StepRecord(folder / "results" / "record.json")


def test_the_command_shown_is_the_one_that_can_be_typed() -> None:
    assert command_line("wsol-prep", ["verify", Path("a b"), 3]) == "wsol-prep verify 'a b' 3"


def test_a_step_that_was_finished_is_known_to_the_next_call(tmp_path: Path, step: Step) -> None:
    second = replace(step, name="second", settings={"epochs": 1, "protocols": ("cam",)})
    assert not record_of(tmp_path).is_finished(step, input_state="in") and record_of(tmp_path).settings("first") is None
    for one in (step, second):
        record_of(tmp_path).finish(one, input_state="in")
    assert record_of(tmp_path).is_finished(step, input_state="in")
    assert record_of(tmp_path).is_finished(second, input_state="in")
    assert record_of(tmp_path).is_finished(replace(step, free=("--workers", "3")), input_state="in")
    assert not record_of(tmp_path).is_finished(step, input_state="other")
    assert not record_of(tmp_path).is_finished(replace(step, arguments=("--epochs", "2")), input_state="in")
    assert not record_of(tmp_path).is_finished(replace(second, settings={"epochs": 2}), input_state="in")
    (step.makes.path / "result").write_text("another")
    assert not record_of(tmp_path).is_finished(step, input_state="in")


def test_a_step_that_was_only_begun_or_failed_is_not_finished(tmp_path: Path, step: Step) -> None:
    (step.makes.path / "result").unlink()
    record_of(tmp_path).begin(step)
    assert not record_of(tmp_path).is_finished(step, input_state="in")
    (step.makes.path / "result").write_text("1")
    record_of(tmp_path).fail(step, "no weights")
    assert record_of(tmp_path).failure("first") == "no weights"
    assert not record_of(tmp_path).is_finished(step, input_state="in")
    assert record_of(tmp_path).settings("first") == step.decisive == {"arguments": "wsol-train --epochs 1"}
    record_of(tmp_path).begin(step)
    assert record_of(tmp_path).failure("first") is None


def test_a_refusal_of_other_settings_leaves_a_finished_step_finished(tmp_path: Path, step: Step) -> None:
    record_of(tmp_path).finish(step, input_state="in")
    changed = replace(step, arguments=("--epochs", "2"))
    record_of(tmp_path).begin(changed)
    record_of(tmp_path).fail(changed, "made with other settings")
    assert record_of(tmp_path).failure("first") is None
    assert record_of(tmp_path).is_finished(step, input_state="in")


def test_results_keep_the_settings_that_they_were_begun_with(tmp_path: Path, step: Step) -> None:
    changed = replace(step, arguments=("--epochs", "2"))
    record_of(tmp_path).begin(step)
    assert record_of(tmp_path).settings("first") is None, "results older than the record"
    (step.makes.path / "result").unlink()
    record_of(tmp_path).begin(step)
    (step.makes.path / "result").write_text("1")
    record_of(tmp_path).begin(changed)
    assert record_of(tmp_path).settings("first") == step.decisive
    (step.makes.path / "result").unlink()
    record_of(tmp_path).begin(changed)
    assert record_of(tmp_path).settings("first") == changed.decisive


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"version": "0", "steps": {}}', '{"steps": {}}'])
def test_a_damaged_record_is_empty(tmp_path: Path, step: Step, content: str) -> None:
    record_of(tmp_path).finish(step, input_state="in")
    (tmp_path / "results" / "record.json").write_text(content)
    assert not record_of(tmp_path).is_finished(step, input_state="in")
    record_of(tmp_path).finish(step, input_state="in")
    assert record_of(tmp_path).is_finished(step, input_state="in")


def test_another_version_keeps_the_settings_and_asks_the_commands(tmp_path: Path, step: Step) -> None:
    record = record_of(tmp_path)
    record.finish(step, input_state="in")
    record.path.write_text(record.path.read_text().replace('"version": "', '"version": "9'))
    assert record_of(tmp_path).settings("first") == step.decisive
    assert not record_of(tmp_path).is_finished(step, input_state="in")


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
    assert FileSet(path=tmp_path / "nothing").files() == []


def test_files_that_the_arguments_name_are_read_by_the_step(tmp_path: Path, step: Step) -> None:
    weights, data = tmp_path / "f.pt", data_identity(tmp_path)
    weights.write_text("one")
    reading = replace(step, arguments=("--perceptual-weights", str(weights), "--data", str(tmp_path)))
    before = reading.input_state(data)
    assert reading.input_state(data) == before != step.input_state(data)
    weights.write_text("other")
    assert reading.input_state(data) != before
    makes = replace(reading, makes=FileSet(path=weights))
    assert makes.input_state(data) == step.input_state(data), "what it makes is named, not read"


def test_a_device_is_added_where_a_step_takes_one(step: Step) -> None:
    assert step.on("cuda:1") == step
    on = replace(step, on_device=True).on("cuda:1")
    assert on.line == "wsol-train --epochs 1 --device cuda:1" and on.decisive == step.decisive
