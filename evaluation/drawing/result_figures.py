"""Turns the results of a protocol into its three figures: accuracy against threshold, overlaps, kinds of error."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.drawing.charts import (
    LIGHT,
    AccuracyCurve,
    ChartTheme,
    ErrorCounts,
    FileFormat,
    OverlapHistogram,
    accuracy_chart,
    error_chart,
    overlap_chart,
)
from evaluation.results.schema import Metrics, Result
from evaluation.results.tables import protocols_in_order
from pseudo_maps.files import write_atomically

__all__ = ["FIGURE_TITLES", "NamedResult", "result_figure", "write_figures"]

FIGURE_TITLES = {
    "accuracy": "Accuracy against threshold",
    "overlaps": "Overlap of the boxes",
    "errors": "Kinds of error",
}
"""The figures by the word that stands for each, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedResult:
    """A result as a figure shows it."""

    name: str
    """What the legend calls it."""
    result: Result
    """Its figures."""
    is_baseline: bool
    """Whether it never looks at the image."""


def result_figure(
    kind: str,
    results: Sequence[NamedResult],
    *,
    protocol: str,
    theme: ChartTheme = LIGHT,
    file_format: FileFormat = "svg",
) -> bytes | None:
    """One figure of the results of a protocol; None where none of them has what it shows.

    Parameters
    ----------
    kind
        A key of ``FIGURE_TITLES``.
    results
        Those of the protocol, in the order of the legend.
    protocol
        Its name, for the title.
    theme, file_format
        As the charts of ``evaluation.drawing.charts`` take them. The same results give the same bytes.

    Raises
    ------
    KeyError
        There is no such figure.
    """
    title = f"{FIGURE_TITLES[kind]}, {protocol}"
    if kind == "accuracy":
        curves = [
            AccuracyCurve(
                name=named.name,
                thresholds_l=named.result.curve.thresholds,
                accuracy_l=named.result.curve.gt_known["0.5"],
                is_baseline=named.is_baseline,
            )
            for named in results
            if named.result.curve is not None
        ]
        return accuracy_chart(curves, title=title, theme=theme, file_format=file_format) if curves else None
    if kind == "overlaps":
        histograms = [
            OverlapHistogram(
                name=named.name,
                edges=named.result.iou_histogram.edges,
                counts_n=named.result.iou_histogram.counts,
                is_baseline=named.is_baseline,
            )
            for named in results
            if named.result.iou_histogram is not None
        ]
        return overlap_chart(histograms, title=title, theme=theme, file_format=file_format) if histograms else None
    bars = [
        ErrorCounts(name=named.name, counts=named.result.errors) for named in results if named.result.errors is not None
    ]
    return error_chart(bars, title=title, theme=theme, file_format=file_format) if bars else None


def write_figures(metrics: Metrics, folder: Path) -> None:
    """Draw every figure of every protocol as ``<figure>-<protocol>.png``, results first, then baselines.

    Parameters
    ----------
    metrics
        The results of one evaluation.
    folder
        Where the files go; it is made when it is missing. Files of the same names are replaced.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = [NamedResult(name=one.localizer, result=one, is_baseline=False) for one in metrics.results]
    theirs = [
        NamedResult(name=f"{one.localizer} (baseline)", result=one, is_baseline=True) for one in metrics.baselines
    ]
    for protocol in protocols_in_order([metrics]):
        of_protocol = [named for named in (*ours, *theirs) if named.result.protocol == protocol]
        for kind in FIGURE_TITLES:
            png = result_figure(kind, of_protocol, protocol=protocol, file_format="png")
            if png is not None:
                write_atomically(folder / f"{kind}-{protocol}.png", png)
