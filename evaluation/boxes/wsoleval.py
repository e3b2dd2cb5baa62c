"""Boxes of a score map at every threshold under the protocols ``wsoleval-v1`` and ``wsoleval-v2``.

Legend: T thresholds, L = 255 grey levels, N contours, H W pixels of the frame. Boxes are ``x0, y0, x1, y1`` in 0-based
pixels, both corners inside the box. The arithmetic follows the evaluator of Choe et al., "Evaluating weakly supervised
object localization methods right" (CVPR 2020), to the last bit, because published results depend on its roundings.

That evaluator searches contours once a threshold, a thousand times a map. After its own quantisation a map has 256
grey levels, and ``evaluation.boxes.component_tree`` finds the contours of all of them in one pass.
"""

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.component_tree import LEVELS, all_level_contours, largest_level_contours
from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.overlaps import Candidates

WSOLEVAL_THRESHOLDS: npt.NDArray[np.float64] = np.arange(0, 1, 0.001)
"""The 1000 fractions of a map's maximum tried by the evaluator (its ``cam_curve_interval`` of .001)."""
WSOLEVAL_THRESHOLDS.setflags(write=False)

WSOLEVAL_FALLBACK_BOX = (0.0, 0.0, 0.0, 0.0)
"""The answer of the evaluator at a level without foreground; no contour has this box."""

_GREY_MAX = 255


def normalise_score_map(
    map_hw: npt.NDArray[np.generic], *, height: int = FRAME_PX, width: int = FRAME_PX
) -> npt.NDArray[np.uint8]:
    """Score map of any size and real dtype as ``(height, width)`` uint8: ``unit_score_map`` times 255, cut."""
    return (unit_score_map(map_hw, height=height, width=width) * _GREY_MAX).astype(np.uint8)


def unit_score_map(
    map_hw: npt.NDArray[np.generic], *, height: int = FRAME_PX, width: int = FRAME_PX
) -> npt.NDArray[np.float64]:
    """Score map of any size and real dtype as ``(height, width)`` float64 from 0 to 1.

    Cubic interpolation to the frame comes first, then minimum and maximum are taken: the overshoot of the
    cubic kernel therefore belongs to the range.

    All zeros when the scores are constant, or when the resized scores hold a NaN or infinity. The reference looks for
    constant maps after the resize only, whose cubic weights turn .3 everywhere into differences of 2e-16, which it
    would stretch to the full range. ValueError when the map is not two-dimensional or has no pixels.
    """
    if map_hw.ndim != 2 or map_hw.size == 0:
        raise ValueError(f"expected a score map (H, W) with pixels, found shape {map_hw.shape}")
    source_hw = np.ascontiguousarray(map_hw, dtype=np.float64)
    scores_hw: npt.NDArray[np.float64] = cv2.resize(source_hw, (width, height), interpolation=cv2.INTER_CUBIC)
    lowest, highest = float(scores_hw.min()), float(scores_hw.max())
    span = highest - lowest
    # False for a NaN too; infinite where scores beyond 1e307 leave the range of float64.
    if not 0 < span < np.inf or source_hw.min() == source_hw.max():
        return np.zeros((height, width))
    return (scores_hw - lowest) / span


def level_thresholds(thresholds: npt.ArrayLike = WSOLEVAL_THRESHOLDS) -> npt.NDArray[np.float64]:
    """The lowest of ``thresholds``, ``0 <= t < 1``, that cuts a map at each grey level, (L,) float64; NaN for none."""
    levels_t = _levels_of(thresholds, highest=_GREY_MAX)
    if (levels_t >= LEVELS).any():
        raise ValueError("expected thresholds (T,) with 0 <= t < 1")
    lowest_l = np.full(LEVELS, np.nan)
    np.fmin.at(lowest_l, levels_t, np.asarray(thresholds, dtype=np.float64))
    return lowest_l


def largest_contours(map_uint8_hw: npt.NDArray[np.uint8]) -> Candidates:
    """Box of the contour with the largest polygon area at every level: ``wsoleval-v1``.

    The map is (H, W) uint8 as ``normalise_score_map`` makes it, ValueError if not; at level k the pixels strictly above
    k are foreground. One box per level: ``x1`` and ``y1`` are one beyond the contour's last pixel unless that leaves
    the frame, as in the reference; ``WSOLEVAL_FALLBACK_BOX`` without foreground. ``max(contours, key=cv2.contourArea)``
    of the reference keeps the first of equals, so the order of ``cv2.findContours`` decides ties; the same here.
    """
    boxes_l4 = _as_reference(largest_level_contours(_checked_map(map_uint8_hw)), map_uint8_hw.shape)
    starts = np.flatnonzero(np.concatenate([[True], (boxes_l4[1:] != boxes_l4[:-1]).any(axis=1)]))
    return Candidates(
        boxes_n4=boxes_l4[starts].astype(np.float64),
        first_level_n=starts.astype(np.int64),
        last_level_n=np.append(starts[1:], LEVELS).astype(np.int64) - 1,
    )


def all_contours(map_uint8_hw: npt.NDArray[np.uint8]) -> Candidates:
    """Boxes of all contours at every level, those round holes too: ``wsoleval-v2``.

    Map, corners, fallback and errors are those of ``largest_contours``. At each level the boxes are the reference's,
    in another order.
    """
    boxes_n4, first_n, last_n = all_level_contours(_checked_map(map_uint8_hw))
    boxes_n4 = _as_reference(boxes_n4, map_uint8_hw.shape)
    highest = int(map_uint8_hw.max())
    if highest < LEVELS:
        boxes_n4 = np.concatenate([boxes_n4, np.zeros((1, 4), dtype=np.int64)])
        first_n, last_n = np.append(first_n, highest), np.append(last_n, LEVELS - 1)
    return Candidates(boxes_n4=boxes_n4.astype(np.float64), first_level_n=first_n, last_level_n=last_n)


def boxes_at_thresholds(
    map_uint8_hw: npt.NDArray[np.uint8], thresholds: npt.ArrayLike = WSOLEVAL_THRESHOLDS
) -> npt.NDArray[np.int64]:
    """Box of the largest contour at every threshold, ``(T, 4)`` int64, of a map ``(H, W)`` uint8.

    At threshold t, ``0 <= t <= 1`` and in any order, the pixels *strictly* above ``int(t * maximum of the map)`` are
    foreground. Corners and errors are those of ``largest_contours``.
    """
    boxes_l4 = largest_level_contours(_checked_map(map_uint8_hw))
    # Level 255 exists for t = 1 alone, and has no foreground.
    boxes_l4 = _as_reference(np.concatenate([boxes_l4, np.full((1, 4), -1)]), map_uint8_hw.shape)
    return boxes_l4[_levels_of(thresholds, highest=int(map_uint8_hw.max()))]


def _levels_of(thresholds: npt.ArrayLike, *, highest: int) -> npt.NDArray[np.int64]:
    fractions_t = np.asarray(thresholds, dtype=np.float64)
    if fractions_t.ndim != 1 or not ((fractions_t >= 0) & (fractions_t <= 1)).all():
        raise ValueError("expected thresholds (T,) with 0 <= t <= 1")
    return (fractions_t * float(highest)).astype(np.int64)


def _as_reference(boxes_n4: npt.NDArray[np.int64], map_hw: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Corners as the evaluator computes them from OpenCV's x, y, width and height; -1 becomes zeros."""
    height, width = map_hw
    limit_4 = np.array([width - 1, height - 1, width - 1, height - 1])
    corners_n4: npt.NDArray[np.int64] = np.minimum(boxes_n4 + np.array([0, 0, 1, 1]), limit_4)
    corners_n4[boxes_n4[:, 0] < 0] = 0
    return corners_n4


def _checked_map(map_uint8_hw: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if map_uint8_hw.ndim != 2 or map_uint8_hw.size == 0 or map_uint8_hw.dtype != np.uint8:
        raise ValueError(f"expected a map (H, W) uint8 with pixels, found {map_uint8_hw.dtype} {map_uint8_hw.shape}")
    return map_uint8_hw
