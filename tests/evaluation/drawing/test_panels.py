"""The picture of rows and columns: cells, boxes, captions."""

import cv2
import numpy as np
import pytest

from evaluation.drawing.overlays import GROUND_TRUTH_RGB, PREDICTED_RGB, heat_colours
from evaluation.drawing.panels import PanelPrediction, PanelRow, localization_panels, panel_cell

GAP_PX, LINE_PX = 8, 22


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
