"""The three charts of a protocol's results: accuracy against threshold, overlaps, kinds of error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.drawing.charts import ChartForm, Line, error_chart, line_chart
from evaluation.protocols import protocol_title
from evaluation.schema import Curve, Histogram, Result

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
    if kind == "accuracy":
        curves = [_curve(named, named.result.curve) for named in results if named.result.curve is not None]
        if not curves:
            return None
        return line_chart(
            curves,
            title=title,
            x_label="threshold, as a fraction of the map's maximum",
            y_label=f"images localized at IoU {_COUNTED_IOU} (%)",
            dots="highest",
            form=form,
        )
    shares = [
        _at_least(named, named.result.iou_histogram) for named in results if named.result.iou_histogram is not None
    ]
    if not shares:
        return None
    return line_chart(
        shares,
        title=title,
        x_label="IoU",
        y_label="images with at least that IoU (%)",
        marked_x=_COUNTED_IOU,
        form=form,
    )


def _curve(named: NamedResult, curve: Curve) -> Line:
    percent_l = 100 * np.asarray(curve.gt_known_50)
    return Line(name=named.name, x_n=curve.thresholds, y_n=percent_l, is_baseline=named.is_baseline)


def _at_least(named: NamedResult, histogram: Histogram) -> Line:
    """Share of images whose overlap is at least that of each edge of a histogram."""
    counts = np.asarray(histogram.counts)
    at_least = np.append(counts[::-1].cumsum()[::-1], 0)
    percent_n = 100 * at_least / max(counts.sum(), 1)
    return Line(name=named.name, x_n=histogram.edges, y_n=percent_n, is_baseline=named.is_baseline)
