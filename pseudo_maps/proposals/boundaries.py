"""Boundary strengths of an image, in the one form that superpixels and edge weights need.

``BoundaryStrength`` hides whether a detector's values lie between pixels (directed Sobel) or on pixels (structured
forests, any external map), and whether edge weights depend on the superpixels too (spectral contrast).

Legend: H, W pixels; C crossings between superpixels; E edges of the superpixel graph.

Sources: Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, section 3, and the authors' release 1.3;
Dollar and Zitnick, "Fast edge detection using structured forests", PAMI 2015 (oriented non-maximum suppression).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pseudo_maps.elementary import power
from pseudo_maps.kernels import Floats, kernel
from pseudo_maps.proposals.filters import tent_filter
from pseudo_maps.proposals.region_graph import RegionGraph, crossing_percentiles

THICK_SHARE = np.float32(0.01)
PIXEL_BIAS = np.float32(0.01)
"""Superpixel cost of a pixel map: thin + 0.01 * thick + 0.01 (the release's C++ path)."""
PIXEL_MAP_PERCENT = 25.0
"""Edge weight of a pixel map: 25th percentile of the thick values on both sides of the edge."""
STEP_MAP_PERCENT = 50.0
STEP_MAP_EXPONENT = 0.8
"""Edge weight of step maps: median of the values across the edge, to the power of 0.8."""
STEP_BIAS_PER_SPACING = 0.05
"""Superpixel cost of step maps: plus 0.05 divided by the mean spacing of the superpixels in pixels."""
ORIENTATION_RADIUS = 4
"""Radius of the tent filter whose second differences give the boundary's orientation."""
TOLERANCE = np.float32(1.01)
"""A pixel is suppressed only when a value beside it, across the boundary, exceeds it by more than 1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryStrength:
    """Boundary strengths of one image of H x W pixels, all float32, finite and not negative."""

    step_x: Floats
    """(H, W-1): superpixel cost of stepping between (y, x) and (y, x+1), without any constant."""
    step_y: Floats
    """(H-1, W): superpixel cost of stepping between (y, x) and (y+1, x), without any constant."""
    bias_per_spacing: float
    """Constant added to every step, divided by the superpixels' mean spacing in pixels."""
    weight_maps: tuple[tuple[Floats, Floats], ...]
    """Pairs of maps (H, W-1) and (H-1, W) whose values along an edge are pooled into its weight."""
    weight_percent: float
    """Percentile of the pooled values that is the edge's weight."""
    weight_exponent: float
    """The weight is raised to this power."""
    refine: Callable[[RegionGraph, Floats], Floats] | None = None
    """Final weights (E,) in 0..1 from the superpixel graph and the pooled weights (E,); None when these are final."""

    def superpixel_steps(self, *, superpixel_count: int) -> tuple[Floats, Floats]:
        """Costs of steps in x (H, W-1) and y (H-1, W) for a segmentation into about ``superpixel_count``."""
        height, width = self.step_x.shape[0], self.step_y.shape[1]
        bias = np.float32(self.bias_per_spacing * math.sqrt(superpixel_count / (height * width)))
        return self.step_x + bias, self.step_y + bias

    def edge_weights(self, graph: RegionGraph) -> Floats:
        """Strength of the boundary between the two superpixels of every edge, (E,) float32 in 0..1."""
        horizontal = graph.crossing_pixel[: graph.horizontal_count]
        vertical = graph.crossing_pixel[graph.horizontal_count :]
        pooled = [part for x, y in self.weight_maps for part in (x.ravel()[horizontal], y.ravel()[vertical])]
        if not len(graph.edges):
            return np.zeros(0, dtype=np.float32)
        weights = crossing_percentiles(graph, np.concatenate(pooled), percent=self.weight_percent)
        if self.weight_exponent != 1.0:
            weights = power(weights, float(np.float32(self.weight_exponent)))
        return weights if self.refine is None else self.refine(graph, weights)


def boundaries_from_step_maps(coarse: tuple[Floats, Floats], fine: tuple[Floats, Floats]) -> BoundaryStrength:
    """Boundary strengths from pairs of maps between pixels, (H, W-1) and (H-1, W) float32 in 0..1.

    ``fine`` gives the step costs of the superpixels; ``coarse`` the weights of the edges between them.
    """
    return BoundaryStrength(
        step_x=fine[0],
        step_y=fine[1],
        bias_per_spacing=STEP_BIAS_PER_SPACING,
        weight_maps=(coarse,),
        weight_percent=STEP_MAP_PERCENT,
        weight_exponent=STEP_MAP_EXPONENT,
    )


def boundaries_from_pixel_map(
    thick: npt.NDArray[np.floating], *, thin: npt.NDArray[np.floating] | None = None
) -> BoundaryStrength:
    """Boundary strengths from any detector's map on pixels.

    ``thick`` (H, W) is the boundary probability in 0..1 as the detector returns it; ``thin`` (H, W) the same after
    non-maximum suppression, computed when None. ValueError for a wrong shape or values outside 0..1 or not finite.
    """
    thick32 = _checked_map("thick", thick)
    if thin is None:
        thin32 = np.clip(suppress_non_maxima(thick32), np.float32(1e-10), np.float32(1 - 1e-10))
    else:
        thin32 = _checked_map("thin", thin)
        if thin32.shape != thick32.shape:
            raise ValueError(f"thin map of shape {thin32.shape} beside a thick map of shape {thick32.shape}")
    cost = thin32 + THICK_SHARE * thick32 + PIXEL_BIAS
    return BoundaryStrength(
        step_x=np.maximum(cost[:, :-1], cost[:, 1:]),
        step_y=np.maximum(cost[:-1], cost[1:]),
        bias_per_spacing=0.0,
        weight_maps=((thick32[:, :-1], thick32[:-1]), (thick32[:, 1:], thick32[1:])),
        weight_percent=PIXEL_MAP_PERCENT,
        weight_exponent=1.0,
    )


def _checked_map(name: str, values: npt.NDArray[np.floating]) -> Floats:
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{name} boundary map: expected shape (H, W), found {values.shape}")
    checked = np.ascontiguousarray(values, dtype=np.float32)
    # Written so that NaN fails too.
    if not (checked.min() >= 0 and checked.max() <= 1):
        raise ValueError(f"{name} boundary map: expected values in 0..1, found {checked.min():g} to {checked.max():g}")
    return checked


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
def _suppress(values: Floats, blurred: Floats, radius: int) -> Floats:
    height, width = values.shape
    thin = np.empty((height, width), dtype=np.float32)
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            curvature_x = 2 * blurred[y, x] - blurred[y, right] - blurred[y, left]
            curvature_y = 2 * blurred[y, x] - blurred[down, x] - blurred[up, x]
            twist = blurred[up, left] + blurred[down, right] - blurred[up, right] - blurred[down, left]
            if twist > 0:
                curvature_y = -curvature_y
            steepness = math.sqrt(curvature_x * curvature_x + curvature_y * curvature_y)
            step_x, step_y = (curvature_x / steepness, curvature_y / steepness) if steepness > 0 else (1.0, 0.0)
            value = values[y, x]
            thin[y, x] = value
            for r in range(1, radius + 1):
                ahead = _bilinear(values, y + r * step_y, x + r * step_x)
                behind = _bilinear(values, y - r * step_y, x - r * step_x)
                if TOLERANCE * value < ahead or TOLERANCE * value < behind:
                    thin[y, x] = 0
                    break
    return thin


def suppress_non_maxima(strength: Floats, *, radius: int = 1) -> Floats:
    """Keep each value of a (H, W) float32 map only where it is a maximum across the boundary's direction.

    The direction comes from second differences of the map smoothed with a tent of radius 4; the value is compared
    with bilinear samples of the unsmoothed map up to ``radius`` pixels away on both sides. Others become 0.
    """
    return _suppress(strength, tent_filter(strength, radius=ORIENTATION_RADIUS), radius)
