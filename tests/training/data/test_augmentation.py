"""Windows of ``training.data.augmentation``: where they lie, what they show, and that image and map agree."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision.transforms import functional as reference

from training.config import CropConfig
from training.data.augmentation import EVALUATION_CROP, Crop, draw_crop, sample_image, sample_map

KINDS = ("crop", "resized-crop", "center", "squash")
SHAPES = [(375, 500), (500, 333), (224, 224), (100, 130), (60, 400), (900, 1200)]


def noise(height: int, width: int, *, cell: int = 4) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: random cells, so that a shift of half a pixel shows."""
    cells = np.random.default_rng(height * width).integers(0, 256, (height // cell + 1, width // cell + 1, 3))
    return np.ascontiguousarray(cells.repeat(cell, 0).repeat(cell, 1)[:height, :width].astype(np.uint8))


def coordinates(height: int, width: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 in which red is 250 x, green 250 y and blue 250 x y in relative coordinates."""
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return np.round(250 * np.stack([x, y, x * y], axis=-1)).astype(np.uint8)


def largest_difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_image_and_map_show_the_same_place(kind: str, shape: tuple[int, int]) -> None:
    """The map is the image's green and blue, squeezed: after any crop they still are equal."""
    image, squeezed = coordinates(*shape), coordinates(224, 224)
    config = CropConfig(kind=kind)
    for seed in range(3):
        crop = draw_crop(np.random.default_rng(seed), shape, config)
        cut = sample_image(image, crop, 224)
        assert cut.shape == (224, 224, 3) and cut.dtype == np.uint8
        for channel in range(3):
            cut_map = sample_map(np.ascontiguousarray(squeezed[..., channel]), crop, 224)
            # At the border of the image the larger pixels of the coarser one repeat over a wider rim.
            inner = slice(4, -4)
            assert largest_difference(cut[inner, inner, channel], cut_map[inner, inner]) <= 2


def test_windows_are_where_their_coordinates_say() -> None:
    """Against the coordinates themselves, so that a shared error of image and map cannot hide."""
    for flip in (False, True):
        crop = Crop(0.2, 0.3, 0.7, 0.9, flip)
        cut = sample_image(coordinates(300, 400), crop, 100).astype(float)
        across, down = (
            250 * (0.2 + 0.5 * (np.arange(100) + 0.5) / 100),
            250 * (0.3 + 0.6 * (np.arange(100) + 0.5) / 100),
        )
        np.testing.assert_allclose(cut[..., 0], np.tile(across[::-1] if flip else across, (100, 1)), atol=1.01)
        np.testing.assert_allclose(cut[..., 1], np.tile(down[:, None], (1, 100)), atol=1.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip", [False, True])
def test_crop_is_torchvisions_resize_and_crop(shape: tuple[int, int], flip: bool) -> None:
    image = noise(*shape)
    crop = draw_crop(np.random.default_rng(3), shape, CropConfig(flip_probability=float(flip)))
    resized = reference.resize(Image.fromarray(image), 256)
    left, top = round(crop.x0 * resized.width), round(crop.y0 * resized.height)
    assert left == pytest.approx(crop.x0 * resized.width, abs=1e-6)
    expected = reference.crop(resized, top, left, 224, 224)
    expected = reference.hflip(expected) if flip else expected
    # A border included: the filter sees what lies around the crop. Three roundings, where one is exact.
    assert largest_difference(sample_image(image, crop, 224), np.asarray(expected)) <= 2


def test_center_is_torchvisions_center_crop() -> None:
    image = noise(375, 501)
    crop = draw_crop(np.random.default_rng(0), (375, 501), CropConfig(kind="center", flip_probability=0.0))
    expected = reference.center_crop(reference.resize(Image.fromarray(image), 256), [224, 224])
    assert largest_difference(sample_image(image, crop, 224), np.asarray(expected)) <= 2


@pytest.mark.parametrize("shape", SHAPES)
def test_squash_is_torchvisions_resize_to_the_square(shape: tuple[int, int]) -> None:
    image = noise(*shape)
    crop = draw_crop(np.random.default_rng(0), shape, EVALUATION_CROP)
    assert crop == Crop(0.0, 0.0, 1.0, 1.0, False)
    expected = reference.resize(Image.fromarray(image), [224, 224])
    assert largest_difference(sample_image(image, crop, 224), np.asarray(expected)) <= 2


def test_resized_crop_is_torchvisions_crop_and_resize_inside() -> None:
    image = noise(375, 500)
    for seed in range(5):
        crop = draw_crop(np.random.default_rng(seed), (375, 500), CropConfig(kind="resized-crop"))
        left, right, top, bottom = (round(v) for v in (crop.x0 * 500, crop.x1 * 500, crop.y0 * 375, crop.y1 * 375))
        expected = reference.resized_crop(Image.fromarray(image), top, left, bottom - top, right - left, [224, 224])
        expected = reference.hflip(expected) if crop.flip else expected
        # torchvision cuts first, so its filter stops at the crop's edge; ours sees the pixels around it.
        inner = slice(8, -8)
        cut = sample_image(image, crop, 224)
        assert largest_difference(cut[inner, inner], np.asarray(expected)[inner, inner]) <= 2


def test_a_window_off_the_grid_equals_one_that_pillow_cuts_out_of_the_whole_image() -> None:
    """Only part of the image is handed to Pillow: the reach of the filter has to be in it."""
    image = noise(400, 300, cell=1)
    for crop in (Crop(0.013, 0.02, 0.917, 0.883, False), Crop(0.5, 0.5, 0.61, 0.58, False)):
        box = (crop.x0 * 300, crop.y0 * 400, crop.x1 * 300, crop.y1 * 400)
        expected = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR, box=box)
        assert largest_difference(sample_image(image, crop, 64), np.asarray(expected)) <= 1


def test_crops_reach_every_place_and_both_directions_evenly() -> None:
    config = CropConfig(input_size=2, resize=4)
    generator = np.random.default_rng(0)
    crops = [draw_crop(generator, (40, 60), config) for _ in range(1200)]
    places = {(round(crop.x0 * 6), round(crop.y0 * 4)) for crop in crops}
    assert places == {(x, y) for x in range(5) for y in range(3)}
    counts = np.bincount([round(crop.x0 * 6) for crop in crops], minlength=5)
    # 240 each with a standard deviation of 13.9, flips 600 with 17.3; five of them either way.
    assert np.all(np.abs(counts - 240) < 70)
    assert abs(sum(crop.flip for crop in crops) - 600) < 87
    for crop in crops:
        assert crop.x1 - crop.x0 == pytest.approx(2 / 6) and crop.y1 - crop.y0 == pytest.approx(2 / 4)


def test_resized_crops_keep_area_and_ratio_in_their_ranges() -> None:
    config = CropConfig(kind="resized-crop")
    generator = np.random.default_rng(0)
    areas = []
    for _ in range(500):
        crop = draw_crop(generator, (375, 500), config)
        assert 0 <= crop.x0 < crop.x1 <= 1 and 0 <= crop.y0 < crop.y1 <= 1
        wide, high = 500 * (crop.x1 - crop.x0), 375 * (crop.y1 - crop.y0)
        assert 0.745 < wide / high < 1.345
        areas.append(wide * high / (375 * 500))
    assert 0.078 < min(areas) < 0.12 and 0.9 < max(areas) < 1.001


@pytest.mark.parametrize(("shape", "expected"), [((10, 1000), (13, 10)), ((1000, 10), (10, 13)), ((1, 1), (1, 1))])
def test_resized_crop_of_a_very_long_image_is_its_middle(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    config = CropConfig(kind="resized-crop", scale=(1.0, 1.0))
    crop = draw_crop(np.random.default_rng(0), shape, config)
    wide, high = shape[1] * (crop.x1 - crop.x0), shape[0] * (crop.y1 - crop.y0)
    assert (round(wide), round(high)) == expected
    assert (crop.x0 + crop.x1) / 2 == pytest.approx(0.5, abs=0.51 / shape[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_of_the_smallest_allowed_image_is_not_enlarged(kind: str) -> None:
    config = CropConfig(kind=kind)
    shape = (config.short_side_px, config.short_side_px * 4 // 3)
    generator = np.random.default_rng(0)
    for _ in range(300):
        crop = draw_crop(generator, shape, config)
        assert min(shape[1] * (crop.x1 - crop.x0), shape[0] * (crop.y1 - crop.y0)) >= 223


def test_a_flip_mirrors_left_and_right_only() -> None:
    image = noise(256, 256)
    plain, mirrored = (sample_image(image, Crop(0.0, 0.0, 0.875, 0.875, flip), 224) for flip in (False, True))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


def test_sources_are_left_as_they_were() -> None:
    image = noise(256, 300)
    before = image.copy()
    sample_image(image, Crop(0.0, 0.0, 0.5, 0.5, True), 224)
    sample_map(image[..., 0].copy(), Crop(0.0, 0.0, 1.0, 1.0, True), 224)
    np.testing.assert_array_equal(image, before)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="0x5 pixels"):
        draw_crop(np.random.default_rng(0), (0, 5), CropConfig())
