"""Turns an image and its superpixels into how different the superpixels look: colour and texture histograms.

Legend: H, W pixels; S superpixels; E edges (pairs of touching superpixels).

References
----------
Martin, Fowlkes and Malik, "Learning to detect natural image boundaries", PAMI 2004: histograms of brightness,
colour and texture on both sides of a boundary, compared by chi-square. Here the sides are whole superpixels, which
already stop at boundaries, instead of half-discs, and the textures are quantised gradients instead of textons.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Bytes, Floats, Ints, kernel

__all__ = ["appearance_bins", "appearance_differences", "region_histograms"]

COLOUR_BINS = 16
"""Bins of each of L, u and v; with 32 the ranking of COCO's edges changes by less than .001 (area under the curve)."""
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

# L, u and v are the toolbox's, divided by 270 and shifted (see proposals/color.py); L covers 0..100. Grey, u = v = 0,
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
def _quantise(luv_chw: Floats, padded_lightness: Floats, bins_hwc: Bytes) -> None:
    _, height, width = luv_chw.shape
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


def appearance_bins(luv_chw: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Quantise a (3, H, W) float32 Luv image: (H, W, 4) uint8 bins of L, u, v (16 each) and texture (25).

    The texture bin is 0 where the gradient of L is weak, else it says its strength (3 classes) and direction (8,
    modulo 180 degrees, 0 along x). Pixels outside repeat the edge pixel.
    """
    lightness = luv_chw[0]
    bins_hwc = np.empty((*lightness.shape, CHANNELS), dtype=np.uint8)
    _quantise(luv_chw, cv2.copyMakeBorder(lightness, 1, 1, 1, 1, cv2.BORDER_REPLICATE), bins_hwc)
    return bins_hwc


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


def region_histograms(
    bins_hwc: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32], *, region_count: int
) -> npt.NDArray[np.float32]:
    """Histograms (S, 73) float32 of ``appearance_bins`` inside the superpixels: 16 L, 16 u, 16 v, 25 texture.

    Each of the four sums to 1. The colour ones are smoothed with (1, 2, 1) / 4, so that a colour near the bound of
    two bins counts as near to both; at the ends the outermost bin is repeated.
    """
    counts = np.zeros((region_count, HISTOGRAM_BINS), dtype=np.int32)
    _count_bins(bins_hwc, labels, counts)
    areas = counts[:, :COLOUR_BINS].sum(axis=1, dtype=np.int32).astype(np.float32)
    shares: npt.NDArray[np.float32] = counts.astype(np.float32) / areas[:, None]
    colours = shares[:, : 3 * COLOUR_BINS].reshape(region_count, 3, COLOUR_BINS)
    padded = np.concatenate([colours[..., :1], colours, colours[..., -1:]], axis=2)
    smoothed = padded[..., 1:-1] * np.float32(0.5) + (padded[..., :-2] + padded[..., 2:]) * np.float32(0.25)
    shares[:, : 3 * COLOUR_BINS] = smoothed.reshape(region_count, -1)
    return shares


@kernel
def _chi_square(histograms: Floats, edges: Ints, differences: Floats) -> None:
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


def appearance_differences(
    histograms: npt.NDArray[np.float32], edges: npt.NDArray[np.int32]
) -> npt.NDArray[np.float32]:
    """Mean over L, u, v and texture of the chi-square distance across ``edges[E, 2]``: (E,) float32 in 0..1."""
    differences = np.empty(len(edges), dtype=np.float32)
    _chi_square(histograms, edges, differences)
    return differences
