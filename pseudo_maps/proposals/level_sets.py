"""Turns signed geodesic distances into masks: the level sets whose area stays constant over the longest range.

Legend: S superpixels; F distance fields; M masks.

References
----------
Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, section 5, and the release 1.3.
"""

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Floats, Longs, kernel

__all__ = ["critical_level_sets"]

SMALLEST_CANDIDATE = 2
"""Level sets of one or two superpixels have no gap on both sides to compare with."""
INFINITE_DISTANCE = np.float32(1e9)
"""Sorted distances from this one on are treated as unreachable."""


@kernel
def _critical_levels(
    sorted_fields: Floats,
    low: int,
    high: int,
    levels: int,
    max_iou: float,
    thresholds: Floats,
    scores: Floats,
    counts: Longs,
) -> None:
    field_count, region_count = sorted_fields.shape
    gaps = np.zeros(region_count + 1, dtype=np.float32)
    sizes = np.empty(region_count, dtype=np.int64)
    strengths = np.empty(region_count, dtype=np.float32)
    for field in range(field_count):
        x = sorted_fields[field]
        last = min(high, region_count - 1)
        for i in range(region_count - 1):
            gaps[i] = x[i + 1] - x[i] if x[i + 1] <= INFINITE_DISTANCE else np.float32(0)
        gaps[region_count - 1] = 0
        gaps[region_count] = 0
        candidates = 0
        # Every third size is a candidate at no regular distance: writing always and counting by the condition
        # spares the processor a wrong guess each time.
        for i in range(max(low, SMALLEST_CANDIDATE), last + 1):
            if x[i] >= INFINITE_DISTANCE:
                break
            sizes[candidates] = i
            strengths[candidates] = gaps[i]
            candidates += int((gaps[i] > 0) & (gaps[i] > gaps[i - 1]) & (gaps[i] > gaps[i + 1]))
        if candidates == 0:
            thresholds[field, 0] = (x[0] + x[region_count - 1]) * np.float32(0.5)
            scores[field, 0] = 0
            counts[field] = 1
            continue
        accepted = 0
        while accepted < levels and candidates > 0:
            best = 0
            for c in range(1, candidates):
                if strengths[c] > strengths[best]:
                    best = c
            size = sizes[best]
            thresholds[field, accepted] = (x[size] + x[size + 1]) * np.float32(0.5)
            scores[field, accepted] = strengths[best]
            accepted += 1
            # Level sets are nested, so the ratio of their sizes is their intersection over union.
            kept = 0
            for c in range(candidates):
                candidate, strength = sizes[c], strengths[c]
                sizes[kept] = candidate
                strengths[kept] = strength
                kept += int((candidate != size) & (not min(candidate, size) > max_iou * max(candidate, size)))
            candidates = kept
        counts[field] = accepted


@kernel
def _masks_below(fields: Floats, thresholds: Floats, counts: Longs) -> npt.NDArray[np.bool_]:
    masks = np.empty((counts.sum(), fields.shape[1]), dtype=np.bool_)
    at = 0
    for field in range(fields.shape[0]):
        for level in range(counts[field]):
            threshold = thresholds[field, level]
            for region in range(fields.shape[1]):
                masks[at, region] = fields[field, region] < threshold
            at += 1
    return masks


def critical_level_sets(
    fields: npt.NDArray[np.float32], *, levels: int, max_iou: float, min_size: float, max_size: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Masks of the strongest critical level sets of each distance field.

    Parameters
    ----------
    fields
        (F, S) float32: signed geodesic distance of every superpixel, small inside.
    levels
        At most this many masks a field.
    max_iou
        A level set is passed over when its size ratio with an accepted one of the same field is above this.
    min_size, max_size
        Smallest and largest size as fractions of S, in superpixels.

    Returns
    -------
    masks
        (M, S) bool in the order of the fields, within a field strongest first; some may be empty or equal.
    scores
        (M,) float32: the gap in distance over which the mask does not change (0 for a field without any).
    """
    field_count, region_count = fields.shape
    thresholds = np.zeros((field_count, levels), dtype=np.float32)
    scores = np.zeros((field_count, levels), dtype=np.float32)
    counts = np.zeros(field_count, dtype=np.int64)
    low, high = int(region_count * min_size), int(region_count * max_size)
    _critical_levels(np.sort(fields, axis=1), low, high, levels, max_iou, thresholds, scores, counts)
    masks: npt.NDArray[np.bool_] = _masks_below(fields, thresholds, counts)
    return masks, scores[np.arange(levels) < counts[:, None]]
