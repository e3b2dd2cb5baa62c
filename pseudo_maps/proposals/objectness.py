"""Turns proposals over superpixels into weights: how much each looks like one whole object.

A weight is a product of simple measures, each of which says no by being near 0. So no measure needs a scale beside
the others, and there are two numbers to choose: ``BORDER_SHARE`` and ``CENTRE_SIGMA``.

Legend: S superpixels; P proposals.

References
----------
Alexe, Deselaers and Ferrari, "Measuring the objectness of image windows", PAMI 2012 (the idea, and the contrast cue).
Tatler, "The central fixation bias in scene viewing", Journal of Vision 2007 (photographers centre their object).
"""

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Bytes, Doubles, Ints, kernel
from pseudo_maps.proposals.region_features import RegionFeatures

__all__ = ["objectness_weights"]

BORDER_SHARE = 0.05
"""Share of the frame's outermost pixels at which a weight falls to 1/e. A quarter is one whole side of a square image:
an object cut off by the frame covers a part of one side, ground and sky whole sides."""
CENTRE_SIGMA = 0.2
"""Standard deviation, in sides of the frame, of a Gaussian round the middle on the proposal's centre of mass."""
_UNIT = 1 << 24
"""Sums over superpixels are taken over integers in units of 2**-24 of their largest possible sum: exact in any order,
which the compiler may therefore vectorise, and float32's precision."""
_FAR_PX = 1 << 30


_int = np.int32


@kernel
def _mask_sums(masks: Bytes, columns: Ints, sums: Doubles) -> None:
    """Sums ``[7, P]`` of seven ``columns[7, S]`` over the superpixels of each mask."""
    # All ones inside and all zeros outside instead of a branch; numba widens every int32 operation to 64 bits, and
    # without cutting each result the loop takes three times as long.
    for mask in range(masks.shape[0]):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = _int(0)
        for region in range(masks.shape[1]):
            inside = _int(-_int(masks[mask, region]))
            s0 = _int(s0 + (columns[0, region] & inside))
            s1 = _int(s1 + (columns[1, region] & inside))
            s2 = _int(s2 + (columns[2, region] & inside))
            s3 = _int(s3 + (columns[3, region] & inside))
            s4 = _int(s4 + (columns[4, region] & inside))
            s5 = _int(s5 + (columns[5, region] & inside))
            s6 = _int(s6 + (columns[6, region] & inside))
        sums[0, mask], sums[1, mask], sums[2, mask], sums[3, mask] = s0, s1, s2, s3
        sums[4, mask], sums[5, mask], sums[6, mask] = s4, s5, s6


@kernel
def _box_areas(masks: Bytes, boxes: Ints, areas_px: Doubles) -> None:
    """Areas ``[P]`` of the boxes round masks, from the boxes ``[4, S]`` of the superpixels."""
    for mask in range(masks.shape[0]):
        left = top = _int(_FAR_PX)
        right = bottom = _int(-1)
        for region in range(masks.shape[1]):
            outside = _int(_int(masks[mask, region]) - 1)
            far = _int(outside & _FAR_PX)
            left = _int(min(left, _int(boxes[0, region] | far)))
            top = _int(min(top, _int(boxes[1, region] | far)))
            right = _int(max(right, _int(boxes[2, region] | outside)))
            bottom = _int(max(bottom, _int(boxes[3, region] | outside)))
        areas_px[mask] = (right - left + 1.0) * (bottom - top + 1.0)


def objectness_weights(
    masks: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], regions: RegionFeatures
) -> npt.NDArray[np.float64]:
    """Weights (P,) float64 >= 0 of the proposals ``masks[P, S]``, none of them empty.

    The product of

    - the area, as a share of the image: every pixel of a map is covered by many tiny proposals and few large ones;
    - ``exp(-border share / BORDER_SHARE)``: ground reaches the frame, objects rarely along much of it;
    - a Gaussian on the distance of the centre of mass from the middle;
    - the share of its bounding box that it fills: grounds and chains of regions are ragged;
    - the distance in Luv between the mean colours inside and outside;
    - the root of ``scores[P]``, which is the range of distance over which the level set stands still: gaps spread
      over orders of magnitude, and the root keeps one proposal from deciding alone.

    A proposal that covers the whole image weighs 0, since it has no outside.
    """
    total_px = float(regions.area_px.sum())
    area = regions.area_px / total_px
    border = regions.side_px.sum(axis=1) / regions.side_px.sum()
    measures = np.stack([area, border, *(area * regions.centre_xy.T), *(area * regions.luv.T)])
    columns = np.rint(measures * _UNIT).astype(np.int32)
    sums = np.empty((len(columns), len(masks)), dtype=np.float64)
    box_area_px = np.empty(len(masks), dtype=np.float64)
    _mask_sums(masks.view(np.uint8), columns, sums)
    _box_areas(masks.view(np.uint8), np.ascontiguousarray(regions.boxes_xyxy.T), box_area_px)
    sums /= _UNIT
    # Rounded sums: a proposal of one superpixel of one pixel in 2**25 would have no area.
    inside = np.maximum(sums[0], 1 / _UNIT)
    outside = np.maximum(1 - inside, 1 / _UNIT)
    total_luv = columns[4:].sum(axis=1, dtype=np.int64) / _UNIT
    difference = sums[4:] / inside - (total_luv[:, None] - sums[4:]) / outside
    off_centre = ((sums[2:4] / inside - 0.5) ** 2).sum(axis=0)
    weights: npt.NDArray[np.float64] = (
        inside
        * np.exp(-sums[1] / BORDER_SHARE)
        * np.exp(-off_centre / (2 * CENTRE_SIGMA**2))
        * (inside * total_px / box_area_px)
        * np.sqrt((difference**2).sum(axis=0))
        * np.sqrt(scores)
    )
    weights[masks.all(axis=1)] = 0
    return weights
