"""Pictures: overlays, boxes, and their bytes as PNG and JPEG."""

from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.drawing.overlays import (
    GROUND_TRUTH_RGB,
    PREDICTED_RGB,
    draw_boxes,
    draw_ground_truth,
    heat_colours,
    overlay_heat,
    picture_bytes,
    resized,
    save_picture,
)


def picture() -> np.ndarray:
    """Smooth, with three different channels."""
    y, x = np.mgrid[0:40, 0:60]
    return np.dstack([4 * x, 6 * y, 255 - 4 * x]).astype(np.uint8)


def test_a_jpeg_reads_back_with_its_colours() -> None:
    with Image.open(BytesIO(picture_bytes(picture(), suffix=".jpg"))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (60, 40))
        assert np.abs(np.asarray(image).astype(int) - picture()).mean() < 3


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_what_cannot_be_encoded_is_named(suffix: str) -> None:
    with pytest.raises(OSError, match=rf"shape \(0, 5, 3\) could not be encoded as \{suffix}"):
        picture_bytes(np.zeros((0, 5, 3), dtype=np.uint8), suffix=suffix)


def test_png_bytes_read_back_and_carry_no_text() -> None:
    picture = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    content = picture_bytes(picture, suffix=".png")
    with Image.open(BytesIO(content)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), picture)
        assert not opened.info
    with pytest.raises(OSError, match="could not be encoded"):
        picture_bytes(np.zeros((0, 0, 3), dtype=np.uint8), suffix=".png")


def test_wide_outlines_cover_more() -> None:
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    thin, wide = (draw_boxes(image, [[8, 8, 30, 30]], colour=(9, 9, 9), width_px=px).any(axis=2).sum() for px in (2, 4))
    assert wide > 1.5 * thin


def test_ground_truth_shows_around_a_predicted_box_that_covers_it() -> None:
    image = np.full((60, 60, 3), 128, dtype=np.uint8)
    drawn = draw_boxes(draw_ground_truth(image, [[9, 9, 50, 50]]), [[9, 9, 50, 50]], colour=PREDICTED_RGB)
    across = [tuple(pixel) for pixel in drawn[30, 4:16].tolist()]
    runs = [colour for colour, _ in groupby(across)]
    grey, dark = (128, 128, 128), (0, 0, 0)
    assert runs == [grey, dark, GROUND_TRUTH_RGB, PREDICTED_RGB, GROUND_TRUTH_RGB, dark, grey]


def test_pictures_are_stretched_and_shrunk_by_means() -> None:
    halves = np.array([[0, 100], [200, 60]], dtype=np.uint8)
    assert resized(halves, width=1, height=1).tolist() == [[90]]
    assert resized(np.dstack([halves] * 3), width=4, height=6).shape == (6, 4, 3)
    wide = resized(np.array([[0, 100]], dtype=np.uint8), width=100, height=1)[0].astype(int)
    assert (np.diff(wide) >= 0).all() and 0 < wide[49] < 100, "in between, not the nearest"


def test_heat_rises_from_dark_to_bright() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    colours = heat_colours(ramp)[0].astype(int)
    luminance = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(luminance) >= -0.5).all() and luminance[-1] - luminance[0] > 150
    assert colours[0, 2] > colours[0, 0], "the lowest value is blue, so the channels are in RGB order"
    assert colours[-1, 0] > 200 > 100 > colours[-1, 2], "the highest value is yellow"


def test_the_overlay_is_the_mean_of_both() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    map_hw = np.random.default_rng(1).integers(0, 256, size=(5, 7), dtype=np.uint8)
    expected = (image.astype(float) + heat_colours(map_hw)) / 2
    np.testing.assert_allclose(overlay_heat(image, map_hw), expected, atol=0.5)


def test_drawing_a_box_leaves_the_original_and_the_inside() -> None:
    image = np.zeros((40, 50, 3), dtype=np.uint8)
    drawn = draw_boxes(image, [[10, 5, 30, 25]], colour=(1, 2, 3))
    assert not image.any()
    for y, x in ((5, 10), (25, 30), (5, 20), (15, 30)):
        assert drawn[y, x].tolist() == [1, 2, 3]
    assert not drawn[9:22, 14:27].any() and not drawn[:3].any() and not drawn[29:].any()
    assert not draw_boxes(image, np.zeros((0, 4)), colour=(1, 2, 3)).any()


def test_a_saved_picture_reads_back_with_its_colours(tmp_path: Path) -> None:
    picture = np.random.default_rng(2).integers(0, 256, size=(6, 9, 3), dtype=np.uint8)
    save_picture(tmp_path / "a" / "b.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a" / "b.png")), picture)


@pytest.mark.parametrize(("name", "found"), [("a.png", "PNG"), ("a.PNG", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG")])
def test_the_suffix_decides_the_format(tmp_path: Path, name: str, found: str) -> None:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    picture = np.dstack([np.tile(ramp, (32, 1)), np.full((32, 64), 90, np.uint8), np.tile(ramp[::-1], (32, 1))])
    save_picture(tmp_path / name, picture)
    with Image.open(tmp_path / name) as image:
        assert image.format == found
        difference = np.abs(np.asarray(image).astype(int) - picture)
    assert difference.mean() < (8 if found == "JPEG" else 1e-9)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png, \.jpg, \.jpeg, found '\.gif'"):
        save_picture(tmp_path / "a.gif", picture)
