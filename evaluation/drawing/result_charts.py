"""The three charts of a protocol's results: accuracy against threshold, overlaps, kinds of error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.drawing.charts import ChartForm, Line, error_chart, line_chart
from evaluation.protocols import protocol_title
from evaluation.schema import Result

CHART_TITLES = {
    "accuracy": "Accuracy against threshold",
    "overlaps": "Overlap of the boxes",
    "errors": "Kinds of error",
}
"""Titles of the charts by their names, in the order in which they are shown."""
_COUNTED_IOU = 0.5
"""A box counts as right from this overlap on (ILSVRC)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedResult:
    """A result as a chart shows it."""

    name: str
    """Its name in the legend."""
    result: Result
    is_baseline: bool


def result_chart(kind: str, results: Sequence[NamedResult], *, protocol: str, form: ChartForm = "page") -> bytes | None:
    """The chart ``kind`` of ``CHART_TITLES`` of a protocol's results; None where none of them has what it shows."""
    title = f"{CHART_TITLES[kind]}\nprotocol {protocol_title(protocol)}"
    if kind == "errors":
        bars = [(named.name, named.result.errors) for named in results if named.result.errors is not None]
        return error_chart(bars, title=title, form=form) if bars else None
    drawn = [(_curve if kind == "accuracy" else _at_least)(named) for named in results]
    lines = [line for line in drawn if line is not None]
    if not lines:
        return None
    if kind == "accuracy":
        x_label = "threshold, as a fraction of the map's maximum"
        y_label = f"images localized at IoU {_COUNTED_IOU} (%)"
        return line_chart(lines, title=title, x_label=x_label, y_label=y_label, dots="highest", form=form)
    y_label = "images with at least that IoU (%)"
    return line_chart(lines, title=title, x_label="IoU", y_label=y_label, marked_x=_COUNTED_IOU, form=form)


def _curve(named: NamedResult) -> Line | None:
    curve = named.result.curve
    if curve is None:
        return None
    percent_l = 100 * np.asarray(curve.gt_known_50)
    return Line(name=named.name, x_n=curve.thresholds, y_n=percent_l, is_baseline=named.is_baseline)


def _at_least(named: NamedResult) -> Line | None:
    """Share of images whose overlap is at least that of each edge of the histogram."""
    histogram = named.result.iou_histogram
    if histogram is None:
        return None
    counts = np.asarray(histogram.counts)
    at_least = np.append(counts[::-1].cumsum()[::-1], 0)
    percent_n = 100 * at_least / max(counts.sum(), 1)
    return Line(name=named.name, x_n=histogram.edges, y_n=percent_n, is_baseline=named.is_baseline)
