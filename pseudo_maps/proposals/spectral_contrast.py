"""Boundary detector spectral-contrast: directed Sobel, colour and texture histograms and a random walk.

Directed Sobel gives the superpixels and the contrast across their edges. Two cues on the superpixel graph refine the
contrast; on about 1,000 superpixels instead of 200,000 pixels they cost little:

- appearance: how different the colour and texture histograms of two superpixels are;
- commute distance: how far apart two superpixels are for a random walk over the whole image. A weak spot in a long
  contour and a random edge inside a texture look the same locally, but where a contour closes, its two sides are hard
  to reach from each other by any path. Only the slow modes of the walk tell; the fast ones repeat the local cues.

Legend: H, W pixels; S superpixels; E edges (pairs of touching superpixels); M modes.

References
----------
Arbelaez, Maire, Fowlkes and Malik, "Contour detection and hierarchical image segmentation", PAMI 2011: local cues,
then eigenvectors of their affinities weighted by the inverse root of their eigenvalues, then both together. Theirs is
on pixels and with trained weights.
Martin, Fowlkes and Malik, "Learning to detect natural image boundaries", PAMI 2004: histograms of brightness, colour
and texture on both sides of a boundary, compared by chi-square. Here the sides are whole superpixels instead of
half-discs, and the textures are quantised gradients instead of textons.
Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000 (the eigenproblem ``(D - A) v = t D v``).
Qiu and Hancock, "Clustering and embedding using commute times", PAMI 2007 (the distance).
"""

import dataclasses
import math

import cv2
import numpy as np

from pseudo_maps.elementary import cosine_waves, exponential, inverse
from pseudo_maps.kernels import Bytes, Doubles, Floats, Ints, kernel
from pseudo_maps.proposals.boundaries import BoundaryStrength
from pseudo_maps.proposals.directed_sobel import directed_sobel_of_luv
from pseudo_maps.proposals.filters import rgb_to_luv
from pseudo_maps.proposals.region_graph import RegionGraph
from pseudo_maps.proposals.superpixels import position_sums

# --- appearance: colour and texture histograms

COLOUR_BINS = 16
"""Bins of each of L, u and v; with 32 the ranking of edges on COCO changes by less than .001 (area under the curve)."""
DIRECTIONS = 8
"""Gradient directions, modulo 180 degrees."""
GRADIENT_STEPS = (0.003, 0.008, 0.02)
"""Gradient strengths (L a pixel, L in 0..0.37: 0.8, 2 and 5 % of its range) between flat and the texture classes;
each is about 2.6 times the one before, from just above JPEG noise to plain edges."""
TEXTURE_BINS = 1 + DIRECTIONS * len(GRADIENT_STEPS)
CHANNELS = 4
HISTOGRAM_BINS = 3 * COLOUR_BINS + TEXTURE_BINS

CHROMA_WIDTH = 7.5
"""Width of a bin of u and v: 16 reach about 60 to both sides, what is more saturated falls into the last ones."""

# L, u and v are the toolbox's, divided by 270 and shifted (see ``filters``); L covers 0..100. Grey, u = v = 0,
# lies in the middle of bin 8: on the bound of two, rounding would scatter grey pixels over both.
_PER_LIGHTNESS = np.float32(COLOUR_BINS * 270.0 / 100.0)
_PER_CHROMA = np.float32(270.0 / CHROMA_WIDTH)
_LOWEST_U = np.float32((88.0 - (COLOUR_BINS // 2 + 0.5) * CHROMA_WIDTH) / 270.0)
_LOWEST_V = np.float32((134.0 - (COLOUR_BINS // 2 + 0.5) * CHROMA_WIDTH) / 270.0)
_LAST_COLOUR = np.int32(COLOUR_BINS - 1)

# The direction is the multiple of 22.5 degrees that is nearest: the bounds lie halfway between.
_TAN_1, _TAN_3, _TAN_5, _TAN_7 = (np.float32(math.tan(math.radians(11.25 * odd))) for odd in (1, 3, 5, 7))
_SQUARE_1, _SQUARE_2, _SQUARE_3 = (np.float32(step * step) for step in GRADIENT_STEPS)
_EIGHTH, _TWO = np.float32(0.125), np.float32(2)
_DIRECTION_MASK = np.int32(DIRECTIONS - 1)
_ZERO = np.int32(0)


@kernel
def _quantise(luv_chw: Floats, padded_lightness: Floats) -> Bytes:
    _, height, width = luv_chw.shape
    bins_hwc = np.empty((height, width, CHANNELS), dtype=np.uint8)
    for y in range(height):
        for x in range(width):
            level = np.int32(luv_chw[0, y, x] * _PER_LIGHTNESS)
            u = np.int32((luv_chw[1, y, x] - _LOWEST_U) * _PER_CHROMA)
            v = np.int32((luv_chw[2, y, x] - _LOWEST_V) * _PER_CHROMA)
            bins_hwc[y, x, 0] = min(max(level, _ZERO), _LAST_COLOUR)
            bins_hwc[y, x, 1] = min(max(u, _ZERO), _LAST_COLOUR)
            bins_hwc[y, x, 2] = min(max(v, _ZERO), _LAST_COLOUR)
            # Sobel's differences; the padded plane is one pixel larger on every side.
            falling = padded_lightness[y + 2, x + 2] - padded_lightness[y, x]
            rising = padded_lightness[y, x + 2] - padded_lightness[y + 2, x]
            beside = padded_lightness[y + 1, x + 2] - padded_lightness[y + 1, x]
            below = padded_lightness[y + 2, x + 1] - padded_lightness[y, x + 1]
            gradient_x = (falling + rising + _TWO * beside) * _EIGHTH
            gradient_y = (falling - rising + _TWO * below) * _EIGHTH
            square = gradient_x * gradient_x + gradient_y * gradient_y
            across, down = abs(gradient_x), abs(gradient_y)
            turn = (
                np.int32(down > _TAN_1 * across)
                + np.int32(down > _TAN_3 * across)
                + np.int32(down > _TAN_5 * across)
                + np.int32(down > _TAN_7 * across)
            )
            opposite = np.int32((gradient_x < 0) != (gradient_y < 0))
            direction = (turn * (1 - 2 * opposite)) & _DIRECTION_MASK
            strength = np.int32(square > _SQUARE_1) + np.int32(square > _SQUARE_2) + np.int32(square > _SQUARE_3)
            bins_hwc[y, x, 3] = (1 + (strength - 1) * DIRECTIONS + direction) * min(strength, np.int32(1))
    return bins_hwc


def appearance_bins(luv_chw: Floats) -> Bytes:
    """Quantise a (3, H, W) float32 Luv image: (H, W, 4) uint8 bins of L, u, v (16 each) and texture (25).

    The texture bin is 0 where the gradient of L is weak, else it encodes the gradient's strength (3 classes) and
    direction (8, modulo 180 degrees, 0 along x). Pixels outside repeat the edge pixel.
    """
    return _quantise(luv_chw, cv2.copyMakeBorder(luv_chw[0], 1, 1, 1, 1, cv2.BORDER_REPLICATE))


@kernel
def _count_bins(bins_hwc: Bytes, labels: Ints, counts: Ints) -> None:
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            region = labels[y, x]
            counts[region, bins_hwc[y, x, 0]] += 1
            counts[region, COLOUR_BINS + bins_hwc[y, x, 1]] += 1
            counts[region, 2 * COLOUR_BINS + bins_hwc[y, x, 2]] += 1
            counts[region, 3 * COLOUR_BINS + bins_hwc[y, x, 3]] += 1


def region_histograms(bins_hwc: Bytes, labels: Ints, *, region_count: int) -> Floats:
    """Histograms (S, 73) float32 of ``appearance_bins`` inside the superpixels: 16 L, 16 u, 16 v, 25 texture.

    Each of the four sums to 1. Those of colour are smoothed with (1, 2, 1) / 4, the outermost bin repeated, so that
    a colour near the bound of two bins is near to both.
    """
    counts = np.zeros((region_count, HISTOGRAM_BINS), dtype=np.int32)
    _count_bins(bins_hwc, labels, counts)
    areas = counts[:, :COLOUR_BINS].sum(axis=1, dtype=np.int32).astype(np.float32)
    shares: Floats = counts.astype(np.float32) / areas[:, None]
    colours = shares[:, : 3 * COLOUR_BINS].reshape(region_count, 3, COLOUR_BINS)
    padded = np.concatenate([colours[..., :1], colours, colours[..., -1:]], axis=2)
    smoothed = padded[..., 1:-1] * np.float32(0.5) + (padded[..., :-2] + padded[..., 2:]) * np.float32(0.25)
    shares[:, : 3 * COLOUR_BINS] = smoothed.reshape(region_count, -1)
    return shares


@kernel
def appearance_differences(histograms: Floats, edges: Ints) -> Floats:
    """Mean over L, u, v and texture of the chi-square distance across ``edges[E, 2]``: (E,) float32 in 0..1."""
    differences = np.empty(edges.shape[0], dtype=np.float32)
    tiny = np.float32(1e-12)
    for edge in range(edges.shape[0]):
        one, other = edges[edge, 0], edges[edge, 1]
        total = np.float32(0)
        for item in range(histograms.shape[1]):
            p, q = histograms[one, item], histograms[other, item]
            # Bins that are empty on both sides add 0 / tiny: no branch.
            total += (p - q) * (p - q) / max(p + q, tiny)
        # Two histograms without a common bin have a sum of 2.
        differences[edge] = min(total * np.float32(0.5 / CHANNELS), np.float32(1))
    return differences


# --- random walk: commute distances

MODES = 8
"""Number of slow modes. On COCO images 4, 8 and 16 give an average best overlap of .725, .727 and .717 (b1100): further
modes follow single textures."""
ITERATIONS = 2
"""Inverse iterations from smooth waves over the frame; only the span of the modes matters. On COCO images one iteration
ranks edges .002 worse (area under the curve) than two, three no better than two."""
RESTART = 1e-3
"""Share added to the diagonal of the Laplacian, which alone is singular; small beside the modes' decay."""
DEPENDENT = 1e-9
"""Share of a mode's energy below which it counts as linearly dependent (tiny images have too few)."""


@kernel
def _factorise(edges: Ints, affinities: Doubles, place: Ints, band: Doubles, degrees: Doubles) -> None:
    """Make ``band[S, W]`` the upper factor of ``(1 + RESTART) D - A``: row k holds columns k to k + W - 1.

    Gaussian elimination without pivots, which a diagonally dominant matrix does not need.
    """
    count, width = band.shape
    for edge in range(edges.shape[0]):
        one, other = place[edges[edge, 0]], place[edges[edge, 1]]
        band[min(one, other), abs(one - other)] = -affinities[edge]
        degrees[one] += affinities[edge]
        degrees[other] += affinities[edge]
    for k in range(count):
        band[k, 0] = degrees[k] * (1.0 + RESTART)
    for k in range(count):
        inverse = 1.0 / band[k, 0]
        last = min(width, count - k)
        for i in range(1, last):
            if band[k, i] != 0.0:
                factor = band[k, i] * inverse
                for j in range(last - i):
                    band[k + i, j] -= factor * band[k, i + j]


@kernel
def _solve(band: Doubles, values: Doubles) -> None:
    """Replace ``values[S, M]`` by the solution of the system that ``_factorise`` prepared."""
    count, width = band.shape
    modes = values.shape[1]
    for k in range(count):
        inverse = 1.0 / band[k, 0]
        for i in range(1, min(width, count - k)):
            if band[k, i] != 0.0:
                factor = band[k, i] * inverse
                for m in range(modes):
                    values[k + i, m] -= factor * values[k, m]
    for k in range(count - 1, -1, -1):
        for i in range(1, min(width, count - k)):
            factor = band[k, i]
            if factor != 0.0:
                for m in range(modes):
                    values[k, m] -= factor * values[k + i, m]
        inverse = 1.0 / band[k, 0]
        for m in range(modes):
            values[k, m] *= inverse


@kernel
def _energies(edges: Ints, affinities: Doubles, values: Doubles) -> Doubles:
    """``values.T @ (D - A) @ values``, (M, M): the weighted products of differences across the edges."""
    modes = values.shape[1]
    energies = np.zeros((modes, modes), dtype=np.float64)
    for edge in range(edges.shape[0]):
        one, other = edges[edge, 0], edges[edge, 1]
        for m in range(modes):
            weighted = affinities[edge] * (values[one, m] - values[other, m])
            for n in range(modes):
                energies[m, n] += weighted * (values[one, n] - values[other, n])
    return energies


@kernel
def _quadratic_forms(edges: Ints, values: Doubles, metric: Doubles) -> Doubles:
    """``d.T @ metric @ d`` for the difference d of ``values[S, M]`` across every edge, (E,)."""
    modes = values.shape[1]
    forms = np.zeros(edges.shape[0], dtype=np.float64)
    for edge in range(edges.shape[0]):
        one, other = edges[edge, 0], edges[edge, 1]
        total = 0.0
        for m in range(modes):
            part = 0.0
            for n in range(modes):
                part += metric[m, n] * (values[one, n] - values[other, n])
            total += part * (values[one, m] - values[other, m])
        forms[edge] = max(total, 0.0)
    return forms


def smooth_waves(positions_yx: Doubles, *, height: int, width: int) -> Doubles:
    """Slow modes (S, M) float64, M = min(8, S - 1), of a walk over an image without boundaries.

    They are the products of cosines over the frame with the longest wave lengths, at ``positions_yx[S, 2]`` pixels.
    """
    wanted = min(MODES, len(positions_yx) - 1)
    orders = sorted(((x / width) ** 2 + (y / height) ** 2, x, y) for x in range(wanted + 1) for y in range(wanted + 1))
    down_ks, across_ks = (
        cosine_waves(places, count=wanted + 1) for places in ((positions_yx + 0.5) / (height, width)).T
    )
    # The first of the orders, 0 and 0, is the constant.
    waves: Doubles = np.stack([across_ks[x] * down_ks[y] for _, x, y in orders[1 : wanted + 1]], axis=1)
    return waves


def slow_modes(edges: Ints, affinities: Doubles, positions_yx: Doubles, *, height: int, width: int) -> Doubles:
    """Functions (S, M) float64 on the superpixels that span about the same space as the walk's M slowest modes.

    ``edges[E, 2]`` int32 form a connected graph of at least two superpixels, ``affinities[E]`` float64 > 0 are the
    transition rates, ``positions_yx[S, 2]`` float64 the superpixels' centres in pixels of the H x W frame.
    """
    region_count = len(positions_yx)
    # Numbered along the longer side, neighbours have close numbers: a narrow band is little work.
    order = np.argsort(positions_yx[:, 1 if width >= height else 0], kind="stable")
    place = np.empty(region_count, dtype=np.int32)
    place[order] = np.arange(region_count, dtype=np.int32)
    reach = int(np.abs(place[edges[:, 0]] - place[edges[:, 1]]).max())
    band = np.zeros((region_count, reach + 1), dtype=np.float64)
    degrees = np.zeros(region_count, dtype=np.float64)
    _factorise(edges, affinities, place, band, degrees)
    modes = smooth_waves(positions_yx[order], height=height, width=width)
    # The constant mode is the slowest and separates nothing; once removed, iterations do not bring it back.
    modes -= (degrees[:, None] * modes).sum(axis=0) / degrees.sum()
    for _ in range(ITERATIONS):
        modes *= degrees[:, None]
        _solve(band, modes)
    return modes[place]


def commute_distances(edges: Ints, affinities: Doubles, positions_yx: Doubles, *, height: int, width: int) -> Doubles:
    """Root of the commute time between the ends of every edge, (E,) float64 >= 0, in the walk's slow modes.

    For eigenvectors v with ``v.T D v = 1`` and eigenvalues t it is ``sqrt(vol * sum((v[i] - v[j])**2 / t))``, vol
    the sum of the degrees. Any other basis X of their span gives the same as
    ``sqrt(vol * d.T inv(X.T (D - A) X) d)``, d the difference of X's rows, without solving the eigenproblem.
    Arguments as for ``slow_modes``; a common factor of the affinities cancels.
    """
    modes = slow_modes(edges, affinities, positions_yx, height=height, width=width)
    energies = _energies(edges, affinities, modes)
    diagonal = np.diag(energies)
    scale = np.divide(1.0, np.sqrt(diagonal), where=diagonal > 0, out=np.zeros_like(diagonal))
    # The small diagonal keeps dependent modes from dividing by zero.
    scaled = energies * scale[:, None] * scale + DEPENDENT * np.eye(len(scale))
    metric = inverse(scaled) * scale[:, None] * scale
    distances: Doubles = np.sqrt(2.0 * affinities.sum() * _quadratic_forms(edges, modes, metric))
    return distances


# --- both together

AFFINITY_SCALE = 0.06
"""Local strength at which the affinity falls to 1/e: a third of the median strength of real edges (.19). On COCO images
.04, .06 and .08 give an average best overlap of .718, .727 and .726 (b1100)."""


def combine_cues(local: Doubles, commute: Doubles) -> Floats:
    """Weights (E,) float32 in 0..1 from local strengths in 0..1 and commute distances >= 0, both (E,) float64.

    The strength s is the root of their product: an edge must stand out locally and separate globally. Its weight is
    ``s / (1 + s)``, as if s were odds: independent evidence multiplies odds.
    """
    strengths = np.sqrt(local * commute)
    return (strengths / (strengths + 1.0)).astype(np.float32)


def spectral_contrast_weights(graph: RegionGraph, contrast: Floats, bins_hwc: Bytes) -> Floats:
    """Edge weights (E,) float32 in 0..1 from the directed Sobel's ``contrast[E]``, appearance and commute distances.

    ``bins_hwc[H, W, 4]`` are the ``appearance_bins`` of the image; E >= 1.
    """
    height, width = graph.labels.shape
    histograms = region_histograms(bins_hwc, graph.labels, region_count=graph.region_count)
    differences = appearance_differences(histograms, graph.edges)
    local = np.sqrt(contrast.astype(np.float64) * differences)
    # A walk crosses a boundary at each of its pixels, so an affinity is proportional to its length.
    lengths_px = np.bincount(graph.crossing_edge, minlength=len(graph.edges)).astype(np.float64)
    affinities = lengths_px * exponential(-local / AFFINITY_SCALE)
    sums = position_sums(graph.labels, graph.region_count)
    positions_yx = sums[:, :2] / sums[:, 2:]
    commute = commute_distances(graph.edges, affinities, positions_yx, height=height, width=width)
    return combine_cues(local, commute)


def spectral_contrast(rgb_hwc: Bytes) -> BoundaryStrength:
    """Boundary strengths of a (H, W, 3) uint8 RGB image."""
    luv_chw = rgb_to_luv(rgb_hwc)
    bins_hwc = appearance_bins(luv_chw)
    return dataclasses.replace(
        directed_sobel_of_luv(luv_chw),
        refine=lambda graph, contrast: spectral_contrast_weights(graph, contrast, bins_hwc),
    )
