import numpy as np
import numpy.typing as npt
import pytest

from pseudo_maps.proposals.color import rgb_to_luv

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


def test_shape_and_type(all_colours: npt.NDArray[np.uint8]) -> None:
    before = all_colours.copy()
    luv = rgb_to_luv(all_colours)
    assert luv.shape == (3, *all_colours.shape[:2]) and luv.dtype == np.float32
    assert np.array_equal(all_colours, before)


def test_lightness_is_the_formula_rounded_down_to_a_table_step(all_colours: npt.NDArray[np.uint8]) -> None:
    _, y, _ = tristimulus(all_colours)
    level = rgb_to_luv(all_colours)[0]
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


def test_all_channels_stay_near_the_unit_interval(all_colours: npt.NDArray[np.uint8]) -> None:
    luv = rgb_to_luv(all_colours)
    assert np.isfinite(luv).all()
    assert luv.min() >= -0.01 and luv.max() <= 1.01


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
