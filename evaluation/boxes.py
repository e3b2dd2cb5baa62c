"""Turns a score map into boxes under the protocol ``wsoleval-v1``, and pairs of boxes into overlaps.

Legend: N and M boxes, T thresholds, H W pixels of the frame. Every box is ``x0, y0, x1, y1`` in 0-based pixel
coordinates with both corners inside the box (``0 <= x0 <= x1 < W``, ``0 <= y0 <= y1 < H``), as in ILSVRC.
The arithmetic follows the evaluator of Choe et al., "Evaluating weakly supervised object localization methods
right" (CVPR 2020), to the last bit, because published figures depend on its roundings.
"""

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "FRAME_PX",
    "WSOLEVAL_THRESHOLDS",
    "box_iou_inclusive",
    "boxes_at_thresholds",
    "normalise_score_map",
    "scale_boxes_truncated",
]

FRAME_PX = 224
"""Side in pixels of the square frame that images, maps and boxes are squeezed to before scoring."""

WSOLEVAL_THRESHOLDS: npt.NDArray[np.float64] = np.arange(0, 1, 0.001)
"""The 1000 fractions of a map's maximum tried by the evaluator (its ``cam_curve_interval`` of .001)."""
WSOLEVAL_THRESHOLDS.setflags(write=False)

_GREY_MAX = 255


def box_iou_inclusive(boxes_a_xyxy: npt.ArrayLike, boxes_b_xyxy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union ``(N, M)`` float64 of boxes ``(N, 4)`` and ``(M, 4)``.

    Parameters
    ----------
    boxes_a_xyxy, boxes_b_xyxy
        ``x0, y0, x1, y1`` with ``x0 <= x1`` and ``y0 <= y1``, inclusive: a box is ``x1 - x0 + 1`` wide.

    Raises
    ------
    ValueError
        An array is not ``(any, 4)``, or a box has its corners in the wrong order or a NaN.

    Examples
    --------
    >>> float(box_iou_inclusive([[1, 2, 5, 6]], [[3, 1, 4, 5]])[0, 0]) == 8 / 27
    True
    """
    a_n4 = _checked_boxes(boxes_a_xyxy, name="boxes_a_xyxy")
    b_m4 = _checked_boxes(boxes_b_xyxy, name="boxes_b_xyxy")
    low_nm2 = np.maximum(a_n4[:, None, :2], b_m4[None, :, :2])
    high_nm2 = np.minimum(a_n4[:, None, 2:], b_m4[None, :, 2:])
    sides_nm2 = np.maximum(high_nm2 - low_nm2 + 1, 0)
    intersection_nm = sides_nm2[..., 0] * sides_nm2[..., 1]
    area_a_n = (a_n4[:, 2] - a_n4[:, 0] + 1) * (a_n4[:, 3] - a_n4[:, 1] + 1)
    area_b_m = (b_m4[:, 2] - b_m4[:, 0] + 1) * (b_m4[:, 3] - b_m4[:, 1] + 1)
    iou_nm: npt.NDArray[np.float64] = intersection_nm / (area_a_n[:, None] + area_b_m - intersection_nm)
    return iou_nm


def scale_boxes_truncated(
    boxes_xyxy: npt.ArrayLike, *, from_wh: tuple[float, float], to_wh: tuple[float, float]
) -> npt.NDArray[np.int64]:
    """Boxes ``(N, 4)`` moved from a frame of ``from_wh`` pixels to one of ``to_wh``: ``(N, 4)`` int64.

    Every coordinate is multiplied by the new side, divided by the old one (in this order) and cut towards
    zero. The corners are treated as points, so an inclusive ``x1`` of ``W - 1`` does not become ``W' - 1``:
    this is how ``wsoleval-v1`` moves ground truth to 224 pixels, not how areas are kept.

    Parameters
    ----------
    boxes_xyxy
        ``x0, y0, x1, y1`` with ``x0 <= x1`` and ``y0 <= y1``, inclusive.
    from_wh, to_wh
        Width and height in pixels, all positive.

    Raises
    ------
    ValueError
        A side is not positive, the array is not ``(N, 4)``, or a box has its corners in the wrong order or
        a NaN.

    Examples
    --------
    >>> scale_boxes_truncated([[1, 2, 4, 3]], from_wh=(10, 20), to_wh=(35, 10)).tolist()
    [[3, 1, 14, 1]]
    """
    if not min(*from_wh, *to_wh) > 0:
        raise ValueError(f"frames must have positive width and height, found from_wh={from_wh} and to_wh={to_wh}")
    boxes_n4 = _checked_boxes(boxes_xyxy, name="boxes_xyxy")
    to_side_4 = np.array([*to_wh, *to_wh], dtype=np.float64)
    from_side_4 = np.array([*from_wh, *from_wh], dtype=np.float64)
    return (boxes_n4 * to_side_4 / from_side_4).astype(np.int64)


def normalise_score_map(
    map_hw: npt.NDArray[np.generic], *, height: int = FRAME_PX, width: int = FRAME_PX
) -> npt.NDArray[np.uint8]:
    """Score map of any size and real dtype as ``(height, width)`` uint8 between 0 and 255.

    Cubic interpolation to the frame comes first, then minimum and maximum are taken: the overshoot of the
    cubic kernel therefore belongs to the range. The result times 255 is cut, not rounded.

    Parameters
    ----------
    map_hw
        Scores, higher where the object is; computed in float64.
    height, width
        The frame in pixels.

    Returns
    -------
    numpy.ndarray
        The map; all zeros when the scores are constant, or when the resized scores hold a NaN or infinity.

    Raises
    ------
    ValueError
        The map is not two-dimensional or has no pixels.

    Notes
    -----
    One step is not the reference's: it looks for constant maps after the resize only. The cubic weights do
    not sum to exactly 1, so a map of .3 everywhere comes out with differences of 2e-16, which it would
    stretch to the full range. Here such a map is zeros, as the protocol means it.
    """
    if map_hw.ndim != 2 or map_hw.size == 0:
        raise ValueError(f"expected a score map (H, W) with pixels, found shape {map_hw.shape}")
    source_hw = np.ascontiguousarray(map_hw, dtype=np.float64)
    scores_hw = cv2.resize(source_hw, (width, height), interpolation=cv2.INTER_CUBIC)
    lowest, highest = float(scores_hw.min()), float(scores_hw.max())
    span = highest - lowest
    # False for a NaN too; infinite where scores beyond 1e307 leave the range of float64.
    if not 0 < span < np.inf or source_hw.min() == source_hw.max():
        return np.zeros((height, width), dtype=np.uint8)
    map_uint8_hw: npt.NDArray[np.uint8] = ((scores_hw - lowest) / span * _GREY_MAX).astype(np.uint8)
    return map_uint8_hw


def boxes_at_thresholds(
    map_uint8_hw: npt.NDArray[np.uint8], thresholds: npt.ArrayLike = WSOLEVAL_THRESHOLDS
) -> npt.NDArray[np.int64]:
    """Box of the largest contour at every threshold, ``(T, 4)`` int64, of a map ``(H, W)`` uint8.

    At threshold t the pixels *strictly* above ``int(t * maximum of the map)`` stand out.

    Parameters
    ----------
    map_uint8_hw
        As ``normalise_score_map`` makes it.
    thresholds
        ``(T,)`` fractions of the map's maximum, ``0 <= t <= 1``, in any order.

    Returns
    -------
    numpy.ndarray
        ``x0, y0, x1, y1``; ``x1`` and ``y1`` are one beyond the contour's last pixel unless that leaves the
        frame, as in the reference. ``(0, 0, 0, 0)`` where nothing stands out.

    Raises
    ------
    ValueError
        The map is not a two-dimensional uint8 array with pixels, or a threshold lies outside [0, 1].

    Notes
    -----
    Two thresholds between which no pixel's value lies give the same binary map. So there are at most 255
    contour searches a map, and only as many as the map has distinct values, whatever T is.
    """
    if map_uint8_hw.ndim != 2 or map_uint8_hw.size == 0 or map_uint8_hw.dtype != np.uint8:
        raise ValueError(f"expected a map (H, W) uint8 with pixels, found {map_uint8_hw.dtype} {map_uint8_hw.shape}")
    fractions_t = np.asarray(thresholds, dtype=np.float64)
    if fractions_t.ndim != 1 or not ((fractions_t >= 0) & (fractions_t <= 1)).all():
        raise ValueError("expected thresholds (T,) with 0 <= t <= 1")
    levels_t = (fractions_t * float(map_uint8_hw.max())).astype(np.int64)
    values_v = np.flatnonzero(np.bincount(map_uint8_hw.ravel(), minlength=_GREY_MAX + 1))
    # Position of the lowest value that still stands out; len(values_v) means that none does.
    lowest_t = np.searchsorted(values_v, levels_t, side="right")
    distinct_u, of_threshold_t = np.unique(lowest_t, return_inverse=True)
    boxes_u4 = np.zeros((len(distinct_u), 4), dtype=np.int64)
    for index, lowest in enumerate(distinct_u):
        if lowest < len(values_v):
            boxes_u4[index] = _largest_contour_box(map_uint8_hw >= values_v[lowest])
    return boxes_u4[of_threshold_t]


def _largest_contour_box(mask_hw: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Box of the contour with the largest polygon area in a mask ``(H, W)`` that has pixels set.

    Polygon area runs through pixel centres: a line has area 0 however long it is. ``max`` keeps the first of
    equals, and the reference does the same, so the order that ``findContours`` returns decides ties.
    """
    contours, _ = cv2.findContours(mask_hw.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    largest = contours[0] if len(contours) == 1 else max(contours, key=cv2.contourArea)
    x, y, box_width, box_height = cv2.boundingRect(largest)
    height, width = mask_hw.shape
    return x, y, min(x + box_width, width - 1), min(y + box_height, height - 1)


def _checked_boxes(boxes_xyxy: npt.ArrayLike, *, name: str) -> npt.NDArray[np.float64]:
    boxes_n4 = np.asarray(boxes_xyxy, dtype=np.float64)
    if boxes_n4.ndim != 2 or boxes_n4.shape[1] != 4:
        raise ValueError(f"{name}: expected boxes (N, 4), found shape {boxes_n4.shape}")
    ordered_n = (boxes_n4[:, :2] <= boxes_n4[:, 2:]).all(axis=1)
    if not ordered_n.all():
        row = int(np.argmin(ordered_n))
        raise ValueError(
            f"{name}: row {row}: expected x0 <= x1 and y0 <= y1, found {boxes_n4[row].tolist()}; "
            "swap the corners or drop the box first"
        )
    return boxes_n4
