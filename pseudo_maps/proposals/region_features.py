"""Turns a label map and its image into the place and the mean colour of every superpixel.

Legend: H, W pixels; S superpixels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Bytes, Ints, Longs, kernel
from pseudo_maps.proposals.color import rgb_to_luv

__all__ = ["RegionFeatures", "region_features"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFeatures:
    """What weighs proposals and superpixels beside the masks themselves; fractions are of the frame's sides."""

    area_px: npt.NDArray[np.int64]
    """(S,) int64 > 0: pixels of each superpixel."""
    centre_xy: npt.NDArray[np.float64]
    """(S, 2) float64 in 0..1: mean position of the pixels' centres; .5, .5 is the middle of the frame."""
    side_px: npt.NDArray[np.int64]
    """(S, 4) int64: pixels in the outermost row or column, at the top, bottom, left and right."""
    luv: npt.NDArray[np.float32]
    """(S, 3) float32: Luv of the mean RGB colour, in about 0..1."""
    boxes_xyxy: npt.NDArray[np.int32]
    """(S, 4) int32 ``x0, y0, x1, y1`` in pixels, 0-based, inclusive."""
    frame_distance: npt.NDArray[np.float32]
    """(S,) float32: geodesic distance to the nearest superpixel at the frame; 0 for those."""


@kernel
def _sums(labels: Ints, rgb_hwc: Bytes, region_count: int) -> tuple[Longs, Longs]:
    height, width = labels.shape
    # Pixels, sum of x, of y, of R, G and B.
    sums = np.zeros((region_count, 6), dtype=np.int64)
    sides = np.zeros((region_count, 4), dtype=np.int64)
    for y in range(height):
        x = 0
        # Runs of one label, about 10 pixels long, are summed in registers: half the time of six sums in memory a pixel.
        while x < width:
            region, start = labels[y, x], x
            red = green = blue = 0
            while x < width and labels[y, x] == region:
                red += rgb_hwc[y, x, 0]
                green += rgb_hwc[y, x, 1]
                blue += rgb_hwc[y, x, 2]
                x += 1
            sums[region, 0] += x - start
            sums[region, 1] += (x - start) * (start + x - 1) // 2
            sums[region, 2] += (x - start) * y
            sums[region, 3] += red
            sums[region, 4] += green
            sums[region, 5] += blue
    for x in range(width):
        sides[labels[0, x], 0] += 1
        sides[labels[height - 1, x], 1] += 1
    for y in range(height):
        sides[labels[y, 0], 2] += 1
        sides[labels[y, width - 1], 3] += 1
    return sums, sides


def region_features(
    labels: npt.NDArray[np.int32],
    rgb_hwc: npt.NDArray[np.uint8],
    *,
    boxes_xyxy: npt.NDArray[np.int32],
    frame_distance: npt.NDArray[np.float32],
) -> RegionFeatures:
    """Features of the S superpixels of a label map (H, W) with every value 0..S-1, and its image (H, W, 3) uint8.

    Parameters
    ----------
    boxes_xyxy
        (S, 4) int32, as ``region_geometry`` gives them.
    frame_distance
        (S,) float32 geodesic distance to the frame.

    Raises
    ------
    ValueError
        The image is of another size than the label map.
    """
    if rgb_hwc.shape != (*labels.shape, 3):
        raise ValueError(f"an image of shape {rgb_hwc.shape} does not fit a label map of shape {labels.shape}")
    height, width = labels.shape
    sums, side_px = _sums(labels, rgb_hwc, len(boxes_xyxy))
    area_px = sums[:, 0].copy()
    means = sums[:, 1:] / area_px[:, None]
    mean_rgb = np.rint(means[:, 2:]).astype(np.uint8)
    return RegionFeatures(
        area_px=area_px,
        centre_xy=(means[:, :2] + 0.5) / (width, height),
        side_px=side_px,
        luv=np.ascontiguousarray(rgb_to_luv(mean_rgb[None])[:, 0].T),
        boxes_xyxy=boxes_xyxy,
        frame_distance=frame_distance,
    )
