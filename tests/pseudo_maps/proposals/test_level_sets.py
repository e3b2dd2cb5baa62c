from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.level_sets import critical_level_sets, keep_distinct

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

HALF = np.float32(0.5)


def slow_level_sets(
    field: Floats, *, levels: int, max_iou: float, min_size: float, max_size: float
) -> list[tuple[Bools, np.float32]]:
    """One field, step by step, with plain lists."""
    x = sorted(field)
    count = len(x)
    low, high = int(count * min_size), int(count * max_size)

    def gap(i: int) -> np.float32:
        here, following = x[min(i, count - 1)], x[min(i + 1, count - 1)]
        return np.float32(0) if following > 1e9 else following - here

    candidates = [
        i
        for i in range(max(low, 2), high + 1)
        if i < count and x[i] < 1e9 and gap(i) > 0 and gap(i) > gap(i - 1) and gap(i) > gap(i + 1)
    ]
    if not candidates:
        return [(field < (x[0] + x[-1]) * HALF, np.float32(0))]
    accepted: list[int] = []
    for i in sorted(candidates, key=lambda i: (-gap(i), i)):
        if len(accepted) < levels and all(min(i, j) / max(i, j) <= max_iou for j in accepted):
            accepted.append(i)
    return [(field < (x[i] + x[i + 1]) * HALF, gap(i)) for i in accepted]


def random_fields(count: int, regions: int, seed: int, *, steps: int) -> Floats:
    """Signed distances; with ``steps`` multiples of 1/64, which tie often and whose gaps are exact."""
    rng = np.random.default_rng(seed)
    if steps:
        return (rng.integers(-steps, steps, (count, regions)) / 64).astype(np.float32)
    return rng.normal(size=(count, regions)).astype(np.float32)


@given(
    st.integers(1, 4),
    st.integers(1, 80),
    st.integers(0, 10_000),
    st.sampled_from([0, 3, 40, 1000]),
    st.integers(1, 12),
    st.sampled_from([0.5, 0.7, 0.8, 0.85, 0.9, 0.99]),
    st.sampled_from([(0.0, 0.75), (0.1, 1.0), (0.0, 1.0), (0.3, 0.4)]),
)
@settings(max_examples=250, deadline=None)
def test_equals_the_specification(
    count: int, regions: int, seed: int, steps: int, levels: int, max_iou: float, sizes: tuple[float, float]
) -> None:
    fields = random_fields(count, regions, seed, steps=steps)
    before = fields.copy()
    options = {"levels": levels, "max_iou": max_iou, "min_size": sizes[0], "max_size": sizes[1]}
    masks, scores = critical_level_sets(fields, **options)  # type: ignore[arg-type]
    expected = [pair for field in fields for pair in slow_level_sets(field, **options)]  # type: ignore[arg-type]
    assert masks.dtype == np.bool_ and scores.dtype == np.float32
    assert masks.shape == (len(expected), regions)
    assert np.array_equal(masks, np.array([mask for mask, _ in expected]))
    assert scores.tolist() == [score for _, score in expected]
    assert np.array_equal(fields, before)


def test_hand_made_plateaus() -> None:
    # Sizes 3 and 6 are followed by long gaps (3 and 2); a gap after size 1 is never a candidate.
    field = np.array([[0, 1.5, 2, 5, 5.5, 6, 8, 8.5, 9, 9.5]], dtype=np.float32)
    masks, scores = critical_level_sets(field, levels=5, max_iou=0.9, min_size=0, max_size=1)
    assert scores.tolist() == [3, 2]
    assert masks.astype(int).tolist() == [[1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]]
    strongest, _ = critical_level_sets(field, levels=1, max_iou=0.9, min_size=0, max_size=1)
    assert np.array_equal(strongest, masks[:1])
    # Sizes count from 0 in the ratio: 2 / 5 is the overlap of the two.
    assert len(critical_level_sets(field, levels=5, max_iou=0.4, min_size=0, max_size=1)[0]) == 2
    assert len(critical_level_sets(field, levels=5, max_iou=0.39, min_size=0, max_size=1)[0]) == 1


@pytest.mark.parametrize("max_iou", [0.999, 1.0])
def test_no_level_is_accepted_twice(max_iou: float) -> None:
    # With a limit of 1 no size ratio is above it, not even that of an accepted level with itself.
    field = np.array([[0, 1.5, 2, 5, 5.5, 6, 8, 8.5, 9, 9.5]], dtype=np.float32)
    masks, scores = critical_level_sets(field, levels=5, max_iou=max_iou, min_size=0, max_size=1)
    assert scores.tolist() == [3, 2]
    assert masks.sum(axis=1).tolist() == [3, 6]


def test_sizes_are_bounded_at_both_ends() -> None:
    field = np.array([[0, 0, 0, 4, 4, 4, 8, 8, 8, 12]], dtype=np.float32)
    whole, _ = critical_level_sets(field, levels=9, max_iou=0.99, min_size=0, max_size=1)
    assert whole.sum(axis=1).tolist() == [3, 6, 9]  # ties: smaller first
    bounded, _ = critical_level_sets(field, levels=9, max_iou=0.99, min_size=0.3, max_size=0.5)
    assert bounded.sum(axis=1).tolist() == [6]


def test_without_candidate_the_range_is_halved() -> None:
    field = np.array([[3, 0, 1, 2]], dtype=np.float32)  # all gaps equal
    masks, scores = critical_level_sets(field, levels=3, max_iou=0.8, min_size=0, max_size=1)
    assert masks.tolist() == [[False, True, True, False]] and scores.tolist() == [0]


@pytest.mark.parametrize("regions", [1, 2, 50])
def test_a_constant_field_gives_an_empty_mask_of_score_zero(regions: int) -> None:
    masks, scores = critical_level_sets(
        np.full((2, regions), 0.25, np.float32), levels=4, max_iou=0.8, min_size=0, max_size=1
    )
    assert masks.shape == (2, regions) and not masks.any() and scores.tolist() == [0, 0]


def test_the_step_to_unreachable_regions_is_no_gap() -> None:
    field = np.array([[0, 1, 2, 4, 4.5, 2e9, 2e9, 2e9]], dtype=np.float32)
    masks, scores = critical_level_sets(field, levels=4, max_iou=0.9, min_size=0, max_size=1)
    assert scores.tolist() == [2] and masks.sum(axis=1).tolist() == [3]


def test_no_fields_give_no_masks() -> None:
    masks, scores = critical_level_sets(np.zeros((0, 5), np.float32), levels=3, max_iou=0.8, min_size=0, max_size=1)
    assert masks.shape == (0, 5) and scores.shape == (0,)


# --- near-duplicates


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
