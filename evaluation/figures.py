"""Turns curves, histograms, error counts and training histories into charts, as SVG text or PNG bytes.

Legend: L threshold levels, N intervals of a histogram. Accuracies come as fractions and are drawn as percentages.

Every chart is drawn for the width of a phone and grows well: 4.8 inches wide with 10 point text, the legend below.
The same input gives the same bytes: no date, no program name, no settings of the user's own matplotlibrc.
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from evaluation.metrics_schema import ERROR_KINDS

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

FileFormat: TypeAlias = Literal["svg", "png"]
"""``svg``: UTF-8 text whose letters stay text. ``png``: 200 pixels an inch."""

_WIDTH_INCHES = 4.8
_PLOT_INCHES = 3.0
_LEGEND_LINE_INCHES = 0.21
_PNG_DPI = 200
_NAME_LENGTH = 46
"""Characters of a name that fit beside the legend's key at the chart's width."""
_WANTED_IOU = 0.5
"""From here on a box counts as right (ILSVRC)."""
_MARKED_SHARE = 0.08
"""Smallest share of a bar that its percentage fits into."""
_DASHES: tuple[Any, ...] = ("solid", "dashdot", "dotted", (0, (7, 2, 1, 2, 1, 2)))
_BASELINE_DASHES: tuple[Any, ...] = ((0, (5, 3)), (0, (2, 2)), (0, (8, 3, 2, 3)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartTheme:
    """Colours of a chart. Series and errors follow Okabe and Ito's palette for colour-blind readers."""

    paper: str
    """Background."""
    ink: str
    """Text and axes."""
    faint: str
    """Grid lines."""
    baseline: str
    """Predictors that never look at the image."""
    series: tuple[str, ...]
    """Results, in their order; after the last one they begin again with another dash."""
    errors: Mapping[str, str]
    """By word of the error taxonomy."""


LIGHT = ChartTheme(
    paper="#ffffff",
    ink="#1c2024",
    faint="#d9dde1",
    baseline="#6b7178",
    series=("#0072b2", "#d55e00", "#009e73", "#b8518f", "#9a6a00", "#2a93d5"),
    errors={
        "correct": "#009e73",
        "wrong class": "#56b4e9",
        "multi-instance": "#cc79a7",
        "part": "#e69f00",
        "more": "#d55e00",
        "other": "#999999",
        "no box": "#333333",
    },
)
"""Dark on white. Two colours of the palette are darker than the original: those are too pale for lines on white."""

DARK = ChartTheme(
    paper="#16191d",
    ink="#e6e8ea",
    faint="#3a4047",
    baseline="#a6adb5",
    series=("#56b4e9", "#f08a3c", "#2fc79a", "#e08fbf", "#f0e442", "#8fb3ff"),
    errors={**LIGHT.errors, "no box": "#e6e8ea"},
)
"""Light on near-black."""


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
    with _drawing():
        figure, axes = _figure(theme=theme, title=title, legend_lines=len(curves))
        for curve, style in zip(curves, _styles([curve.is_baseline for curve in curves], theme=theme), strict=True):
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
        _line_legend(figure, [(curve.name, curve.is_baseline) for curve in curves], theme=theme)
        return _encoded(figure, file_format=file_format)


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
    with _drawing():
        figure, axes = _figure(theme=theme, title=title, legend_lines=len(histograms))
        axes.axvline(_WANTED_IOU, color=theme.ink, linewidth=0.8)
        styles = _styles([histogram.is_baseline for histogram in histograms], theme=theme)
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
        _line_legend(figure, [(histogram.name, histogram.is_baseline) for histogram in histograms], theme=theme)
        return _encoded(figure, file_format=file_format)


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
    with _drawing():
        figure, axes = _figure(theme=theme, title=title, legend_lines=len(lines))
        for line, style in zip(lines, _styles([False] * len(lines), theme=theme), strict=True):
            epochs_n, values_n = _points(line.epochs_n, line.values_n, name=line.name, of_x="epochs", of_y="values")
            # Without the marks a run of one epoch would be invisible.
            axes.plot(epochs_n, values_n, marker="o", markersize=3, **style)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.set_xlabel("epoch")
        axes.set_ylabel(values)
        _line_legend(figure, [(line.name, False) for line in lines], theme=theme)
        return _encoded(figure, file_format=file_format)


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
    with _drawing():
        legend_lines = -(-len(ERROR_KINDS) // 3)
        figure, axes = _figure(theme=theme, title=title, legend_lines=legend_lines, plot_inches=0.75 + 0.52 * len(bars))
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
        _legend(figure, handles, list(ERROR_KINDS), theme=theme, columns=3)
        return _encoded(figure, file_format=file_format)


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
    with _drawing():
        figure, axes = _figure(theme=theme, title=title, legend_lines=0, plot_inches=0.85 + 0.42 * len(rows))
        colours = [style["color"] for style in _styles([row.is_baseline for row in rows], theme=theme)]
        for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
            _need(row.values_n, f"value of {row.name}")
            percent_n = 100 * np.asarray(row.values_n, dtype=np.float64)
            mean = float(percent_n.mean())
            axes.plot(percent_n, np.full(len(percent_n), place), "o", markersize=5, color=colour, alpha=0.6)
            axes.plot([mean, mean], [place - 0.18, place + 0.18], color=colour, linewidth=2.2)
            # The name stands at the left edge, whatever the numbers are.
            axes.text(0.0, place - 0.3, _shortened(row.name), color=theme.ink, transform=axes.get_yaxis_transform())
            axes.text(
                1.0, place - 0.3, f"{mean:.2f}", color=theme.ink, ha="right", transform=axes.get_yaxis_transform()
            )
        axes.set_ylim(len(rows) - 0.5, -0.9)
        axes.set_yticks([])
        axes.margins(x=0.05)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)
        return _encoded(figure, file_format=file_format)


def _stacked_bar(axes: Axes, bar: ErrorCounts, *, row: int, theme: ChartTheme) -> None:
    total = max(sum(bar.counts.values()), 1)
    axes.text(0, row - 0.32, _shortened(bar.name), color=theme.ink, va="bottom", ha="left")
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


@contextmanager
def _drawing() -> Iterator[None]:
    """Matplotlib as it comes from the factory, for the time of one chart."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                # Letters stay text: smaller, and readable by search and by screen readers.
                "svg.fonttype": "none",
                # Without it the identifiers inside an SVG are random.
                "svg.hashsalt": "saliency-aware-wsol",
                # A run may be called "a$b$": names are no formulas.
                "text.parse_math": False,
                "font.size": 10,
                "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
                "axes.titlesize": 11,
                "axes.grid": True,
            }
        )
        # DejaVu Sans has no Chinese, for instance; an SVG shows such a name all the same.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _figure(
    *, theme: ChartTheme, title: str, legend_lines: int, plot_inches: float = _PLOT_INCHES
) -> tuple[Figure, Axes]:
    height = plot_inches + _LEGEND_LINE_INCHES * legend_lines + 0.15
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained", facecolor=theme.paper)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(theme.paper)
    axes.set_title(_shortened(title), color=theme.ink, loc="left")
    axes.tick_params(colors=theme.ink)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    axes.grid(color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.ink)
    return figure, axes


def _styles(are_baselines: Sequence[bool], *, theme: ChartTheme) -> list[dict[str, Any]]:
    styles: list[dict[str, Any]] = []
    series = baselines = 0
    for is_baseline in are_baselines:
        if is_baseline:
            dashes = _BASELINE_DASHES[baselines % len(_BASELINE_DASHES)]
            styles.append({"color": theme.baseline, "linestyle": dashes, "linewidth": 1.6})
            baselines += 1
        else:
            lap, place = divmod(series, len(theme.series))
            dashes = _DASHES[lap % len(_DASHES)]
            styles.append({"color": theme.series[place], "linestyle": dashes, "linewidth": 2.0})
            series += 1
    return styles


def _line_legend(figure: Figure, entries: Sequence[tuple[str, bool]], *, theme: ChartTheme) -> None:
    styles = _styles([is_baseline for _, is_baseline in entries], theme=theme)
    handles = [Line2D([], [], **style) for style in styles]
    _legend(figure, handles, [name for name, _ in entries], theme=theme, columns=1)


def _legend(figure: Figure, handles: Sequence[Artist], names: list[str], *, theme: ChartTheme, columns: int) -> None:
    legend = figure.legend(
        handles=list(handles),
        labels=["x"] * len(names),
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        labelcolor=theme.ink,
        handlelength=3.2 if columns == 1 else 1.2,
        borderaxespad=0.2,
        labelspacing=0.35,
    )
    # Set afterwards: matplotlib drops labels that begin with an underscore.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(_shortened(name))


def _shortened(name: str) -> str:
    """A name in one line that fits, cut in the middle: runs differ at their ends more than inside."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    if len(line) <= _NAME_LENGTH:
        return line
    half = (_NAME_LENGTH - 1) // 2
    return f"{line[:half]}…{line[-half:]}"


def _encoded(figure: Figure, *, file_format: FileFormat) -> bytes:
    content = io.BytesIO()
    if file_format == "png":
        figure.savefig(
            content, format="png", dpi=_PNG_DPI, facecolor=figure.get_facecolor(), metadata={"Software": None}
        )
    else:
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(content, format="svg", facecolor=figure.get_facecolor(), metadata=nothing)
    return content.getvalue()
