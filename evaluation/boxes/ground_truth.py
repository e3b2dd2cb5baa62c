"""Ground-truth boxes of an image in the 224 x 224 frame of each protocol.

Legend: B boxes of one image. Boxes are ``x0, y0, x1, y1`` with ``x0 <= x1`` and ``y0 <= y1``, 0-based inclusive pixel
coordinates of the image as stored, as in ILSVRC. Every protocol moves the two corners as points: an ``x1`` of
``W - 1`` becomes ``224 - 224 / W``, a little more than the frame's last pixel 223. That is how the published
evaluators do it, and their overlaps then take the moved corners as inclusive again. Every function raises ValueError
when a side of the image is not positive or a box is not four finite numbers in order.
"""

import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import FRAME_PX, checked_boxes

RESIZED_PX = 256
"""Side in pixels to which ``psol-crop`` squeezes an image before it cuts out the centre (PSOL's inference script)."""

_LAST_PIXEL = FRAME_PX - 1


def scaled_boxes(boxes_xyxy: npt.ArrayLike, *, image_wh: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Boxes ``(B, 4)`` float64 in the frame that shows the whole image squeezed; corners as points, not rounded.

    Used by ``cam`` and ``cam-release``.

    Examples
    --------
    >>> scaled_boxes([[0, 0, 447, 111]], image_wh=(448, 112)).tolist()
    [[0.0, 0.0, 223.5, 222.0]]
    """
    boxes_b4, side_4 = _checked(boxes_xyxy, image_wh=image_wh)
    return boxes_b4 * FRAME_PX / side_4


def truncated_boxes(boxes_xyxy: npt.ArrayLike, *, image_wh: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Boxes ``(B, 4)`` float64: every coordinate multiplied by 224, divided by the side, then cut towards zero.

    Used by ``wsoleval-v1`` and ``wsoleval-v2``, in the order of the evaluator of Choe et al., CVPR 2020.
    """
    return np.trunc(scaled_boxes(boxes_xyxy, image_wh=image_wh))


def clipped_truncated_boxes(boxes_xyxy: npt.ArrayLike, *, image_wh: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Boxes ``(B, 4)`` divided by the image's side, multiplied by 224, clipped to 0..223 and cut towards zero.

    Used by ``ts-cam``, in the order of its ``lib/datasets/imagenet.py``: dividing first can end one pixel lower than
    ``truncated_boxes``. TS-CAM clips lower corners at 0 and upper ones at 223 only; here both corners are clipped
    on both sides, which differs for boxes outside the image alone and keeps their corners in order.
    """
    boxes_b4, side_4 = _checked(boxes_xyxy, image_wh=image_wh)
    return np.trunc(np.clip(boxes_b4 / side_4 * FRAME_PX, 0, _LAST_PIXEL))


def cropped_boxes(boxes_xyxy: npt.ArrayLike, *, image_wh: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Boxes ``(B, 4)`` float64 in the central 224 of an image squeezed to 256 x 256, clipped to 0..223.

    Used by ``psol-crop``. A box wholly outside the crop collapses to a strip on its edge, one pixel thick to an
    inclusive overlap, and stays: its image is not dropped.

    Source: Zhang et al., "Rethinking the route towards weakly supervised object localization", CVPR 2020;
    ``PSOL_inference.py`` of its code, which shifts boxes by -1, clips at 224 and measures without + 1: the whole frame
    scores 50.43 % on ILSVRC val there and 50.82 % here.

    Examples
    --------
    >>> cropped_boxes([[0, 32, 300, 511]], image_wh=(512, 512)).tolist()
    [[0.0, 0.0, 134.0, 223.0]]
    """
    boxes_b4, side_4 = _checked(boxes_xyxy, image_wh=image_wh)
    offset_px = (RESIZED_PX - FRAME_PX) // 2
    return np.clip(boxes_b4 * RESIZED_PX / side_4 - offset_px, 0, _LAST_PIXEL)


def _checked(
    boxes_xyxy: npt.ArrayLike, *, image_wh: tuple[float, float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The boxes ``(B, 4)``, B = 0 for an empty list, and the side ``(4,)`` that each coordinate belongs to."""
    side_4 = np.array([*image_wh, *image_wh], dtype=np.float64)
    if side_4.shape != (4,) or not ((side_4 > 0) & np.isfinite(side_4)).all():
        raise ValueError(f"expected a positive image width and height, found image_wh={image_wh}")
    return checked_boxes(boxes_xyxy, name="ground truth"), side_4
