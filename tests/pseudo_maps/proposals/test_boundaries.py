import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.boundaries import (
    BoundaryStrength,
    boundaries_from_pixel_map,
    boundaries_from_step_maps,
    suppress_non_maxima,
)
from pseudo_maps.proposals.region_graph import build_region_graph

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

side = st.integers(1, 10)
seed = st.integers(0, 10_000)


def random_labels(height: int, width: int, seed: int) -> tuple[Ints, int]:
    found, labels = np.unique(np.random.default_rng(seed).integers(0, 5, (height, width)), return_inverse=True)
    return labels.reshape(height, width).astype(np.int32), len(found)


def values_along_edges(labels: Ints, across: Floats, down: Floats) -> dict[tuple[int, int], list[float]]:
    """All values between pixels of different labels, by pair of labels."""
    found: dict[tuple[int, int], list[float]] = {}
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            if x + 1 < width and labels[y, x] != labels[y, x + 1]:
                a, b = sorted((int(labels[y, x]), int(labels[y, x + 1])))
                found.setdefault((a, b), []).append(float(across[y, x]))
            if y + 1 < height and labels[y, x] != labels[y + 1, x]:
                a, b = sorted((int(labels[y, x]), int(labels[y + 1, x])))
                found.setdefault((a, b), []).append(float(down[y, x]))
    return found


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[math.floor(percent / 100 * (len(values) - 1) + 0.5)]


def random_step_maps(height: int, width: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.random((height, width - 1), dtype=np.float32), rng.random((height - 1, width), dtype=np.float32)


# --- maps between pixels


@given(side, side, seed)
@settings(max_examples=60, deadline=None)
def test_step_maps_weigh_edges_by_a_power_of_the_median(height: int, width: int, seed: int) -> None:
    labels, region_count = random_labels(height, width, seed)
    coarse, fine = random_step_maps(height, width, seed), random_step_maps(height, width, seed + 1)
    boundaries = boundaries_from_step_maps(coarse, fine)
    weights = boundaries.edge_weights(build_region_graph(labels, region_count=region_count))
    along = values_along_edges(labels, *coarse)
    expected = [percentile(along[pair], 50) ** 0.8 for pair in sorted(along)]
    assert weights.dtype == np.float32 and weights.shape == (len(along),)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize(("height", "width", "count"), [(375, 500, 1000), (8, 5, 12), (1, 9, 3), (9, 1, 9), (1, 1, 1)])
def test_step_maps_draw_superpixels_from_the_fine_map_plus_a_constant(height: int, width: int, count: int) -> None:
    coarse, fine = random_step_maps(height, width, 0), random_step_maps(height, width, 1)
    step_x, step_y = boundaries_from_step_maps(coarse, fine).superpixel_steps(superpixel_count=count)
    constant = 0.05 * math.sqrt(count / (width * height))
    assert step_x.dtype == step_y.dtype == np.float32
    np.testing.assert_allclose(step_x, fine[0] + constant, rtol=1e-6)
    np.testing.assert_allclose(step_y, fine[1] + constant, rtol=1e-6)


# --- maps on pixels


@given(side, side, seed)
@settings(max_examples=60, deadline=None)
def test_pixel_maps_weigh_edges_by_a_low_percentile_of_both_sides(height: int, width: int, seed: int) -> None:
    labels, region_count = random_labels(height, width, seed)
    thick = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    boundaries = boundaries_from_pixel_map(thick)
    weights = boundaries.edge_weights(build_region_graph(labels, region_count=region_count))
    one = values_along_edges(labels, thick[:, :-1], thick[:-1])
    other = values_along_edges(labels, thick[:, 1:], thick[1:])
    assert weights.tolist() == [percentile(one[pair] + other[pair], 25) for pair in sorted(one)]


@given(side, side, seed, st.booleans())
@settings(max_examples=40, deadline=None)
def test_pixel_maps_draw_superpixels_from_the_costlier_pixel(
    height: int, width: int, seed: int, with_thin: bool
) -> None:
    rng = np.random.default_rng(seed)
    thick = rng.random((height, width), dtype=np.float32)
    thin = rng.random((height, width), dtype=np.float32) if with_thin else None
    boundaries = boundaries_from_pixel_map(thick, thin=thin)
    step_x, step_y = boundaries.superpixel_steps(superpixel_count=7)
    shape = thin if thin is not None else suppress_non_maxima(thick)
    cost = shape.astype(np.float64) + 0.01 * thick + 0.01
    for y in range(height):
        for x in range(width):
            if x + 1 < width:
                assert step_x[y, x] == pytest.approx(max(cost[y, x], cost[y, x + 1]), rel=1e-6)
            if y + 1 < height:
                assert step_y[y, x] == pytest.approx(max(cost[y, x], cost[y + 1, x]), rel=1e-6)
    assert step_x.shape == (height, width - 1) and step_y.shape == (height - 1, width)


def test_any_float_type_and_layout_gives_the_same_boundaries() -> None:
    thick = np.random.default_rng(3).random((9, 12), dtype=np.float32)
    expected = boundaries_from_pixel_map(thick)
    frozen = np.asfortranarray(thick.astype(np.float64))
    frozen.flags.writeable = False
    found = boundaries_from_pixel_map(frozen)
    assert np.array_equal(found.step_x, expected.step_x) and np.array_equal(found.step_y, expected.step_y)
    assert found.weight_maps[0][0].dtype == np.float32


def both_kinds() -> list[BoundaryStrength]:
    zero_steps = (np.zeros((4, 5), np.float32), np.zeros((3, 6), np.float32))
    return [boundaries_from_step_maps(zero_steps, zero_steps), boundaries_from_pixel_map(np.zeros((4, 6), np.float32))]


@pytest.mark.parametrize("boundaries", both_kinds())
def test_flat_images_have_positive_steps_and_zero_weights(boundaries: BoundaryStrength) -> None:
    step_x, step_y = boundaries.superpixel_steps(superpixel_count=3)
    assert step_x.min() > 0 and step_y.min() > 0
    halves = np.repeat([[0] * 3 + [1] * 3], 4, axis=0).astype(np.int32)
    assert boundaries.edge_weights(build_region_graph(halves, region_count=2)).tolist() == [0]
    of_one = boundaries.edge_weights(build_region_graph(np.zeros((4, 6), np.int32), region_count=1))
    assert of_one.shape == (0,) and of_one.dtype == np.float32


@pytest.mark.parametrize(
    ("thick", "thin", "message"),
    [
        (np.zeros((4, 4, 1)), None, r"thick boundary map: expected shape \(H, W\), found \(4, 4, 1\)"),
        (np.zeros((0, 4)), None, "thick boundary map: expected shape"),
        (np.full((3, 3), 1.01), None, r"expected values in 0\.\.1, found 1\.01 to 1\.01"),
        (np.full((3, 3), -0.5), None, r"expected values in 0\.\.1"),
        (np.full((3, 3), np.nan), None, r"expected values in 0\.\.1, found nan"),
        (np.array([[0.0, np.nan]]), None, r"expected values in 0\.\.1"),
        (np.array([[0.0, np.inf]]), None, r"expected values in 0\.\.1"),
        (np.zeros((3, 3)), np.full((3, 3), 2.0), "thin boundary map: expected values"),
        (np.zeros((3, 3)), np.zeros((3, 4)), r"thin map of shape \(3, 4\) beside a thick map of shape \(3, 3\)"),
    ],
)
def test_refuses_what_is_no_probability_map(
    thick: npt.NDArray[np.float64], thin: npt.NDArray[np.float64] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        boundaries_from_pixel_map(thick, thin=thin)


# --- non-maximum suppression


def mirrored(values: Floats, y: int, x: int) -> float:
    height, width = values.shape
    while not 0 <= y < height:
        y = -y - 1 if y < 0 else 2 * height - 1 - y
    while not 0 <= x < width:
        x = -x - 1 if x < 0 else 2 * width - 1 - x
    return float(values[y, x])


def slow_suppression(values: Floats, radius: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The specification in float64, and where its decision does not hang on rounding."""
    height, width = values.shape
    taps = [(5 - abs(k)) / 25 for k in range(-4, 5)]
    across = np.array(
        [
            [sum(t * mirrored(values, y, x + k - 4) for k, t in enumerate(taps)) for x in range(width)]
            for y in range(height)
        ]
    )
    blurred = np.array(
        [
            [sum(t * mirrored(across, y + k - 4, x) for k, t in enumerate(taps)) for x in range(width)]
            for y in range(height)
        ]
    )

    def near(y: int, x: int) -> float:
        return float(blurred[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    def sample(y: float, x: float) -> float:
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        total = 0.0
        for to_y in (math.floor(y), math.floor(y) + 1):
            for to_x in (math.floor(x), math.floor(x) + 1):
                weight = (1 - abs(y - to_y)) * (1 - abs(x - to_x))
                if weight > 0:
                    total += weight * float(values[to_y, to_x])
        return total

    thin, clear = values.copy(), np.ones(values.shape, dtype=np.bool_)
    for y in range(height):
        for x in range(width):
            dxx = 2 * near(y, x) - near(y, x + 1) - near(y, x - 1)
            dyy = 2 * near(y, x) - near(y + 1, x) - near(y - 1, x)
            dxy = near(y - 1, x - 1) + near(y + 1, x + 1) - near(y - 1, x + 1) - near(y + 1, x - 1)
            if dxy > 0:
                dyy = -dyy
            angle = math.atan2(dyy, dxx)
            angle += math.pi if angle < 0 else 0
            samples = [
                sample(y + sign * r * math.sin(angle), x + sign * r * math.cos(angle))
                for r in range(1, radius + 1)
                for sign in (1, -1)
            ]
            if any(1.01 * values[y, x] < found for found in samples):
                thin[y, x] = 0
            steady = abs(dxy) > 1e-6 and math.hypot(dxx, dyy) > 1e-4
            clear[y, x] = steady and all(abs(1.01 * values[y, x] - found) > 1e-3 for found in samples)
    return thin, clear


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("shape", [(23, 31), (5, 6), (1, 12), (12, 1), (2, 2)])
def test_equals_the_specification(shape: tuple[int, int], radius: int) -> None:
    values = np.random.default_rng(radius).random(shape, dtype=np.float32)
    before = values.copy()
    thin = suppress_non_maxima(values, radius=radius)
    expected, clear = slow_suppression(values, radius)
    if min(shape) > 4:
        assert clear.mean() > 0.9  # not vacuous
    assert np.array_equal(thin[clear], expected[clear])
    assert ((thin == 0) | (thin == values)).all()
    assert np.array_equal(values, before)


def ridge(distance: npt.NDArray[np.float64]) -> Floats:
    return np.maximum(0, 1 - distance / 4).astype(np.float32)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_straight_ridge_is_thinned_to_its_crest(transposed: bool) -> None:
    _, x = np.mgrid[:30, :30]
    values = ridge(np.abs(x - 14.0))
    crest = x == 14
    if transposed:
        values, crest = values.T.copy(), crest.T
    thin = suppress_non_maxima(values)
    assert (thin[crest] == 1).all()
    assert not thin[~crest].any()


@pytest.mark.parametrize("mirrored_in_x", [False, True])
def test_a_diagonal_ridge_is_thinned_to_its_crest(mirrored_in_x: bool) -> None:
    y, x = np.mgrid[:30, :30]
    values = ridge(np.abs(x - y) / math.sqrt(2))
    crest = x == y
    if mirrored_in_x:
        values, crest = values[:, ::-1].copy(), crest[:, ::-1]
    thin = suppress_non_maxima(values)
    inner = np.zeros_like(crest)
    inner[5:-5, 5:-5] = True
    assert (thin[crest & inner] == 1).all()
    assert not thin[~crest & inner & (values > 0)].any()


def test_one_percent_is_tolerated() -> None:
    values = np.zeros((21, 21), dtype=np.float32)
    values[:, 10], values[:, 9] = 1, 0.995
    thin = suppress_non_maxima(values)
    assert (thin[:, 10] == 1).all() and (thin[:, 9] == np.float32(0.995)).all()
    values[:, 9] = 0.98
    thin = suppress_non_maxima(values)
    assert (thin[:, 10] == 1).all() and not thin[:, 9].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (20, 20)])
def test_a_constant_map_stays(shape: tuple[int, int]) -> None:
    values = np.full(shape, 0.5, dtype=np.float32)
    assert np.array_equal(suppress_non_maxima(values), values)
