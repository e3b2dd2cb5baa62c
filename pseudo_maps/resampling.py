"""Resampling by area: images to working size, saliency maps to the size that shards store."""

import cv2
import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Doubles, Floats, Longs, kernel


def fit_working_size(rgb_hwc: npt.NDArray[np.uint8], *, longest_px: int) -> npt.NDArray[np.uint8]:
    """Shrink a (H, W, 3) uint8 image by area averaging so that no side is above ``longest_px``; never enlarge."""
    height, width, _ = rgb_hwc.shape
    longest = max(height, width)
    if longest <= longest_px:
        return rgb_hwc
    size = (max(1, round(width * longest_px / longest)), max(1, round(height * longest_px / longest)))
    shrunk: npt.NDArray[np.uint8] = cv2.resize(rgb_hwc, size, interpolation=cv2.INTER_AREA)
    return shrunk


@kernel
def _overlaps(source: int, target: int) -> tuple[Longs, Longs, Doubles]:
    """First source cell, number of source cells and their shares of the length, for each target cell."""
    first = np.empty(target, dtype=np.int64)
    counts = np.empty(target, dtype=np.int64)
    widest = source // target + 2
    fractions = np.zeros((target, widest), dtype=np.float64)
    # In units of 1 / target source cells a source cell is `target` long and a target cell `source`: all integers.
    for cell in range(target):
        begin, end = cell * source, (cell + 1) * source
        first[cell] = begin // target
        at = first[cell]
        while at * target < end:
            overlap = min(end, (at + 1) * target) - max(begin, at * target)
            fractions[cell, at - first[cell]] = overlap / source
            at += 1
        counts[cell] = at - first[cell]
    return first, counts, fractions


@kernel
def _area_average(values: Floats, out_height: int, out_width: int) -> Floats:
    height, width = values.shape
    first, counts, fractions = _overlaps(width, out_width)
    rows = np.empty((height, out_width), dtype=np.float64)
    for y in range(height):
        for cell in range(out_width):
            total = 0.0
            for k in range(counts[cell]):
                total += fractions[cell, k] * values[y, first[cell] + k]
            rows[y, cell] = total
    first, counts, fractions = _overlaps(height, out_height)
    averaged = np.empty((out_height, out_width), dtype=np.float32)
    line = np.empty(out_width, dtype=np.float64)
    for cell in range(out_height):
        line[:] = 0.0
        for k in range(counts[cell]):
            line += fractions[cell, k] * rows[first[cell] + k]
        averaged[cell] = line.astype(np.float32)
    return averaged


def area_average(values_hw: npt.NDArray[np.float32], *, height: int, width: int) -> npt.NDArray[np.float32]:
    """Resample (H, W) float32 to (height, width): the mean over the area that each new pixel covers.

    Both grids span the whole image, so pixel centres are aligned: new row ``i`` covers the old rows from
    ``i * H / height`` to ``(i + 1) * H / height``. Pixels cut by a border count by the share inside. Enlarging
    follows the same rule (OpenCV's ``INTER_AREA`` would interpolate).
    """
    if values_hw.ndim != 2 or values_hw.size == 0 or height < 1 or width < 1:
        raise ValueError(f"cannot resample shape {values_hw.shape} to ({height}, {width})")
    return _area_average(values_hw, height, width)
