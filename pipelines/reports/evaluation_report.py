"""Turns the metrics of one or several evaluated runs into one self-contained HTML page that compares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from evaluation.drawing.result_charts import CHART_TITLES, NamedResult, result_chart
from evaluation.metrics.registry import METRICS
from evaluation.names import ERROR_KINDS
from evaluation.results.schema import ClassScore, Rate, Result, protocols_in_order
from evaluation.results.tables import percent, reasons
from pipelines.reports.comparison import (
    VIEWS_RULE,
    LoadedRun,
    PairedCounts,
    all_results,
    comparison_warnings,
    load_runs,
    paired_counts,
    same_images,
)
from pipelines.reports.html_pages import data_uri, write_page
from pipelines.reports.pictures import picture_tables
from pipelines.reports.training_curves import read_history, training_charts
from pipelines.reports.training_images import distinct_names, other_training_images
from training.run_folder.files import read_finished

__all__ = ["write_report"]

_CLASSES_SHOWN = 8
"""Best and worst classes in a table each; up to twice as many all stand in one."""
_TEMPLATE = "report.html.jinja"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A figure of the summary table."""

    text: str
    note: str = ""
    """Interval, or what it is compared with; in small letters."""
    is_best: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A result in the summary table; a baseline that several runs share stands once."""

    runs: tuple[LoadedRun, ...]
    result: Result
    is_baseline: bool

    @property
    def name(self) -> str:
        """Run and localizer, for legends."""
        if self.is_baseline:
            shared = "" if len(self.runs) > 1 else f", {self.runs[0].label}"
            return f"{self.result.localizer} (baseline{shared})"
        return f"{self.runs[0].label}: {self.result.localizer}"


_OVER_BASELINE = "over_baseline"

_COLUMNS: dict[str, str] = {}
"""Headings of the summary table by metric, broken where they may break; after the first metric, its lead."""
for _metric in METRICS.values():
    _COLUMNS[_metric.name] = "\n".join(_metric.heading.rsplit(" ", 1))
    _COLUMNS.setdefault(_OVER_BASELINE, "over\nbaseline")


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str | None = None,
    introduction: str = "",
    training: Sequence[Path] = (),
) -> None:
    """Write a page that compares runs: tables, curves, errors, classes, pictures, configuration.

    The page needs no script, no network and no second file. The same runs give the same bytes. Where runs were
    scored on different images, with other ground truth or by other rules, the page says so before any figure, and
    marks no figure as the best.

    Parameters
    ----------
    runs
        Folders (or the ``metrics.json`` inside) that wsol-eval wrote, or of trained networks with their evaluation in
        them. ``predictions.csv`` and ``panels/examples.json`` beside it are used where they are.
    out
        HTML file to write; its folder is made when it is missing.
    title
        What the page is called; by default the names of the runs.
    introduction
        Plain text that stands above all figures. Paragraphs are separated by empty lines; a line that begins with
        ``# `` is a heading, alone.
    training
        Folders of wsol-train, whose losses and accuracies by epoch are drawn; where they did not learn from the same
        images, the page says so.

    Raises
    ------
    MetricsError, PredictionsError
        A file of a run is missing, damaged or of another schema.
    ValueError
        No run is given, the example pictures of a run are damaged, or a training run has no finished epoch or is there
        twice.
    """
    trained = dict(zip(distinct_names(training), training, strict=True))
    loaded = load_runs(runs)
    page = _page(loaded)
    page["warnings"] += other_training_images({name: read_finished(folder) or {} for name, folder in trained.items()})
    histories = [read_history(folder, name=name) for name, folder in trained.items()]
    context = {
        **page,
        "heading": title or f"Localization results: {', '.join(run.label for run in loaded)}",
        "introduction": _paragraphs(introduction),
        "training": [
            {"uri": data_uri(chart.svg, kind="svg+xml"), "alt": chart.alt}
            for chart in (training_charts(histories) if histories else ())
        ],
    }
    write_page(out, template=_TEMPLATE, context=context)


def _page(runs: list[LoadedRun]) -> dict[str, Any]:
    protocols = protocols_in_order([run.metrics for run in runs])
    comparable = same_images(runs)
    groups = [_group(runs, protocol=protocol, comparable=comparable) for protocol in protocols]
    used = [key for key in _COLUMNS if any(key in row["cells"] for group in groups for row in group["rows"])]
    return {
        "runs": [_run_summary(run) for run in runs],
        "warnings": comparison_warnings(runs),
        "comparable": comparable,
        "columns": [(key, _COLUMNS[key]) for key in used],
        "groups": groups,
        "marks_best": any(cell.is_best for group in groups for row in group["rows"] for cell in row["cells"].values()),
        "meanings": {metric.heading: metric.meaning for metric in METRICS.values()},
        "error_kinds": ERROR_KINDS,
        "pairs": [{"pair": pair, "difference": _difference(pair)} for pair in paired_counts(runs)],
        "classes": [table for run in runs for table in _class_tables(run)],
        "panels": picture_tables(runs),
        "settings": [
            ("Configuration", _setting_rows([run.metrics.config for run in runs])),
            ("Versions", _setting_rows([run.metrics.versions for run in runs])),
        ],
    }


def _paragraphs(text: str) -> list[tuple[bool, str]]:
    """Headings and paragraphs in order, each in one line, and whether it is a heading."""
    found: list[tuple[bool, str]] = []
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        is_heading = line.startswith("# ")
        if lines and (is_heading or not line.strip()):
            found.append((False, " ".join(" ".join(lines).split())))
            lines = []
        if is_heading:
            found.append((True, " ".join(line.removeprefix("# ").split())))
        elif line.strip():
            lines.append(line)
    return found


def _run_summary(run: LoadedRun) -> dict[str, Any]:
    counts = run.metrics.counts
    pixels = msgspec.to_builtins(run.metrics.pixels) or {}
    return {
        "label": run.label,
        "kind": run.metrics.kind,
        "boxes": "first box only" if run.metrics.config.get("boxes") == "first" else "all boxes",
        "asked": counts.asked,
        "scored": counts.scored,
        "failed": reasons(counts.failed),
        "skipped": reasons(counts.skipped),
        "notes": reasons(counts.notes),
        "classified": run.metrics.classification.images if run.metrics.classification else None,
        "pixels": [(name, texts[0]) for name, texts, _ in _setting_rows([pixels])],
    }


def _rows(runs: list[LoadedRun], *, protocol: str, comparable: bool) -> list[_Row]:
    """Results in the order of the runs, then the baselines, equal ones of several comparable runs as one.

    Where the classes that the runs predict give one baseline several Top-1 and Top-5 Loc, the row has neither.
    """
    rows: list[_Row] = []
    baselines: dict[Any, list[tuple[LoadedRun, Result]]] = {}
    for run in runs:
        for result, is_baseline in all_results(run):
            if result.protocol != protocol:
                continue
            if not is_baseline:
                rows.append(_Row(runs=(run,), result=result, is_baseline=False))
                continue
            # Equal figures on other images would be a coincidence, not the same baseline.
            owner = "" if comparable else run.label
            v2 = None if result.max_box_acc_v2 is None else result.max_box_acc_v2.rate
            key = (result.localizer, owner, result.gt_known_loc.rate, v2, result.threshold)
            baselines.setdefault(key, []).append((run, result))
    return [*rows, *(_shared_row(same) for same in baselines.values())]


def _shared_row(same: Sequence[tuple[LoadedRun, Result]]) -> _Row:
    """One row of results that have the same boxes, of which some may know predicted classes."""
    classified = {(result.top1_loc, result.top5_loc): result for _, result in same if result.top1_loc is not None}
    result = next(iter(classified.values()), same[0][1])
    if len(classified) > 1:
        result = msgspec.structs.replace(result, top1_loc=None, top5_loc=None, errors=None)
    return _Row(runs=tuple(run for run, _ in same), result=result, is_baseline=True)


def _group(runs: list[LoadedRun], *, protocol: str, comparable: bool) -> dict[str, Any]:
    rows = _rows(runs, protocol=protocol, comparable=comparable)
    rates = [_rates(row) for row in rows]
    best = {}
    ours = [cells for row, cells in zip(rows, rates, strict=True) if not row.is_baseline]
    if comparable and len(ours) > 1:
        for key in {key for cells in ours for key in cells}:
            found = [cells[key].rate for cells in ours if key in cells]
            # Where all are equal none is the best.
            best[key] = max((rate for rate in found if rate is not None), default=None) if len(set(found)) > 1 else None
    table = []
    for row, cells in zip(rows, rates, strict=True):
        shown = {
            key: _cell(rate, is_best=not row.is_baseline and rate.rate is not None and rate.rate == best.get(key))
            for key, rate in cells.items()
        }
        above = _over_baseline(row, rows)
        if above is not None:
            shown[_OVER_BASELINE] = _Cell(text=f"{100 * above[0]:+.2f}", note=f"over {above[1]}")
        table.append(
            {
                "localizer": row.result.localizer,
                "runs": [run.label for run in row.runs],
                "is_baseline": row.is_baseline,
                "cells": shown,
                "threshold": "" if row.result.threshold is None else f"{row.result.threshold:.3f}",
                "is_oracle": row.result.threshold_is_oracle,
                "images": row.result.gt_known_loc.images,
                "failed": [sum(run.metrics.counts.failed.values()) for run in row.runs],
                "skipped": [sum(run.metrics.counts.skipped.values()) for run in row.runs],
                "errors": row.result.errors,
                "name": row.name,
            }
        )
    return {
        "protocol": protocol,
        "rows": table,
        "rules": _rules(rows),
        "v2_names": sorted({row.result.max_box_acc_v2.name for row in rows if row.result.max_box_acc_v2}),
        "charts": _charts(rows, protocol=protocol),
    }


def _rules(rows: list[_Row]) -> dict[str, str]:
    """Rules of a protocol, then the views of each run that has some."""
    views = {
        f"views of {row.runs[0].label}": row.result.describe[VIEWS_RULE]
        for row in rows
        if VIEWS_RULE in row.result.describe
    }
    return {key: text for key, text in rows[0].result.describe.items() if key != VIEWS_RULE} | views


def _rates(row: _Row) -> dict[str, Rate]:
    classes = None if row.is_baseline else row.runs[0].metrics.classification
    rates = {metric.name: metric.read(row.result, classes) for metric in METRICS.values()}
    return {name: rate for name, rate in rates.items() if rate is not None}


def _over_baseline(row: _Row, rows: list[_Row]) -> tuple[float, str] | None:
    """GT-known Loc above the best baseline of the same run, as a fraction, and which one that is."""
    rate = row.result.gt_known_loc.rate
    if row.is_baseline or rate is None:
        return None
    baselines = {
        other.result.localizer: other.result.gt_known_loc.rate
        for other in rows
        if other.is_baseline and row.runs[0] in other.runs and other.result.gt_known_loc.rate is not None
    }
    if not baselines:
        return None
    best = max(baselines, key=lambda name: baselines[name])
    return rate - baselines[best], best


def _cell(rate: Rate, *, is_best: bool) -> _Cell:
    interval = "" if rate.interval is None else f"{100 * rate.interval[0]:.1f} to {100 * rate.interval[1]:.1f}"
    return _Cell(text=percent(rate.rate), note=interval, is_best=is_best)


def _charts(rows: list[_Row], *, protocol: str) -> list[dict[str, str]]:
    """Those charts of a protocol for which some row has what they show."""
    results = [NamedResult(name=row.name, result=row.result, is_baseline=row.is_baseline) for row in rows]
    charts = []
    for kind, title in CHART_TITLES.items():
        svg = result_chart(kind, results, protocol=protocol)
        if svg is not None:
            alt = f"{title}, {protocol}{_in_words(kind, rows)}."
            charts.append({"uri": data_uri(svg, kind="svg+xml"), "alt": alt})
    return charts


def _in_words(kind: str, rows: list[_Row]) -> str:
    """What a chart says, for readers who do not see it, from the punctuation on."""
    if kind == "errors":
        return "; the numbers stand in the table below"
    if kind == "overlaps":
        return ": share of images by IoU"
    best = [
        f"{row.name}: best {percent(max(row.result.curve.gt_known_50))} %"
        for row in rows
        if row.result.curve is not None
    ]
    return f". {'; '.join(best)}"


def _difference(pair: PairedCounts) -> str:
    if not pair.images:
        return "-"
    gained, half = pair.gained
    return f"{100 * gained:+.2f} ± {100 * half:.2f}"


def _class_tables(run: LoadedRun) -> list[dict[str, Any]]:
    """Classes of a run's results under the first of its protocols: further ones would repeat the order."""
    tables = []
    ours = [result for result, is_baseline in all_results(run) if not is_baseline and result.per_class]
    for result in ours:
        if result.protocol != ours[0].protocol:
            continue
        scored = [score for score in result.per_class if score.gt_known_loc is not None]
        ordered = sorted(scored, key=_class_order)
        name = f"{run.label}: {result.localizer} under {result.protocol}"
        if len(ordered) <= 2 * _CLASSES_SHOWN:
            tables.append({"caption": f"{name}, all {len(ordered)} classes, best first", "rows": _class_rows(ordered)})
            continue
        best, worst = ordered[:_CLASSES_SHOWN], ordered[: -_CLASSES_SHOWN - 1 : -1]
        tables.append({"caption": f"{name}, best of {len(ordered)} classes", "rows": _class_rows(best)})
        tables.append({"caption": f"{name}, worst of {len(ordered)} classes", "rows": _class_rows(worst)})
    return tables


def _class_order(score: ClassScore) -> tuple[float, int]:
    return -(score.gt_known_loc or 0.0), score.label


def _class_rows(scores: list[ClassScore]) -> list[tuple[str, ...]]:
    return [
        (
            score.wnid or str(score.label),
            str(score.images),
            *(percent(rate) for rate in (score.gt_known_loc, score.top1_loc, score.top1_class)),
        )
        for score in scores
    ]


def _setting_rows(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], bool]]:
    """Name, value in every run, and whether the runs differ, of nested settings spread out as ``a.b``."""
    spread = [dict(_spread(setting)) for setting in settings]
    names = sorted({name for setting in spread for name in setting})
    rows = []
    for name in names:
        texts = [setting.get(name, "-") for setting in spread]
        rows.append((name, texts, len(set(texts)) > 1))
    return rows


def _spread(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            pairs += _spread(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", _setting_text(value)))
    return pairs


def _setting_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_setting_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
