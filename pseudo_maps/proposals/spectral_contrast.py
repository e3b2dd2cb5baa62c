"""Turns contrast, appearance and the whole picture into edge weights: the spectral contrast detector's second half.

The first half happens on pixels before there are superpixels (``detectors``): directed Sobel gives the
superpixels and the contrast across their edges. What is added here needs about 1,000 superpixels instead of
200,000 pixels, so that it costs little more than the directed Sobel itself.

Legend: H, W pixels; S superpixels; E edges of the superpixel graph.

References
----------
Arbelaez, Maire, Fowlkes and Malik, "Contour detection and hierarchical image segmentation", PAMI 2011: local cues,
then eigenvectors of their affinities, then both together. Theirs is on pixels and with trained weights.
"""

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Doubles
from pseudo_maps.proposals.appearance import appearance_differences, region_histograms
from pseudo_maps.proposals.commute_times import commute_distances
from pseudo_maps.proposals.region_graph import RegionGraph
from pseudo_maps.proposals.superpixels import position_sums

__all__ = ["combine_cues", "spectral_contrast_weights"]

AFFINITY_SCALE = 0.06
"""Local strength over which the affinity falls to 1/e: a third of the median strength of real edges (.19). On COCO
images .04, .06 and .08 give an average best overlap of .718, .727 and .726 (b1100)."""


def mean_positions(labels: npt.NDArray[np.int32], *, region_count: int) -> npt.NDArray[np.float64]:
    """Mean (y, x) of the pixels of every superpixel, (S, 2) float64 in pixels."""
    sums = position_sums(labels, region_count)
    positions: npt.NDArray[np.float64] = sums[:, :2] / sums[:, 2:]
    return positions


def combine_cues(local: Doubles, commute: Doubles) -> npt.NDArray[np.float32]:
    """Weights (E,) float32 in 0..1 from local strengths in 0..1 and commute distances >= 0, both (E,) float64.

    The strength s is the root of their product: an edge counts that stands out locally and separates globally. Its
    weight is ``s / (1 + s)``, as if s were odds: independent evidence multiplies odds.
    """
    strengths = np.sqrt(local * commute)
    weights: npt.NDArray[np.float32] = (strengths / (strengths + 1.0)).astype(np.float32)
    return weights


def spectral_contrast_weights(
    graph: RegionGraph, contrast: npt.NDArray[np.float32], bins_hwc: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Edge weights (E,) float32 in 0..1 that know colour, texture and the whole image.

    Parameters
    ----------
    graph
        Superpixels and their edges, E >= 1.
    contrast
        (E,) float32 in 0..1: directed Sobel's weights.
    bins_hwc
        (H, W, 4) uint8: ``appearance_bins`` of the image.
    """
    height, width = graph.labels.shape
    histograms = region_histograms(bins_hwc, graph.labels, region_count=graph.region_count)
    differences = appearance_differences(histograms, graph.edges)
    local = np.sqrt(contrast.astype(np.float64) * differences)
    # A walk passes a boundary at every pixel of it: its length counts.
    lengths_px = np.bincount(graph.crossing_edge, minlength=len(graph.edges)).astype(np.float64)
    affinities = lengths_px * np.exp(-local / AFFINITY_SCALE)
    positions_yx = mean_positions(graph.labels, region_count=graph.region_count)
    commute = commute_distances(graph.edges, affinities, positions_yx, height=height, width=width)
    return combine_cues(local, commute)
