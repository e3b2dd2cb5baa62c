import numpy as np
import pytest

from evaluation.boxes.geometry import checked_boxes


def test_boxes_become_float64_rows() -> None:
    boxes = checked_boxes([[0, 1, 2, 3], [4, 4, 4, 4]], name="boxes")
    assert boxes.dtype == np.float64 and boxes.tolist() == [[0, 1, 2, 3], [4, 4, 4, 4]]
    assert checked_boxes([], name="boxes").shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], r"given: expected boxes \(N, 4\), found shape \(4,\)"),
        ([[1, 2, 3]], r"found shape \(1, 3\)"),
        ([[0, 0, 1, 1], [5, 0, 4, 9]], r"given: row 1: expected finite x0 <= x1.*found \[5\.0, 0\.0"),
        ([[0, 0, np.nan, 1]], "row 0"),
        ([[0, 0, np.inf, 1]], "row 0"),
    ],
)
def test_what_is_no_box_is_refused(boxes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_boxes(boxes, name="given")
