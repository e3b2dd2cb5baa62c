import math

import numpy as np
import numpy.typing as npt
import pytest

from pseudo_maps.proposals.appearance import appearance_bins, appearance_differences, region_histograms
from pseudo_maps.proposals.color import rgb_to_luv

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def luv_image(lightness: npt.ArrayLike) -> Floats:
    """A grey image (u and v those of grey) of the given lightness 0..100."""
    level = np.asarray(lightness, dtype=np.float32) / 270
    return np.stack([level, np.full_like(level, 88 / 270), np.full_like(level, 134 / 270)])


def slow_texture_bins(lightness: Floats) -> npt.NDArray[np.int64]:
    """The texture bin pixel by pixel in float64, with the direction from the arc tangent."""
    padded = np.pad(lightness.astype(np.float64), 1, mode="edge")
    kernel_x = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    bins = np.zeros(lightness.shape, dtype=np.int64)
    for y, x in np.ndindex(lightness.shape):
        window = padded[y : y + 3, x : x + 3]
        gradient_x, gradient_y = (window * kernel_x).sum(), (window * kernel_x.T).sum()
        strength = sum(math.hypot(gradient_x, gradient_y) > step for step in (0.003, 0.008, 0.02))
        direction = math.floor(math.atan2(gradient_y, gradient_x) / math.pi * 8 + 0.5) % 8
        bins[y, x] = 0 if strength == 0 else 1 + 8 * (strength - 1) + direction
    return bins


def test_texture_bins_equal_the_slow_ones() -> None:
    rng = np.random.default_rng(3)
    luv = rgb_to_luv(rng.integers(0, 256, (40, 51, 3), dtype=np.uint8))
    # Contrasts of all strengths, from left to right.
    luv[0] *= np.linspace(0.02, 1, 51, dtype=np.float32)
    bins = appearance_bins(luv)
    assert bins.shape == (40, 51, 4) and bins.dtype == np.uint8
    assert set(bins[..., 3].ravel()) == set(range(25))
    np.testing.assert_array_equal(bins[..., 3], slow_texture_bins(luv[0]))


@pytest.mark.parametrize(
    ("turn_deg", "direction"), [(0, 0), (22.5, 1), (45, 2), (67.5, 3), (90, 4), (112.5, 5), (135, 6), (157.5, 7)]
)
def test_direction_of_a_slope(turn_deg: float, direction: int) -> None:
    y, x = np.mgrid[0:9, 0:9]
    turn = math.radians(turn_deg)
    # 0.01 a pixel on the scale of 0..0.37: the second of three strengths.
    slope = 40 + 2.7 * (math.cos(turn) * x + math.sin(turn) * y)
    assert (appearance_bins(luv_image(slope))[2:-2, 2:-2, 3] == 1 + 8 + direction).all()
    assert (appearance_bins(luv_image(90 - slope))[2:-2, 2:-2, 3] == 1 + 8 + direction).all()


def test_colour_bins_by_hand() -> None:
    # u is shifted by 88 and v by 134; grey is the middle of bin 8, 7.5 wide.
    luv = np.array([[[0, 24.5, 70.5], [6.2, 31.5, 77.5], [6.3, 32, 78], [100, 144, 190], [120, -50, 300]]]) / 270
    bins = appearance_bins(np.ascontiguousarray(np.moveaxis(luv, -1, 0), dtype=np.float32))
    assert bins[0, :, :3].tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1], [15, 15, 15], [15, 0, 15]]


def test_grey_pixels_share_their_colour_bins() -> None:
    grey = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert (appearance_bins(rgb_to_luv(grey))[..., 1:3] == 8).all()


def test_flat_image_of_one_pixel() -> None:
    assert appearance_bins(luv_image([[50]])).tolist() == [[[8, 8, 8, 0]]]


def test_histograms_by_hand() -> None:
    bins = np.zeros((1, 4, 4), dtype=np.uint8)
    bins[0, :, 0] = (0, 5, 5, 15)
    bins[0, :, 3] = (0, 24, 3, 3)
    histograms = region_histograms(bins, np.array([[0, 1, 1, 1]], dtype=np.int32), region_count=2)
    assert histograms.shape == (2, 73) and histograms.dtype == np.float32
    # The end is repeated: what leaves the range comes back.
    assert histograms[0, :3].tolist() == [0.75, 0.25, 0]
    np.testing.assert_allclose(histograms[1, 3:8], np.array([0, 1, 2, 1, 0]) / 6)
    np.testing.assert_allclose(histograms[1, 13:16], np.array([0, 1, 3]) / 12)
    assert histograms[0, 48] == 1
    np.testing.assert_allclose(histograms[1, 48:][[3, 24]], [2 / 3, 1 / 3])
    for first, last in ((0, 16), (16, 32), (32, 48), (48, 73)):
        np.testing.assert_allclose(histograms[:, first:last].sum(axis=1), 1, rtol=1e-6)


def test_differences_equal_the_formula() -> None:
    rng = np.random.default_rng(5)
    bins = np.stack([rng.integers(0, high, (20, 30)) for high in (16, 3, 16, 25)], axis=2).astype(np.uint8)
    labels = (np.arange(600) // 60).reshape(20, 30).astype(np.int32)
    histograms = region_histograms(bins, labels, region_count=10)
    edges = np.array([(i, j) for i in range(10) for j in range(i)], dtype=np.int32)
    found = appearance_differences(histograms, edges)
    assert found.dtype == np.float32
    p, q = histograms[edges[:, 0]].astype(np.float64), histograms[edges[:, 1]].astype(np.float64)
    filled = p + q > 0
    expected = np.divide((p - q) ** 2, p + q, where=filled, out=np.zeros_like(p)).sum(axis=1) / 8
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_differences_reach_zero_and_one() -> None:
    histograms = np.zeros((3, 73), dtype=np.float32)
    histograms[:2, [0, 16, 32, 48]] = 1
    histograms[2, [5, 20, 40, 60]] = 1
    edges = np.array([[0, 1], [1, 2]], dtype=np.int32)
    assert appearance_differences(histograms, edges).tolist() == [0, 1]
    assert appearance_differences(histograms, edges[:0]).shape == (0,)
