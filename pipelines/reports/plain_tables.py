"""The tables of a report without its page: Markdown and LaTeX to read, CSV to compute with."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from evaluation.metrics.registry import METRICS
from evaluation.protocols import protocol_title
from evaluation.results.predictions import decimal
from evaluation.results.tables import percent
from evaluation.schema import Rate, Result
from pipelines.reports.comparison import LoadedRun, threshold_choice

_LATEX_ESCAPES = {letter: rf"\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_NOTHING = "-"
_Cell: TypeAlias = tuple[str, bool]
"""A text, and whether it is the best of its column."""


def _markdown(page: Mapping[str, Any], runs: Sequence[LoadedRun]) -> str:
    """Warnings, images of every run, and a table for each protocol; the best rates are bold."""
    lines = [f"# {_in_markdown(page['title'])}", "", *(f"- {_in_markdown(one)}" for one in page["warnings"]), ""]
    for caption, headings, rows in _tables(page, runs, with_intervals=True):
        lines += [f"## {_in_markdown(caption)}", "", _markdown_row([(text, False) for text in headings])]
        lines += ["|---|---|" + "---:|" * (len(headings) - 2), *map(_markdown_row, rows), ""]
    return "\n".join(lines)


def _latex(page: Mapping[str, Any], runs: Sequence[LoadedRun]) -> str:
    """A table for each protocol, for the package booktabs; the best rates are bold, warnings are comments."""
    lines = [f"% {' '.join(text.split())}" for text in (page["title"], *page["warnings"], "Needs booktabs.")]
    for caption, headings, rows in _tables(page, runs, with_intervals=False):
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{_in_latex(caption)}}}"]
        lines += [rf"\begin{{tabular}}{{ll{'r' * (len(headings) - 2)}}}", r"\toprule"]
        lines += [_latex_row([(text, False) for text in headings]), r"\midrule", *map(_latex_row, rows)]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _csv(_page: Mapping[str, Any], runs: Sequence[LoadedRun]) -> str:
    """A row for each run, localizer and protocol, one for the run itself, and one for each PxAP, with intervals.

    Rates are fractions, as in ``metrics.json``.
    """
    content = io.StringIO()
    rates = [name for metric in METRICS for name in (metric, f"{metric}_low", f"{metric}_high")]
    fixed = ["run", "localizer", "protocol", "baseline", "threshold", "threshold_choice", "images", "failed", "skipped"]
    writer = csv.DictWriter(content, [*fixed, *rates, "px_ap"], restval="", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        metrics = run.metrics
        counts = {"run": run.label, "failed": sum(metrics.counts.failed.values())}
        counts["skipped"] = sum(metrics.counts.skipped.values())
        own: dict[str, object] = {**counts, "images": metrics.counts.scored}
        for name, rate in (("top1", "top1_class"), ("top5", "top5_class")) if metrics.classification else ():
            own |= _csv_rate(rate, getattr(metrics.classification, name))
        writer.writerow(own)
        if metrics.pixels is not None:
            for localizer, px_ap in metrics.pixels.px_ap.items():
                row = {"localizer": localizer, "images": metrics.pixels.images, "px_ap": decimal(px_ap)}
                writer.writerow({**counts, **row})
        for result, is_baseline in run.results:
            writer.writerow({**counts, **_csv_result(result, is_baseline=is_baseline)})
    return content.getvalue()


def _csv_result(result: Result, *, is_baseline: bool) -> dict[str, object]:
    values: dict[str, object] = {
        "localizer": result.localizer,
        "protocol": result.protocol,
        "baseline": "yes" if is_baseline else "no",
        "threshold": "" if result.threshold is None else decimal(result.threshold),
        "threshold_choice": threshold_choice(result) or "fixed",
        "images": result.gt_known_loc.images,
    }
    for metric in METRICS.values():
        values |= _csv_rate(metric.name, metric.read(result, None))
    return values


def _csv_rate(name: str, rate: Rate | None) -> dict[str, str]:
    if rate is None or rate.rate is None:
        return {}
    low, high = rate.interval or (None, None)
    named = {name: rate.rate, f"{name}_low": low, f"{name}_high": high}
    return {key: decimal(value) for key, value in named.items() if value is not None}


def _tables(
    page: Mapping[str, Any], runs: Sequence[LoadedRun], *, with_intervals: bool
) -> Iterator[tuple[str, list[str], list[list[_Cell]]]]:
    """Caption, headings and rows of every table."""

    def shown(cell: Mapping[str, Any] | None) -> _Cell:
        if cell is None:
            return _NOTHING, False
        return cell["text"] + (f" ({cell['note']})" if with_intervals and cell["note"] else ""), cell["is_best"]

    rows = []
    for summary, run in zip(page["runs"], runs, strict=True):
        texts = [summary["label"], f"wsol-eval {summary['kind']}", str(summary["asked"]), str(summary["scored"])]
        texts += [summary["failed"] or "none", summary["skipped"] or "none"]
        classes = [shown(cell) for cell in summary["classes"]] or [(_NOTHING, False)] * 2
        by_localizer = run.metrics.pixels.px_ap.items() if run.metrics.pixels else ()
        pixels = ", ".join(f"{name} {percent(px_ap)}" for name, px_ap in by_localizer) or _NOTHING
        rows.append([*((text, False) for text in texts), *classes, (pixels, False)])
    headings = ["run", "made by", "asked for", "scored", "of these failed", "skipped"]
    yield "Images", [*headings, METRICS["top1_class"].heading, METRICS["top5_class"].heading, "PxAP"], rows
    headings = ["localizer", "run", "threshold", *(" ".join(text.split()) for _, text in page["columns"]), "images"]
    for group in page["groups"]:
        rows = []
        for row in group["rows"]:
            run_name = "baseline" if row["is_baseline"] else row["runs"][0]
            threshold = f"{row['threshold']} {row['choice']}".strip()
            cells = [shown(row["cells"].get(key)) for key, _ in page["columns"]]
            texts = [row["localizer"], run_name, threshold]
            rows.append([*((text, False) for text in texts), *cells, (str(row["images"]), False)])
        yield f"Protocol {protocol_title(group['protocol'])}, rates in %", headings, rows


def _markdown_row(cells: Sequence[_Cell]) -> str:
    texts = [f"**{_in_markdown(text)}**" if is_best else _in_markdown(text) for text, is_best in cells]
    return f"| {' | '.join(texts)} |"


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\|<`*_])", r"\\\1", " ".join(text.split()))


def _latex_row(cells: Sequence[_Cell]) -> str:
    texts = [rf"\textbf{{{_in_latex(text)}}}" if is_best else _in_latex(text) for text, is_best in cells]
    return rf"{' & '.join(texts)} \\"


def _in_latex(text: str) -> str:
    return "".join(_LATEX_ESCAPES.get(letter, letter) for letter in " ".join(text.split()))


PLAIN_TABLES: Mapping[str, Callable[[Mapping[str, Any], Sequence[LoadedRun]], str]] = {
    ".md": _markdown,
    ".csv": _csv,
    ".tex": _latex,
}
"""By suffix of the file."""
