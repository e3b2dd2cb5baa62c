import math

import numpy as np
import numpy.typing as npt
import pytest

from pseudo_maps.proposals.non_maximum_suppression import suppress_non_maxima

Floats = npt.NDArray[np.float32]


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
