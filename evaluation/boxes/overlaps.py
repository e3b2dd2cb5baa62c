"""Best overlap at every threshold level between the candidate boxes of a map and the ground truth of an image.

Legend: N candidate boxes, L threshold levels, B ground-truth boxes of one image.
Boxes are ``x0, y0, x1, y1`` in pixels of a protocol's frame, both corners inside the box.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import checked_boxes
from pseudo_maps.kernels import Doubles, Longs, kernel

NO_BOX = (-1.0, -1.0, -1.0, -1.0)
"""Stands where a map gives no box at all; its overlap is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Every box that a protocol takes from one map, with the threshold levels at which it stands."""

    boxes_n4: npt.NDArray[np.float64]
    """(N, 4) ``x0, y0, x1, y1`` in the protocol's frame. N may be 0."""
    first_level_n: npt.NDArray[np.int64]
    """(N,) the lowest level of each box, ``0 <= first <= last < L``."""
    last_level_n: npt.NDArray[np.int64]
    """(N,) the highest level of each box, itself included."""


def best_overlaps(
    candidates: Candidates, truth_b4: npt.ArrayLike, *, levels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Best overlap of an image at each threshold level, and the candidate that reaches it.

    ``truth_b4`` are its ground-truth boxes (B, 4), at least one, and ``levels`` is L. Returned are (L,) the best
    intersection over union of any candidate of the level with any ground-truth box, 0 without box, and (L, 4) the
    candidate that reaches it, the first of equals, ``NO_BOX`` where the level has none. ValueError when the image has
    no ground truth, or a box or a level is out of order.
    """
    truth_b4 = checked_boxes(truth_b4, name="ground truth")
    if not len(truth_b4):
        raise ValueError("no ground-truth box: count the image as skipped instead")
    checked_boxes(candidates.boxes_n4, name="candidates")
    first_n, last_n = candidates.first_level_n, candidates.last_level_n
    if not ((first_n >= 0) & (first_n <= last_n) & (last_n < levels)).all():
        raise ValueError(f"candidates: a level lies outside 0..{levels - 1} or out of order")
    iou_l = np.zeros(levels)
    boxes_l4 = np.empty((levels, 4))
    boxes_l4[:] = NO_BOX
    _best_at_levels(candidates.boxes_n4, first_n, last_n, truth_b4, iou_l, boxes_l4)
    return iou_l, boxes_l4


@kernel
def _best_at_levels(
    boxes_n4: Doubles,
    first_level_n: Longs,
    last_level_n: Longs,
    truth_b4: Doubles,
    iou_l: Doubles,
    boxes_l4: Doubles,
) -> None:
    best_l = np.full(iou_l.shape[0], -1.0)
    for n in range(boxes_n4.shape[0]):
        x0, y0, x1, y1 = boxes_n4[n, 0], boxes_n4[n, 1], boxes_n4[n, 2], boxes_n4[n, 3]
        area = (x1 - x0 + 1) * (y1 - y0 + 1)
        best = 0.0
        for b in range(truth_b4.shape[0]):
            width = min(x1, truth_b4[b, 2]) - max(x0, truth_b4[b, 0]) + 1
            height = min(y1, truth_b4[b, 3]) - max(y0, truth_b4[b, 1]) + 1
            if width <= 0 or height <= 0:
                continue
            truth_area = (truth_b4[b, 2] - truth_b4[b, 0] + 1) * (truth_b4[b, 3] - truth_b4[b, 1] + 1)
            shared = width * height
            best = max(best, shared / (area + truth_area - shared))
        for level in range(first_level_n[n], last_level_n[n] + 1):
            if best > best_l[level]:
                best_l[level] = best
                iou_l[level] = best
                boxes_l4[level, 0], boxes_l4[level, 1], boxes_l4[level, 2], boxes_l4[level, 3] = x0, y0, x1, y1
