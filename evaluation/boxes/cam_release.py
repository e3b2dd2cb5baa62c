"""Boxes that the released CAM code finds in a combined activation map: the rule of the protocol ``cam-release``.

Legend: H W pixels of a map, N boxes. The box finder (``bboxgenerator/dt_box.cpp`` and ``dt.c`` of the code released
with Zhou et al., "Learning deep features for discriminative localization", CVPR 2016) speaks of ``x, y, width,
height``; the evaluator of the same code reads these as corners ``x, y, x + width, y + height``, inclusive. Both
names are kept apart here: ``boxes_n4_xywh`` and ``x0, y0, x1, y1``.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.fixed_thresholds import checked_map, one_box
from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.overlaps import Candidates

__all__ = ["RELEASE_GREY_LEVELS", "cam_release_box", "pooled_boxes"]

RELEASE_GREY_LEVELS = (20, 100, 110)
"""Grey levels that the released scripts hand to the box finder (``bbox_threshold`` of ``generate_bbox.m``)."""

_GREY_MAX = 255
_DISTANCE_GREY_LEVEL = 10
"""Distances, rescaled so that the greatest is 255, must exceed this (``fromDT``)."""
_MARGIN_PX = 5
"""Boxes are kept this far from the right and lower side (``getBBox``)."""


def cam_release_box(map_hw: npt.NDArray[np.generic]) -> Candidates:
    """The largest box of the released CAM code: the rule ``cam-release``.

    The absolute map is brought to 224 x 224 (bilinear, pixel centres aligned), divided by its maximum, rounded to
    8 bit, and given to the box finder, see ``pooled_boxes``.

    ``map_hw`` is of any size and real dtype; ValueError as ``checked_map``. The released code takes ten crops: their
    maps enter as the sum of their absolute values, each in its place. The one box is of level 0; there is none for an
    all-zero map and for one with NaN or infinity. A constant map gives the frame less the margin, ``0, 0, 219, 219``.

    Notes
    -----
    Three steps are not the release's. It works at the size of the image, where the margin of 5 pixels is a
    smaller share, and enlarges with a cubic kernel; here everything happens in the frame of 224. It writes the map
    as JPEG in between, whose losses are left out. And it breaks off on a map without boxes.
    """
    source_hw = checked_map(map_hw)
    if not np.isfinite(source_hw).all():
        return one_box(None)
    scores_hw = cv2.resize(np.abs(source_hw), (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_LINEAR)
    peak = float(scores_hw.max())
    if not peak > 0:
        return one_box(None)
    grey_hw = np.floor(scores_hw / peak * _GREY_MAX + 0.5).astype(np.uint8)
    boxes_n4_xywh = pooled_boxes(grey_hw)
    x, y, width, height = (int(value) for value in boxes_n4_xywh[0])
    # A negative width, see pooled_boxes, turns the corners round; the release swaps them back (generate_bbox.m).
    return one_box((min(x, x + width), min(y, y + height), max(x, x + width), max(y, y + height)))


def pooled_boxes(grey_hw: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """All boxes ``(N, 4)`` int64 that the released box finder finds in a grey map, largest first.

    At each of ``RELEASE_GREY_LEVELS`` the pixels *strictly* above it are kept; each takes its Euclidean distance to
    the nearest pixel that is not (the frame's border is no such pixel), rescaled so that the greatest is 255 and
    rounded; pixels with more than 10 are kept, which peels large shapes by 4 % of their half width. Every contour
    of what remains, those of holes too, gives its bounding box. The boxes of the three levels are pooled and sorted
    by area.

    ``grey_hw`` is uint8, 255 at the peak. Boxes are ``x, y, width, height`` in pixels, x and y at most 5 less than the
    sides of the map, and width and height cut so that they end there too. A shape inside this margin gets a negative
    width or height, as in the release. ValueError unless the map is 2-D uint8 with pixels.

    Notes
    -----
    The release then drops boxes that share more than half of a larger one. The largest is never dropped, and it alone
    is evaluated, so this step is left out. Boxes of equal area keep the order of levels and of ``findContours``,
    which ``std::sort`` leaves open. A shape that fills the map, or an empty one, is left as it is, like in the release.
    """
    if grey_hw.ndim != 2 or grey_hw.size == 0 or grey_hw.dtype != np.uint8:
        raise ValueError(f"expected a grey map (H, W) uint8 with pixels, found {grey_hw.dtype} {grey_hw.shape}")
    height, width = grey_hw.shape
    rectangles = []
    for level in RELEASE_GREY_LEVELS:
        core_hw = _distance_core(grey_hw > level)
        contours, _ = cv2.findContours(core_hw.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        rectangles += [cv2.boundingRect(contour) for contour in contours]
    boxes_n4 = np.array(rectangles, dtype=np.int64).reshape(-1, 4)
    corner_limit_2 = np.array([width - _MARGIN_PX, height - _MARGIN_PX])
    # The room left is measured from the corner before that is clamped, so it can be negative.
    clamped_n4 = np.hstack(
        [np.minimum(boxes_n4[:, :2], corner_limit_2), np.minimum(boxes_n4[:, 2:], corner_limit_2 - boxes_n4[:, :2])]
    )
    order_n = np.argsort(-clamped_n4[:, 2] * clamped_n4[:, 3], kind="stable")
    return clamped_n4[order_n]


def _distance_core(mask_hw: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels whose distance to the outside, rescaled to a greatest of 255 and rounded, is above 10."""
    if mask_hw.all() or not mask_hw.any():
        return mask_hw
    distance_hw = cv2.distanceTransform(mask_hw.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    greatest_squared = round(float(distance_hw.max()) ** 2)
    scale = _GREY_MAX / math.sqrt(greatest_squared)
    # Squared distances are whole numbers. The lowest that is kept is found in float64, as the release computes, so
    # that the float32 of OpenCV decides no borderline.
    lowest_squared = 1
    while math.floor(math.sqrt(lowest_squared) * scale + 0.5) <= _DISTANCE_GREY_LEVEL:
        lowest_squared += 1
    core_hw: npt.NDArray[np.bool_] = distance_hw > math.sqrt(lowest_squared - 0.5)
    return core_hw
