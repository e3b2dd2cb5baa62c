import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.boxes.overlaps import NO_BOX, Candidates, best_overlaps

LEVELS = 6
WHOLE = (0.0, 0.0, 9.0, 9.0)

coordinate = st.integers(0, 20)
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
span = st.tuples(st.integers(0, LEVELS - 1), st.integers(0, LEVELS - 1)).map(sorted)


def candidates(*rows: tuple[tuple[float, ...], int, int]) -> Candidates:
    """Candidates from (box, first level, last level)."""
    return Candidates(
        boxes_n4=np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 4),
        first_level_n=np.array([row[1] for row in rows], dtype=np.int64),
        last_level_n=np.array([row[2] for row in rows], dtype=np.int64),
    )


def pixels(x0: int, y0: int, x1: int, y1: int) -> set[tuple[int, int]]:
    return {(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}


def iou_of_pixels(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Overlap by counting shared pixels."""
    return len(pixels(*a) & pixels(*b)) / len(pixels(*a) | pixels(*b))


def test_published_vector_is_inclusive() -> None:
    iou_l, _ = best_overlaps(candidates(((1, 2, 5, 6), 0, 0)), [[3, 1, 4, 5]], levels=1)
    assert iou_l.tolist() == [8 / 27]


@given(st.lists(st.tuples(box, span), max_size=5), st.lists(box, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_every_level_has_its_best_candidate(rows: list, truth: list) -> None:
    given_boxes = candidates(*((corners, *levels) for corners, levels in rows))
    iou_l, boxes_l4 = best_overlaps(given_boxes, truth, levels=LEVELS)
    assert iou_l.shape == (LEVELS,) and boxes_l4.shape == (LEVELS, 4)
    for level in range(LEVELS):
        standing = [corners for corners, (first, last) in rows if first <= level <= last]
        best, chosen = 0.0, NO_BOX
        for corners in standing:
            iou = max(iou_of_pixels(corners, other) for other in truth)
            if chosen == NO_BOX or iou > best:
                best, chosen = iou, corners
        assert iou_l[level] == best
        assert tuple(boxes_l4[level]) == chosen


def test_of_equal_candidates_the_first_is_kept_and_one_that_misses_is_still_a_box() -> None:
    left, right, outside = (0, 0, 4, 9), (5, 0, 9, 9), (20, 20, 21, 21)
    iou_l, boxes_l4 = best_overlaps(candidates((right, 0, 1), (left, 0, 1), (outside, 0, 2)), [WHOLE], levels=4)
    assert iou_l.tolist() == [0.5, 0.5, 0, 0]
    assert boxes_l4.tolist() == [list(right), list(right), list(outside), list(NO_BOX)]


@pytest.mark.parametrize(
    ("given_boxes", "truth", "message"),
    [
        (candidates((WHOLE, 0, 0)), np.zeros((0, 4)), "no ground-truth box"),
        (candidates((WHOLE, 0, 0)), [[5, 0, 4, 9]], "ground truth: row 0"),
        (candidates(((5, 0, 4, 9), 0, 0)), [WHOLE], "candidates: row 0"),
        (candidates(((0, 0, np.nan, 9), 0, 0)), [WHOLE], "candidates: row 0"),
        (candidates((WHOLE, 0, 2)), [WHOLE], r"a level lies outside 0\.\.1"),
        (candidates((WHOLE, -1, 0)), [WHOLE], "a level lies outside"),
        (candidates((WHOLE, 1, 0)), [WHOLE], "out of order"),
    ],
)
def test_what_does_not_fit_is_refused(given_boxes: Candidates, truth: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        best_overlaps(given_boxes, truth, levels=2)
