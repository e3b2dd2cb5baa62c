"""Boxes that the released CAM code finds in a combined activation map: the rule of the protocol ``cam-release``.

Legend: H W pixels of a map, N boxes. The box finder (``bboxgenerator/dt_box.cpp`` and ``dt.c`` of the code released
with Zhou et al., "Learning deep features for discriminative localization", CVPR 2016) speaks of ``x, y, width,
height``; the evaluator of the same code reads these as corners ``x, y, x + width, y + height``, inclusive. Both
names are kept apart here: ``boxes_n4_xywh`` and ``x0, y0, x1, y1``.
"""

import functools
import math

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.fixed_thresholds import checked_map, one_box
from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.overlaps import Candidates

RELEASE_GREY_LEVELS = (20, 100, 110)
"""Grey levels that the released scripts hand to the box finder (``bbox_threshold`` of ``generate_bbox.m``)."""

_GREY_MAX = 255
_DISTANCE_GREY_LEVEL = 10
"""Distances, rescaled so that the greatest is 255, must exceed this (``fromDT``)."""
_MARGIN_PX = 5
"""Boxes are kept this far from the right and lower side (``getBBox``)."""


def cam_release_box(map_hw: npt.NDArray[np.generic]) -> Candidates:
    """The largest box of the released CAM code: the rule ``cam-release``.

    The map is brought to 224 x 224 by MATLAB's ``imresize`` (bicubic), as the release enlarges the map of every crop
    (``ILSVRC_generate_heatmap.m``). Its absolute values, divided by their maximum and rounded to 8 bit, are given to
    the box finder, see ``pooled_boxes``.

    ``map_hw`` is of any size and real dtype; ValueError as ``checked_map``. The released code takes ten crops: their
    maps enter as the sum of their absolute values, each in its place. The one box is of level 0; there is none for an
    all-zero map and for one with NaN or infinity. A constant map gives the frame less the margin, ``0, 0, 219, 219``.

    Notes
    -----
    Three steps are not the release's. It enlarges the map a second time, to the size of the image, where the margin
    of 5 pixels is a smaller share; here everything happens in the frame of 224. It writes the map as JPEG in between,
    whose losses are left out. And it breaks off on a map without boxes.
    """
    source_hw = checked_map(map_hw)
    greatest = float(np.abs(source_hw).max())
    if not 0 < greatest < np.inf:
        return one_box(None)
    scores_hw = np.abs(_imresize(source_hw / greatest))
    grey_hw = np.floor(scores_hw / scores_hw.max() * _GREY_MAX + 0.5).astype(np.uint8)
    boxes_n4_xywh = pooled_boxes(grey_hw)
    x, y, width, height = (int(value) for value in boxes_n4_xywh[0])
    # A negative width, see pooled_boxes, turns the corners round; the release swaps them back (generate_bbox.m).
    return one_box((min(x, x + width), min(y, y + height), max(x, x + width), max(y, y + height)))


def _imresize(map_hw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``(224, 224)`` by MATLAB's ``imresize`` (bicubic): Keys' kernel of -.5, widened to reduce, mirrored borders."""
    for axis, size in enumerate(map_hw.shape):
        if size != FRAME_PX:
            map_hw = np.moveaxis(np.tensordot(_cubic_weights(size), map_hw, axes=(1, axis)), 0, axis)
    return map_hw


@functools.cache
def _cubic_weights(size: int) -> npt.NDArray[np.float64]:
    """``(224, size)``: what each of ``size`` pixels adds to each of the frame's; rows sum to 1."""
    scale = FRAME_PX / size
    sharpness = min(scale, 1.0)
    centres_f1 = ((np.arange(FRAME_PX) + 0.5) / scale - 0.5)[:, None]
    taps_ft = np.floor(centres_f1 - 2 / sharpness).astype(np.int64) + np.arange(math.ceil(4 / sharpness) + 2)
    # R. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981.
    x = np.abs(centres_f1 - taps_ft) * sharpness
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    kernel_ft = np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
    pixels_ft = taps_ft % (2 * size)
    pixels_ft = np.minimum(pixels_ft, 2 * size - 1 - pixels_ft)
    weights_fs = np.zeros((FRAME_PX, size))
    np.add.at(weights_fs, (np.arange(FRAME_PX)[:, None], pixels_ft), kernel_ft / kernel_ft.sum(axis=1, keepdims=True))
    weights_fs.setflags(write=False)
    return weights_fs


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
    OpenCV before 3.2, the release's, cleared the outermost pixels of the map in ``findContours``: a shape at the border
    lost a pixel there. The OpenCV used here keeps them.
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
