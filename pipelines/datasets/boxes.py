"""Ground-truth boxes: corners in order, clipped to the frame, scaled to another frame.

Boxes are ``(x0, y0, x1, y1)`` in 0-based inclusive pixel coordinates, the convention of ILSVRC: a box covers
``x1 - x0 + 1`` columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_ROUNDING_PX, _ROUNDING_SHARE = 2.0, 0.02
"""How far a box may reach beyond its frame: boxes counted from 1, or drawn on an enlarged picture."""
_ENDLESS_WH = (np.inf, np.inf)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxAnnotation:
    """Ground-truth boxes of one image and the frame they refer to."""

    boxes_xyxy: npt.NDArray[np.float64]
    """(n, 4) float64, read-only, ``0 <= x0 <= x1 <= W - 1``, likewise for y; no upper limit if the frame is unknown."""
    frame_wh: tuple[int, int] | None
    """Width and height in pixels of the image the boxes were drawn on (the file's may differ); None if unknown."""
    beyond: int = 0
    """Boxes that reach beyond the frame by more than rounding explains, those that were dropped too."""
    contradicted: bool = False
    """Whether a second file gives the image other boxes."""
    swapped: int = 0
    """Boxes whose corners were put in order."""
    other_class: int = 0
    """Boxes left out because the file says that they are of another class than the image."""


def tidy_boxes(
    corners: Sequence[Sequence[float]] | npt.NDArray[np.float64], *, frame_wh: tuple[int, int] | None = None
) -> BoxAnnotation:
    """Order the corners of boxes, clip them to their frame and drop boxes that lie outside it.

    ``corners`` are (n, 4) finite numbers, two opposite corners ``x, y, x, y`` in any order, 0-based inclusive pixels.
    In an unknown frame boxes are clipped at 0 only. ValueError for a frame with a side below 1.
    """
    if frame_wh is not None and min(frame_wh) < 1:
        raise ValueError(f"expected a frame of at least 1 x 1 pixel, found {frame_wh[0]} x {frame_wh[1]}")
    given = np.asarray(corners, dtype=np.float64).reshape(-1, 4)
    first, second = given[:, :2], given[:, 2:]
    lower = np.maximum(np.minimum(first, second), 0.0)
    upper = np.minimum(np.maximum(first, second), np.array(frame_wh or _ENDLESS_WH) - 1.0)
    inside = (lower <= upper).all(axis=1)
    boxes_xyxy = np.concatenate([lower, upper], axis=1)[inside]
    boxes_xyxy.setflags(write=False)
    return BoxAnnotation(
        boxes_xyxy=boxes_xyxy,
        frame_wh=frame_wh,
        beyond=count_beyond(given, frame_wh=frame_wh),
        swapped=int((first > second).any(axis=1).sum()),
    )


def count_beyond(corners_n4: npt.NDArray[np.float64], *, frame_wh: tuple[int, int] | None) -> int:
    """Boxes (N, 4) that leave the frame by over two pixels and two percent of a side; an unknown frame has no end."""
    side_2 = np.array(frame_wh or _ENDLESS_WH)
    lower, upper = -_ROUNDING_PX, np.maximum(side_2 - 1 + _ROUNDING_PX, side_2 * (1 + _ROUNDING_SHARE))
    points_n22 = corners_n4.reshape(-1, 2, 2)
    return int(((points_n22 < lower) | (points_n22 > upper)).any(axis=(1, 2)).sum())


def scale_boxes(
    annotation: BoxAnnotation, *, width: int, height: int, file_width: int, file_height: int
) -> npt.NDArray[np.float64]:
    """Boxes of ``annotation`` in a frame of another size.

    An inclusive box covers the area from its first pixel's left edge to its last pixel's right edge, so
    ``x0' = x0 * W' / W`` and ``x1' = (x1 + 1) * W' / W - 1``, and likewise for y: areas, counted inclusively, scale
    exactly by ``W' H' / (W H)``. A box that shrinks below one pixel has ``x1' < x0'`` but still ``x1' - x0' + 1 > 0``.

    Returns (n, 4) float64, 0-based inclusive pixels of the new frame, ``width`` x ``height``. The size of the image
    file counts only where the annotation states no frame, as in CSV files: boxes are then clipped to it, and dropped
    when nothing is left. ValueError for a size below 1.
    """
    if min(width, height) < 1:
        raise ValueError(f"expected a frame of at least 1 x 1 pixel, found {width} x {height}")
    frame_wh, boxes_xyxy = annotation.frame_wh, annotation.boxes_xyxy
    if frame_wh is None:
        frame_wh = file_width, file_height
        boxes_xyxy = tidy_boxes(boxes_xyxy, frame_wh=frame_wh).boxes_xyxy
    # Multiplied before divided: exact for whole pixels, and the full frame maps onto the full frame.
    size = np.array([width, height], dtype=np.float64)
    frame = np.array(frame_wh, dtype=np.float64)
    lower = boxes_xyxy[:, :2] * size / frame
    upper = (boxes_xyxy[:, 2:] + 1.0) * size / frame - 1.0
    return np.concatenate([lower, upper], axis=1)
