"""Report that compares evaluated runs: one HTML page, or its tables as Markdown, CSV or LaTeX, and charts as files."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from evaluation.drawing.charts import ChartForm
from evaluation.drawing.result_charts import CHART_TITLES, result_chart
from evaluation.metrics.pixels import PIXEL_BASELINE
from evaluation.metrics.registry import METRICS
from evaluation.names import ERROR_KINDS
from evaluation.protocols import protocol_title
from evaluation.results.tables import percent, reasons
from evaluation.schema import Rate, protocols_in_order
from pipelines.reports.breakdowns import class_table, image_table
from pipelines.reports.comparison import (
    VIEWS_RULE,
    LoadedRun,
    comparison_warnings,
    load_runs,
    paired_counts,
    same_images,
    threshold_choice,
)
from pipelines.reports.headline import headline, main_rows
from pipelines.reports.html_pages import Cell, Chart, Table, rate_cell, row_of, setting_texts, write_page
from pipelines.reports.pictures import picture_tables
from pipelines.reports.plain_tables import PLAIN_TABLES
from pipelines.reports.report_rows import SOURCE, ReportRow, best_baseline, points_against, report_rows
from pipelines.reports.trainings import distinct_names, other_training_images, read_history, training_charts
from pseudo_maps.files import write_atomically
from training.run_folder.files import read_finished


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
    comparable = same_images(loaded)
    rows = {
        protocol: report_rows(loaded, protocol=protocol, comparable=comparable)
        for protocol in protocols_in_order([run.metrics for run in loaded])
    }
    warnings = comparison_warnings(loaded)
    warnings += other_training_images({name: read_finished(folder) or {} for name, folder in trained.items()})
    histories = {name: read_history(folder) for name, folder in trained.items()}
    title = title or f"Localization results: {', '.join(run.label for run in loaded)}"
    results = [_results_table(rows[protocol], protocol, runs=len(loaded), comparable=comparable) for protocol in rows]
    if plain:
        out.parent.mkdir(parents=True, exist_ok=True)
        tables = [_images_table(loaded), *results, *_pixel_tables(loaded)]
        write_atomically(out, plain(title, warnings, tables, loaded).encode("utf-8", errors="replace"))
    else:
        context = {
            "has_script": True,
            "title": title,
            "warnings": warnings,
            "comparable": comparable,
            "introduction": _paragraphs(introduction),
            "results": results,
            "marks_best": any(cell.is_best for table in results for row in table.rows for cell in row.cells),
            "training": training_charts(histories),
            **_page(loaded, rows, comparable=comparable),
        }
        write_page(out, template="report.html.jinja", context=context)
    if charts is not None:
        charts.mkdir(parents=True, exist_ok=True)
        by_protocol = [_charts(of_protocol, protocol, form=chart_form) for protocol, of_protocol in rows.items()]
        for chart in (*chain(*by_protocol), *training_charts(histories, form=chart_form)):
            write_atomically(charts / f"{chart.name}.{chart_form}", chart.content)
    return warnings


def _page(runs: list[LoadedRun], rows: Mapping[str, list[ReportRow]], *, comparable: bool) -> dict[str, Any]:
    pictures = picture_tables(runs)
    first = next(iter(rows.values()), [])
    main = main_rows(first) if comparable else []
    names = {label: name for run in reversed(runs) for label, name in run.class_names.items()}
    return {
        "headline": headline(first, pictures) if comparable else None,
        "meanings": {metric.heading: metric.meaning for metric in METRICS.values()},
        "counted": _images_table(runs),
        "pairs": _pairs_table(runs),
        "panels": pictures,
        "protocols": [_protocol_part(of_protocol, protocol) for protocol, of_protocol in rows.items()],
        "pixels": _pixel_tables(runs),
        "classified": any(run.metrics.classification for run in runs),
        "classes": class_table(main, names),
        "error_kinds": ERROR_KINDS,
        "images": image_table(main, names),
        "settings": [
            _settings_table("Configuration", {run.label: run.metrics.config for run in runs}),
            _settings_table("Versions", {run.label: run.metrics.versions for run in runs}),
        ],
    }


def _paragraphs(text: str) -> list[tuple[bool, str]]:
    """Headings and paragraphs in order, each in one line, and whether it is a heading."""
    spaced = re.sub(r"(?m)^# .*$", r"\n\g<0>\n", text)
    blocks = [" ".join(block.split()) for block in re.split(r"\n\s*\n", spaced)]
    return [(block.startswith("# "), block.removeprefix("# ")) for block in blocks if block]


def _results_table(rows: list[ReportRow], protocol: str, *, runs: int, comparable: bool) -> Table:
    """Every result under a protocol with those metrics that some of them has; the highest rates are the best."""
    rates = [_rates(row) for row in rows]
    best = _best([of_row for row, of_row in zip(rows, rates, strict=True) if comparable and not row.is_baseline])
    first, *others = (name for name in METRICS if any(name in of_row for of_row in rates))
    lines = []
    for row, of_row in zip(rows, rates, strict=True):
        labels = [run.label for run in row.runs]
        source = Cell("baseline", ", ".join(labels) if len(labels) < runs else "") if row.is_baseline else labels[0]
        threshold = "-" if row.result.threshold is None else f"{row.result.threshold:.3f}"
        own_best = {} if row.is_baseline else best
        cells = {name: rate_cell(rate, best=own_best.get(name)) for name, rate in of_row.items()}
        lines.append(
            row_of(
                source,
                row.result.localizer,
                f"{threshold} {threshold_choice(row.result)}".strip(),
                cells[first],
                _against_baseline(row, rows),
                *(cells.get(name, "-") for name in others),
                Cell(str(row.result.gt_known_loc.images), _lost_images(row)),
                kind="baseline" if row.is_baseline else "",
            )
        )
    headings = [METRICS[first].heading, "against baseline", *(METRICS[name].heading for name in others), "images"]
    return Table(
        f"Protocol {protocol_title(protocol)}, rates in %",
        "lll" + "r" * len(headings),
        [SOURCE, "localizer", "threshold", *headings],
        lines,
    )


def _rates(row: ReportRow) -> dict[str, Rate]:
    classes = None if row.is_baseline else row.runs[0].metrics.classification
    rates = {metric.name: metric.read(row.result, classes) for metric in METRICS.values()}
    return {name: rate for name, rate in rates.items() if rate is not None}


def _against_baseline(row: ReportRow, rows: list[ReportRow]) -> Cell:
    """GT-known Loc against the best baseline of the same run, where it has one."""
    baseline = best_baseline(rows, of=row)
    if row.is_baseline or row.rate is None or baseline is None:
        return Cell("-")
    return Cell(points_against(row, baseline), baseline.result.localizer)


def _lost_images(row: ReportRow) -> str:
    """How many images failed or were skipped; several numbers where the runs that share a baseline differ."""
    texts = []
    for what in ("failed", "skipped"):
        numbers = dict.fromkeys(sum(getattr(run.metrics.counts, what).values()) for run in row.runs)
        texts += [f"{'/'.join(map(str, numbers))} {what}"] if any(numbers) else []
    return ", ".join(texts)


def _best(ours: Sequence[Mapping[str, Rate]]) -> dict[str, float]:
    """Highest rate of each metric; where all are equal none is the best."""
    rates = {name: {cells[name].rate or 0.0 for cells in ours if name in cells} for name in METRICS}
    return {name: max(found) for name, found in rates.items() if len(found) > 1}


def _images_table(runs: Sequence[LoadedRun]) -> Table:
    """What became of the images of each run, and how many were classified, where some were."""
    has_classes = any(run.metrics.classification for run in runs)
    lines = []
    for run in runs:
        counts, classes = run.metrics.counts, run.metrics.classification
        classified = [classes.images, rate_cell(classes.top1), rate_cell(classes.top5)] if classes else ["-"] * 3
        lines.append(
            row_of(
                run.label,
                f"wsol-eval {run.metrics.kind}",
                counts.asked,
                counts.scored,
                *(reasons(found) or "none" for found in (counts.failed, counts.skipped, counts.notes)),
                "first box only" if run.metrics.config.get("boxes") == "first" else "all boxes",
                *(classified if has_classes else ()),
            )
        )
    headings = [SOURCE, "made by", "asked for", "scored", "of these failed", "skipped", "remarks", "ground truth"]
    rates = ["classified", METRICS["top1_class"].heading, METRICS["top5_class"].heading] if has_classes else []
    return Table("Images", "llrrllll" + "r" * len(rates), [*headings, *rates], lines)


def _pairs_table(runs: Sequence[LoadedRun]) -> Table:
    """Every run against the first, image by image."""
    lines = [
        row_of(
            *(pair.first, pair.other, pair.localizer, protocol_title(pair.protocol)),
            *(pair.both, pair.only_first, pair.only_other, pair.neither, pair.gained_text),
        )
        for pair in paired_counts(runs)
    ]
    headings = ["first", "other", "localizer", "protocol", "both", "first only", "other only", "neither"]
    return Table("Image by image", "llllrrrrr", [*headings, "other minus first"], lines)


def _pixel_tables(runs: Sequence[LoadedRun]) -> list[Table]:
    """PxAP of every localizer and of the baseline, where some run scored masks; at most one table."""
    lines = []
    for run in runs:
        pixels = run.metrics.pixels
        if pixels is None:
            continue
        counts = (pixels.images, pixels.failed, pixels.object_pixels, pixels.background_pixels, pixels.ignored_pixels)
        lines += [row_of(run.label, name, percent(px_ap), *counts) for name, px_ap in pixels.px_ap.items()]
        baseline = percent(pixels.centred_gaussian_px_ap)
        lines.append(row_of(Cell("baseline", run.label), PIXEL_BASELINE, baseline, *counts, kind="baseline"))
    headings = ["PxAP", "masks", "without a map", "object pixels", "background pixels", "ignored pixels"]
    return [Table("Pixels, PxAP in %", "llrrrrrr", [SOURCE, "localizer", *headings], lines)] if lines else []


def _settings_table(caption: str, by_run: Mapping[str, Mapping[str, Any]]) -> Table:
    """Every setting of every run; where runs that have it differ, its row is of the kind ``differs``."""
    texts = [setting_texts(settings) for settings in by_run.values()]
    lines = []
    for name in sorted(set().union(*texts)):
        differs = len({setting[name] for setting in texts if name in setting}) > 1
        verdict = [] if len(texts) == 1 else ["differs" if differs else "same"]
        shown = [setting.get(name, "-") for setting in texts]
        lines.append(row_of(name, *shown, *verdict, kind="differs" if differs else ""))
    headings = ["name", *by_run, *(["same?"] if len(texts) > 1 else [])]
    return Table(caption, "l" * len(headings), headings, lines)


def _protocol_part(rows: list[ReportRow], protocol: str) -> dict[str, Any]:
    """Rules, charts and kinds of error of a protocol."""
    errors = [
        row_of(row.name, *(row.result.errors.get(kind, 0) for kind in ERROR_KINDS))
        for row in rows
        if row.result.errors is not None
    ]
    caption = f"Kinds of error under {protocol_title(protocol)}"
    return {
        "protocol": protocol,
        "rules": _rules(rows),
        "charts": _charts(rows, protocol),
        "errors": Table(caption, "l" + "r" * len(ERROR_KINDS), ["localizer", *ERROR_KINDS], errors),
    }


def _rules(rows: list[ReportRow]) -> dict[str, str]:
    """Rules of a protocol, then the views of each run that has some."""
    views = {
        f"views of {row.runs[0].label}": row.result.describe[VIEWS_RULE]
        for row in rows
        if VIEWS_RULE in row.result.describe
    }
    return {key: text for key, text in rows[0].result.describe.items() if key != VIEWS_RULE} | views


def _charts(rows: list[ReportRow], protocol: str, *, form: ChartForm = "page") -> list[Chart]:
    """Those charts of a protocol for which some row has what they show."""
    curves = {row.name: row.result.curve.gt_known_50 for row in rows if row.result.curve is not None}
    best = "; ".join(f"{name}: best {percent(max(rates))} %" for name, rates in curves.items())
    texts = {
        "accuracy": f". {best}",
        "overlaps": ": share of images with at least that IoU",
        "errors": "; the counts are in the table below",
    }
    drawn = {kind: result_chart(kind, rows, protocol=protocol, form=form) for kind in CHART_TITLES}
    return [
        Chart(f"{protocol}-{kind}", content, f"{CHART_TITLES[kind]}, protocol {protocol_title(protocol)}{texts[kind]}.")
        for kind, content in drawn.items()
        if content is not None
    ]
