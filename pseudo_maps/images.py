"""Turns an image file into RGB pixels: the one decoder that proposals, training and evaluation share.

Strict where silence would hurt (truncation, animations, absurd sizes, formats nobody meant) and tolerant
where ILSVRC needs it: PNG files named ``.JPEG``, CMYK, grey, 16-bit and palette images, broken EXIF blocks.
EXIF orientation is never applied, because ILSVRC boxes refer to the stored orientation.
"""

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

__all__ = ["ACCEPTED_FORMATS", "MAX_PIXELS", "DecodedImage", "ImageDecodeError", "decode_image"]

ACCEPTED_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats read; told from the content, never from the file's name.

MPO is what Pillow calls a JPEG that carries further pictures (stereo cameras, phones); its first is read.
"""

MAX_PIXELS = 178_956_970
"""Default limit on height * width, read from the header before anything is decoded (Pillow's own bomb limit)."""


class ImageDecodeError(ValueError):
    """An image file that cannot be decoded; the message names the file, what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels of an image and the size that its file states."""

    rgb_hwc: npt.NDArray[np.uint8]
    """(H, W, 3) uint8 RGB, C-contiguous; smaller than the file's size when decoded at a reduced scale."""
    file_height: int
    """Height in pixels that the file states."""
    file_width: int
    """Width in pixels that the file states."""


def decode_image(
    source: str | os.PathLike[str] | bytes, *, enough_px: int | None = None, max_pixels: int = MAX_PIXELS
) -> DecodedImage:
    """Decode one image to RGB.

    Parameters
    ----------
    source
        A file's path, or the bytes of a file.
    enough_px
        Longest side in pixels that the caller needs. A JPEG whose longest side is at least twice as long is
        decoded at 1/2, 1/4 or 1/8 scale by the JPEG transform itself, never below ``enough_px``. Other files,
        and ``None``, are decoded at full size.
    max_pixels
        Refuse an image whose header states more pixels than this.

    Returns
    -------
    DecodedImage
        uint8 RGB pixels, (0, 0) at the top left of the *stored* orientation (EXIF orientation not applied).

    Raises
    ------
    ImageDecodeError
        Empty, truncated or damaged file, not an image, a format outside ``ACCEPTED_FORMATS``, an animation,
        floating-point pixels, or more than ``max_pixels``.
    OSError
        The file cannot be opened (missing, no permission).

    Notes
    -----
    Alpha is dropped without compositing, CMYK is converted by Pillow (which undoes Adobe's inversion), and
    16-bit greys keep their upper eight bits.
    """
    name = "image bytes" if isinstance(source, bytes) else os.fspath(source)
    encoded = source if isinstance(source, bytes) else Path(source).read_bytes()
    if not encoded:
        raise ImageDecodeError(f"{name}: the file is empty")
    with warnings.catch_warnings():
        # Broken EXIF and other harmless metadata make Pillow warn; its bomb warning repeats our own check.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                return _decode_open_image(image, name=name, enough_px=enough_px, max_pixels=max_pixels)
        except ImageDecodeError:
            raise
        except UnidentifiedImageError:
            raise ImageDecodeError(
                f"{name}: not an image (expected one of {', '.join(ACCEPTED_FORMATS)}, found {encoded[:8]!r}...)"
            ) from None
        except Image.DecompressionBombError as error:
            raise ImageDecodeError(f"{name}: {error}") from None
        except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
            # Pillow's plugins report damage through all of these.
            raise ImageDecodeError(f"{name}: damaged or truncated image: {error}") from error


def _decode_open_image(
    image: Image.Image, *, name: str, enough_px: int | None, max_pixels: int
) -> DecodedImage:
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
        if longest >= 2 * enough_px:
            needed = (
                max(1, -(-file_width * enough_px // longest)),
                max(1, -(-file_height * enough_px // longest)),
            )
            image.draft(None, needed)
    if image.mode in ("F", "I;16S") or (image.mode == "I" and image.format == "TIFF"):
        raise ImageDecodeError(f"{name}: pixel mode {image.mode} has no defined range, expected 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8)
        rgb_hwc = np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))
    else:
        rgb_hwc = np.array(image.convert("RGB"), dtype=np.uint8, order="C")
    return DecodedImage(rgb_hwc=rgb_hwc, file_height=file_height, file_width=file_width)
