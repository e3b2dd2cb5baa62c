import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.boxes.fixed_thresholds import TS_CAM_FALLBACK_BOX, largest_component, one_box, ts_cam_box
from evaluation.boxes.overlaps import Candidates

FRAME = 224
FULL_FRAME = [[0, 0, 223, 223]]
RULES = [largest_component, ts_cam_box]


def boxes(candidates: Candidates) -> list:
    count = len(candidates.boxes_n4)
    assert candidates.first_level_n.tolist() == candidates.last_level_n.tolist() == [0] * count
    return candidates.boxes_n4.tolist()


def blank() -> NDArray[np.float64]:
    return np.zeros((FRAME, FRAME))


def bilinear_to_frame(map_hw: NDArray) -> NDArray[np.float64]:
    """Weights of the two nearest pixel centres on each axis, the outermost repeated beyond the border."""

    def weights(size: int) -> NDArray[np.float64]:
        matrix = np.zeros((FRAME, size))
        for target in range(FRAME):
            place = (target + 0.5) * size / FRAME - 0.5
            low = int(np.floor(place))
            for index, weight in ((low, low + 1 - place), (low + 1, place - low)):
                matrix[target, min(max(index, 0), size - 1)] += weight
        return matrix

    return weights(map_hw.shape[0]) @ map_hw @ weights(map_hw.shape[1]).T


# --- cam


def test_cam_box_lies_on_the_pixels_of_the_largest_group() -> None:
    scores = blank()
    scores[10:20, 30:50] = 1
    scores[100:103, 100:103] = 5
    assert boxes(largest_component(scores)) == [[100, 100, 102, 102]]  # 1 is exactly a fifth of 5: not above it
    scores[10:20, 30:50] = 1.001
    assert boxes(largest_component(scores)) == [[30, 10, 49, 19]]


@pytest.mark.parametrize("peak", [5, 35, 255, 0.7, 3e-300])
def test_cam_leaves_out_a_score_of_exactly_a_fifth_of_the_peak(peak: float) -> None:
    scores = blank()
    scores[5, 5] = peak
    scores[50:60, 50:60] = peak / 5
    assert boxes(largest_component(scores)) == [[5, 5, 5, 5]]


def test_cam_counts_pixels_not_the_area_of_the_box_and_joins_diagonals() -> None:
    scores = blank()
    np.fill_diagonal(scores[:40, :40], 1)  # 40 pixels, one group only if corners touch
    scores[100:106, 100:106] = 1  # 36 pixels
    assert boxes(largest_component(scores)) == [[0, 0, 39, 39]]
    scores[100:107, 100:106] = 1  # 42 pixels
    assert boxes(largest_component(scores)) == [[100, 100, 105, 106]]


@pytest.mark.parametrize("value", [1.0, 0.3, 1e-310, 255])
def test_cam_takes_of_equal_groups_the_first_in_rows(value: float) -> None:
    scores = blank()
    scores[11:13, 20:22] = value
    scores[10:12, 60:62] = value  # begins one row higher, though OpenCV's 2 x 2 blocks may number it later
    scores[200:201, 0:4] = value
    assert boxes(largest_component(scores)) == [[60, 10, 61, 11]]


def test_cam_clips_negative_scores_before_interpolating() -> None:
    scores = np.array([[-100.0, 1.0]])
    # Clipped, the score passes 20 % of the peak at .2 of the way between the centres 56 - .5 and 168 - .5.
    assert boxes(largest_component(scores)) == [[78, 0, 223, 223]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int16, bool])
def test_cam_does_not_depend_on_the_dtype(dtype: type) -> None:
    scores = np.zeros((14, 14), dtype=dtype)
    scores[3:7, 2:9] = 1
    assert boxes(largest_component(scores)) == boxes(largest_component(scores.astype(np.float64)))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (np.uint16, 257),
        (np.float16, 1 / 255),
        *((dtype, peak / 255) for dtype in (np.float32, np.float64) for peak in (1, 0.3, 0.7, 11.3)),
    ],
)
@pytest.mark.parametrize("side", [FRAME, 112, 28])
def test_cam_finds_the_same_box_for_grey_levels_in_every_dtype(dtype: type, scale: float, side: int) -> None:
    # 51 of 255 is exactly 20 %, yet float32(51 / 255) is 3e-9 more.
    grey = np.zeros((side, side), dtype=np.uint8)
    grey[4:24, 3:27] = 51
    grey[10:20, 10:20] = 255
    stored = boxes(largest_component(grey))
    assert stored == boxes(largest_component(grey.astype(dtype) * dtype(scale)))
    if side == FRAME:
        assert stored == [[10, 10, 19, 19]]


@given(
    st.integers(1, 30).flatmap(
        lambda h: st.integers(1, 30).flatmap(
            lambda w: st.lists(st.integers(-3, 12), min_size=h * w, max_size=h * w).map(
                lambda values: np.array(values, dtype=np.float64).reshape(h, w)
            )
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_cam_agrees_with_scipy(map_hw: NDArray) -> None:
    _agrees_with_scipy(map_hw)


@pytest.mark.parametrize("smoothness", [0, 1, 4, 20])
def test_cam_agrees_with_scipy_at_frame_size(smoothness: float) -> None:
    rng = np.random.default_rng(int(smoothness))
    for _ in range(10):
        noise = rng.normal(size=(FRAME, FRAME))
        _agrees_with_scipy(ndimage.gaussian_filter(noise, smoothness) if smoothness else noise)


def _agrees_with_scipy(map_hw: NDArray) -> None:
    scores = bilinear_to_frame(np.maximum(map_hw, 0))
    found = boxes(largest_component(map_hw))
    if scores.max() <= 0:
        assert found == []
        return
    share = scores / scores.max()
    # OpenCV keeps its weights in float32, so a pixel this close to the threshold may fall on either side.
    if (np.abs(share - 0.2) < 1e-6).any():
        return
    labels, count = ndimage.label(share > 0.2, structure=np.ones((3, 3)))
    pixels = ndimage.sum_labels(np.ones_like(share), labels, np.arange(1, count + 1))
    rows, columns = ndimage.find_objects(labels)[int(np.argmax(pixels))]  # scipy numbers in scan order
    assert found == [[columns.start, rows.start, columns.stop - 1, rows.stop - 1]]


def test_cam_gives_no_box_without_a_positive_score_and_the_frame_for_a_constant_one() -> None:
    for value in (0, -1, -1e300):
        assert boxes(largest_component(np.full((7, 7), value))) == []
    for value in (0.3, 1e-320, 1e308):
        assert boxes(largest_component(np.full((7, 5), value))) == FULL_FRAME
    assert boxes(largest_component(np.array([[2.0]]))) == FULL_FRAME


# --- ts-cam


def test_ts_cam_box_ends_one_beyond_the_contour_and_may_leave_the_frame() -> None:
    scores = blank()
    scores[10:20, 30:50] = 1
    assert boxes(ts_cam_box(scores)) == [[30, 10, 50, 20]]
    scores[100:, 100:] = 1
    assert boxes(ts_cam_box(scores)) == [[100, 100, 224, 224]]


def test_ts_cam_threshold_is_grey_level_30_exclusive() -> None:
    scores = blank()
    scores[5:8, 5:8] = 255
    scores[50:60, 50:60] = 30.9  # cut to 30: not above
    assert boxes(ts_cam_box(scores)) == [[5, 5, 8, 8]]
    scores[50:60, 50:60] = 31.01
    assert boxes(ts_cam_box(scores)) == [[50, 50, 60, 60]]


def test_ts_cam_stretches_the_map_to_its_minimum() -> None:
    scores = blank() - 10
    scores[50:60, 50:60] = -9
    assert boxes(ts_cam_box(scores)) == [[50, 50, 60, 60]]


def test_ts_cam_ranks_by_polygon_area() -> None:
    scores = blank()
    scores[10, 10:200] = 1  # 190 pixels on a line, area 0
    scores[100:102, 100:102] = 1  # 4 pixels, area 1
    assert boxes(ts_cam_box(scores)) == [[100, 100, 102, 102]]


@pytest.mark.parametrize("size", [14, 28, 224, 300])
def test_ts_cam_agrees_with_a_plain_sequence_of_opencv_calls(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(25):
        scores = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), size * rng.uniform(0.005, 0.2))
        scores = scores.astype(np.float32)
        resized = cv2.resize(scores, (FRAME, FRAME))
        resized = (resized - resized.min()) / (resized.max() - resized.min())
        grey = (resized * 255).astype(np.uint8)
        assert grey.max() == 255
        _, kept = cv2.threshold(grey, 30, 255, cv2.THRESH_TOZERO)
        best_area, best_box = -1.0, None
        for contour in cv2.findContours(kept, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]:
            if cv2.contourArea(contour) > best_area:
                x, y, width, height = cv2.boundingRect(contour)
                best_area, best_box = cv2.contourArea(contour), [x, y, x + width, y + height]
        assert boxes(ts_cam_box(scores)) == [best_box]


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros((7, 7)),
        np.full((14, 14), 0.3),
        np.full((9, 11), -0.7),
        np.ones((1, 1)),
        np.array([[0, np.nan], [1, 2]]),
        np.array([[0, np.inf], [1, 2]]),
        np.array([[0, -np.inf], [1, 2]]),
        np.full((3, 3), np.inf),
        np.array([[0, 1e300], [1, 2]]),
        np.array([[-3e38, 3e38], [1, 2]]),
    ],
    ids=["zeros", "constant", "negative", "1x1", "nan", "inf", "-inf", "all-inf", "beyond-float32", "range-float32"],
)
def test_ts_cam_answers_its_corner_box_where_nothing_can_be_stretched(scores: NDArray) -> None:
    assert boxes(ts_cam_box(scores)) == [list(TS_CAM_FALLBACK_BOX)] == [[0, 0, 1, 1]]


def test_ts_cam_answers_its_corner_box_where_a_reduction_skips_the_only_difference() -> None:
    scores = np.zeros((2240, 2240))
    scores[0, 0] = 1
    assert boxes(ts_cam_box(scores)) == [[0, 0, 1, 1]]
    assert boxes(largest_component(scores)) == []


# --- both


@pytest.mark.parametrize("rule", RULES)
def test_interpolation_aligns_pixel_centres(rule) -> None:
    scores = np.zeros((4, 4))
    scores[1, 2] = 1
    box = np.array(boxes(rule(scores))[0])
    expected = bilinear_to_frame(scores) > (0.2 if rule is largest_component else 31 / 255)
    rows, columns = np.flatnonzero(expected.any(axis=1)), np.flatnonzero(expected.any(axis=0))
    beyond = 0 if rule is largest_component else 1
    assert box.tolist() == [columns[0], rows[0], columns[-1] + beyond, rows[-1] + beyond]


@pytest.mark.parametrize("rule", RULES)
def test_rules_leave_the_map_as_it_was(rule) -> None:
    scores = np.random.default_rng(0).normal(size=(FRAME, FRAME))
    before = scores.copy()
    rule(scores)
    assert np.array_equal(scores, before)


def test_one_box_or_none() -> None:
    assert one_box(None).boxes_n4.shape == (0, 4)
    assert one_box((1, 2, 3, 4)).boxes_n4.tolist() == [[1, 2, 3, 4]]
