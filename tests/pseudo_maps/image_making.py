"""Encoded pictures for the tests of the image decoder."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image


def picture(height: int = 60, width: int = 80, *, seed: int = 0) -> np.ndarray:
    """A smooth RGB picture with a bright top left corner, so that no turned or mirrored copy equals it."""
    coarse = np.random.default_rng(seed).random((6, 8, 3)) * 0.6
    coarse[0, 0] = 1
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return (smooth * 255).astype(np.uint8)


def encode(rgb_hwc: np.ndarray, image_format: str, *, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb_hwc).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def jpeg(**options: object) -> bytes:
    return encode(picture(), "JPEG", quality=95, **options)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: np.ndarray, *, colour_type: int, bits: int, extra: bytes = b"") -> bytes:
    """A PNG written from its specification; ``samples`` is (H, W, channels), big-endian or bytes."""
    height, width = samples.shape[:2]
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + png_chunk(b"IEND", b"")


def frames(count: int) -> list[Image.Image]:
    return [Image.fromarray(picture(seed=seed)) for seed in range(count)]
