"""Turns ranked masks into a set without near-duplicates, by greedy selection on exact overlaps.

Legend: M masks before, P proposals after; S superpixels.

References
----------
Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, and the release 1.3 (overlap in superpixels).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Longs, Words, kernel

__all__ = ["keep_distinct"]

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
    # Kept masks in linked lists by size: the intersection is at most the smaller and the union at least the
    # larger of two sizes, so only masks of comparable size can overlap too much (one in five on real images).
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


def keep_distinct(masks: npt.NDArray[np.bool_], *, max_iou: float) -> npt.NDArray[np.int64]:
    """Indices (P,) int64, ascending, of the masks that survive greedy removal of near-duplicates.

    Goes through ``masks[M, S]`` in their order and keeps a mask when it is not empty and its intersection over
    union with every mask kept before, counted in superpixels, is at most ``max_iou``.
    """
    mask_count, region_count = masks.shape
    padded = np.zeros((mask_count, -(-region_count // 64) * 8), dtype=np.uint8)
    packed = np.packbits(masks, axis=1)
    padded[:, : packed.shape[1]] = packed
    kept: npt.NDArray[np.int64] = _greedy(padded.view(np.uint64), max_iou)
    return kept
