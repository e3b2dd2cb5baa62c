"""The frame that every protocol scores in, its boxes in pixels of the image, and the check of boxes.

Legend: N boxes. Every box is ``x0, y0, x1, y1`` in 0-based pixel coordinates with both corners inside the box
(``x0 <= x1``, ``y0 <= y1``), as in ILSVRC.
"""

import numpy as np
import numpy.typing as npt

FRAME_PX = 224
"""Side in pixels of the square frame that images, maps and boxes are squeezed to before scoring."""


def checked_boxes(boxes_xyxy: npt.ArrayLike, *, name: str) -> npt.NDArray[np.float64]:
    """Boxes ``(N, 4)`` as contiguous float64, N = 0 for an empty list.

    ValueError names ``name`` and the row that is not four finite numbers in order.
    """
    boxes_n4 = np.ascontiguousarray(boxes_xyxy, dtype=np.float64)
    if boxes_n4.size == 0:
        boxes_n4 = boxes_n4.reshape(0, 4)
    if boxes_n4.ndim != 2 or boxes_n4.shape[1] != 4:
        raise ValueError(f"{name}: expected boxes (N, 4), found shape {boxes_n4.shape}")
    sound_n = (boxes_n4[:, :2] <= boxes_n4[:, 2:]).all(axis=1) & np.isfinite(boxes_n4).all(axis=1)
    if not sound_n.all():
        row = int(np.argmin(sound_n))
        raise ValueError(
            f"{name}: row {row}: expected finite x0 <= x1 and y0 <= y1, found {boxes_n4[row].tolist()}; "
            "swap the corners or drop the box first"
        )
    return boxes_n4


def boxes_in_image(
    boxes_n4: npt.NDArray[np.float64], *, image_wh: npt.ArrayLike, margin_px: int = 0
) -> npt.NDArray[np.float64]:
    """Boxes ``(N, 4)`` of the frame in pixels of an image of ``image_wh``, clipped to it.

    The frame shows the squeezed image less ``margin_px`` of the frame's pixels on every side. ``image_wh`` is
    ``(2,)``, or ``(N, 2)`` for an image each. The edges of pixels move, not their centres, so that a box of the whole
    frame is the whole image.

    Examples
    --------
    >>> boxes_in_image(np.array([[0.0, 0, 111, 223]]), image_wh=(500, 375)).tolist()
    [[0.0, 0.0, 249.0, 374.0]]
    """
    side_n4 = np.tile(np.asarray(image_wh, dtype=np.float64), 2)
    beyond_4 = np.array([0, 0, 1, 1])
    edges_n4 = (boxes_n4 + beyond_4 + margin_px) * side_n4 / (FRAME_PX + 2 * margin_px)
    inside_n4: npt.NDArray[np.float64] = np.clip(edges_n4 - beyond_4, 0, side_n4 - 1)
    # In an image smaller than the frame a box may be thinner than a pixel.
    inside_n4[:, 2:] = np.maximum(inside_n4[:, :2], inside_n4[:, 2:])
    return inside_n4


def same_shape(one_wh: tuple[int, int], other_wh: tuple[int, int]) -> bool:
    """Whether two sizes may be those of one picture, enlarged or reduced: the same ratio, rounded to whole pixels."""
    (width, height), (other_width, other_height) = one_wh, other_wh
    return abs(width * other_height - height * other_width) <= 2 * max(*one_wh, *other_wh)
