import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.boxes.ground_truth import clipped_truncated_boxes, cropped_boxes, scaled_boxes, truncated_boxes

MOVERS = [scaled_boxes, truncated_boxes, clipped_truncated_boxes, cropped_boxes]


@st.composite
def image_and_boxes(draw: st.DrawFn) -> tuple[tuple[int, int], list[list[int]]]:
    width, height = draw(st.integers(1, 900)), draw(st.integers(1, 900))
    boxes = []
    for _ in range(draw(st.integers(1, 4))):
        x = sorted(draw(st.tuples(st.integers(0, width - 1), st.integers(0, width - 1))))
        y = sorted(draw(st.tuples(st.integers(0, height - 1), st.integers(0, height - 1))))
        boxes.append([x[0], y[0], x[1], y[1]])
    return (width, height), boxes


def test_corners_move_as_points() -> None:
    assert scaled_boxes([[0, 10, 99, 49]], image_wh=(100, 50)).tolist() == [[0, 44.8, 221.76, 219.52]]


def test_coordinates_are_cut_towards_zero() -> None:
    assert truncated_boxes([[-1, -3, 1, 3]], image_wh=(448, 448)).tolist() == [[0, -1, 0, 1]]
    assert truncated_boxes([[0, 10, 99, 49]], image_wh=(100, 50)).tolist() == [[0, 44, 221, 219]]


def test_whole_pixels_move_by_integer_division_at_every_size() -> None:
    # Dividing first would give 45 * (224 / 80) = 125.999... and 125 for the pixel that lands on 126.
    for width in range(1, 513):
        x = np.arange(width)
        boxes = np.stack([x, x, x, x], axis=1)
        np.testing.assert_array_equal(truncated_boxes(boxes, image_wh=(width, width)), boxes * 224 // width)


def test_ts_cam_divides_first_and_clips_to_the_last_pixel() -> None:
    # 61 / 224 * 224 falls short of 61 by the last bit.
    assert truncated_boxes([[61, 0, 223, 0]], image_wh=(224, 1)).tolist() == [[61, 0, 223, 0]]
    assert clipped_truncated_boxes([[61, 0, 223, 0]], image_wh=(224, 1)).tolist() == [[60, 0, 223, 0]]
    assert clipped_truncated_boxes([[-5, 1, 900, 999]], image_wh=(500, 1000)).tolist() == [[0, 0, 223, 223]]
    assert clipped_truncated_boxes([[900, 0, 950, 9]], image_wh=(500, 10)).tolist() == [[223, 0, 223, 201]]


def test_crop_keeps_what_shows_and_collapses_the_rest_on_the_edge() -> None:
    # 512 x 1024: half and a quarter of the size, then 16 less.
    moved = cropped_boxes([[100, 200, 300, 600], [0, 0, 20, 1023], [490, 0, 511, 40]], image_wh=(512, 1024))
    assert moved.tolist() == [[34, 34, 134, 134], [0, 0, 0, 223], [223, 0, 223, 0]]


@given(image_and_boxes())
@settings(max_examples=100, deadline=None)
def test_the_four_frames_differ_by_less_than_their_rounding(
    sample: tuple[tuple[int, int], list[list[int]]],
) -> None:
    image_wh, boxes = sample
    for row, box in enumerate(boxes):
        exact = [value * 224 / image_wh[place % 2] for place, value in enumerate(box)]
        assert scaled_boxes(boxes, image_wh=image_wh)[row] == pytest.approx(exact)
        assert truncated_boxes(boxes, image_wh=image_wh)[row].tolist() == [int(value) for value in exact]
        by_ts_cam = [int(min(value / image_wh[place % 2] * 224, 223)) for place, value in enumerate(box)]
        assert clipped_truncated_boxes(boxes, image_wh=image_wh)[row].tolist() == by_ts_cam
        cropped = [min(max(value * 256 / image_wh[place % 2] - 16, 0), 223) for place, value in enumerate(box)]
        assert cropped_boxes(boxes, image_wh=image_wh)[row] == pytest.approx(cropped)


@given(image_and_boxes())
@settings(max_examples=50, deadline=None)
def test_corners_stay_in_order_and_rows_apart(sample: tuple[tuple[int, int], list[list[int]]]) -> None:
    image_wh, boxes = sample
    for mover in MOVERS:
        moved = mover(boxes, image_wh=image_wh)
        assert moved.dtype == np.float64 and moved.shape == (len(boxes), 4)
        assert (moved[:, :2] <= moved[:, 2:]).all() and (moved >= 0).all() and (moved < 224).all()
        for row, box in enumerate(boxes):
            assert mover([box], image_wh=image_wh)[0].tolist() == moved[row].tolist()


@pytest.mark.parametrize("mover", MOVERS)
def test_no_boxes_give_no_rows(mover) -> None:
    assert mover([], image_wh=(10, 10)).shape == (0, 4)
    assert mover(np.zeros((0, 4)), image_wh=(10, 10)).shape == (0, 4)


@pytest.mark.parametrize("mover", MOVERS)
def test_wrong_boxes_and_sizes_are_refused(mover) -> None:
    for bad in ([[5, 0, 4, 9]], [[0, 0, np.nan, 9]], [[0, 0, np.inf, 9]]):
        with pytest.raises(ValueError, match=r"row 1: expected finite x0 <= x1"):
            mover([[0, 0, 1, 1], bad[0]], image_wh=(10, 10))
    for bad in ([0, 0, 1, 1], [[0, 0, 1]], [[[0, 0, 1, 1]]]):
        with pytest.raises(ValueError, match=r"ground truth: expected boxes \(N, 4\)"):
            mover(bad, image_wh=(10, 10))
    for wrong_wh in ((0, 10), (10, -1), (np.nan, 10), (np.inf, 10), (10,)):
        with pytest.raises(ValueError, match="positive image width and height"):
            mover([[0, 0, 1, 1]], image_wh=wrong_wh)
