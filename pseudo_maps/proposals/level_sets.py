"""Masks from signed geodesic distances: critical level sets, and the removal of near-duplicate masks.

Legend: S superpixels; F distance fields; M masks; P proposals, the masks kept.

Source: Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, section 5, and the authors' release 1.3, which
counts overlaps in superpixels.
"""

from typing import Any

import numpy as np

from pseudo_maps.kernels import Bools, Floats, Longs, Words, kernel

SMALLEST_CANDIDATE = 2
"""Smaller level sets have no gap on both sides to compare with."""
INFINITE_DISTANCE = np.float32(1e9)
"""Distances from this one on count as unreachable."""


@kernel
def _critical_levels(
    sorted_fields: Floats, low: int, high: int, levels: int, max_iou: float
) -> tuple[Floats, Floats, Longs]:
    """Thresholds and scores ``[F, levels]`` of each field's critical level sets, and their numbers ``[F]``."""
    field_count, region_count = sorted_fields.shape
    thresholds = np.zeros((field_count, levels), dtype=np.float32)
    scores = np.zeros((field_count, levels), dtype=np.float32)
    counts = np.zeros(field_count, dtype=np.int64)
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
        # About every third size is a candidate, irregularly: writing always and advancing by the condition avoids
        # a mispredicted branch each time.
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
    return thresholds, scores, counts


@kernel
def _masks_below(fields: Floats, thresholds: Floats, counts: Longs) -> Bools:
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
    fields: Floats, *, levels: int, max_iou: float, min_size: float, max_size: float
) -> tuple[Bools, Floats]:
    """Masks (M, S) bool of the strongest critical level sets of distance fields, and their scores (M,) float32.

    A level set is critical when its area is constant over a longer range of distances than that of its neighbours in
    size; this range is its score. Masks are in the order of the fields, within a field strongest first; some may be
    empty or equal. A field without a critical level set gives one mask of score 0.

    ``fields[F, S]`` float32 are signed geodesic distances, small inside; each gives at most ``levels`` masks, of
    ``min_size * S`` to ``max_size * S`` superpixels. Level sets whose size ratio with an accepted one of the same field
    is above ``max_iou`` are skipped.
    """
    low, high = int(fields.shape[1] * min_size), int(fields.shape[1] * max_size)
    thresholds, scores, counts = _critical_levels(np.sort(fields, axis=1), low, high, levels, max_iou)
    return _masks_below(fields, thresholds, counts), scores[np.arange(levels) < counts[:, None]]


_M1 = np.uint64(0x5555555555555555)
_M2 = np.uint64(0x3333333333333333)
_M4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_H01 = np.uint64(0x0101010101010101)
_S1, _S2, _S4, _S56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@kernel
def _popcount(word: Any) -> Any:
    # LLVM recognises this as the popcnt instruction.
    word = word - ((word >> _S1) & _M1)
    word = (word & _M2) + ((word >> _S2) & _M2)
    word = (word + (word >> _S4)) & _M4
    return np.int64((word * _H01) >> _S56)


@kernel
def _overlap_too_much(words: Words, mask: int, size: int, other: int, other_size: int, max_iou: float) -> bool:
    intersection = 0
    for w in range(words.shape[1]):
        intersection += _popcount(words[mask, w] & words[other, w])
    return bool(intersection / (size + other_size - intersection) > max_iou)


@kernel
def _greedy(words: Words, max_iou: float) -> Longs:
    mask_count, word_count = words.shape
    largest = 64 * word_count
    # Kept masks are in linked lists by size. The intersection is at most the smaller and the union at least the
    # larger of two sizes, so only masks of similar size can overlap too much (one in five on real images).
    newest = np.full(largest + 1, -1, dtype=np.int64)
    older = np.empty(mask_count, dtype=np.int64)
    kept = np.empty(mask_count, dtype=np.int64)
    used = 0
    for mask in range(mask_count):
        size = 0
        for w in range(word_count):
            size += _popcount(words[mask, w])
        if size == 0:
            continue
        duplicate = False
        for direction in (-1, 1):
            other_size = size if direction < 0 else size + 1
            while 1 <= other_size <= largest and min(size, other_size) / max(size, other_size) > max_iou:
                other = newest[other_size]
                while other >= 0 and not duplicate:
                    duplicate = _overlap_too_much(words, mask, size, other, other_size, max_iou)
                    other = older[other]
                other_size += direction
                if duplicate:
                    break
            if duplicate:
                break
        if not duplicate:
            kept[used] = mask
            used += 1
            older[mask] = newest[size]
            newest[size] = mask
    return kept[:used]


def keep_distinct(masks: Bools, *, max_iou: float) -> Longs:
    """Indices (P,) int64, ascending, of the masks that are kept when near-duplicates are removed greedily.

    In the order of ``masks[M, S]``, a mask is kept if it is not empty and its intersection over union with every mask
    kept before, counted in superpixels, is at most ``max_iou``.
    """
    mask_count, region_count = masks.shape
    padded = np.zeros((mask_count, -(-region_count // 64) * 8), dtype=np.uint8)
    packed = np.packbits(masks, axis=1)
    padded[:, : packed.shape[1]] = packed
    return _greedy(padded.view(np.uint64), max_iou)
