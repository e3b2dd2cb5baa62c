"""Pictures: overlays, boxes, and their bytes as PNG and JPEG."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from evaluation.drawing.overlays import draw_boxes, jpeg_bytes, overlay_heat, png_bytes


def picture() -> np.ndarray:
    """Smooth, with three different channels."""
    y, x = np.mgrid[0:40, 0:60]
    return np.dstack([4 * x, 6 * y, 255 - 4 * x]).astype(np.uint8)


def test_a_jpeg_reads_back_with_its_colours() -> None:
    with Image.open(BytesIO(jpeg_bytes(picture()))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (60, 40))
        assert np.abs(np.asarray(image).astype(int) - picture()).mean() < 3


def test_lower_quality_takes_fewer_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    assert len(jpeg_bytes(noise, quality=30)) < 0.6 * len(jpeg_bytes(noise, quality=95))
    assert jpeg_bytes(noise) == jpeg_bytes(noise)


@pytest.mark.parametrize(("encode", "name"), [(jpeg_bytes, "jpg"), (png_bytes, "png")])
def test_what_cannot_be_encoded_is_named(encode, name) -> None:
    with pytest.raises(OSError, match=rf"shape \(0, 5, 3\) could not be encoded as \.{name}"):
        encode(np.zeros((0, 5, 3), dtype=np.uint8))


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a map of the image's size \(4, 6\), found \(6, 4\)"):
        overlay_heat(np.zeros((4, 6, 3), dtype=np.uint8), np.zeros((6, 4), dtype=np.uint8))


def test_png_bytes_read_back_and_carry_no_text() -> None:
    picture = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    content = png_bytes(picture)
    with Image.open(BytesIO(content)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), picture)
        assert not opened.info
    with pytest.raises(OSError, match="could not be encoded"):
        png_bytes(np.zeros((0, 0, 3), dtype=np.uint8))


def test_wide_outlines_cover_more() -> None:
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    thin, wide = (draw_boxes(image, [[8, 8, 30, 30]], colour=(9, 9, 9), width_px=px).any(axis=2).sum() for px in (2, 4))
    assert wide > 1.5 * thin
