import re
import xml.sax.saxutils
from io import BytesIO

import cv2
import matplotlib
import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image

from evaluation.drawing.charts import (
    DARK,
    LIGHT,
    AccuracyCurve,
    ErrorCounts,
    HistoryLine,
    OverlapHistogram,
    SeedDots,
    accuracy_chart,
    error_chart,
    history_chart,
    overlap_chart,
    seed_chart,
)
from evaluation.drawing.overlays import (
    GROUND_TRUTH_RGB,
    PREDICTED_RGB,
    draw_boxes,
    heat_colours,
    overlay_heat,
    png_bytes,
)
from evaluation.drawing.panels import PanelPrediction, PanelRow, localization_panels, panel_cell

GAP_PX, LINE_PX = 8, 22
HOSTILE = '_<script>$x_{$ & "quoted" 中\x07'


def curve(name: str = "gap", *, peak: float = 0.25, is_baseline: bool = False) -> AccuracyCurve:
    thresholds = np.linspace(0, 1, 21)
    return AccuracyCurve(
        name=name,
        thresholds_l=thresholds,
        accuracy_l=0.6 - (thresholds - peak) ** 2 / 2,
        is_baseline=is_baseline,
    )


def histogram(name: str = "gap", counts: object = (1, 2, 3, 4)) -> OverlapHistogram:
    return OverlapHistogram(name=name, edges=np.linspace(0, 1, len(counts) + 1), counts_n=counts)


def texts(svg: bytes) -> list[str]:
    tree = ElementTree.fromstring(svg)
    return [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]


def chart(kind: str, name: str, **options) -> bytes:
    if kind == "accuracy":
        return accuracy_chart([curve(name)], title="A chart", **options)
    if kind == "overlap":
        return overlap_chart([histogram(name)], title="A chart", **options)
    if kind == "history":
        line = HistoryLine(name=name, epochs_n=[1, 2, 3], values_n=[2.0, 1.5, 1.25])
        return history_chart([line], title="A chart", values="loss", **options)
    return error_chart([ErrorCounts(name=name, counts={"correct": 3, "part": 1})], title="A chart", **options)


KINDS = ("accuracy", "overlap", "error", "history")


# --- charts


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_titles_stand_in_the_chart_as_text(kind: str) -> None:
    shown = texts(chart(kind, "our run"))
    assert "our run" in shown and "A chart" in shown


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file_format", ["svg", "png"])
def test_the_same_input_gives_the_same_bytes_whatever_the_users_settings(kind: str, file_format: str) -> None:
    first = chart(kind, "a", file_format=file_format)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9}):
        second = chart(kind, "a", file_format=file_format)
        assert matplotlib.rcParams["font.size"] == 30, "the user's settings come back"
    assert first == second
    assert chart(kind, "b", file_format=file_format) != first


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_no_date_and_no_program(kind: str) -> None:
    svg = chart(kind, "a")
    assert b"<dc:date>" not in svg and b"Matplotlib v" not in svg
    with Image.open(BytesIO(chart(kind, "a", file_format="png"))) as picture:
        assert set(picture.info) <= {"dpi"}


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


@pytest.mark.parametrize("kind", KINDS)
def test_dark_charts_have_dark_paper(kind: str) -> None:
    for theme, paper in ((LIGHT, (255, 255, 255)), (DARK, (0x16, 0x19, 0x1D))):
        with Image.open(BytesIO(chart(kind, "a", theme=theme, file_format="png"))) as picture:
            assert picture.convert("RGB").getpixel((2, 2)) == paper


def contrast(one: str, two: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_stand_out_from_the_paper(theme) -> None:
    assert contrast(theme.ink, theme.paper) >= 7
    for colour in (*theme.series, theme.baseline):
        assert contrast(colour, theme.paper) >= 3, colour
    assert len({*theme.series, theme.baseline}) == len(theme.series) + 1


def polyline(svg: bytes, colour: str) -> np.ndarray:
    """Points of the longest line of a colour."""
    paths = []
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        style = element.get("style", "")
        if f"stroke: {colour}" in style and "fill: none" in style:
            words = element.get("d").replace("M", " ").replace("L", " ").split()
            paths.append(np.array(words, dtype=float).reshape(-1, 2))
    return max(paths, key=len)


def test_a_curve_is_drawn_where_its_numbers_are() -> None:
    thresholds = [0.0, 0.5, 1.0]
    drawn = AccuracyCurve(name="a", thresholds_l=thresholds, accuracy_l=[0.2, 0.6, 0.4])
    points = polyline(accuracy_chart([drawn], title="t"), LIGHT.series[0])
    assert points.shape == (3, 2)
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=1e-3)
    assert (y1 - y0) == pytest.approx(-2 * (y2 - y1), abs=1e-3), "0.2 -> 0.6 -> 0.4; y grows downwards in SVG"


def test_baselines_are_dashed_and_grey_and_results_are_not() -> None:
    svg = accuracy_chart([curve("ours"), curve("base", peak=0.7, is_baseline=True)], title="t").decode()
    dashed = [line for line in svg.split("<path") if "stroke-dasharray" in line]
    assert dashed and all(f"stroke: {LIGHT.baseline}" in line for line in dashed)
    assert LIGHT.series[0] in svg and LIGHT.series[1] not in svg


def test_more_results_than_colours_are_told_apart_by_dashes() -> None:
    count = 2 * len(LIGHT.series)
    svg = accuracy_chart([curve(f"r{number}", peak=number / 20) for number in range(count)], title="t").decode()
    of_first_colour = [
        line for line in svg.split("<path") if f"stroke: {LIGHT.series[0]}" in line and "fill: none" in line
    ]
    assert {"stroke-dasharray" in line for line in of_first_colour} == {True, False}


def test_a_histogram_shows_shares_not_numbers() -> None:
    few, many = (overlap_chart([histogram(counts=counts)], title="t") for counts in ((1, 3), (100, 300)))
    assert few == many
    assert overlap_chart([histogram(counts=(3, 1))], title="t") != few
    overlap_chart([histogram(counts=(0, 0))], title="t")


def test_a_history_is_drawn_where_its_numbers_are_and_has_gaps() -> None:
    lines = [
        HistoryLine(name="a", epochs_n=[1, 2, 3, 4, 5], values_n=[4, 3, float("nan"), 2, 1]),
        HistoryLine(name="b", epochs_n=[1, 2, 3, 4, 5], values_n=[-1, -1, -1, -1, -1]),
    ]
    svg = history_chart(lines, title="A chart", values="loss").decode()
    (level,) = {round(y, 1) for _, y in polyline(svg.encode(), LIGHT.series[1])}
    points = polyline(svg.encode(), LIGHT.series[0])
    assert len(points) == 4, "not the epoch without a number"
    # Heights above the line at -1 are as 5 : 4 : 3 : 2; y grows downwards.
    heights = level - points[:, 1]
    np.testing.assert_allclose(heights / heights[-1], [2.5, 2, 1.5, 1], rtol=0.01)
    assert "epoch" in texts(svg.encode()) and "loss" in texts(svg.encode())


def test_error_bars_are_labelled_with_their_share() -> None:
    counts = {"correct": 70, "part": 25, "no box": 5}
    shown = texts(error_chart([ErrorCounts(name="a", counts=counts)], title="t"))
    assert "70" in shown and "25" in shown and "5" not in shown, "5 % is too narrow for a label"
    assert {"correct", "wrong class", "multi-instance", "part", "more", "other", "no box"} <= set(shown)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: accuracy_chart([], title="t"), "at least one curve"),
        (lambda: overlap_chart([], title="t"), "at least one histogram"),
        (lambda: error_chart([], title="t"), "at least one bar"),
        (
            lambda: accuracy_chart([AccuracyCurve(name="gap", thresholds_l=[0, 1], accuracy_l=[1])], title="t"),
            r"gap: expected as many accuracies as thresholds, at least 1, found \(1,\) and \(2,\)",
        ),
        (lambda: history_chart([], title="t", values="loss"), "at least one line"),
        (
            lambda: history_chart([HistoryLine(name="gap", epochs_n=[1, 2], values_n=[1])], title="t", values="loss"),
            r"gap: expected as many values as epochs, at least 1, found \(1,\) and \(2,\)",
        ),
        (
            lambda: overlap_chart([OverlapHistogram(name="gap", edges=[0, 1], counts_n=[1, 2])], title="t"),
            r"gap: expected N >= 1 counts and N \+ 1 edges, found \(2,\) and \(2,\)",
        ),
        (
            lambda: error_chart([ErrorCounts(name="gap", counts={"mistake": 1})], title="t"),
            "gap: expected only correct, .*, found 'mistake'",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


# --- overlays


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a map of the image's size \(4, 6\), found \(6, 4\)"):
        overlay_heat(np.zeros((4, 6, 3), dtype=np.uint8), np.zeros((6, 4), dtype=np.uint8))


def test_png_bytes_read_back_and_carry_no_text() -> None:
    picture = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    content = png_bytes(picture)
    with Image.open(BytesIO(content)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), picture)
        assert not opened.info
    with pytest.raises(OSError, match="could not be encoded"):
        png_bytes(np.zeros((0, 0, 3), dtype=np.uint8))


def test_wide_outlines_cover_more() -> None:
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    thin, wide = (draw_boxes(image, [[8, 8, 30, 30]], colour=(9, 9, 9), width_px=px).any(axis=2).sum() for px in (2, 4))
    assert wide > 1.5 * thin


# --- panels


def prediction(**changes) -> PanelPrediction:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    return PanelPrediction(**({"map_hw": ramp, "box_xyxy": [40, 60, 120, 180], "caption": "IoU 0.62"} | changes))


def row(*predictions: PanelPrediction, **changes) -> PanelRow:
    image = np.full((100, 300, 3), 90, dtype=np.uint8)
    return PanelRow(
        **(
            {"image_rgb": image, "ground_truth_b4": [[20, 30, 200, 210]], "predictions": predictions, "caption": "id"}
            | changes
        )
    )


def cell(picture: np.ndarray, *, row: int, column: int, side: int = 224) -> np.ndarray:
    top, left = LINE_PX + row * (side + LINE_PX), GAP_PX + column * (side + GAP_PX)
    assert panel_cell(row, column, cell_px=side) == (left, top, left + side, top + side)
    return picture[top : top + side, left : left + side]


def extent(picture: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return [columns.min(), rows.min(), columns.max(), rows.max()]


def test_panels_have_a_cell_an_image_and_prediction() -> None:
    picture = localization_panels([row(prediction(), prediction())] * 3, columns=["baseline", "ours"])
    assert picture.shape == (LINE_PX + 3 * (224 + LINE_PX), GAP_PX + 3 * (224 + GAP_PX), 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("side", [224, 112, 448])
def test_boxes_stand_at_their_place_in_every_cell(side: int) -> None:
    picture = localization_panels([row(prediction())], columns=["ours"], cell_px=side)
    scale = side / 224
    for column in (0, 1):
        found = extent(cell(picture, row=0, column=column, side=side), GROUND_TRUTH_RGB)
        np.testing.assert_allclose(found, np.array([20, 30, 201, 211]) * scale - [0, 0, 1, 1], atol=2)
    found = extent(cell(picture, row=0, column=1, side=side), PREDICTED_RGB)
    np.testing.assert_allclose(found, np.array([40, 60, 121, 181]) * scale - [0, 0, 1, 1], atol=2)
    assert not (cell(picture, row=0, column=0, side=side) == PREDICTED_RGB).all(axis=2).any()


def test_the_cell_shows_the_map_as_heat_over_the_image() -> None:
    picture = localization_panels([row(prediction(box_xyxy=None), ground_truth_b4=np.zeros((0, 4)))], columns=["ours"])
    shown = cell(picture, row=0, column=1)
    stretched = cv2.resize(prediction().map_hw, (224, 224), interpolation=cv2.INTER_LINEAR)
    expected = (90.0 + heat_colours(stretched)) / 2
    np.testing.assert_allclose(shown, expected, atol=0.5)
    assert (cell(picture, row=0, column=0) == 90).all()


def test_an_image_without_map_has_a_grey_cell_with_its_ground_truth() -> None:
    shown = cell(localization_panels([row(prediction(map_hw=None, box_xyxy=None))], columns=["ours"]), row=0, column=1)
    assert (shown[:10] == 200).all() and (shown == GROUND_TRUTH_RGB).all(axis=2).any()
    assert not (shown == PREDICTED_RGB).all(axis=2).any()


def test_captions_are_written_below_their_cell_and_stay_within_it() -> None:
    blank, short, long = (
        localization_panels([row(prediction(caption=""), caption=text)], columns=[""])
        for text in ("", "id", "wide " * 40)
    )
    strip = slice(LINE_PX + 224, None)
    own, neighbour = slice(0, GAP_PX + 224), slice(GAP_PX + 224, None)
    assert (blank[strip] == 255).all()
    assert (short[strip, own] < 100).any()
    assert (long[strip, own] < 100).sum() > (short[strip, own] < 100).sum()
    assert (long[strip, neighbour] == 255).all()


def test_captions_in_other_scripts_are_drawn() -> None:
    plain, greek = (localization_panels([row(prediction(caption=text))], columns=["a"]) for text in ("????", "λέων"))
    assert not np.array_equal(plain, greek)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([row(prediction(), prediction())], "row 0: expected 1 predictions, found 2"),
        (
            [row(prediction(), image_rgb=np.zeros((4, 4), dtype=np.uint8))],
            r"row 0: expected an image \(H, W, 3\) uint8",
        ),
        ([row(prediction(map_hw=np.zeros((4, 4))))], r"row 0: expected a map \(H, W\) uint8, found float64 \(4, 4\)"),
        ([row(prediction()), row(prediction(map_hw=np.zeros((0, 4), dtype=np.uint8)))], "row 1: expected a map"),
    ],
)
def test_what_is_no_panel_is_named(rows, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        localization_panels(rows, columns=["ours"])


# --- dots of seeds


def test_dots_of_seeds_name_every_row_with_its_mean() -> None:
    rows = [
        SeedDots(name="GAP (cam)", values_n=(0.5, 0.53)),
        SeedDots(name=HOSTILE, values_n=(0.25,), is_baseline=True),
    ]
    svg = seed_chart(rows, title="A chart", axis="GT-known Loc (%)")
    assert {"A chart", "GT-known Loc (%)", "GAP (cam)", "51.50", "25.00"} <= set(texts(svg))
    assert svg == seed_chart(rows, title="A chart", axis="GT-known Loc (%)")
    assert LIGHT.series[0].encode() in svg and LIGHT.baseline.encode() in svg
    dots = re.findall(rb"<use [^>]*fill-opacity: 0.6", svg)
    assert len(dots) == 3


@pytest.mark.parametrize(("rows", "what"), [([], "row"), ([SeedDots(name="a", values_n=())], "value of a")])
def test_dots_without_anything_are_refused(rows: list[SeedDots], what: str) -> None:
    with pytest.raises(ValueError, match=f"expected at least one {what}, found none"):
        seed_chart(rows, title="A chart", axis="%")
