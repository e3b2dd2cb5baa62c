"""Turns a theme into empty axes, line styles and legends that all charts share, and a drawn figure into bytes."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

__all__ = [
    "DARK",
    "LIGHT",
    "ChartTheme",
    "FileFormat",
    "add_legend",
    "drawing",
    "encoded",
    "line_legend",
    "line_styles",
    "new_figure",
    "shortened",
]

FileFormat: TypeAlias = Literal["svg", "png"]
"""``svg``: UTF-8 text whose letters stay text. ``png``: 200 pixels an inch."""

_WIDTH_INCHES = 4.8
_PLOT_INCHES = 3.0
_LEGEND_LINE_INCHES = 0.21
_PNG_DPI = 200
_NAME_LENGTH = 46
"""Characters of a name that fit beside the legend's key at the chart's width."""
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


@contextmanager
def drawing() -> Iterator[None]:
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


def new_figure(
    *, theme: ChartTheme, title: str, legend_lines: int, plot_inches: float = _PLOT_INCHES
) -> tuple[Figure, Axes]:
    """An empty chart; ``legend_lines`` leaves room below."""
    height = plot_inches + _LEGEND_LINE_INCHES * legend_lines + 0.15
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained", facecolor=theme.paper)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(theme.paper)
    axes.set_title(shortened(title), color=theme.ink, loc="left")
    axes.tick_params(colors=theme.ink)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    axes.grid(color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.ink)
    return figure, axes


def line_styles(are_baselines: Sequence[bool], *, theme: ChartTheme) -> list[dict[str, Any]]:
    """Keywords of ``Axes.plot`` for each line: baselines are grey and dashed, the others differ in colour."""
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


def line_legend(figure: Figure, entries: Sequence[tuple[str, bool]], *, theme: ChartTheme) -> None:
    """A legend of lines, each a name and whether it is a baseline."""
    styles = line_styles([is_baseline for _, is_baseline in entries], theme=theme)
    handles = [Line2D([], [], **style) for style in styles]
    add_legend(figure, handles, [name for name, _ in entries], theme=theme, columns=1)


def add_legend(figure: Figure, handles: Sequence[Artist], names: list[str], *, theme: ChartTheme, columns: int) -> None:
    """A legend below the chart."""
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
        text.set_text(shortened(name))


def shortened(name: str) -> str:
    """A name in one line that fits, cut in the middle: runs differ at their ends more than inside."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    if len(line) <= _NAME_LENGTH:
        return line
    half = (_NAME_LENGTH - 1) // 2
    return f"{line[:half]}…{line[-half:]}"


def encoded(figure: Figure, *, file_format: FileFormat) -> bytes:
    """The figure as a file; the same figure gives the same bytes."""
    content = io.BytesIO()
    if file_format == "png":
        figure.savefig(
            content, format="png", dpi=_PNG_DPI, facecolor=figure.get_facecolor(), metadata={"Software": None}
        )
    else:
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(content, format="svg", facecolor=figure.get_facecolor(), metadata=nothing)
    return content.getvalue()
