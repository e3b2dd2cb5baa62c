"""Charts as bytes of an SVG or PDF: lines, bars of errors, dots by seed.

Every chart is 4.8 inches wide with 10 point text and its legend below, so that it can be read on a phone. The same
input gives the same bytes: no date, no program name, no settings of the user's own matplotlibrc.
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, product
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

from evaluation.names import ERROR_KINDS, ErrorKind

ChartForm: TypeAlias = Literal["page", "svg", "pdf"]
"""An SVG that follows light and dark pages, a light SVG, or a PDF with its font embedded, both for papers."""

PAPER, INK, GRID, BASELINE = "#ffffff", "#1c2024", "#d9dde1", "#6b7178"
"""Colours of a light chart: background, text and axes, grid lines, predictors that never look at the image."""
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b8518f", "#9a6a00", "#2a93d5")
"""Okabe and Ito's colours for colour-blind readers; two are darker, since the originals are too pale for lines."""
ERROR_COLOURS: Mapping[ErrorKind, str] = dict(
    zip(ERROR_KINDS, ("#0a9c72", "#56b4e9", "#cc79a7", "#e69f00", "#d4600a", "#999999", "#333333"), strict=True)
)
"""Okabe and Ito's as well, none equal to one of ``SERIES``: on dark pages they stay as they are."""
ON_DARK: Mapping[str, str] = {
    PAPER: "#16191d",
    INK: "#e6e8ea",
    GRID: "#3a4047",
    BASELINE: "#a6adb5",
    **dict(zip(SERIES, ("#56b4e9", "#f08a3c", "#2fc79a", "#e08fbf", "#f0e442", "#8fb3ff"), strict=True)),
    ERROR_COLOURS["no box"]: "#e6e8ea",
}
"""What a colour becomes in an SVG on a dark page."""

_WIDTH_INCHES, _PLOT_INCHES, _LEGEND_LINE_INCHES = 4.8, 3.0, 0.21
_NAME_LENGTH = 42
"""Characters of a name that fit beside the legend's key at the chart's width."""
_DASHES: tuple[Any, ...] = ("solid", "dashdot", "dotted", (0, (7, 2, 1, 2, 1, 2)))
_BASELINE_DASHES: tuple[Any, ...] = ((0, (5, 3)), (0, (2, 2)), (0, (8, 3, 2, 3)))
_ON_LINE: Mapping[str, Any] = {
    "ha": "center",
    "va": "center",
    "fontsize": 9,
    "fontweight": "bold",
    "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
}
"""The number that stands on a line."""
_LABELLED_SHARE = 0.08
"""Smallest share of a bar that its percentage fits into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a chart."""

    name: str
    """Its name in the legend."""
    x_n: Sequence[float] | npt.NDArray[np.float64]
    """(N,) rising."""
    y_n: Sequence[float] | npt.NDArray[np.float64]
    """(N,); NaN leaves a gap."""
    is_baseline: bool = False
    """Drawn dashed and grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDots:
    """One metric of a method for each of its seeds."""

    name: str
    """Text above the dots."""
    values_n: Sequence[float]
    """(N,) fractions, 0 to 1, at least one."""
    is_baseline: bool = False
    """Drawn grey."""


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    fractions: bool = True,
    dots: Literal["all", "highest", "none"] = "none",
    marked_x: float | None = None,
    form: ChartForm = "page",
) -> bytes:
    """Lines over a common horizontal axis, the vertical one from 0 (or the lowest value below it) up.

    The horizontal axis runs from 0 to 1 for ``fractions``; otherwise from 0 on, with labels at whole numbers. A
    vertical line stands at ``marked_x``. Each of several lines has its number on it, as in the legend, which is ordered
    by the values that it states: those at ``marked_x``, else the highest ones for ``dots="highest"``, else the last.
    ValueError for no line, or one with other than N >= 1 values of x and N of y.
    """
    _need(lines, "line")
    with _drawing():
        figure, axes = _new_figure(title=title, legend_lines=len(lines))
        if marked_x is not None:
            axes.axvline(marked_x, color=INK, linewidth=0.8)
        styles = _line_styles([line.is_baseline for line in lines])
        lowest = 0.0
        stated: list[float] = []
        for number, (line, style) in enumerate(zip(lines, styles, strict=True), start=1):
            x_n, y_n = np.asarray(line.x_n, dtype=np.float64), np.asarray(line.y_n, dtype=np.float64)
            if x_n.ndim != 1 or not len(x_n) or x_n.shape != y_n.shape:
                raise ValueError(f"{line.name}: expected N >= 1 values of x and of y, found {x_n.shape}, {y_n.shape}")
            lowest = float(y_n[np.isfinite(y_n)].min(initial=lowest))
            axes.plot(x_n, y_n, **style, marker="o" if dots == "all" else None, markersize=3)
            place = int(y_n.argmax()) if dots == "highest" else -1
            if dots == "highest":
                axes.plot(x_n[place], y_n[place], marker="o", markersize=5, color=style["color"])
            stated.append(float(y_n[place] if marked_x is None else np.interp(marked_x, x_n, y_n)))
            finite = np.isfinite(y_n)
            if len(lines) > 1 and finite.any():
                x = x_n[0] + (x_n[-1] - x_n[0]) * number / (len(lines) + 1)
                y = np.interp(x, x_n[finite], y_n[finite])
                axes.text(x, y, str(number), **_ON_LINE, color=INK)
        axes.set_ylim(bottom=lowest)
        if fractions:
            axes.set_xlim(0, 1)
        else:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        order = sorted(range(len(lines)), key=lambda place: -np.nan_to_num(stated[place], nan=-np.inf))
        names = [_shortened(line.name) for line in lines]
        if len(lines) > 1:
            names = [f"{place + 1}  {names[place]}: {stated[place]:.3g}" for place in order]
        _add_legend(figure, [Line2D([], [], **styles[place]) for place in order], names, columns=1)
        return _encoded(figure, form)


def error_chart(bars: Sequence[tuple[str, Mapping[ErrorKind, int]]], *, title: str, form: ChartForm = "page") -> bytes:
    """One stacked bar for each name, all of the same length: images by kind of error; ValueError for no bar."""
    _need(bars, "bar")
    with _drawing():
        legend_lines = -(-len(ERROR_KINDS) // 3)
        figure, axes = _new_figure(title=title, legend_lines=legend_lines, plot_inches=0.75 + 0.52 * len(bars))
        for row, (name, _) in enumerate(bars):
            axes.text(0, row - 0.32, _shortened(name), color=INK, va="bottom", ha="left")
        left_n = np.zeros(len(bars))
        for kind, colour in ERROR_COLOURS.items():
            percent_n = np.array([100 * counts.get(kind, 0) / max(sum(counts.values()), 1) for _, counts in bars])
            drawn = axes.barh(range(len(bars)), percent_n, 0.5, left_n, color=colour, edgecolor=PAPER, linewidth=0.8)
            labels = [f"{percent:.0f}" if percent >= 100 * _LABELLED_SHARE else "" for percent in percent_n]
            # The one dark bar turns light on a dark page, and so must turn its label: that has the colour of paper.
            axes.bar_label(drawn, labels, label_type="center", color=PAPER if kind == "no box" else "#000000")
            left_n += percent_n
        axes.set_xlim(0, 100)
        axes.set_ylim(len(bars) - 0.5, -0.7)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.set_xlabel("images (%)")
        handles = [Patch(facecolor=ERROR_COLOURS[kind]) for kind in ERROR_KINDS]
        _add_legend(figure, handles, list(ERROR_KINDS), columns=3)
        return _encoded(figure, form)


def seed_chart(
    rows: Sequence[SeedDots], *, title: str, axis: str, percents: tuple[float, float] | None = None
) -> bytes:
    """One row of dots for each method from above, a dot for each seed, and their mean as a stroke and a number.

    The axis includes ``percents``, so that charts side by side can have the same one. ValueError for no row, or one
    without value.
    """
    _need(rows, "row")
    with _drawing():
        figure, axes = _new_figure(title=title, legend_lines=0, plot_inches=0.85 + 0.42 * len(rows))
        colours = [style["color"] for style in _line_styles([row.is_baseline for row in rows])]
        # Names stand at the left edge and means at the right one, whatever the values are.
        edges = axes.get_yaxis_transform()
        for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
            _need(row.values_n, f"value of {row.name}")
            percent_n = 100 * np.asarray(row.values_n, dtype=np.float64)
            mean = float(percent_n.mean())
            axes.plot(percent_n, np.full(len(percent_n), place), "o", markersize=5, color=colour, alpha=0.6)
            axes.axhline(place, color=GRID, linewidth=0.6, zorder=0.5)
            if len(percent_n) > 1:
                axes.plot([mean, mean], [place - 0.18, place + 0.18], color=colour, linewidth=2.2)
            axes.text(0.0, place - 0.3, _shortened(row.name), color=INK, transform=edges)
            axes.text(1.0, place - 0.3, f"{mean:.2f}", color=INK, ha="right", transform=edges)
        axes.set_ylim(len(rows) - 0.5, -0.9)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.05)
        axes.grid(visible=False, axis="y")
        if percents is not None:
            axes.update_datalim([(percents[0], 0), (percents[1], 0)], updatey=False)
            axes.autoscale_view(scaley=False)
        axes.set_xlabel(axis)
        return _encoded(figure, "page")


@contextmanager
def _drawing() -> Iterator[None]:
    """Matplotlib's own defaults, and our settings, while one chart is drawn."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                # Letters stay text: smaller, and readable by search and by screen readers.
                "svg.fonttype": "none",
                # Without it the identifiers inside an SVG are random.
                "svg.hashsalt": "saliency-aware-wsol",
                # TrueType: publishers refuse matplotlib's default, type 3.
                "pdf.fonttype": 42,
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


def _new_figure(*, title: str, legend_lines: int, plot_inches: float = _PLOT_INCHES) -> tuple[Figure, Axes]:
    """An empty chart with room for a legend below."""
    height = plot_inches + _LEGEND_LINE_INCHES * legend_lines + 0.15
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(PAPER)
    axes.set_title("\n".join(_shortened(line, 50) for line in title.splitlines()), color=INK, loc="left")
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    return figure, axes


def _line_styles(are_baselines: Sequence[bool]) -> list[dict[str, Any]]:
    """Arguments of ``Axes.plot`` for each line: baselines grey and dashed, the others by colour, then by dash."""
    baselines, others = cycle(_BASELINE_DASHES), cycle(product(_DASHES, SERIES))
    styles = []
    for is_baseline in are_baselines:
        dashes, colour = (next(baselines), BASELINE) if is_baseline else next(others)
        styles.append({"color": colour, "linestyle": dashes, "linewidth": 1.6 if is_baseline else 2.0})
    return styles


def _add_legend(figure: Figure, handles: Sequence[Artist], names: list[str], *, columns: int) -> None:
    """A legend below the chart."""
    legend = figure.legend(
        handles=list(handles),
        labels=["x"] * len(names),
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        labelcolor=INK,
        handlelength=3.2 if columns == 1 else 1.2,
        borderaxespad=0.2,
        labelspacing=0.35,
    )
    # Set afterwards: matplotlib drops labels that begin with an underscore.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def _shortened(name: str, length: int = _NAME_LENGTH) -> str:
    """A name in one line that fits, cut in the middle: runs differ at their ends more than inside."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    if len(line) <= length:
        return line
    half = (length - 1) // 2
    return f"{line[:half]}…{line[-half:]}"


def _need(items: Sequence[object], what: str) -> None:
    if not items:
        raise ValueError(f"expected at least one {what}, found none")


def _encoded(figure: Figure, form: ChartForm) -> bytes:
    content = io.BytesIO()
    kind = "pdf" if form == "pdf" else "svg"
    nothing = {"pdf": ("CreationDate", "Creator", "Producer"), "svg": ("Date", "Creator", "Format", "Type")}[kind]
    figure.savefig(content, format=kind, facecolor=PAPER, metadata=dict.fromkeys(nothing))
    if form != "page":
        return content.getvalue()
    # Matplotlib has written each colour into a style attribute.
    rules = "".join(
        f'[style*="{use}: {light}"]{{{use}:{dark}!important}}'
        for light, dark in ON_DARK.items()
        for use in ("fill", "stroke")
    )
    drawn, end, _ = content.getvalue().rpartition(b"</svg>")
    return drawn + f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>\n".encode() + end + b"\n"
