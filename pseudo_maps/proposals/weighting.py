"""Turns proposals over superpixels into the saliency of every superpixel.

Legend: S superpixels; P proposals.

References
----------
Chen and Hsu, ICASSP 2019, section 2.3: the plain mean is the paper's pseudo saliency map.
"""

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Bytes, Floats, Ints, kernel
from pseudo_maps.proposals.objectness import objectness_weights
from pseudo_maps.proposals.region_features import RegionFeatures
from pseudo_maps.proposals.saliency_cues import combined_saliency

__all__ = ["WEIGHTINGS", "objectness_saliency", "uniform_saliency"]

WEIGHTINGS = {
    "uniform": "every proposal counts the same: the paper's plain mean",
    "objectness": "proposals that look like an object count more, and colours, frame and centre of the image help",
}
"""Name and meaning of every weighting."""


@kernel
def _counts(masks: Bytes, counts: Ints) -> None:
    # 0.15 ms for 1,500 masks; numpy's count along the first axis takes 0.7 ms.
    for mask in range(masks.shape[0]):
        for region in range(masks.shape[1]):
            counts[region] += np.int32(masks[mask, region])


def uniform_saliency(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Share of ``masks[P, S]`` that contain each superpixel: (S,) float32 in 0..1, zero without masks."""
    counts = np.zeros(masks.shape[1], dtype=np.int32)
    _counts(masks.view(np.uint8), counts)
    shares: npt.NDArray[np.float32] = (counts / max(len(masks), 1)).astype(np.float32)
    return shares


@kernel
def _weighted_counts(masks: Bytes, weights: Floats, totals: Floats) -> None:
    for mask in range(masks.shape[0]):
        for region in range(masks.shape[1]):
            totals[region] += weights[mask] * np.float32(masks[mask, region])


def objectness_saliency(
    masks: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], regions: RegionFeatures
) -> npt.NDArray[np.float32]:
    """Mean of ``masks[P, S]`` by objectness, with colours, frame and centre: (S,) float32 in 0..1.

    Zero without masks. Where nothing stands out (an image of one colour, or a single superpixel) it is the plain mean.

    See ``objectness`` for the weights and ``saliency_cues`` for what is added to the mean.
    """
    weights = objectness_weights(masks, scores, regions)
    heaviest = weights.max(initial=0)
    if not heaviest > 0:
        return uniform_saliency(masks)
    totals = np.zeros(masks.shape[1], dtype=np.float32)
    # The scale of the sums does not matter: only their order and ratios enter the saliency.
    _weighted_counts(masks.view(np.uint8), (weights / heaviest).astype(np.float32), totals)
    saliency: npt.NDArray[np.float32] = combined_saliency(totals.astype(np.float64), regions).astype(np.float32)
    return saliency if saliency.max() > 0 else uniform_saliency(masks)
