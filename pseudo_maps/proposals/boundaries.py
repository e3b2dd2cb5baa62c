"""Turns an image into boundary strengths, in the one form that superpixels and edge weights need.

A detector gives a function of the image; ``BoundaryStrength`` hides whether its values live between pixels
(directed Sobel) or on pixels (structured forests, any external map), and whether edge weights look at the
superpixels too (spectral contrast).

Legend: H, W pixels; C crossings between superpixels; E edges of the superpixel graph.

References
----------
Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, section 3, and the authors' release 1.3.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pseudo_maps.proposals.non_maximum_suppression import suppress_non_maxima
from pseudo_maps.proposals.region_graph import RegionGraph, crossing_percentiles
from pseudo_maps.proposals.spectral_contrast import spectral_contrast_weights

__all__ = ["BoundaryStrength", "boundaries_from_pixel_map", "boundaries_from_step_maps"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryStrength:
    """Boundary strengths of one image of H x W pixels, all float32, finite and not negative."""

    step_x: npt.NDArray[np.float32]
    """(H, W-1): superpixel cost of stepping between (y, x) and (y, x+1), without any constant."""
    step_y: npt.NDArray[np.float32]
    """(H-1, W): superpixel cost of stepping between (y, x) and (y+1, x), without any constant."""
    bias_per_spacing: float
    """Constant added to every step, divided by the superpixels' mean spacing in pixels."""
    weight_maps: tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], ...]
    """Pairs of maps (H, W-1) and (H-1, W) whose values along an edge are pooled into its weight."""
    weight_percent: float
    """Percentile of the pooled values that is the edge's weight."""
    weight_exponent: float
    """The weight is raised to this power."""
    appearance_bins: npt.NDArray[np.uint8] | None = None
    """(H, W, 4) uint8 bins of colour and texture: with them the weight is only the contrast, which spectral contrast
    refines; without, it is final."""

    def superpixel_steps(self, *, superpixel_count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Step costs (H, W-1) and (H-1, W) for a segmentation into about ``superpixel_count`` superpixels."""
        height, width = self.step_x.shape[0], self.step_y.shape[1]
        bias = np.float32(self.bias_per_spacing * math.sqrt(superpixel_count / (height * width)))
        return self.step_x + bias, self.step_y + bias

    def edge_weights(self, graph: RegionGraph) -> npt.NDArray[np.float32]:
        """Weight (E,) float32 in 0..1 of every edge: strength of the boundary between its two superpixels."""
        horizontal = graph.crossing_pixel[: graph.horizontal_count]
        vertical = graph.crossing_pixel[graph.horizontal_count :]
        pooled = [part for x, y in self.weight_maps for part in (x.ravel()[horizontal], y.ravel()[vertical])]
        if not len(graph.edges):
            return np.zeros(0, dtype=np.float32)
        weights = crossing_percentiles(
            graph,
            np.concatenate(pooled),
            values_per_crossing=len(self.weight_maps),
            percent=self.weight_percent,
        )
        if self.weight_exponent != 1.0:
            weights = weights ** np.float32(self.weight_exponent)
        if self.appearance_bins is None:
            return weights
        return spectral_contrast_weights(graph, weights, self.appearance_bins)


def boundaries_from_step_maps(
    coarse: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    fine: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> BoundaryStrength:
    """Boundary strengths from maps between pixels: pairs of (H, W-1) and (H-1, W) float32 in 0..1.

    ``fine`` draws the superpixels; ``coarse`` weighs the edges between them.
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

    Parameters
    ----------
    thick
        (H, W) probability of boundary in 0..1, as wide as the detector draws it.
    thin
        (H, W) the same after non-maximum suppression, in 0..1. Made from ``thick`` when absent.

    Raises
    ------
    ValueError
        Wrong shape, values outside 0..1 or not finite.
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


def _checked_map(name: str, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{name} boundary map: expected shape (H, W), found {values.shape}")
    checked = np.ascontiguousarray(values, dtype=np.float32)
    # Written so that NaN fails too.
    if not (checked.min() >= 0 and checked.max() <= 1):
        raise ValueError(f"{name} boundary map: expected values in 0..1, found {checked.min():g} to {checked.max():g}")
    return checked
