"""Rows of a report: results of runs under one protocol, and the baselines that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from evaluation.drawing.result_charts import NamedResult
from evaluation.schema import Result
from pipelines.reports.comparison import LoadedRun

SOURCE = "network or maps"
"""Heading of what the localizer of a result belongs to: an evaluated network, or a folder of maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow(NamedResult):
    """A result in the summary table; a baseline that several runs share appears once."""

    runs: tuple[LoadedRun, ...]

    @property
    def rate(self) -> float | None:
        """GT-known Loc, from 0 to 1; None without images."""
        return self.result.gt_known_loc.rate


def report_rows(runs: list[LoadedRun], *, protocol: str, comparable: bool) -> list[ReportRow]:
    """Results in the order of the runs, then the baselines, equal ones of several comparable runs as one.

    Where the classes that the runs predict give one baseline several Top-1 and Top-5 Loc, the row has neither.
    """
    rows: list[ReportRow] = []
    baselines: dict[Any, list[tuple[LoadedRun, Result]]] = {}
    for run in runs:
        for result, is_baseline in run.results:
            if result.protocol != protocol:
                continue
            if not is_baseline:
                name = f"{result.localizer} of {run.label}"
                rows.append(ReportRow(name=name, runs=(run,), result=result, is_baseline=False))
                continue
            # Equal rates on other images would be a coincidence, not the same baseline.
            owner = "" if comparable else run.label
            v2 = None if result.max_box_acc_v2 is None else result.max_box_acc_v2.rate
            key = (result.localizer, owner, result.gt_known_loc.rate, v2, result.threshold)
            baselines.setdefault(key, []).append((run, result))
    return [*rows, *(_shared_row(same) for same in baselines.values())]


def best_baseline(rows: Sequence[ReportRow], *, of: ReportRow) -> ReportRow | None:
    """The baseline of the run of ``of`` with the highest GT-known Loc, the first of equals; None where it has none."""
    baselines = [row for row in rows if row.is_baseline and of.runs[0] in row.runs and row.rate is not None]
    return max(baselines, key=lambda row: row.rate or 0.0, default=None)


def points_against(row: ReportRow, baseline: ReportRow) -> str:
    """How many percentage points of GT-known Loc a result lies ``above`` or ``below`` a baseline, as words."""
    points = round(100 * ((row.rate or 0.0) - (baseline.rate or 0.0)), 2)
    return f"{abs(points):.2f} {'above' if points > 0 else 'below'}" if points else "equal"


def _shared_row(same: Sequence[tuple[LoadedRun, Result]]) -> ReportRow:
    """One row of results that have the same boxes, of which some may know predicted classes."""
    classified = {(result.top1_loc, result.top5_loc): result for _, result in same if result.top1_loc is not None}
    result = next(iter(classified.values()), same[0][1])
    if len(classified) > 1:
        result = msgspec.structs.replace(result, top1_loc=None, top5_loc=None, errors=None)
    owner = "" if len(same) > 1 else f", {same[0][0].label}"
    name = f"{result.localizer} (baseline{owner})"
    return ReportRow(name=name, runs=tuple(run for run, _ in same), result=result, is_baseline=True)
