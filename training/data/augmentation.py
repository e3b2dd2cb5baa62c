"""Augmentation: the crop of an image that a network sees, cut out of the image and of its saliency map.

A crop lies in relative coordinates of the whole image, because the map shows the whole image squeezed into a
square: the same crop cuts corresponding pixels out of both. Image and map are resampled once, by the
antialiased bilinear (triangle) filter that torchvision uses for PIL images.

Shapes: H W pixels of an image or a map, S side of the network's input. A relative coordinate is 0 at the outer
edge of the first pixel and 1 at the outer edge of the last.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from training.config import CropConfig

_RESIZED_CROP_TRIES = 10
"""Draws of area and ratio before the fallback; torchvision's ``RandomResizedCrop``."""

_GRID_TOLERANCE_PX = 1e-3
"""A crop this close to whole pixels of the resized image is taken to be on them; rounding is far below."""

_GRID_AREA_LIMIT = 3.0
"""Resizing the whole image pays while it makes at most this many times the pixels of the crop.

Measured on one core: a whole 640x480 image to 341x256 by torch takes 0.9 ms, its 224x224 crop by Pillow 1.7 ms.
"""


class Crop(NamedTuple):
    """Part of an image, ``0 <= x0 < x1 <= 1`` and ``0 <= y0 < y1 <= 1`` in relative coordinates."""

    x0: float
    """Left edge."""
    y0: float
    """Upper edge."""
    x1: float
    """Right edge."""
    y1: float
    """Lower edge."""
    flip: bool
    """Mirror left and right after cutting."""


EVALUATION_CROP = CropConfig(kind="squash", flip_probability=0.0)
"""Input at test time: the whole image squeezed to 224x224."""


def draw_crop(generator: np.random.Generator, image_hw: tuple[int, int], config: CropConfig) -> Crop:
    """Draw the crop of one image; the flip is drawn first, then the place.

    For ``crop`` and ``center`` on the integer grid of the image whose short side is ``resize`` and whose long side is
    rounded down, the grid of torchvision's ``Resize``; for ``resized-crop`` on image pixels. ``image_hw`` are height
    and width in pixels that the image's file states, whatever scale it is decoded at; ValueError below 1.
    """
    height, width = image_hw
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}x{width} pixels, expected at least 1x1")
    flip = bool(generator.random() < config.flip_probability)
    if config.kind == "squash":
        return Crop(0.0, 0.0, 1.0, 1.0, flip)
    size = config.input_size
    if config.kind == "resized-crop":
        grid_hw = image_hw
        top, left, crop_h, crop_w = _draw_resized_crop(generator, image_hw, config)
    else:
        short = min(image_hw)
        grid_hw = (config.resize * height // short, config.resize * width // short)
        crop_h = crop_w = size
        if config.kind == "crop":
            top, left = _draw_corner(generator, grid_hw, (size, size))
        else:
            top, left = round((grid_hw[0] - size) / 2), round((grid_hw[1] - size) / 2)
    grid_h, grid_w = grid_hw
    return Crop(left / grid_w, top / grid_h, (left + crop_w) / grid_w, (top + crop_h) / grid_h, flip)


def _draw_corner(generator: np.random.Generator, grid_hw: tuple[int, int], crop_hw: tuple[int, int]) -> tuple[int, int]:
    top, left = (int(generator.random() * (grid - crop + 1)) for grid, crop in zip(grid_hw, crop_hw, strict=True))
    return top, left


def _draw_resized_crop(
    generator: np.random.Generator, image_hw: tuple[int, int], config: CropConfig
) -> tuple[int, int, int, int]:
    """Top, left, height, width in image pixels."""
    height, width = image_hw
    low, high = (math.log(ratio) for ratio in config.ratio)
    for _ in range(_RESIZED_CROP_TRIES):
        area_px = height * width * (config.scale[0] + (config.scale[1] - config.scale[0]) * generator.random())
        ratio = math.exp(low + (high - low) * generator.random())
        crop_w, crop_h = round(math.sqrt(area_px * ratio)), round(math.sqrt(area_px / ratio))
        if 0 < crop_w <= width and 0 < crop_h <= height:
            top, left = _draw_corner(generator, image_hw, (crop_h, crop_w))
            return top, left, crop_h, crop_w
    # No draw fits a very long image: the largest crop of an allowed ratio, in the middle.
    ratio = min(max(width / height, config.ratio[0]), config.ratio[1])
    crop_w = max(1, min(width, round(height * ratio)))
    crop_h = max(1, min(height, round(width / ratio)))
    return (height - crop_h) // 2, (width - crop_w) // 2, crop_h, crop_w


def sample_image(rgb_hwc: npt.NDArray[np.uint8], crop: Crop, size: int) -> npt.NDArray[np.uint8]:
    """(S, S, 3) uint8, possibly a view: a crop of ``rgb[H, W, 3]`` uint8, the whole image at any scale.

    For a crop on the pixels of a resized image, the whole image is resized by torch or OpenCV, which is faster than
    cutting the crop out by Pillow, as is done with any other crop. The filter is the same, so results differ by a
    grey level or two at most.
    """
    return _flip(_cut(rgb_hwc, crop, size), crop)


def sample_map(map_hw: npt.NDArray[np.uint8], crop: Crop, size: int) -> npt.NDArray[np.uint8]:
    """(S, S) uint8, possibly a view: the same crop of ``map[H, W]`` uint8, which shows the whole image squeezed."""
    return _flip(_cut(map_hw, crop, size), crop)


def _flip(pixels: npt.NDArray[np.uint8], crop: Crop) -> npt.NDArray[np.uint8]:
    # OpenCV, because copying a mirrored numpy view costs 0.3 ms, pixel by pixel, and this 0.01 ms.
    return np.asarray(cv2.flip(pixels, 1), dtype=np.uint8) if crop.flip else pixels


def _cut(pixels: npt.NDArray[np.uint8], crop: Crop, size: int) -> npt.NDArray[np.uint8]:
    """(S, S, ...) uint8 of (H, W, ...) uint8, not flipped."""
    on_grid = _corner_on_grid(crop, size)
    if on_grid is None:
        return _resize_crop(pixels, crop, size)
    grid_h, grid_w, top, left = on_grid
    return _resize_whole(pixels, grid_h, grid_w)[top : top + size, left : left + size]


def _resize_whole(pixels: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """The whole (H, W, ...) uint8 image to ``height`` x ``width``."""
    if (height, width) == pixels.shape[:2]:
        return pixels
    if height >= pixels.shape[0] and width >= pixels.shape[1]:
        # Nothing to average where an image grows: plain bilinear is the antialiased filter, at a third of the cost.
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    channels_last = pixels if pixels.ndim == 3 else pixels[..., None]
    image_bchw = torch.from_numpy(channels_last).permute(2, 0, 1).unsqueeze(0)
    resized = F.interpolate(image_bchw, (height, width), mode="bilinear", antialias=True, align_corners=False)
    resized_hwc: npt.NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return resized_hwc.reshape(height, width, *pixels.shape[2:])


def _corner_on_grid(crop: Crop, size: int) -> tuple[int, int, int, int] | None:
    """Height and width of the resized image that the crop cuts S x S pixels out of, and their top and left; or None."""
    grid_w, grid_h = size / (crop.x1 - crop.x0), size / (crop.y1 - crop.y0)
    wanted = (grid_h, grid_w, crop.y0 * grid_h, crop.x0 * grid_w)
    if grid_h * grid_w > _GRID_AREA_LIMIT * size * size:
        return None
    if max(abs(value - round(value)) for value in wanted) > _GRID_TOLERANCE_PX:
        return None
    rows, columns, top, left = (round(value) for value in wanted)
    return rows, columns, top, left


def _resize_crop(pixels: npt.NDArray[np.uint8], crop: Crop, size: int) -> npt.NDArray[np.uint8]:
    """(S, S, ...) uint8 of (H, W, ...) uint8 by Pillow, which sees the pixels around the crop as well."""
    height, width = pixels.shape[:2]
    x0, x1 = crop.x0 * width, crop.x1 * width
    y0, y1 = crop.y0 * height, crop.y1 * height
    # Only what the filter reaches is handed over: handing over costs as much as resampling for small crops.
    reach_x, reach_y = max(1.0, (x1 - x0) / size) + 1, max(1.0, (y1 - y0) / size) + 1
    left, top = max(0, math.floor(x0 - reach_x)), max(0, math.floor(y0 - reach_y))
    right, bottom = min(width, math.ceil(x1 + reach_x)), min(height, math.ceil(y1 + reach_y))
    part = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    # Rounding must not push the box out of the part by a bit: Pillow refuses that.
    box = (x0 - left, y0 - top, min(x1 - left, part.width), min(y1 - top, part.height))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR, box=box))
