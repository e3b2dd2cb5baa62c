"""Turns a thick boundary map into a thin one: oriented non-maximum suppression.

References
----------
Dollar and Zitnick, PAMI 2015, as used by the geodesic object proposals release 1.3.
"""

import math

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Floats, kernel
from pseudo_maps.proposals.filters import tent_filter

__all__ = ["suppress_non_maxima"]

ORIENTATION_RADIUS = 4
"""Radius of the tent filter whose second differences give the boundary's orientation."""
TOLERANCE = np.float32(1.01)
"""A pixel is suppressed only when a neighbour across the boundary exceeds it by 1 %."""


@kernel
def _bilinear(values: Floats, y: float, x: float) -> float:
    height, width = values.shape
    y = min(max(y, 0.0), height - 1.0)
    x = min(max(x, 0.0), width - 1.0)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    upper = values[y0, x0] * (1 - fx) + values[y0, x1] * fx
    lower = values[y1, x0] * (1 - fx) + values[y1, x1] * fx
    return float(upper * (1 - fy) + lower * fy)


@kernel
def _suppress(values: Floats, blurred: Floats, radius: int, thin: Floats) -> None:
    height, width = values.shape
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            curvature_x = 2 * blurred[y, x] - blurred[y, right] - blurred[y, left]
            curvature_y = 2 * blurred[y, x] - blurred[down, x] - blurred[up, x]
            twist = blurred[up, left] + blurred[down, right] - blurred[up, right] - blurred[down, left]
            if twist > 0:
                curvature_y = -curvature_y
            angle = math.atan2(curvature_y, curvature_x)
            step_x, step_y = math.cos(angle), math.sin(angle)
            value = values[y, x]
            thin[y, x] = value
            for r in range(1, radius + 1):
                ahead = _bilinear(values, y + r * step_y, x + r * step_x)
                behind = _bilinear(values, y - r * step_y, x - r * step_x)
                if TOLERANCE * value < ahead or TOLERANCE * value < behind:
                    thin[y, x] = 0
                    break


def suppress_non_maxima(strength: npt.NDArray[np.float32], *, radius: int = 1) -> npt.NDArray[np.float32]:
    """Keep each value of a (H, W) float32 map only where it is a maximum across the boundary's direction.

    The direction comes from second differences of the map smoothed with a tent of radius 4; the value is compared
    with bilinear samples of the unsmoothed map up to ``radius`` pixels away on both sides. Others become 0.
    """
    thin = np.empty_like(strength)
    _suppress(strength, tent_filter(strength, radius=ORIENTATION_RADIUS), radius, thin)
    return thin
