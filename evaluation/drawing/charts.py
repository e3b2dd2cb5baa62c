"""Turns curves, histograms, error counts and training histories into charts, as SVG text or PNG bytes.

Legend: L threshold levels, N intervals of a histogram. Accuracies come as fractions and are drawn as percentages.

Every chart is drawn for the width of a phone and grows well: 4.8 inches wide with 10 point text, the legend below.
The same input gives the same bytes: no date, no program name, no settings of the user's own matplotlibrc.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from evaluation.drawing.chart_style import (
    DARK,
    LIGHT,
    ChartTheme,
    FileFormat,
    add_legend,
    drawing,
    encoded,
    line_legend,
    line_styles,
    new_figure,
    shortened,
)
from evaluation.metrics.errors import ERROR_KINDS

__all__ = [
    "DARK",
    "LIGHT",
    "AccuracyCurve",
    "ChartTheme",
    "ErrorCounts",
    "FileFormat",
    "HistoryLine",
    "OverlapHistogram",
    "SeedDots",
    "accuracy_chart",
    "error_chart",
    "history_chart",
    "overlap_chart",
    "seed_chart",
]

_WANTED_IOU = 0.5
"""From here on a box counts as right (ILSVRC)."""
_MARKED_SHARE = 0.08
"""Smallest share of a bar that its percentage fits into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyCurve:
    """Share of images localized against the threshold."""

    name: str
    """What the legend calls it."""
    thresholds_l: npt.ArrayLike
    """(L,) fractions of a map's maximum, rising."""
    accuracy_l: npt.ArrayLike
    """(L,) fractions of images, 0 to 1."""
    is_baseline: bool = False
    """Drawn dashed and grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapHistogram:
    """Images by the overlap of their box with the ground truth."""

    name: str
    """What the legend calls it."""
    edges: npt.ArrayLike
    """(N + 1,) rising IoU values."""
    counts_n: npt.ArrayLike
    """(N,) images in each interval."""
    is_baseline: bool = False
    """Drawn dashed and grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCounts:
    """Images by word of the error taxonomy."""

    name: str
    """Text above the bar."""
    counts: Mapping[str, int]
    """Images by word; a word that is missing counts 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDots:
    """One figure of a method in every seed."""

    name: str
    """Text above the dots."""
    values_n: Sequence[float]
    """(n,) fractions, 0 to 1, at least one."""
    is_baseline: bool = False
    """Drawn grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """A number of a training run after every epoch."""

    name: str
    """What the legend calls it."""
    epochs_n: Sequence[float]
    """(N,) epochs, rising."""
    values_n: Sequence[float]
    """(N,) values; NaN leaves a gap."""


def accuracy_chart(
    curves: Sequence[AccuracyCurve], *, title: str, theme: ChartTheme = LIGHT, file_format: FileFormat = "svg"
) -> bytes:
    """Accuracy against threshold of several results, with a dot where each is best.

    Raises
    ------
    ValueError
        There is no curve, or one has other than L >= 1 thresholds and L accuracies.
    """
    _need(curves, "curve")
    with drawing():
        figure, axes = new_figure(theme=theme, title=title, legend_lines=len(curves))
        for curve, style in zip(curves, line_styles([curve.is_baseline for curve in curves], theme=theme), strict=True):
            thresholds_l, accuracy_l = _points(
                curve.thresholds_l, curve.accuracy_l, name=curve.name, of_x="thresholds", of_y="accuracies"
            )
            percent_l = 100 * accuracy_l
            axes.plot(thresholds_l, percent_l, **style)
            best = int(percent_l.argmax())
            axes.plot(thresholds_l[best], percent_l[best], marker="o", markersize=5, color=style["color"])
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("threshold, as a fraction of the map's maximum")
        axes.set_ylabel("images localized at IoU 0.5 (%)")
        line_legend(figure, [(curve.name, curve.is_baseline) for curve in curves], theme=theme)
        return encoded(figure, file_format=file_format)


def overlap_chart(
    histograms: Sequence[OverlapHistogram], *, title: str, theme: ChartTheme = LIGHT, file_format: FileFormat = "svg"
) -> bytes:
    """Share of images by the overlap of their box, as outlines over each other; a line stands at IoU .5.

    Raises
    ------
    ValueError
        There is no histogram, or one has other than N >= 1 counts and N + 1 edges.
    """
    _need(histograms, "histogram")
    with drawing():
        figure, axes = new_figure(theme=theme, title=title, legend_lines=len(histograms))
        axes.axvline(_WANTED_IOU, color=theme.ink, linewidth=0.8)
        styles = line_styles([histogram.is_baseline for histogram in histograms], theme=theme)
        for histogram, style in zip(histograms, styles, strict=True):
            edges = np.asarray(histogram.edges, dtype=np.float64)
            counts_n = np.asarray(histogram.counts_n, dtype=np.float64)
            if counts_n.ndim != 1 or not len(counts_n) or edges.shape != (len(counts_n) + 1,):
                raise ValueError(
                    f"{histogram.name}: expected N >= 1 counts and N + 1 edges, "
                    f"found {counts_n.shape} and {edges.shape}"
                )
            percent_n = 100 * counts_n / max(counts_n.sum(), 1)
            axes.stairs(percent_n, edges, **style)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("IoU of the box; right of the line it counts")
        axes.set_ylabel("images (%)")
        line_legend(figure, [(histogram.name, histogram.is_baseline) for histogram in histograms], theme=theme)
        return encoded(figure, file_format=file_format)


def history_chart(
    lines: Sequence[HistoryLine],
    *,
    title: str,
    values: str,
    theme: ChartTheme = LIGHT,
    file_format: FileFormat = "svg",
) -> bytes:
    """Numbers of one or several training runs by epoch; ``values`` names them at the vertical axis.

    Raises
    ------
    ValueError
        There is no line, or one has other than N >= 1 epochs and N values.
    """
    _need(lines, "line")
    with drawing():
        figure, axes = new_figure(theme=theme, title=title, legend_lines=len(lines))
        for line, style in zip(lines, line_styles([False] * len(lines), theme=theme), strict=True):
            epochs_n, values_n = _points(line.epochs_n, line.values_n, name=line.name, of_x="epochs", of_y="values")
            # Without the marks a run of one epoch would be invisible.
            axes.plot(epochs_n, values_n, marker="o", markersize=3, **style)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.set_xlabel("epoch")
        axes.set_ylabel(values)
        line_legend(figure, [(line.name, False) for line in lines], theme=theme)
        return encoded(figure, file_format=file_format)


def error_chart(
    bars: Sequence[ErrorCounts], *, title: str, theme: ChartTheme = LIGHT, file_format: FileFormat = "svg"
) -> bytes:
    """One stacked bar a result, all of the same length, from ``correct`` through the kinds of error.

    Raises
    ------
    ValueError
        There is no bar, or a word that the error taxonomy does not have.
    """
    _need(bars, "bar")
    with drawing():
        legend_lines = -(-len(ERROR_KINDS) // 3)
        figure, axes = new_figure(
            theme=theme, title=title, legend_lines=legend_lines, plot_inches=0.75 + 0.52 * len(bars)
        )
        for row, bar in enumerate(bars):
            unknown = sorted(set(bar.counts) - set(ERROR_KINDS))
            if unknown:
                raise ValueError(f"{bar.name}: expected only {', '.join(ERROR_KINDS)}, found {unknown[0]!r}")
            _stacked_bar(axes, bar, row=row, theme=theme)
        axes.set_xlim(0, 100)
        axes.set_ylim(len(bars) - 0.5, -0.7)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("images (%)")
        handles = [Patch(facecolor=theme.errors[kind]) for kind in ERROR_KINDS]
        add_legend(figure, handles, list(ERROR_KINDS), theme=theme, columns=3)
        return encoded(figure, file_format=file_format)


def seed_chart(
    rows: Sequence[SeedDots], *, title: str, axis: str, theme: ChartTheme = LIGHT, file_format: FileFormat = "svg"
) -> bytes:
    """One line of dots a method, a dot a seed, with a stroke and a number at their mean.

    Parameters
    ----------
    rows
        Methods, from above.
    title, axis
        What is shown, and what the axis of percentages is called.
    theme, file_format
        As in the other charts.

    Raises
    ------
    ValueError
        There is no row, or one has no value.
    """
    _need(rows, "row")
    with drawing():
        figure, axes = new_figure(theme=theme, title=title, legend_lines=0, plot_inches=0.85 + 0.42 * len(rows))
        colours = [style["color"] for style in line_styles([row.is_baseline for row in rows], theme=theme)]
        for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
            _need(row.values_n, f"value of {row.name}")
            percent_n = 100 * np.asarray(row.values_n, dtype=np.float64)
            mean = float(percent_n.mean())
            axes.plot(percent_n, np.full(len(percent_n), place), "o", markersize=5, color=colour, alpha=0.6)
            axes.plot([mean, mean], [place - 0.18, place + 0.18], color=colour, linewidth=2.2)
            # The name stands at the left edge, whatever the numbers are.
            axes.text(0.0, place - 0.3, shortened(row.name), color=theme.ink, transform=axes.get_yaxis_transform())
            axes.text(
                1.0, place - 0.3, f"{mean:.2f}", color=theme.ink, ha="right", transform=axes.get_yaxis_transform()
            )
        axes.set_ylim(len(rows) - 0.5, -0.9)
        axes.set_yticks([])
        axes.margins(x=0.05)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)
        return encoded(figure, file_format=file_format)


def _stacked_bar(axes: Axes, bar: ErrorCounts, *, row: int, theme: ChartTheme) -> None:
    total = max(sum(bar.counts.values()), 1)
    axes.text(0, row - 0.32, shortened(bar.name), color=theme.ink, va="bottom", ha="left")
    left = 0.0
    for kind in ERROR_KINDS:
        share = bar.counts.get(kind, 0) / total
        colour = theme.errors[kind]
        axes.barh(row, 100 * share, left=left, height=0.5, color=colour, edgecolor=theme.paper, linewidth=0.8)
        if share >= _MARKED_SHARE:
            label_colour = "#000000" if _luminance(colour) > 0.18 else "#ffffff"
            axes.text(left + 50 * share, row, f"{100 * share:.0f}", color=label_colour, va="center", ha="center")
        left += 100 * share


def _luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2): black and white letters read equally well at .18."""
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _need(items: Sequence[object], what: str) -> None:
    if not items:
        raise ValueError(f"expected at least one {what}, found none")


def _points(
    x_n: npt.ArrayLike, y_n: npt.ArrayLike, *, name: str, of_x: str, of_y: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Both coordinates of N >= 1 points, (N,) float64; ``of_x`` and ``of_y`` name them for the ValueError."""
    x, y = np.asarray(x_n, dtype=np.float64), np.asarray(y_n, dtype=np.float64)
    if x.ndim != 1 or not len(x) or x.shape != y.shape:
        raise ValueError(f"{name}: expected as many {of_y} as {of_x}, at least 1, found {y.shape} and {x.shape}")
    return x, y
