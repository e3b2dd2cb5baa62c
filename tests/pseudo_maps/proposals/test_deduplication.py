from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.deduplication import keep_distinct

Bools = npt.NDArray[np.bool_]


def slow_keep(masks: Bools, max_iou: Fraction) -> list[int]:
    """Pairwise overlaps as exact fractions of set sizes."""
    sets = [frozenset(np.nonzero(mask)[0].tolist()) for mask in masks]
    kept: list[int] = []
    for index, candidate in enumerate(sets):
        if candidate and all(Fraction(len(candidate & sets[k]), len(candidate | sets[k])) <= max_iou for k in kept):
            kept.append(index)
    return kept


@given(
    st.integers(0, 40),
    # Around the borders of one byte and one 64-bit word.
    st.sampled_from([1, 2, 7, 8, 9, 20, 63, 64, 65, 128, 130]),
    st.integers(0, 10_000),
    st.sampled_from(["0.5", "0.7", "0.8", "0.85", "0.9", "1"]),
    st.sampled_from([0.02, 0.15, 0.5]),
)
@settings(max_examples=250, deadline=None)
def test_equals_exact_pairwise_overlaps(count: int, regions: int, seed: int, max_iou: str, change: float) -> None:
    rng = np.random.default_rng(seed)
    # Variations of a few masks, so that overlaps lie around the limit.
    themes = rng.random((3, regions)) < rng.random((3, 1))
    masks = themes[rng.integers(0, 3, count)] ^ (rng.random((count, regions)) < change * rng.random((count, 1)))
    before = masks.copy()
    kept = keep_distinct(masks, max_iou=float(max_iou))
    assert kept.dtype == np.int64
    assert kept.tolist() == slow_keep(masks, Fraction(max_iou))
    assert np.array_equal(masks, before)


@pytest.mark.parametrize(
    ("numerator", "denominator", "max_iou"),
    [
        (4, 5, 0.8),
        (8, 10, 0.8),
        (17, 20, 0.85),
        (34, 40, 0.85),
        (9, 10, 0.9),
        (90, 100, 0.9),
        (7, 10, 0.7),
        (1, 2, 0.5),
    ],
)
def test_exactly_the_limit_is_no_duplicate(numerator: int, denominator: int, max_iou: float) -> None:
    # The smaller is a part of the larger one, then the same share with parts that each has alone.
    larger = np.zeros(denominator, dtype=np.bool_)
    larger[:] = True
    smaller = np.arange(denominator) < numerator
    assert keep_distinct(np.stack([larger, smaller]), max_iou=max_iou).tolist() == [0, 1]
    assert keep_distinct(np.stack([larger, smaller]), max_iou=np.nextafter(max_iou, 0)).tolist() == [0]
    left, right = np.arange(denominator) < denominator - 1, np.arange(denominator) >= denominator - numerator - 1
    assert np.logical_or(left, right).sum() == denominator and np.logical_and(left, right).sum() == numerator
    assert keep_distinct(np.stack([left, right]), max_iou=max_iou).tolist() == [0, 1]
    assert keep_distinct(np.stack([left, right]), max_iou=np.nextafter(max_iou, 0)).tolist() == [0]


def test_a_duplicate_of_a_dropped_mask_is_kept() -> None:
    # Each overlaps the one before by 4/5 and the one before that by 3/5.
    chain = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=np.bool_)
    assert keep_distinct(chain, max_iou=0.7).tolist() == [0, 2]


def test_empty_masks_go_and_equal_ones_are_kept_once() -> None:
    masks = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1], [0, 0, 0], [1, 0, 0]], dtype=np.bool_)
    assert keep_distinct(masks, max_iou=0.99).tolist() == [1, 4]
    assert keep_distinct(masks, max_iou=1.0).tolist() == [1, 2, 4]  # nothing overlaps by more than all


def test_nothing_in_nothing_out() -> None:
    assert keep_distinct(np.zeros((0, 70), np.bool_), max_iou=0.8).tolist() == []
    assert keep_distinct(np.zeros((5, 70), np.bool_), max_iou=0.8).tolist() == []


def test_as_many_superpixels_as_an_image_has() -> None:
    rng = np.random.default_rng(0)
    centres, sizes = rng.integers(0, 1021, 300), rng.integers(1, 400, 300)
    masks = np.abs(np.arange(1021)[None] - centres[:, None]) < sizes[:, None]
    expected = slow_keep(masks, Fraction("0.85"))
    assert 50 < len(expected) < 300
    assert keep_distinct(masks, max_iou=0.85).tolist() == expected
