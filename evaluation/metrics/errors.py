"""Kinds of localization error: the verdict on a predicted box, given the ground truth and the predicted class.

Legend: I images, L threshold levels, B ground-truth boxes of one image.
Boxes are ``x0, y0, x1, y1`` in pixels of a protocol's frame, both corners inside the box.
The kinds are those of Xue et al., "DANet: divergent activation for weakly supervised object localization" (ICCV
2019); order and limits are those of the function ``get_badcase_detail`` in the public code of TS-CAM (ICCV 2021,
``lib/cams_deit.py``) and SPA (CVPR 2021, ``utils/utils/evaluate.py``), which agree.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evaluation.boxes.overlaps import NO_BOX
from evaluation.image_scores import ImageScores, exceeds
from evaluation.metrics.registry import GT_KNOWN_IOU
from evaluation.names import ERROR_KINDS
from evaluation.protocols import Protocol
from pseudo_maps.kernels import Bytes, Doubles, Longs, kernel

CORRECT, WRONG_CLASS, MULTI_INSTANCE, PART, MORE, OTHER, NO_BOX_VERDICT = range(len(ERROR_KINDS))
"""Verdicts: positions in ``ERROR_KINDS``."""

MULTI_INSTANCE_LIMIT = 0.3
"""Two or more objects of which more than this share is covered make a multi-instance error."""
PART_LIMIT = 0.5
"""More than this share of the predicted box inside the object: it shows a part."""
MORE_LIMIT = 0.7
"""At least this share of the object covered: the box holds more than the object. The public code counts .7 itself."""


def classify_errors(
    boxes_il4: npt.NDArray[np.float64],
    *,
    correct_il: npt.NDArray[np.bool_],
    wrong_class_i: npt.NDArray[np.bool_],
    ground_truth: Sequence[npt.NDArray[np.float64]],
) -> npt.NDArray[np.uint8]:
    """Verdict ``(I, L)`` uint8, a position in ``ERROR_KINDS``, of every image at every threshold level.

    The first that holds, in this order: the class is wrong; there is no box; the box is right; it covers more than
    .3 of two or more objects (multi-instance); more than .5 of it lies inside the object (part); it covers at
    least .7 of the object (more); other. "The object" is the ground-truth box with the highest intersection over
    union, the first of equals.

    ``boxes_il4`` (I, L, 4) are predicted boxes or ``NO_BOX``; ``correct_il`` (I, L) whether a box localizes an object;
    ``wrong_class_i`` (I,) whether the predicted class is known to be wrong; ``ground_truth`` the boxes (B, 4) of each
    image, B may be 0, then a box is "other".
    """
    images, levels = boxes_il4.shape[:2]
    if (
        boxes_il4.shape != (images, levels, 4)
        or correct_il.shape != (images, levels)
        or wrong_class_i.shape != (images,)
        or len(ground_truth) != images
    ):
        raise ValueError(
            f"expected boxes (I, L, 4), correct (I, L), wrong class (I,) and I ground truths, found {boxes_il4.shape}, "
            f"{correct_il.shape}, {wrong_class_i.shape} and {len(ground_truth)}"
        )
    truth_ends_i = np.cumsum([len(truth_b4) for truth_b4 in ground_truth], dtype=np.int64)
    truth_n4 = np.concatenate([np.zeros((0, 4)), *ground_truth])
    kinds_il = np.zeros((images, levels), dtype=np.uint8)
    _kinds_of_boxes(np.ascontiguousarray(boxes_il4), truth_n4, truth_ends_i, kinds_il)
    kinds_il[correct_il] = CORRECT
    kinds_il[(boxes_il4 == NO_BOX).all(axis=2)] = NO_BOX_VERDICT
    kinds_il[wrong_class_i] = WRONG_CLASS
    return kinds_il


def image_verdicts(
    images: Sequence[ImageScores],
    *,
    protocol: Protocol,
    iou_il: npt.NDArray[np.float64],
    boxes_il4: npt.NDArray[np.float64],
) -> npt.NDArray[np.uint8]:
    """Verdict ``(I, L)`` of scored and failed images, with overlaps and boxes as ``stack_levels`` gives them.

    With class scores "correct" is what Top-1 Loc counts, without them what GT-known Loc counts, both at IoU .5. The
    box that a protocol takes without foreground is "no box", unless it happens to be correct.

    An image without the protocol's ground truth has no objects. ValueError when the shapes do not fit.
    """
    rank_i = np.array([image.true_rank for image in images], dtype=np.int64)
    nothing_04 = np.zeros((0, 4))
    correct_il = np.where(
        (rank_i >= 0)[:, None],
        exceeds(iou_il, GT_KNOWN_IOU, exclusive=protocol.top1_exclusive),
        exceeds(iou_il, GT_KNOWN_IOU, exclusive=protocol.gt_known_exclusive),
    )
    if protocol.fallback_box is not None:
        nothing_il = (boxes_il4 == protocol.fallback_box).all(axis=2) & ~correct_il
        boxes_il4 = np.where(nothing_il[..., None], NO_BOX, boxes_il4)
    return classify_errors(
        boxes_il4,
        correct_il=correct_il,
        wrong_class_i=rank_i > 0,
        ground_truth=[image.ground_truth.get(protocol.name, nothing_04) for image in images],
    )


@kernel
def _kinds_of_boxes(boxes_il4: Doubles, truth_n4: Doubles, truth_ends_i: Longs, kinds_il: Bytes) -> None:
    for i in range(boxes_il4.shape[0]):
        first = truth_ends_i[i - 1] if i > 0 else 0
        for level in range(boxes_il4.shape[1]):
            x0, y0 = boxes_il4[i, level, 0], boxes_il4[i, level, 1]
            x1, y1 = boxes_il4[i, level, 2], boxes_il4[i, level, 3]
            # Neighbouring levels mostly share their box.
            if level > 0 and (boxes_il4[i, level] == boxes_il4[i, level - 1]).all():
                kinds_il[i, level] = kinds_il[i, level - 1]
                continue
            area = (x1 - x0 + 1) * (y1 - y0 + 1)
            covered_objects = 0
            best_iou, best_part, best_cover = 0.0, 0.0, 0.0
            for n in range(first, truth_ends_i[i]):
                width = min(x1, truth_n4[n, 2]) - max(x0, truth_n4[n, 0]) + 1
                height = min(y1, truth_n4[n, 3]) - max(y0, truth_n4[n, 1]) + 1
                if width <= 0 or height <= 0:
                    continue
                truth_area = (truth_n4[n, 2] - truth_n4[n, 0] + 1) * (truth_n4[n, 3] - truth_n4[n, 1] + 1)
                shared = width * height
                if shared / truth_area > MULTI_INSTANCE_LIMIT:
                    covered_objects += 1
                iou = shared / (area + truth_area - shared)
                if iou > best_iou:
                    best_iou, best_part, best_cover = iou, shared / area, shared / truth_area
            if covered_objects > 1:
                kinds_il[i, level] = MULTI_INSTANCE
            elif best_part > PART_LIMIT:
                kinds_il[i, level] = PART
            elif best_cover >= MORE_LIMIT:
                kinds_il[i, level] = MORE
            else:
                kinds_il[i, level] = OTHER
