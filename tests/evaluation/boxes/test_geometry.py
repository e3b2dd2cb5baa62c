import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.boxes.geometry import (
    box_iou_inclusive,
    scale_boxes_truncated,
)

coordinate = st.integers(0, 30)
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


# --- overlap


def test_published_vector_of_the_overlap() -> None:
    assert box_iou_inclusive([[1, 2, 5, 6]], [[3, 1, 4, 5]])[0, 0] == 8 / 27


def test_overlap_of_hand_made_boxes() -> None:
    frame, pixel, neighbour = (0, 0, 9, 9), (4, 4, 4, 4), (5, 4, 5, 4)
    iou = box_iou_inclusive([frame, pixel], [frame, pixel, neighbour])
    assert iou.tolist() == [[1, 0.01, 0.01], [0.01, 1, 0]]


@given(st.lists(box, max_size=5), st.lists(box, max_size=5))
@settings(max_examples=100, deadline=None)
def test_overlap_counts_the_shared_pixels(boxes_a: list, boxes_b: list) -> None:
    def pixels(x0: int, y0: int, x1: int, y1: int) -> set[tuple[int, int]]:
        return {(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}

    a, b = np.array(boxes_a).reshape(-1, 4), np.array(boxes_b).reshape(-1, 4)
    iou = box_iou_inclusive(a, b)
    assert iou.shape == (len(a), len(b)) and iou.dtype == np.float64
    for i, box_a in enumerate(boxes_a):
        for j, box_b in enumerate(boxes_b):
            shared, either = pixels(*box_a) & pixels(*box_b), pixels(*box_a) | pixels(*box_b)
            assert iou[i, j] == len(shared) / len(either)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], r"expected boxes \(N, 4\), found shape \(4,\)"),
        ([[1, 2, 3]], r"found shape \(1, 3\)"),
        ([[0, 0, 1, 1], [5, 0, 4, 9]], r"boxes_b_xyxy: row 1: expected x0 <= x1.*found \[5\.0, 0\.0"),
        ([[0, 0, np.nan, 1]], "row 0"),
    ],
)
def test_overlap_refuses_what_is_no_box(boxes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_iou_inclusive([[0, 0, 1, 1]], boxes)


# --- scaling


def test_published_vector_of_the_scaling() -> None:
    scaled = scale_boxes_truncated([[1, 2, 4, 3]], from_wh=(10, 20), to_wh=(35, 10))
    assert scaled.tolist() == [[3, 1, 14, 1]] and scaled.dtype == np.int64


@given(box, st.integers(1, 5000), st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_scaling_multiplies_then_divides_then_truncates(corners: tuple, width: int, height: int) -> None:
    x0, y0, x1, y1 = map(float, corners)
    expected = [int(x0 * 224.0 / width), int(y0 * 224.0 / height)]
    expected += [int(x1 * 224.0 / width), int(y1 * 224.0 / height)]
    scaled = scale_boxes_truncated([corners], from_wh=(width, height), to_wh=(224, 224))
    assert scaled.tolist() == [expected]


def test_scaling_of_whole_pixels_is_integer_division_at_every_size() -> None:
    # Dividing first would give 45 * (224 / 80) = 125.999... and 125 for the pixel that lands on 126.
    for width in range(1, 513):
        x = np.arange(width)
        boxes = np.stack([x, x, x, x], axis=1)
        scaled = scale_boxes_truncated(boxes, from_wh=(width, width), to_wh=(224, 224))
        np.testing.assert_array_equal(scaled, boxes * 224 // width)


def test_scaling_cuts_towards_zero_and_takes_no_boxes() -> None:
    assert scale_boxes_truncated([[-1, -3, 1, 3]], from_wh=(2, 2), to_wh=(1, 1)).tolist() == [[0, -1, 0, 1]]
    assert scale_boxes_truncated(np.zeros((0, 4)), from_wh=(2, 2), to_wh=(1, 1)).shape == (0, 4)


@pytest.mark.parametrize(("from_wh", "to_wh"), [((0, 5), (224, 224)), ((5, 5), (224, -1))])
def test_scaling_refuses_frames_without_area(from_wh: tuple, to_wh: tuple) -> None:
    with pytest.raises(ValueError, match="positive width and height"):
        scale_boxes_truncated([[0, 0, 1, 1]], from_wh=from_wh, to_wh=to_wh)
