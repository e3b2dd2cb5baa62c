from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.resampling import area_average, fit_working_size

side = st.integers(1, 13)


def shares(source: int, target: int) -> list[list[Fraction]]:
    """``shares[t][s]``: the exact share of new cell t that lies on old cell s; each row sums to 1."""
    rows = []
    for t in range(target):
        begin, end = Fraction(t * source, target), Fraction((t + 1) * source, target)
        overlaps = [max(Fraction(0), min(end, Fraction(s + 1)) - max(begin, Fraction(s))) for s in range(source)]
        rows.append([overlap / (end - begin) for overlap in overlaps])
    return rows


@given(side, side, side, side, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_equals_exact_area_shares(height: int, width: int, new_height: int, new_width: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    across = np.array(shares(width, new_width), dtype=np.float64)
    down = np.array(shares(height, new_height), dtype=np.float64)
    averaged = area_average(values, height=new_height, width=new_width)
    assert averaged.shape == (new_height, new_width) and averaged.dtype == np.float32
    np.testing.assert_allclose(averaged, down @ values @ across.T, rtol=3e-7)
    np.testing.assert_allclose(averaged.mean(dtype=np.float64), values.mean(dtype=np.float64), rtol=1e-6)


def test_hand_made_shares() -> None:
    values = np.array([[0, 3, 6]], dtype=np.float32)
    # The middle pixel is cut in half: (0 + 1.5) / 1.5 and (1.5 + 6) / 1.5.
    assert area_average(values, height=1, width=2).tolist() == [[1, 5]]
    # Each old pixel is 4/3 new pixels wide.
    np.testing.assert_allclose(area_average(values, height=1, width=4)[0], [0, 2, 4, 6], atol=1e-6)


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (224, 225), (448, 672)])
def test_shrinking_agrees_with_opencv(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(3).random(shape, dtype=np.float32)
    expected = cv2.resize(values, (224, 224), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(area_average(values, height=224, width=224), expected, atol=2e-6)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_enlarging_by_an_integer_repeats_pixels(factor: int) -> None:
    values = np.random.default_rng(4).random((5, 8), dtype=np.float32)
    enlarged = area_average(values, height=5 * factor, width=8 * factor)
    assert np.array_equal(enlarged, values.repeat(factor, axis=0).repeat(factor, axis=1))


def test_constant_maps_stay_constant_at_the_peak() -> None:
    ones = np.ones((333, 500), dtype=np.float32)
    averaged = area_average(ones, height=224, width=224)
    np.testing.assert_allclose(averaged, 1, atol=1e-7)


@pytest.mark.parametrize(
    ("values", "height", "width"),
    [
        (np.zeros((0, 4), np.float32), 2, 2),
        (np.zeros((4, 0), np.float32), 2, 2),
        (np.zeros(4, np.float32), 2, 2),
        (np.zeros((4, 4, 3), np.float32), 2, 2),
        (np.zeros((4, 4), np.float32), 0, 2),
        (np.zeros((4, 4), np.float32), 2, -1),
    ],
)
def test_refuses_what_cannot_be_resampled(values: npt.NDArray[np.float32], height: int, width: int) -> None:
    with pytest.raises(ValueError, match="cannot resample shape"):
        area_average(values, height=height, width=width)


# --- working size


@pytest.mark.parametrize(
    ("shape", "longest", "expected"),
    [
        ((375, 500), 500, (375, 500)),
        ((10, 20), 500, (10, 20)),
        ((1000, 750), 500, (500, 375)),
        ((501, 1), 500, (500, 1)),
        ((3, 2000), 500, (1, 500)),
        ((1, 4000), 1, (1, 1)),
    ],
)
def test_working_size_bounds_the_longest_side(shape: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    working = fit_working_size(np.full((*shape, 3), 77, np.uint8), longest_px=longest)
    assert working.shape == (*expected, 3) and working.dtype == np.uint8 and (working == 77).all()


def test_shrinking_takes_the_mean_of_the_area() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    blocks = image.reshape(15, 4, 20, 4, 3).mean(axis=(1, 3))
    assert np.abs(fit_working_size(image, longest_px=20) - blocks).max() <= 0.5
