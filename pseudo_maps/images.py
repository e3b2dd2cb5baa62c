"""Image decoder: from a file to RGB pixels, the same for proposals, training and evaluation.

Truncated files, animations, oversized images and other formats are errors; what ILSVRC contains is accepted: PNG files
named ``.JPEG``, CMYK, grey, 16-bit and palette images, broken EXIF blocks. EXIF orientation is never applied, because
ILSVRC boxes refer to the stored orientation.
"""

import errno
import io
import os
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pseudo_maps.files import open_regular_file
from pseudo_maps.reading import ReadTimeout, raise_system_error, within_limit

_Item = TypeVar("_Item")

ACCEPTED_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats read, recognised by content, not by file name.

MPO is Pillow's name of a JPEG that contains further images (stereo cameras, phones); the first is read.
"""

MAX_PIXELS = 178_956_970
"""Default limit on height * width, read from the header before decoding: Pillow's own limit."""

_BYTES_OF_PIXEL, _BYTES_OF_HEADER = 6, 1 << 20
"""The largest file that is read has as many pixels as allowed, of three times 16 bits, uncompressed, and a header."""

_JPEG_START_OF_SCAN = 0xDA
_JPEG_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xD9))
"""Second bytes of markers without a segment: stuffing, TEM, restarts, start of image (ITU T.81, B.1.1.3)."""
_JPEG_END_OF_IMAGE = b"\xff\xd9"
_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNK_OVERHEAD = 12
"""Bytes of a PNG chunk around its content: length 4, type 4, checksum 4."""
_PNG_ANCILLARY_BIT = 0x20
"""Set in the first letter of a chunk's type when pixels do not depend on it (PNG specification, 5.4)."""


class ImageDecodeError(ValueError):
    """An image file that cannot be decoded; the message names the file, what was expected and what was found."""


class ImageTimeoutError(ImageDecodeError):
    """An image file that is not read within the limit (``pseudo_maps.reading.within_limit``)."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels of an image, and the size stated in its file."""

    rgb_hwc: npt.NDArray[np.uint8]
    """(H, W, 3) uint8 RGB, C-contiguous; smaller than stated in the file when decoded at a reduced scale."""
    file_height: int
    file_width: int
    """Pixels as stated in the file."""


def decode_image(
    source: str | os.PathLike[str] | bytes, *, enough_px: int | None = None, max_pixels: int = MAX_PIXELS
) -> DecodedImage:
    """Decode one image to RGB.

    Parameters
    ----------
    source
        A file's path, or the bytes of a file.
    enough_px
        Longest side in pixels that the caller needs, at least 1. A JPEG whose longest side is at least twice as long is
        decoded at 1/2, 1/4 or 1/8 scale by the JPEG transform, never below ``enough_px``. Other files, and all files
        when None, are decoded at full size.
    max_pixels
        Refuse an image whose header states more pixels; values above ``MAX_PIXELS`` have no effect, because Pillow
        refuses such files.

    Returns
    -------
    DecodedImage
        uint8 RGB pixels, (0, 0) at the top left in the stored orientation.

    Raises
    ------
    ImageDecodeError
        Empty, truncated or damaged file, not an image, a format outside ``ACCEPTED_FORMATS``, an animation,
        floating-point pixels, or more than ``max_pixels``; a path to a file larger than so many pixels need, or to
        what is no regular file (a FIFO, a device). ImageTimeoutError for a file that is not read within the limit.
    OSError
        The file cannot be opened (missing, no permission), or as ``within_limit``.
    ValueError
        ``enough_px`` is below 1.

    Notes
    -----
    Alpha is dropped without compositing, CMYK is converted by Pillow (which undoes Adobe's inversion), and 16-bit
    images keep their upper eight bits. Bytes missing at the end are always an error, even when only the end marker is
    missing. Changed bytes are an error where the format has checksums (PNG); elsewhere they may decode to other pixels.
    """
    if enough_px is not None and enough_px < 1:
        raise ValueError(f"enough_px must be at least 1, found {enough_px}")
    if isinstance(source, bytes):
        name, encoded = "image bytes", source
    else:
        name, encoded = os.fspath(source), _within_limit(partial(_bytes_of, source, max_pixels=max_pixels), source)
    if not encoded:
        raise ImageDecodeError(f"{name}: the file is empty")
    with warnings.catch_warnings():
        # Pillow warns of broken EXIF and other harmless metadata; its size warning repeats our own check.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                decoded = _decode_open_image(image, name=name, enough_px=enough_px, max_pixels=max_pixels)
                damage = _find_damage(encoded, image_format=image.format)
        except (ImageDecodeError, MemoryError):
            raise
        except UnidentifiedImageError:
            raise ImageDecodeError(
                f"{name}: not an image (expected one of {', '.join(ACCEPTED_FORMATS)}, found {encoded[:8]!r}...)"
            ) from None
        except Image.DecompressionBombError as error:
            raise ImageDecodeError(f"{name}: {error}") from None
        except Exception as error:
            # Everything is in memory, so any error is about the content. Pillow reports damage as OSError, SyntaxError,
            # ValueError, EOFError, IndexError, and a changed TIFF tag as TypeError.
            raise ImageDecodeError(f"{name}: damaged or truncated image: {error}") from error
    if damage is not None:
        raise ImageDecodeError(f"{name}: damaged or truncated image: {damage}")
    return decoded


def _within_limit(read: Callable[[], _Item], path: str | os.PathLike[str]) -> _Item:
    try:
        return within_limit(read, path)
    except ReadTimeout as error:
        raise ImageTimeoutError(str(error)) from None


def _bytes_of(path: str | os.PathLike[str], *, max_pixels: int) -> bytes:
    try:
        descriptor = open_regular_file(path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ImageDecodeError(f"{os.fspath(path)}: not a regular file") from None
    with open(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        limit = _BYTES_OF_PIXEL * max(max_pixels, MAX_PIXELS) + _BYTES_OF_HEADER
        if size > limit:
            raise ImageDecodeError(f"{os.fspath(path)}: {size} bytes, more than the limit of {limit}")
        return file.read()


def read_image_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """As ``image_size``; None when it cannot be read."""
    with suppress(ImageDecodeError):
        return image_size(path)
    return None


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels as the header of an image file states them (0.1 ms).

    ImageDecodeError when it cannot be read, of which ImageTimeoutError not within the limit; OSError as
    ``raise_system_error``.
    """

    def read() -> tuple[int, int]:
        try:
            if Path(path).is_file():
                with Image.open(path) as image:
                    return image.size
        except Exception as error:
            # Every kind of damage, as in decode_image.
            raise_system_error([error])
            raise ImageDecodeError(f"{os.fspath(path)}: the header cannot be read: {error}") from error
        raise ImageDecodeError(f"{os.fspath(path)}: not a regular file")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _within_limit(read, path)


def _decode_open_image(image: Image.Image, *, name: str, enough_px: int | None, max_pixels: int) -> DecodedImage:
    if image.format not in ACCEPTED_FORMATS:
        raise ImageDecodeError(
            f"{name}: format {image.format} is not read (expected one of {', '.join(ACCEPTED_FORMATS)})"
        )
    file_width, file_height = image.size
    if file_width * file_height > max_pixels:
        raise ImageDecodeError(
            f"{name}: the header states {file_width}x{file_height} pixels, more than the limit of {max_pixels}"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ImageDecodeError(f"{name}: an animation or image sequence of {frames} frames, expected one picture")
    if enough_px is not None and image.format in ("JPEG", "MPO"):
        longest = max(file_width, file_height)
        reduction = next((step for step in (8, 4, 2) if longest >= step * enough_px), 1)
        # Pillow reduces by the smaller of the two integer quotients, so both sides are rounded down here:
        # 500x375 for 250 pixels must ask for 250x187, as 375 // 188 is 1.
        image.draft(None, (max(1, file_width // reduction), max(1, file_height // reduction)))
    if image.mode in ("F", "I;16S") or (image.mode == "I" and image.format == "TIFF"):
        raise ImageDecodeError(f"{name}: pixel mode {image.mode} has no defined range, expected 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8)
        rgb_hwc = np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))
    else:
        # Pillow's convert copies even when there is nothing to convert.
        picture = image if image.mode == "RGB" else image.convert("RGB")
        rgb_hwc = np.array(picture, dtype=np.uint8, order="C")
    return DecodedImage(rgb_hwc=rgb_hwc, file_height=file_height, file_width=file_width)


def _find_damage(encoded: bytes, *, image_format: str | None) -> str | None:
    """What is wrong with a file although Pillow decoded it, or None.

    Pillow stops at the last pixel and ignores the checksums of a PNG's pixels: it accepts a PNG with missing or changed
    bytes and a grey JPEG without its end marker. Anything after the end (padding, a phone's video) is ignored.
    """
    if image_format == "PNG":
        return _find_png_damage(encoded)
    if image_format in ("JPEG", "MPO") and not _has_jpeg_end(encoded):
        return "the end-of-image marker is missing"
    return None


def _find_png_damage(encoded: bytes) -> str | None:
    position = _PNG_SIGNATURE_BYTES
    while position + _PNG_CHUNK_OVERHEAD <= len(encoded):
        end = position + _PNG_CHUNK_OVERHEAD + int.from_bytes(encoded[position : position + 4], "big")
        kind = encoded[position + 4 : position + 8]
        stored = int.from_bytes(encoded[end - 4 : end], "big")
        found = zlib.crc32(memoryview(encoded)[position + 4 : end - 4])
        if end <= len(encoded) and found != stored and not kind[0] & _PNG_ANCILLARY_BIT:
            return f"chunk {kind!r} at byte {position} has checksum {found:#010x}, expected {stored:#010x}"
        if kind == b"IEND":
            return None
        position = end
    return "the file ends before the chunk IEND"


def _has_jpeg_end(encoded: bytes) -> bool:
    # The segments before the first scan are skipped because a thumbnail in EXIF has its own end marker.
    position = 2
    while position + 4 <= len(encoded):
        marker = encoded[position + 1]
        if encoded[position] != 0xFF or marker == 0xFF:
            position += 1
        elif marker == _JPEG_START_OF_SCAN:
            return encoded.rfind(_JPEG_END_OF_IMAGE, position) >= 0
        elif marker in _JPEG_WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return False
