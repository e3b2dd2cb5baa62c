"""Runs are made as many at a time as there are devices, one that fails stops no other, and each is told of once."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.paper_table.plan import TablePlan, TableRun
from pipelines.experiments.paper_table.runs import examine_folders, make_runs, show_lines
from tests.pipelines.table_runs import make_plan, runs_by_name, setting, write_finished


@pytest.fixture
def plan(tmp_path: Path) -> TablePlan:
    """A plan whose baselines can be scored for real."""
    data = make_clsloc_dataset(tmp_path / "data", classes=1, train_per_class=1, val_per_class=2, size_px=(64, 64))
    quick = {"limit": setting("--limit", None), "bootstrap_samples": setting("--bootstrap-samples", 0, 1000)}
    return make_plan(tmp_path, data=data, protocols=("cam",), evaluation=quick)


def baseline(plan: TablePlan, name: str, **changes: object) -> TableRun:
    return replace(runs_by_name(replace(plan, out=plan.out / name))["baseline"], name=name, **changes)


@pytest.mark.slow
def test_one_that_fails_stops_no_other(plan: TablePlan, capsys: pytest.CaptureFixture[str]) -> None:
    good = [baseline(plan, name) for name in ("first", "last")]
    bad = baseline(plan, "bad")
    bad = replace(bad, evaluation_words=(*bad.evaluation_words, "--data", str(plan.out / "nowhere")))
    told = []
    failures = make_runs([bad, *good], devices=("cpu", "cpu"), debug=False, finished=lambda: told.append(1))
    assert list(failures) == ["bad"]
    assert "nowhere" in failures["bad"] and bad.failure == failures["bad"]
    assert [run.is_finished for run in (bad, *good)] == [False, True, True]
    assert len(told) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 3 runs are finished; 3 to do on cpu, cpu"
    assert sum(line.startswith("$ wsol-eval baseline --data ") for line in lines) == 3
    assert sum(line.startswith(f"bad: failed: {failures['bad']} (") for line in lines) == 1
    # Tried again and mended, it is no failure any more.
    mended = baseline(plan, "bad")
    assert make_runs([mended, *good], devices=("cpu",), debug=False, finished=lambda: None) == {}
    assert mended.failure is None and mended.is_finished
    assert "2 of 3 runs are finished; 1 to do on cpu" in capsys.readouterr().out


def test_folders_of_other_settings_and_damaged_ones_are_told_apart(plan: TablePlan) -> None:
    runs = runs_by_name(plan)
    write_finished(runs["alexnet-gap gap seed 0"], correct=100)
    write_finished(runs["alexnet-gap gap seed 1"], correct=100)
    (runs["alexnet-gap gap seed 1"].folder / "table-run.json").write_text("{")
    refused, damaged = examine_folders(list(runs.values()))
    assert refused == {} and damaged.keys() == {"alexnet-gap gap seed 1"}
    longer = replace(plan, training={**plan.training, "epochs": setting("--epochs", 9)})
    refused, damaged = examine_folders(list(runs_by_name(longer).values()))
    assert refused.keys() == {"alexnet-gap gap seed 0"} and damaged.keys() == {"alexnet-gap gap seed 1"}


def test_the_lines_show_what_is_finished_and_what_is_to_do(plan: TablePlan, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run for run in runs_by_name(plan).values() if run.row == "gap"]
    write_finished(runs[0], correct=100)
    (runs[1].folder).mkdir(parents=True)
    (runs[1].folder / "finished.json").write_text("{}")
    show_lines(runs, devices=("cuda:0", "cuda:1"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# alexnet-gap gap seed 0: finished"
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:]] == [
        ("wsol-eval", "cuda:0"),
        ("wsol-train", "cuda:1"),
        ("wsol-eval", "cuda:1"),
    ]
