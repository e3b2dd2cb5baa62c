import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.intervals import WeightedSums, percentile_interval, poisson_weights, wilson_interval


@settings(max_examples=50, deadline=None)
@given(
    indexes=st.lists(st.integers(0, 10**7), max_size=20),
    samples=st.integers(0, 40),
    seed=st.integers(0, 2**64 - 1),
    cut=st.integers(0, 20),
)
def test_weights_depend_on_index_seed_and_samples_alone(indexes: list[int], samples: int, seed: int, cut: int) -> None:
    together = poisson_weights(indexes, samples=samples, seed=seed)
    assert together.shape == (len(indexes), samples) and together.dtype == np.uint8
    parts = [poisson_weights(part, samples=samples, seed=seed) for part in (indexes[:cut], indexes[cut:])]
    assert np.concatenate(parts).tolist() == together.tolist()
    for index, row in zip(indexes, together.tolist(), strict=True):
        assert poisson_weights([index], samples=samples, seed=seed)[0].tolist() == row


def test_neighbours_drawn_in_one_run_are_those_drawn_alone() -> None:
    run = poisson_weights(range(5, 25), samples=37, seed=3)
    alone = np.concatenate([poisson_weights([index], samples=37, seed=3) for index in range(5, 25)])
    assert run.tolist() == alone.tolist()


def test_weights_are_poisson_of_mean_one_and_independent() -> None:
    weights = poisson_weights(range(2000), samples=500, seed=0)
    share = np.bincount(weights.ravel(), minlength=9) / weights.size
    expected = [math.exp(-1) / math.factorial(count) for count in range(9)]
    # A million draws: five standard errors of the commonest weight are .0024.
    assert np.abs(share - expected).max() < 0.0025
    assert abs(weights.mean() - 1) < 0.005
    between_images = np.corrcoef(weights[:20].astype(float))
    between_samples = np.corrcoef(weights[:, :20].T.astype(float))
    assert np.abs(between_images - np.eye(20)).max() < 0.25
    assert np.abs(between_samples - np.eye(20)).max() < 0.12


def test_another_seed_gives_other_weights() -> None:
    first, second = (poisson_weights(range(10), samples=50, seed=seed) for seed in (0, 1))
    assert (first != second).any(axis=1).all()


@pytest.mark.parametrize(
    ("indexes", "samples", "seed"), [([-1], 5, 0), ([[0]], 5, 0), ([0], -1, 0), ([0], 5, -1), ([0], 5, 2**64)]
)
def test_arguments_out_of_range_are_refused(indexes: list[int], samples: int, seed: int) -> None:
    with pytest.raises(ValueError, match="expected indexes"):
        poisson_weights(indexes, samples=samples, seed=seed)


def test_weighted_sums_are_exact() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 9, (300, 11)).astype(np.uint8)
    hits = rng.random((300, 6)) < 0.5
    sums = WeightedSums(6, samples=11)
    for start in range(0, 300, 70):
        sums.add(weights[start : start + 70], hits[start : start + 70])
    expected = [
        [sum(int(w) for w, h in zip(weights[:, s], hits[:, c], strict=True) if h) for c in range(6)] for s in range(11)
    ]
    assert sums.sums_sc.tolist() == expected


def test_sums_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found \(2, 3\) and \(1, 6\)"):
        WeightedSums(6, samples=3).add(np.zeros((2, 3), dtype=np.uint8), np.zeros((1, 6), dtype=np.bool_))


def test_the_interval_of_a_rate_has_the_width_that_theory_gives() -> None:
    images, samples = 2000, 1000
    weights = poisson_weights(range(images), samples=samples, seed=1)
    right = (np.arange(images) % 5 < 2)[:, None]
    sums = WeightedSums(2, samples=samples)
    sums.add(weights, np.concatenate([right, np.ones_like(right)], axis=1))
    interval = percentile_interval(sums.sums_sc[:, 0] / sums.sums_sc[:, 1])
    assert interval is not None
    half = 1.96 * math.sqrt(0.4 * 0.6 / images)
    assert interval[0] == pytest.approx(0.4 - half, abs=0.15 * half)
    assert interval[1] == pytest.approx(0.4 + half, abs=0.15 * half)


def test_percentiles_interpolate_and_leave_nan_out() -> None:
    assert percentile_interval(np.array([np.nan, *range(101)])) == pytest.approx([2.5, 97.5], abs=1e-12)
    assert percentile_interval(np.array([np.nan])) is None
    assert percentile_interval(np.zeros(0)) is None


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341), (1, 1, 0.20654, 1.0)],
)
def test_wilson_intervals_by_hand(correct: int, images: int, low: float, high: float) -> None:
    """Values of Wilson's formula with z = 1.96, as published tables have them."""
    assert wilson_interval(correct, images) == pytest.approx((low, high), abs=2e-5)
