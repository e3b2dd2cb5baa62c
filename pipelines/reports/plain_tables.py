"""The tables of a report without its page: Markdown and LaTeX to read, CSV to compute with."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

from evaluation.metrics.registry import METRICS
from evaluation.results.predictions import decimal
from evaluation.schema import Rate, Result
from pipelines.reports.comparison import LoadedRun, threshold_choice
from pipelines.reports.html_pages import Cell, Table

_LATEX_ESCAPES = {letter: rf"\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def markdown_table(table: Table, *, small_print: bool = True) -> str:
    """A table in Markdown, the best cells bold; small print of the first column, or of all, in brackets."""
    lines = [[Cell(text) for text in table.headings], *(row.cells for row in table.rows)]
    rows = [_texts(cells, escaped=_in_markdown, bold="**%s**", small_print=small_print) for cells in lines]
    rows.insert(1, ["---:" if letter == "r" else "---" for letter in table.align])
    return "".join(f"| {' | '.join(texts)} |\n" for texts in rows)


def _markdown(title: str, warnings: Sequence[str], tables: Sequence[Table], _runs: Sequence[LoadedRun]) -> str:
    lines = [f"# {_in_markdown(title)}", "", *(f"- {_in_markdown(one)}" for one in warnings), ""]
    for table in tables:
        lines += [f"## {_in_markdown(table.caption)}", "", markdown_table(table)]
    return "\n".join(lines)


def _latex(title: str, warnings: Sequence[str], tables: Sequence[Table], _runs: Sequence[LoadedRun]) -> str:
    """Tables for the package booktabs without intervals; the best rates are bold, warnings are comments."""
    lines = [f"% {' '.join(text.split())}" for text in (title, *warnings, "Needs booktabs.")]
    for table in tables:
        cells = [[Cell(text) for text in table.headings], *(row.cells for row in table.rows)]
        rows = [_texts(of_row, escaped=_in_latex, bold=r"\textbf{%s}", small_print=False) for of_row in cells]
        heading, *others = (rf"{' & '.join(texts)} \\" for texts in rows)
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{_in_latex(table.caption)}}}"]
        lines += [rf"\begin{{tabular}}{{{table.align}}}", r"\toprule", heading, r"\midrule", *others]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _texts(cells: Sequence[Cell], *, escaped: Callable[[str], str], bold: str, small_print: bool) -> list[str]:
    texts = []
    for place, cell in enumerate(cells):
        text = escaped(f"{cell.text} ({cell.note})" if cell.note and (small_print or not place) else cell.text)
        texts.append(bold % text if cell.is_best else text)
    return texts


def _csv(_title: str, _warnings: Sequence[str], _tables: Sequence[Table], runs: Sequence[LoadedRun]) -> str:
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


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\|<`*_])", r"\\\1", " ".join(text.split()))


def _in_latex(text: str) -> str:
    return "".join(_LATEX_ESCAPES.get(letter, letter) for letter in " ".join(text.split()))


PLAIN_TABLES: Mapping[str, Callable[[str, Sequence[str], Sequence[Table], Sequence[LoadedRun]], str]]
PLAIN_TABLES = {".md": _markdown, ".csv": _csv, ".tex": _latex}
"""By suffix a file's text from a title, warnings, tables and the runs that they are made of."""
