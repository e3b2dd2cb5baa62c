"""Pictures: maps as heat colours, overlays, boxes, and PNG or JPEG files of them.

Legend: H W pixels, N boxes. Pictures are ``(H, W, 3)`` uint8 RGB. Boxes are ``x0, y0, x1, y1`` in 0-based pixels
of the picture, both corners inside the box.
"""

from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from pseudo_maps.files import write_atomically

GROUND_TRUTH_RGB, _RIM_RGB = (0, 200, 64), (0, 0, 0)
"""Green boxes with a dark rim are ground truth, in every picture."""
PREDICTED_RGB = (255, 64, 32)
"""Red boxes are predicted."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes of file names, each of which decides the format of a picture."""

_JPEG_QUALITY = 85
"""Lines of two pixels stay sharp; a tenth of a PNG's bytes, so that a page of several runs stays below 2 MB."""

Picture: TypeAlias = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


def resized(values: npt.NDArray[np.uint8], *, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 3) or map (H, W), uint8, stretched: area means where it shrinks, else bilinear."""
    shrinks = values.shape[0] >= height and values.shape[1] >= width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (width, height), interpolation=interpolation), dtype=np.uint8)


def heat_colours(map_hw: npt.NDArray[np.uint8]) -> Picture:
    """Colours ``(H, W, 3)`` uint8 RGB of a map ``(H, W)`` uint8, dark blue to yellow (viridis)."""
    coloured: Picture = cv2.applyColorMap(map_hw, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return np.ascontiguousarray(coloured)


def overlay_heat(image_rgb: Picture, map_hw: npt.NDArray[np.uint8]) -> Picture:
    """Blend an image ``(H, W, 3)`` uint8 RGB with the colours of its map ``(H, W)`` uint8, half and half."""
    blended: Picture = cv2.addWeighted(image_rgb, 0.5, heat_colours(map_hw), 0.5, 0)
    return blended


def draw_boxes(
    image_rgb: Picture, boxes_xyxy: npt.ArrayLike, *, colour: tuple[int, int, int], width_px: int = 2
) -> Picture:
    """A copy of an image ``(H, W, 3)`` uint8 RGB with boxes ``(N, 4)`` drawn as outlines.

    Boxes are inclusive and rounded to whole pixels; N may be 0, and what lies outside the image is not drawn.
    """
    drawn = image_rgb.copy()
    for x0, y0, x1, y1 in np.rint(np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)).astype(int):
        cv2.rectangle(drawn, (int(x0), int(y0)), (int(x1), int(y1)), colour, width_px)
    return drawn


def draw_ground_truth(image_rgb: Picture, boxes_xyxy: npt.ArrayLike) -> Picture:
    """A copy of an image with ground truth, so wide that it shows on both sides of a predicted box that covers it."""
    rimmed = draw_boxes(image_rgb, boxes_xyxy, colour=_RIM_RGB, width_px=6)
    return draw_boxes(rimmed, boxes_xyxy, colour=GROUND_TRUTH_RGB, width_px=4)


def picture_bytes(image_rgb: Picture, *, suffix: str) -> bytes:
    """The content of an image file of one of ``PICTURE_SUFFIXES``, without date or program name; ``(H, W)`` is grey.

    OSError when OpenCV cannot encode it (a side of 0 pixels, or of more than 65,500 as JPEG).
    """
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    try:
        encoded, data = cv2.imencode(suffix, image_rgb[..., ::-1] if image_rgb.ndim == 3 else image_rgb, options)
    except cv2.error:
        encoded = False
    if not encoded:
        raise OSError(f"a picture of shape {image_rgb.shape} could not be encoded as {suffix}")
    content: bytes = data.tobytes()
    return content


def save_picture(path: Path, image_rgb: Picture) -> None:
    """Write a picture in the format of the file name's suffix, one of ``PICTURE_SUFFIXES`` or ValueError.

    The folder is made when it is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(PICTURE_SUFFIXES)}, found {suffix!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, picture_bytes(image_rgb, suffix=suffix))
