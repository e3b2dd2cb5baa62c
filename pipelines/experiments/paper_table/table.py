"""The paper's tables: train and score the unfinished runs, and write the tables."""

from collections.abc import Sequence
from pathlib import Path

import click

from pipelines.experiments.paper_table.page import TABLE_FILES, write_tables
from pipelines.experiments.paper_table.plan import PSEUDO_MAP_NAME, TablePlan, TableRun, contradictions
from pipelines.experiments.paper_table.results import collect_results
from pipelines.experiments.paper_table.rows import ROWS
from pipelines.experiments.runner import run_side_by_side
from pipelines.experiments.steps import DataIdentity
from pipelines.jobs.training import choose_records
from pseudo_maps.shards import MapIndex


def report_table(plan: TablePlan, runs: Sequence[TableRun], *, given: Sequence[str]) -> None:
    """Write the tables of what is finished; ValueError, before anything is written, where ``given`` contradicts it."""
    found = contradictions(plan, runs, given=given)
    if found:
        raise ValueError(
            f"{_first_of(found)}; leave such options out, and those of the runs are used. The tables are unchanged"
        )
    _write(plan, runs)


def check_folders(runs: Sequence[TableRun]) -> None:
    """ValueError when a folder holds results of other settings, or of another program."""
    refused = [reason for run in runs if (reason := run.refusal())]
    if refused:
        # Of all runs, not of this task's share alone: its tables show all of them.
        raise ValueError(f"{_first_of(refused)}. Nothing was run, and the tables are unchanged")


def show_commands(plan: TablePlan, share: Sequence[TableRun], *, devices: Sequence[str]) -> None:
    """Print the commands that ``make_table`` would run; with several devices, on those that they would get in turn."""
    data = DataIdentity(plan.train, plan.val)
    waiting = []
    for run in _possible(plan, share):
        if run.is_finished(data):
            click.echo(f"# {run.name}: finished")
        else:
            waiting.append(run)
    for index, run in enumerate(waiting):
        for step in run.steps:
            if not run.record.is_finished(step, input_state=step.input_state(data)):
                click.echo(step.on(devices[index % len(devices)]).line)


def make_table(
    plan: TablePlan, runs: Sequence[TableRun], *, share: Sequence[TableRun], devices: Sequence[str], debug: bool
) -> None:
    """Train and score this task's share of the runs, and write the tables of all runs whenever one has ended.

    ValueError, before the first training, for images without a map; RuntimeError at the end when runs failed.
    """
    data = DataIdentity(plan.train, plan.val)
    possible = _possible(plan, share)
    todo = [run for run in possible if not run.is_finished(data)]
    if not all(run.is_trained for run in todo):
        _require_maps(plan)
    finished = len(possible) - len(todo)
    click.echo(f"{finished} of {len(possible)} runs are finished; {len(todo)} to do on {', '.join(devices)}")
    failures = run_side_by_side(todo, devices=devices, data=data, debug=debug, ended=lambda: _write(plan, runs))
    _write(plan, runs)
    click.echo(table_files(plan.out))
    if failures:
        listed = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise RuntimeError(f"{len(failures)} of {len(share)} runs failed: {listed}")


def table_files(out: Path) -> str:
    """One line that names the tables."""
    return f"{out}: {', '.join(TABLE_FILES)}"


def _possible(plan: TablePlan, runs: Sequence[TableRun]) -> list[TableRun]:
    """The runs without that of the pseudo maps where there are none."""
    return [run for run in runs if run.name != PSEUDO_MAP_NAME or plan.has_val_maps or run.has_results]


def _require_maps(plan: TablePlan) -> None:
    """MapsMissingError now: ``--on-missing skip`` holds for all rows, and trained ones would refuse it."""
    if any(ROWS[row].uses_map for row in plan.rows):
        index = MapIndex(plan.maps, plan.train.split)
        choose_records(plan.train, index=index, on_missing=plan.values["on-missing"], limit=plan.values["limit"])


def _first_of(sentences: Sequence[str]) -> str:
    more = f"; likewise for {len(sentences) - 1} more runs" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}"


def _write(plan: TablePlan, runs: Sequence[TableRun]) -> None:
    write_tables(collect_results(plan, runs), plan.out)
