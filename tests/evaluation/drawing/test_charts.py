"""Charts: texts, colours, places of points, and that the same input gives the same bytes."""

import re
import xml.sax.saxutils

import matplotlib
import numpy as np
import pytest
from defusedxml import ElementTree

from evaluation.drawing.charts import (
    BASELINE,
    ERROR_COLOURS,
    INK,
    ON_DARK,
    PAPER,
    SERIES,
    ChartForm,
    Line,
    SeedDots,
    error_chart,
    line_chart,
    seed_chart,
)

HOSTILE = '_<script>$x_{$ & "quoted" 中\x07'
LABELS = {"title": "A chart", "x_label": "threshold", "y_label": "images (%)"}


def line(name: str = "gap", *, peak: float = 0.25, is_baseline: bool = False) -> Line:
    x_n = np.linspace(0, 1, 21)
    return Line(name=name, x_n=x_n, y_n=60 - (x_n - peak) ** 2 / 2, is_baseline=is_baseline)


def texts(svg: bytes) -> list[str]:
    tree = ElementTree.fromstring(svg)
    return [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]


def chart(kind: str, name: str) -> bytes:
    if kind == "lines":
        return line_chart([line(name)], **LABELS, dots="highest")
    if kind == "history":
        by_epoch = Line(name=name, x_n=[1, 2, 3], y_n=[2.0, 1.5, 1.25])
        return line_chart([by_epoch], **LABELS, fractions=False, dots="all")
    if kind == "seeds":
        return seed_chart([SeedDots(name=name, values_n=[0.5, 0.6])], title="A chart", axis="GT-known Loc")
    return error_chart([(name, {"correct": 3, "part": 1})], title="A chart")


KINDS = ("lines", "history", "seeds", "errors")

# --- charts


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_titles_stand_in_the_chart_as_text(kind: str) -> None:
    shown = texts(chart(kind, "our run"))
    assert "our run" in shown and "A chart" in shown


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_bytes_whatever_the_users_settings(kind: str) -> None:
    first = chart(kind, "a")
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9}):
        second = chart(kind, "a")
        assert matplotlib.rcParams["font.size"] == 30, "the user's settings come back"
    assert first == second
    assert chart(kind, "b") != first


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_no_date_and_no_program(kind: str) -> None:
    svg = chart(kind, "a")
    assert b"<dc:date>" not in svg and b"Matplotlib v" not in svg


def test_charts_for_papers_are_files_of_their_own() -> None:
    def drawn(form: ChartForm) -> tuple[bytes, bytes]:
        return (
            line_chart([line("our run")], **LABELS, form=form),
            error_chart([("our run", {"correct": 3, "part": 1})], title="A chart", form=form),
        )

    for page, svg, pdf in zip(drawn("page"), drawn("svg"), drawn("pdf"), strict=True):
        assert texts(svg) == texts(page) and b"prefers-color-scheme" in page and b"prefers-color-scheme" not in svg
        assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf
        # An embedded TrueType font, none of matplotlib's type 3.
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert drawn("pdf") == drawn("pdf")


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_stay_text(kind: str) -> None:
    svg = chart(kind, HOSTILE)
    assert b"<script" not in svg
    assert xml.sax.saxutils.escape('_<script>$x_{$ & "quoted" 中').encode() in svg
    assert HOSTILE.replace("\x07", " ").strip() in [text.strip() for text in texts(svg)]


@pytest.mark.parametrize("kind", KINDS)
def test_long_names_lose_their_middle(kind: str) -> None:
    (name,) = [text for text in texts(chart(kind, "begin" + "x" * 90 + "end")) if text.startswith("begin")]
    assert name.endswith("end") and "…" in name and len(name) <= 46


def test_several_lines_have_their_numbers_and_a_legend_in_the_order_of_their_values() -> None:
    lines = [Line(name=name, x_n=[0, 0.5, 1], y_n=[60, y, 0]) for name, y in (("a", 10), ("b", 30), ("c", 20))]
    shown = texts(line_chart(lines, **LABELS, marked_x=0.5))
    assert shown[-3:] == ["2  b: 30", "3  c: 20", "1  a: 10"]
    assert {"1", "2", "3"} <= set(shown), "on the lines"
    peaks = [Line(name=name, x_n=[0, 1], y_n=[y, 0]) for name, y in (("a", 1.25), ("never finite", float("nan")))]
    assert texts(line_chart(peaks, **LABELS, dots="highest"))[-2:] == ["1  a: 1.25", "2  never finite: nan"]


def test_charts_of_seeds_side_by_side_can_have_one_axis() -> None:
    def ticks(value: float, **limits: tuple[float, float]) -> list[str]:
        svg = seed_chart([SeedDots(name="a", values_n=[value])], title="A chart", axis="%", **limits)
        return [text for text in texts(svg) if re.fullmatch(r"[\d.]+", text)][:-1]

    assert ticks(0.4, percents=(40, 60)) == ticks(0.6, percents=(40, 60))
    assert ticks(0.4) != ticks(0.6)


def contrast(one: str, two: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("on_dark", [False, True])
def test_colours_stand_out_from_the_paper(on_dark: bool) -> None:
    def shown(colour: str) -> str:
        return ON_DARK.get(colour, colour) if on_dark else colour

    assert contrast(shown(INK), shown(PAPER)) >= 7
    for colour in (*SERIES, BASELINE):
        assert contrast(shown(colour), shown(PAPER)) >= 3, colour
    assert len({shown(colour) for colour in (*SERIES, BASELINE)}) == len(SERIES) + 1
    assert {kind for kind, colour in ERROR_COLOURS.items() if colour in ON_DARK} == {"no box"}
    for kind, colour in ERROR_COLOURS.items():
        label = PAPER if kind == "no box" else "#000000"
        assert contrast(shown(label), shown(colour)) >= 4.5, kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_colour_of_a_dark_page_replaces_one_that_was_drawn(kind: str) -> None:
    root = ElementTree.fromstring(chart(kind, "a"))
    style = list(root.iter("{http://www.w3.org/2000/svg}style"))[-1]
    assert style.text.startswith("@media (prefers-color-scheme: dark)")
    rules = dict(re.findall(r'\[style\*="((?:fill|stroke): #\w{6})"\]\{\w+:(#\w{6})!important\}', style.text))
    assert rules == {f"{use}: {light}": dark for light, dark in ON_DARK.items() for use in ("fill", "stroke")}
    drawn = {
        declaration.strip()
        for element in root.iter()
        for declaration in element.get("style", "").split(";")
        if re.match(r" *(fill|stroke): #", declaration)
    }
    # What stays as it is are error colours, which stand out from both papers, and black letters on them.
    unchanged = {declaration.split(": ")[1] for declaration in drawn - set(rules)}
    assert unchanged <= {*ERROR_COLOURS.values(), "#000000"}
    assert {f"fill: {PAPER}", f"stroke: {INK}"} <= drawn
    # The same rules would not find colours written in another way.
    assert not [element for element in root.iter() if {"fill", "stroke"} & set(element.attrib)]


def polyline(svg: bytes, colour: str) -> np.ndarray:
    """Points of the longest line of a colour."""
    paths = []
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        style = element.get("style", "")
        if f"stroke: {colour}" in style and "fill: none" in style:
            words = element.get("d").replace("M", " ").replace("L", " ").split()
            paths.append(np.array(words, dtype=float).reshape(-1, 2))
    return max(paths, key=len)


def test_a_line_is_drawn_where_its_numbers_are() -> None:
    points = polyline(line_chart([Line(name="a", x_n=[0, 0.5, 1], y_n=[20, 60, 40])], **LABELS), SERIES[0])
    assert points.shape == (3, 2)
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=1e-3)
    assert (y1 - y0) == pytest.approx(-2 * (y2 - y1), abs=1e-3), "20 -> 60 -> 40; y grows downwards in SVG"


def test_baselines_are_dashed_and_grey_and_results_are_not() -> None:
    svg = line_chart([line("ours"), line("base", peak=0.7, is_baseline=True)], **LABELS).decode()
    dashed = [path for path in svg.split("<path") if "stroke-dasharray" in path]
    assert dashed and all(f"stroke: {BASELINE}" in path for path in dashed)
    drawn = svg[: svg.index("<style>@media")]
    assert SERIES[0] in drawn and SERIES[1] not in drawn


def test_more_results_than_colours_are_told_apart_by_dashes() -> None:
    count = 2 * len(SERIES)
    svg = line_chart([line(f"r{number}", peak=number / 20) for number in range(count)], **LABELS).decode()
    of_first_colour = [path for path in svg.split("<path") if f"stroke: {SERIES[0]}" in path and "fill: none" in path]
    assert {"stroke-dasharray" in path for path in of_first_colour} == {True, False}


def test_a_history_is_drawn_where_its_numbers_are_and_has_gaps() -> None:
    lines = [
        Line(name="a", x_n=[1, 2, 3, 4, 5], y_n=[4, 3, float("nan"), 2, 1]),
        Line(name="b", x_n=[1, 2, 3, 4, 5], y_n=[-1, -1, -1, -1, -1]),
        Line(name="never finite", x_n=[1], y_n=[float("nan")]),
    ]
    svg = line_chart(lines, **LABELS, fractions=False, dots="all")
    (level,) = {round(y, 1) for _, y in polyline(svg, SERIES[1])}
    points = polyline(svg, SERIES[0])
    assert len(points) == 4, "not the epoch without a number"
    # Heights above the line at -1 are as 5 : 4 : 3 : 2; y grows downwards.
    heights = level - points[:, 1]
    np.testing.assert_allclose(heights / heights[-1], [2.5, 2, 1.5, 1], rtol=0.01)


def test_error_bars_are_labelled_with_their_share() -> None:
    shown = texts(error_chart([("a", {"correct": 70, "part": 25, "no box": 5})], title="t"))
    assert "70" in shown and "25" in shown and "5" not in shown, "5 % is too narrow for a label"
    assert set(ERROR_COLOURS) <= set(shown)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: line_chart([], **LABELS), "at least one line"),
        (lambda: error_chart([], title="t"), "at least one bar"),
        (
            lambda: line_chart([Line(name="gap", x_n=[0, 1], y_n=[1])], **LABELS),
            r"gap: expected N >= 1 values of x and of y, found \(2,\), \(1,\)",
        ),
        (lambda: line_chart([Line(name="gap", x_n=[], y_n=[])], **LABELS), "gap: expected N >= 1"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


# --- dots of seeds


def test_dots_of_seeds_name_every_row_with_its_mean() -> None:
    rows = [
        SeedDots(name="GAP (cam)", values_n=(0.5, 0.53)),
        SeedDots(name=HOSTILE, values_n=(0.25,), is_baseline=True),
    ]
    svg = seed_chart(rows, title="A chart", axis="GT-known Loc (%)")
    assert {"A chart", "GT-known Loc (%)", "GAP (cam)", "51.50", "25.00"} <= set(texts(svg))
    assert svg == seed_chart(rows, title="A chart", axis="GT-known Loc (%)")
    drawn = svg[: svg.index(b"<style>@media")]
    assert SERIES[0].encode() in drawn and BASELINE.encode() in drawn
    dots = re.findall(rb"<use [^>]*fill-opacity: 0.6", svg)
    assert len(dots) == 3


@pytest.mark.parametrize(("rows", "what"), [([], "row"), ([SeedDots(name="a", values_n=())], "value of a")])
def test_dots_without_anything_are_refused(rows: list[SeedDots], what: str) -> None:
    with pytest.raises(ValueError, match=f"expected at least one {what}, found none"):
        seed_chart(rows, title="A chart", axis="%")
