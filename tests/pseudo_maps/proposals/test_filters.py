import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pseudo_maps.proposals.filters import rgb_to_luv, tent_filter

# --- RGB to Luv


TABLE_STEPS = 1024
LIGHTNESS_STEP = (29 / 3) ** 3 / 270 / TABLE_STEPS
"""How much lightness changes over one table entry where the curve is steepest, its straight part."""


def lightness(y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3) / 270


def tristimulus(rgb_hwc: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], ...]:
    r, g, b = np.moveaxis(rgb_hwc / 255.0, -1, 0)
    x = 0.430574 * r + 0.341550 * g + 0.178325 * b
    y = 0.222015 * r + 0.706655 * g + 0.071330 * b
    z = 0.020183 * r + 0.129553 * g + 0.939180 * b
    return x, y, z


@pytest.fixture(scope="module")
def all_colours() -> npt.NDArray[np.uint8]:
    """Every combination of 18 levels, the ends 0 and 255 among them."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)


def test_lightness_is_the_formula_rounded_down_to_a_table_step(all_colours: npt.NDArray[np.uint8]) -> None:
    _, y, _ = tristimulus(all_colours)
    before = all_colours.copy()
    luv = rgb_to_luv(all_colours)
    assert luv.shape == (3, *all_colours.shape[:2]) and luv.dtype == np.float32
    assert np.array_equal(all_colours, before)
    level = luv[0]
    exact = lightness(y)
    assert (level <= exact + 1e-6).all()
    assert (level > exact - LIGHTNESS_STEP - 1e-6).all()
    entry = np.floor(TABLE_STEPS * y)
    clear = np.abs(TABLE_STEPS * y - np.rint(TABLE_STEPS * y)) > 1e-3  # float32 may fall on either side of a step
    assert clear.mean() > 0.9
    np.testing.assert_allclose(level[clear], lightness(entry[clear] / TABLE_STEPS), atol=1e-6)


def test_chromaticity_follows_the_formula(all_colours: npt.NDArray[np.uint8]) -> None:
    x, y, z = tristimulus(all_colours)
    luv = rgb_to_luv(all_colours).astype(np.float64)
    q = 1 / (x + 15 * y + 3 * z + 1e-35)
    np.testing.assert_allclose(luv[1], luv[0] * 13 * (4 * x * q - 0.197833) + 88 / 270, atol=2e-6)
    np.testing.assert_allclose(luv[2], luv[0] * 13 * (9 * y * q - 0.468331) + 134 / 270, atol=2e-6)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), (0, 88 / 270, 134 / 270)),
        # White of the matrix: (0.950449, 1, 1.088916) has chromaticity 0.1978337, 0.4683309.
        ((255, 255, 255), (100 / 270, 88 / 270, 134 / 270)),
    ],
)
def test_black_and_white(colour: tuple[int, int, int], expected: tuple[float, float, float]) -> None:
    luv = rgb_to_luv(np.array([[colour]], dtype=np.uint8))
    np.testing.assert_allclose(luv[:, 0, 0], expected, atol=1e-4)


def test_strided_and_read_only_images_convert_alike(all_colours: npt.NDArray[np.uint8]) -> None:
    expected = rgb_to_luv(np.ascontiguousarray(all_colours[:, ::-1, ::-1]))
    frozen = all_colours.copy()
    frozen.flags.writeable = False
    assert np.array_equal(rgb_to_luv(frozen[:, ::-1, ::-1]), expected)


# --- tent smoothing


def mirrored(index: int, size: int) -> int:
    """Walks off one end and comes back with the end repeated: ... 1 0 | 0 1 2 | 2 1 ..., as often as needed."""
    while not 0 <= index < size:
        index = -index - 1 if index < 0 else 2 * size - 1 - index
    return index


def convolved(values: npt.NDArray[np.float32], radius: int) -> npt.NDArray[np.float64]:
    """Sum over all offsets of the two-dimensional kernel, one output pixel after the other."""
    height, width = values.shape[:2]
    offsets = range(-radius, radius + 1)
    result = np.zeros(values.shape, dtype=np.float64)
    for y in range(height):
        for x in range(width):
            for dy in offsets:
                for dx in offsets:
                    weight = (radius + 1 - abs(dy)) * (radius + 1 - abs(dx)) / (radius + 1) ** 4
                    result[y, x] += weight * values[mirrored(y + dy, height), mirrored(x + dx, width)]
    return result


@pytest.mark.parametrize("radius", [0, 1, 2, 4, 8, 16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (2, 9, 3), (1, 1, 3), (5, 6, 3)])
def test_equals_direct_convolution(shape: tuple[int, ...], radius: int) -> None:
    # Most of these images are smaller than the radius: they are mirrored several times over.
    values = np.random.default_rng(radius).random(shape, dtype=np.float32)
    before = values.copy()
    smoothed = tent_filter(values, radius=radius)
    assert smoothed.shape == shape and smoothed.dtype == np.float32 and np.array_equal(values, before)
    np.testing.assert_allclose(smoothed, convolved(values, radius), atol=2e-6)


def test_equals_direct_convolution_on_an_image_larger_than_the_radius() -> None:
    values = np.random.default_rng(0).random((17, 23, 3), dtype=np.float32)
    np.testing.assert_allclose(tent_filter(values, radius=3), convolved(values, 3), atol=2e-6)


def test_edge_pixel_is_repeated_outside() -> None:
    values = np.array([[4, 0, 0, 0]], dtype=np.float32)
    assert tent_filter(values, radius=1).tolist() == [[3, 1, 0, 0]]


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(0, 1, width=32)),
    st.integers(1, 16),
)
@settings(max_examples=60, deadline=None)
def test_result_lies_between_the_extremes(values: npt.NDArray[np.float32], radius: int) -> None:
    smoothed = tent_filter(values, radius=radius)
    assert smoothed.min() >= 0  # exactly: the detector takes square roots
    assert smoothed.min() >= values.min() - 1e-5 and smoothed.max() <= values.max() + 1e-5


def test_no_residue_on_flat_ground_beside_strong_values() -> None:
    values = np.zeros((40, 40), dtype=np.float32)
    values[:, :3] = 1000
    smoothed = tent_filter(values, radius=5)
    assert (smoothed[:, 8:] == 0).all() and (smoothed[:, :8] > 0).all()
