"""Report that compares evaluated runs: one HTML page, or its tables as Markdown, CSV or LaTeX, and charts as files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from evaluation.drawing.charts import ChartForm
from evaluation.drawing.result_charts import CHART_TITLES, result_chart
from evaluation.metrics.registry import METRICS
from evaluation.names import ERROR_KINDS
from evaluation.protocols import protocol_title
from evaluation.results.tables import percent, reasons
from evaluation.schema import Rate, protocols_in_order
from pipelines.reports.breakdowns import class_table, image_table
from pipelines.reports.comparison import (
    VIEWS_RULE,
    LoadedRun,
    PairedCounts,
    comparison_warnings,
    load_runs,
    paired_counts,
    same_images,
    threshold_choice,
)
from pipelines.reports.headline import headline, main_rows
from pipelines.reports.html_pages import Chart, setting_texts, svg_image, write_page
from pipelines.reports.pictures import picture_tables
from pipelines.reports.plain_tables import PLAIN_TABLES
from pipelines.reports.report_rows import ReportRow, best_baseline, points_against, report_rows
from pipelines.reports.trainings import distinct_names, other_training_images, read_history, training_charts
from pseudo_maps.files import write_atomically
from training.run_folder.files import read_finished

_AGAINST_BASELINE = "against_baseline"


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str | None = None,
    introduction: str = "",
    training: Sequence[Path] = (),
    charts: Path | None = None,
    chart_form: ChartForm = "pdf",
) -> list[str]:
    """Write what compares runs to ``out``, and return the reasons why they cannot be compared as they stand.

    A name that ends in ``.md``, ``.csv`` or ``.tex`` gives the tables alone, any other one an HTML page with tables,
    curves, errors, classes, pictures and configuration, which needs no network and no second file. The same
    runs give the same bytes. Where runs were scored on different images, with other ground truth or by other rules,
    page, Markdown and LaTeX say so before any result, and mark no result as the best.

    ``runs`` as in ``load_runs``. ``introduction`` is plain text above all results: empty lines separate paragraphs, and
    a line that begins with ``# `` is a heading. ``training`` are folders of wsol-train, whose losses and accuracies by
    epoch are drawn. ``charts`` is a folder that every chart is written to, as ``chart_form``.

    Errors as ``load_runs``; ValueError for a training run without finished epoch or given twice, and for an
    introduction or a training that nothing written would show.
    """
    plain = PLAIN_TABLES.get(out.suffix.lower())
    if plain and (introduction or (training and charts is None)):
        what = "an introduction" if introduction else "curves of trainings"
        raise ValueError(f"{out}: tables without {what}: give a name that ends in .html")
    trained = dict(zip(distinct_names(training), training, strict=True))
    loaded = load_runs(runs)
    page = _page(loaded)
    page["warnings"] += other_training_images({name: read_finished(folder) or {} for name, folder in trained.items()})
    histories = [read_history(folder, name=name) for name, folder in trained.items()]
    page["title"] = title or f"Localization results: {', '.join(run.label for run in loaded)}"
    if plain:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, plain(page, loaded).encode("utf-8", errors="replace"))
    else:
        shown = [svg_image(chart.content, alt=chart.alt) for chart in training_charts(histories)]
        context = {**page, "has_script": True, "introduction": _paragraphs(introduction), "training": shown}
        write_page(out, template="report.html.jinja", context=context)
    if charts is not None:
        charts.mkdir(parents=True, exist_ok=True)
        for chart in (*_all_charts(loaded, form=chart_form), *training_charts(histories, form=chart_form)):
            write_atomically(charts / f"{chart.name}.{chart_form}", chart.content)
    return list(page["warnings"])


def _all_charts(runs: list[LoadedRun], *, form: ChartForm) -> Iterator[Chart]:
    for protocol in protocols_in_order([run.metrics for run in runs]):
        yield from _charts(
            report_rows(runs, protocol=protocol, comparable=same_images(runs)), protocol=protocol, form=form
        )


def _page(runs: list[LoadedRun]) -> dict[str, Any]:
    protocols = protocols_in_order([run.metrics for run in runs])
    comparable = same_images(runs)
    rows = {protocol: report_rows(runs, protocol=protocol, comparable=comparable) for protocol in protocols}
    groups = [_group(rows[protocol], protocol=protocol, comparable=comparable) for protocol in protocols]
    pictures = picture_tables(runs)
    main = main_rows(rows[protocols[0]]) if protocols else []
    names = {label: name for run in reversed(runs) for label, name in run.class_names.items()}
    headings = {name: "\n".join(metric.heading.rsplit(" ", 1)) for name, metric in METRICS.items()}
    # After the metric that it is the difference of.
    first = next(iter(headings))
    headings = {first: headings[first], _AGAINST_BASELINE: "against\nbaseline", **headings}
    classified = any(run.metrics.classification for run in runs)
    used = {key for group in groups for row in group["rows"] for key in row["cells"]}
    return {
        "headline": headline(rows[protocols[0]], pictures) if comparable and protocols else None,
        "runs": [_run_summary(run) for run in runs],
        "warnings": comparison_warnings(runs),
        "class_headings": [METRICS[name].heading for name in ("top1_class", "top5_class")] if classified else [],
        "comparable": comparable,
        "columns": [(key, heading) for key, heading in headings.items() if key in used],
        "groups": groups,
        "marks_best": any(group["best"] for group in groups),
        "meanings": {metric.heading: metric.meaning for metric in METRICS.values()},
        "error_kinds": ERROR_KINDS,
        "pairs": [{"pair": pair, "difference": _difference(pair)} for pair in paired_counts(runs)],
        "classes": class_table(main, names) if comparable else None,
        "images": image_table(main, names) if comparable and main else None,
        "panels": pictures,
        "settings": [
            ("Configuration", _setting_rows([run.metrics.config for run in runs])),
            ("Versions", _setting_rows([run.metrics.versions for run in runs])),
        ],
    }


def _paragraphs(text: str) -> list[tuple[bool, str]]:
    """Headings and paragraphs in order, each in one line, and whether it is a heading."""
    spaced = re.sub(r"(?m)^# .*$", r"\n\g<0>\n", text)
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", spaced)]
    return [(block.startswith("# "), block.removeprefix("# ")) for block in blocks if block]


def _run_summary(run: LoadedRun) -> dict[str, Any]:
    counts, classes = run.metrics.counts, run.metrics.classification
    return {
        "label": run.label,
        "kind": run.metrics.kind,
        "boxes": "first box only" if run.metrics.config.get("boxes") == "first" else "all boxes",
        "asked": counts.asked,
        "scored": counts.scored,
        "failed": reasons(counts.failed),
        "skipped": reasons(counts.skipped),
        "notes": reasons(counts.notes),
        "classified": classes.images if classes else None,
        "classes": [_cell(rate, best=None) for rate in (classes.top1, classes.top5)] if classes else [],
        "pixels": setting_texts(msgspec.to_builtins(run.metrics.pixels) or {}),
    }


def _group(rows: list[ReportRow], *, protocol: str, comparable: bool) -> dict[str, Any]:
    rates = [_rates(row) for row in rows]
    best = _best([cells for row, cells in zip(rows, rates, strict=True) if not row.is_baseline]) if comparable else {}
    table = []
    for row, cells in zip(rows, rates, strict=True):
        shown = {key: _cell(rate, best=None if row.is_baseline else best.get(key)) for key, rate in cells.items()}
        table.append(
            {
                "localizer": row.result.localizer,
                "runs": [run.label for run in row.runs],
                "is_baseline": row.is_baseline,
                "cells": shown | _against_baseline(row, rows),
                "threshold": "" if row.result.threshold is None else f"{row.result.threshold:.3f}",
                "choice": threshold_choice(row.result),
                "images": row.result.gt_known_loc.images,
                "failed": [sum(run.metrics.counts.failed.values()) for run in row.runs],
                "skipped": [sum(run.metrics.counts.skipped.values()) for run in row.runs],
                "errors": row.result.errors,
                "name": row.name,
            }
        )
    return {
        "protocol": protocol,
        "best": best,
        "rows": table,
        "rules": _rules(rows),
        "v2_names": sorted({row.result.max_box_acc_v2.name for row in rows if row.result.max_box_acc_v2}),
        "charts": [svg_image(chart.content, alt=chart.alt) for chart in _charts(rows, protocol=protocol)],
    }


def _best(ours: Sequence[Mapping[str, Rate]]) -> dict[str, float]:
    """Highest rate of each metric; where all are equal none is the best."""
    found: dict[str, set[float]] = {}
    for cells in ours:
        for key, rate in cells.items():
            if rate.rate is not None:
                found.setdefault(key, set()).add(rate.rate)
    return {key: max(rates) for key, rates in found.items() if len(rates) > 1}


def _rules(rows: list[ReportRow]) -> dict[str, str]:
    """Rules of a protocol, then the views of each run that has some."""
    views = {
        f"views of {row.runs[0].label}": row.result.describe[VIEWS_RULE]
        for row in rows
        if VIEWS_RULE in row.result.describe
    }
    return {key: text for key, text in rows[0].result.describe.items() if key != VIEWS_RULE} | views


def _rates(row: ReportRow) -> dict[str, Rate]:
    classes = None if row.is_baseline else row.runs[0].metrics.classification
    rates = {metric.name: metric.read(row.result, classes) for metric in METRICS.values()}
    return {name: rate for name, rate in rates.items() if rate is not None}


def _against_baseline(row: ReportRow, rows: list[ReportRow]) -> dict[str, dict[str, Any]]:
    """GT-known Loc against the best baseline of the same run, where it has one."""
    baseline = best_baseline(rows, of=row)
    if row.is_baseline or row.rate is None or baseline is None:
        return {}
    text = points_against(row, baseline)
    return {_AGAINST_BASELINE: {"text": text, "note": baseline.result.localizer, "is_best": False}}


def _cell(rate: Rate, *, best: float | None) -> dict[str, Any]:
    interval = "" if rate.interval is None else f"{100 * rate.interval[0]:.1f} to {100 * rate.interval[1]:.1f}"
    return {"text": percent(rate.rate), "note": interval, "is_best": rate.rate is not None and rate.rate == best}


def _charts(rows: list[ReportRow], *, protocol: str, form: ChartForm = "page") -> list[Chart]:
    """Those charts of a protocol for which some row has what they show."""
    title = protocol_title(protocol)
    drawn = {kind: result_chart(kind, rows, protocol=protocol, form=form) for kind in CHART_TITLES}
    return [
        Chart(
            f"{protocol}-{kind}",
            content,
            f"{CHART_TITLES[kind]}, protocol {title}{_chart_text(kind, rows)}.",
        )
        for kind, content in drawn.items()
        if content is not None
    ]


def _chart_text(kind: str, rows: list[ReportRow]) -> str:
    """What a chart shows, for readers who do not see it, from the punctuation on."""
    if kind == "errors":
        return "; the counts are in the table below"
    if kind == "overlaps":
        return ": share of images with at least that IoU"
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


def _setting_rows(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], bool]]:
    """Name, value in every run, and whether runs that have the setting differ."""
    by_run = [setting_texts(setting) for setting in settings]
    rows = []
    for name in sorted(set().union(*by_run)):
        texts = [setting.get(name, "-") for setting in by_run]
        rows.append((name, texts, len({setting[name] for setting in by_run if name in setting}) > 1))
    return rows
