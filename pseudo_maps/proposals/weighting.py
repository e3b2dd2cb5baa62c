"""Saliency of every superpixel from the proposals: the plain mean, or a mean weighted by objectness with colour cues.

Weighting "objectness" weighs each proposal by how much it looks like one whole object (``objectness_weights``) and adds
to the weighted mean what colours and the frame say of every superpixel (``combined_saliency``): the mean knows shapes
but not that two regions look alike.

Legend: S superpixels; P proposals.

References
----------
Chen and Hsu, ICASSP 2019, section 2.3: the plain mean is the paper's pseudo saliency map.
Alexe, Deselaers and Ferrari, "Measuring the objectness of image windows", PAMI 2012 (the idea, and the contrast cue).
Tatler, "The central fixation bias in scene viewing", Journal of Vision 2007 (photographers centre their object).
Zhang, Sclaroff, Lin, Shen, Price and Mech, "Minimum barrier salient object detection at 80 FPS", ICCV 2015, section 4
(contrast to the four sides of the frame).
Wei, Wen, Zhu and Sun, "Geodesic saliency using background priors", ECCV 2012 (distance to the frame).
"""

import numpy as np

from pseudo_maps.elementary import exponential, inverse
from pseudo_maps.kernels import Bools, Bytes, Doubles, Floats, Ints, kernel
from pseudo_maps.proposals.region_graph import RegionFeatures

BORDER_SHARE = 0.05
"""Share of the frame's outermost pixels at which a proposal's weight falls to 1/e. One whole side of a square image is
a quarter: an object cut off by the frame covers part of one side, ground and sky whole sides."""
PROPOSAL_CENTRE_SIGMA = 0.2
"""Standard deviation, as a fraction of the frame's sides, of the Gaussian on a proposal's centre of mass."""
_UNIT = 1 << 24
"""Sums over superpixels are sums of integers in units of 2**-24 of the largest possible sum: as precise as float32, and
exact in any order, so that the compiler may vectorise them."""
_FAR_PX = 1 << 30
FRAME_CUE_SHARE = 0.5
"""Weight of each of the two cues against the frame, together as much as one other cue: both are wrong where the object
touches the frame."""
SALIENCY_CENTRE_SIGMA = 0.4
"""Standard deviation, as a fraction of the frame's sides, of the Gaussian on the saliency: .46 in the middle
of a side, .21 in a corner, so a clear object there still stands out."""
COLOUR_LEVELS = 4
"""Levels of each Luv channel by the image's own quantiles: 64 colours, about 16 of 1,000 superpixels for each."""
COLOUR_NOISE = 0.01
"""Standard deviation added to the colours along a side of the frame (Luv in about 0..1), so that a flat side does not
make every colour infinitely different."""


def uniform_saliency(masks: Bools) -> Floats:
    """Share of ``masks[P, S]`` that contain each superpixel: (S,) float32 in 0..1, zero without masks."""
    counts = _weighted_sums(masks.view(np.uint8), np.ones(len(masks), dtype=np.float32))
    return (counts.astype(np.float64) / max(len(masks), 1)).astype(np.float32)


@kernel
def _weighted_sums(masks: Bytes, weights: Floats) -> Floats:
    # 0.15 ms for 1,500 masks; numpy's sum along the first axis takes 0.7 ms.
    totals = np.zeros(masks.shape[1], dtype=np.float32)
    for mask in range(masks.shape[0]):
        for region in range(masks.shape[1]):
            totals[region] += weights[mask] * np.float32(masks[mask, region])
    return totals


def objectness_saliency(masks: Bools, scores: Floats, regions: RegionFeatures) -> Floats:
    """Mean of ``masks[P, S]`` by objectness, with colours, frame and centre: (S,) float32 in 0..1.

    Zero without masks. Where nothing stands out (an image of one colour, a single superpixel) it is the plain mean.
    """
    weights = objectness_weights(masks, scores, regions)
    heaviest = weights.max(initial=0)
    if not heaviest > 0:
        return uniform_saliency(masks)
    # The scale of the sums does not matter: only their ratios enter the saliency.
    totals = _weighted_sums(masks.view(np.uint8), (weights / heaviest).astype(np.float32))
    saliency: Floats = combined_saliency(totals.astype(np.float64), regions).astype(np.float32)
    return saliency if saliency.max() > 0 else uniform_saliency(masks)


_int = np.int32


@kernel
def _mask_sums(masks: Bytes, columns: Ints) -> Doubles:
    """Sums ``[7, P]`` of seven ``columns[7, S]`` over the superpixels of each mask."""
    # All bits set inside and none outside, instead of a branch. Numba widens every int32 operation to 64 bits; without
    # narrowing each result the loop takes three times as long.
    sums = np.empty((7, masks.shape[0]), dtype=np.float64)
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
    return sums


@kernel
def _moments(colours: Doubles, shares: Doubles) -> tuple[Doubles, Doubles]:
    """Mean (3,) and covariance (3, 3) of ``colours[S, 3]`` weighted by ``shares[S]``, which sum to 1."""
    mean, covariance = np.zeros(3), np.zeros((3, 3))
    for region in range(colours.shape[0]):
        for i in range(3):
            mean[i] += shares[region] * colours[region, i]
    for region in range(colours.shape[0]):
        if shares[region] > 0:
            for i in range(3):
                weighted = shares[region] * (colours[region, i] - mean[i])
                for j in range(3):
                    covariance[i, j] += weighted * (colours[region, j] - mean[j])
    return mean, covariance


@kernel
def _distances(colours: Doubles, mean: Doubles, metric: Doubles) -> Doubles:
    """Distances (S,) of ``colours[S, 3]`` from ``mean[3]``: the root of ``d.T @ metric @ d``."""
    distances = np.empty(colours.shape[0])
    for region in range(colours.shape[0]):
        squared = 0.0
        for i in range(3):
            part = 0.0
            for j in range(3):
                part += metric[i, j] * (colours[region, j] - mean[j])
            squared += part * (colours[region, i] - mean[i])
        distances[region] = np.sqrt(max(squared, 0.0))
    return distances


@kernel
def _box_areas(masks: Bytes, boxes: Ints) -> Doubles:
    """Areas ``[P]`` of the boxes round masks, from the boxes ``[4, S]`` of the superpixels."""
    areas_px = np.empty(masks.shape[0], dtype=np.float64)
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
    return areas_px


def objectness_weights(masks: Bools, scores: Floats, regions: RegionFeatures) -> Doubles:
    """Weights (P,) float64 >= 0 of the proposals ``masks[P, S]``, none of them empty.

    The product of simple measures, each of which can veto by being near 0, so that none needs a scale:

    - the area, as a share of the image: every pixel is covered by many tiny proposals and few large ones;
    - ``exp(-border share / BORDER_SHARE)``: ground reaches the frame, objects rarely along much of it;
    - a Gaussian on the distance of the centre of mass from the centre of the frame;
    - the share of its bounding box that it fills: ground and chains of regions are ragged;
    - the distance in Luv between the mean colours inside and outside;
    - the root of ``scores[P]``, the range of distance over which the level set is constant: these ranges span
      orders of magnitude, and the root keeps a single proposal from dominating.

    A proposal that covers the whole image weighs 0, since it has no outside.
    """
    total_px = float(regions.area_px.sum())
    area = regions.area_px / total_px
    border = regions.side_px.sum(axis=1) / regions.side_px.sum()
    measures = np.stack([area, border, *(area * regions.centre_xy.T), *(area * regions.luv.T)])
    columns = np.rint(measures * _UNIT).astype(np.int32)
    sums = _mask_sums(masks.view(np.uint8), columns) / _UNIT
    box_area_px = _box_areas(masks.view(np.uint8), np.ascontiguousarray(regions.boxes_xyxy.T))
    # Rounded sums: a proposal of one superpixel of one pixel in 2**25 would have no area.
    inside = np.maximum(sums[0], 1 / _UNIT)
    outside = np.maximum(1 - inside, 1 / _UNIT)
    total_luv = columns[4:].sum(axis=1, dtype=np.int64) / _UNIT
    difference = sums[4:] / inside - (total_luv[:, None] - sums[4:]) / outside
    off_centre = ((sums[2:4] / inside - 0.5) ** 2).sum(axis=0)
    weights: Doubles = (
        inside
        * exponential(-sums[1] / BORDER_SHARE)
        * exponential(-off_centre / (2 * PROPOSAL_CENTRE_SIGMA**2))
        * (inside * total_px / box_area_px)
        * np.sqrt((difference**2).sum(axis=0))
        * np.sqrt(scores)
    )
    weights[masks.all(axis=1)] = 0
    return weights


def stretched(values: Doubles) -> Doubles:
    """``values[S]`` moved and scaled to 0..1; all zero when they are equal."""
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros_like(values)
    scaled: Doubles = (values - low) / (high - low)
    return scaled


def frame_contrast(regions: RegionFeatures) -> Doubles:
    """How little each superpixel's colour looks like the sides of the frame, (S,) float64 in 0..1.

    For each side the Mahalanobis distance to the colours along it, divided by the largest; then the sum over the sides
    without the largest term, so that an object that covers one side does not count as background.
    """
    luv = regions.luv.astype(np.float64)
    distances = np.empty((4, len(luv)))
    for side in range(4):
        shares = regions.side_px[:, side] / regions.side_px[:, side].sum()
        mean, covariance = _moments(luv, shares)
        distance = _distances(luv, mean, inverse(covariance + COLOUR_NOISE * COLOUR_NOISE * np.eye(3)))
        distances[side] = distance / max(distance.max(), np.finfo(np.float64).tiny)
    return stretched(distances.sum(axis=0) - distances.max(axis=0))


def colour_share(saliency: Doubles, regions: RegionFeatures) -> Doubles:
    """Mean of ``saliency[S]`` over all pixels of about the same colour, (S,) float64 in its range.

    Where it is the share of foreground, this is Bayes' probability of foreground given the colour.
    """
    colour = np.zeros(len(saliency), dtype=np.int64)
    ranks = np.arange(1, COLOUR_LEVELS) * len(saliency) // COLOUR_LEVELS
    for channel in regions.luv.T:
        # Equal colours stay together, however many there are.
        colour = COLOUR_LEVELS * colour + np.searchsorted(np.sort(channel)[ranks], channel, side="right")
    pixels = np.bincount(colour, weights=regions.area_px)
    salient = np.bincount(colour, weights=regions.area_px * saliency)
    return salient[colour] / pixels[colour]


def combined_saliency(proposal_mean: Doubles, regions: RegionFeatures) -> Doubles:
    """Saliency (S,) float64 in 0..1 from the weighted mean of the proposals ``proposal_mean[S]``.

    The sum of the mean, its colour share, and half each the contrast and the geodesic distance to the frame, all
    stretched to 0..1; times a Gaussian round the centre of the frame.
    """
    mean = stretched(proposal_mean)
    against_frame = frame_contrast(regions) + stretched(regions.frame_distance.astype(np.float64))
    total = stretched(mean + stretched(colour_share(mean, regions)) + FRAME_CUE_SHARE * against_frame)
    off_centre = ((regions.centre_xy - 0.5) ** 2).sum(axis=1)
    saliency: Doubles = total * exponential(-off_centre / (2 * SALIENCY_CENTRE_SIGMA**2))
    return saliency
