"""Overlap of boxes, and boxes moved from one frame to another.

Legend: N and M boxes, H W pixels of the frame. Every box is ``x0, y0, x1, y1`` in 0-based pixel
coordinates with both corners inside the box (``0 <= x0 <= x1 < W``, ``0 <= y0 <= y1 < H``), as in ILSVRC.
The arithmetic follows the evaluator of Choe et al., "Evaluating weakly supervised object localization methods
right" (CVPR 2020), to the last bit, because published results depend on its roundings.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["FRAME_PX", "box_iou_inclusive", "checked_boxes", "scale_boxes_truncated"]

FRAME_PX = 224
"""Side in pixels of the square frame that images, maps and boxes are squeezed to before scoring."""


def box_iou_inclusive(boxes_a_xyxy: npt.ArrayLike, boxes_b_xyxy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union ``(N, M)`` float64 of boxes ``(N, 4)`` and ``(M, 4)``.

    Boxes are inclusive, ``x1 - x0 + 1`` wide; ValueError for corners in the wrong order or a NaN.

    Examples
    --------
    >>> float(box_iou_inclusive([[1, 2, 5, 6]], [[3, 1, 4, 5]])[0, 0]) == 8 / 27
    True
    """
    a_n4 = checked_boxes(boxes_a_xyxy, name="boxes_a_xyxy")
    b_m4 = checked_boxes(boxes_b_xyxy, name="boxes_b_xyxy")
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

    ValueError for a side that is not positive, and as ``checked_boxes``.

    Examples
    --------
    >>> scale_boxes_truncated([[1, 2, 4, 3]], from_wh=(10, 20), to_wh=(35, 10)).tolist()
    [[3, 1, 14, 1]]
    """
    if not min(*from_wh, *to_wh) > 0:
        raise ValueError(f"frames must have positive width and height, found from_wh={from_wh} and to_wh={to_wh}")
    boxes_n4 = checked_boxes(boxes_xyxy, name="boxes_xyxy")
    to_side_4 = np.array([*to_wh, *to_wh], dtype=np.float64)
    from_side_4 = np.array([*from_wh, *from_wh], dtype=np.float64)
    return (boxes_n4 * to_side_4 / from_side_4).astype(np.int64)


def checked_boxes(boxes_xyxy: npt.ArrayLike, *, name: str) -> npt.NDArray[np.float64]:
    """Boxes ``(N, 4)`` as contiguous float64; ValueError names ``name`` and the row of a wrong order or a NaN."""
    boxes_n4 = np.ascontiguousarray(boxes_xyxy, dtype=np.float64)
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
