from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from evaluation.drawing.overlays import jpeg_bytes, png_bytes


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


@pytest.mark.parametrize(("encode", "name"), [(jpeg_bytes, "JPEG"), (png_bytes, "PNG")])
def test_what_cannot_be_encoded_is_named(encode, name) -> None:
    with pytest.raises(OSError, match=rf"shape \(0, 5, 3\) could not be encoded as {name}"):
        encode(np.zeros((0, 5, 3), dtype=np.uint8))
