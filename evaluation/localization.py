"""Turns boxes at every threshold, image by image, into localization rates under the protocol ``wsoleval-v1``.

Legend: T thresholds, D overlaps (IoU .3, .5 and .7), B ground-truth boxes of one image, U distinct boxes.
Boxes are ``x0, y0, x1, y1``, 0-based, inclusive. Rates are fractions between 0 and 1, not percentages.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from evaluation.boxes import (
    FRAME_PX,
    WSOLEVAL_THRESHOLDS,
    box_iou_inclusive,
    boxes_at_thresholds,
    normalise_score_map,
)

__all__ = [
    "CONFIDENCE",
    "GT_KNOWN_IOU",
    "IOU_THRESHOLDS",
    "BoxAccuracy",
    "LocalizationScore",
    "centred_gaussian_map",
    "score_maps",
    "wilson_interval",
]

GT_KNOWN_IOU = 0.5
"""Overlap with any ground-truth box from which on GT-known Loc counts an image as localized (ILSVRC)."""

IOU_THRESHOLDS = (0.3, 0.5, 0.7)
"""Overlaps that MaxBoxAccV2 averages over (Choe et al., CVPR 2020)."""

CONFIDENCE = 0.95
"""Coverage of the intervals printed beside rates."""

_IMAGES_AT_ONCE = 2048
"""Images whose overlaps with the same boxes are held at once: about 256 x 3300 float64, 7 MB an array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizationScore:
    """Share of images localized at one threshold and one overlap, with what it was counted on."""

    iou_threshold: float
    """Overlap with any ground-truth box from which on an image counts as localized."""
    threshold: float
    """Fraction of the map's maximum that the boxes were cut at, the same for all images."""
    threshold_is_oracle: bool
    """Whether ``threshold`` is the best one on these very images (then the rate is an upper estimate)."""
    correct: int
    """Images localized."""
    images: int
    """Images in the denominator, failed ones included."""
    failed: int
    """Images among ``images`` that had no usable map and count as wrong."""
    skipped: int
    """Images outside the denominator: without ground truth."""

    @property
    def rate(self) -> float:
        """``correct / images``."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of ``rate`` over images; the choice of an oracle threshold is not in it."""
        return wilson_interval(self.correct, self.images)


class BoxAccuracy:
    """Counts, image by image, at which thresholds the predicted box meets a ground-truth box.

    An image counts at a threshold when its box overlaps ANY of its ground-truth boxes by at least the wanted
    IoU. Memory does not grow with images: only D x T counts are kept.

    Parameters
    ----------
    thresholds
        ``(T,)`` the thresholds that the boxes given to ``add`` stand for, in the same order.
    iou_thresholds
        Overlaps to count at.

    Raises
    ------
    ValueError
        No threshold or no overlap is given.

    Attributes
    ----------
    images : int
        Images counted so far, failed ones included.
    failed : int
        Images counted as wrong because they have no map.
    skipped : int
        Images left out because they have no ground truth.
    """

    def __init__(
        self,
        *,
        thresholds: npt.ArrayLike = WSOLEVAL_THRESHOLDS,
        iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    ) -> None:
        self.thresholds = np.array(thresholds, dtype=np.float64)
        self.iou_thresholds = tuple(iou_thresholds)
        if self.thresholds.ndim != 1 or not len(self.thresholds) or not self.iou_thresholds:
            raise ValueError("expected at least one threshold (T,) and one overlap")
        self.images = 0
        self.failed = 0
        self.skipped = 0
        self._correct_dt = np.zeros((len(self.iou_thresholds), len(self.thresholds)), dtype=np.int64)

    def add(self, boxes_xyxy: npt.ArrayLike, ground_truth_xyxy: npt.ArrayLike) -> None:
        """Count one image by its boxes ``(T, 4)``, one a threshold, and its ground truth ``(B, 4)``.

        Raises
        ------
        ValueError
            The number of boxes is not T, there is no ground truth, or a box has its corners in the wrong
            order.
        """
        self.add_same_boxes(boxes_xyxy, [ground_truth_xyxy])

    def add_same_boxes(self, boxes_xyxy: npt.ArrayLike, ground_truths_xyxy: Sequence[npt.ArrayLike]) -> None:
        """Count many images that get the same boxes ``(T, 4)``: a predictor that never looks at the image.

        Parameters
        ----------
        boxes_xyxy
            One box a threshold.
        ground_truths_xyxy
            For every image its boxes ``(B, 4)``, at least one.

        Raises
        ------
        ValueError
            The number of boxes is not T, an image has no ground truth, or a box has its corners in the wrong
            order. Nothing has been counted then.
        """
        boxes_t4 = np.asarray(boxes_xyxy)
        if boxes_t4.shape != (len(self.thresholds), 4):
            raise ValueError(f"expected one box a threshold, shape ({len(self.thresholds)}, 4), found {boxes_t4.shape}")
        boxes_u4, of_threshold_t = _runs_of_equal_rows(boxes_t4)
        correct_du = np.zeros((len(self.iou_thresholds), len(boxes_u4)), dtype=np.int64)
        for first in range(0, len(ground_truths_xyxy), _IMAGES_AT_ONCE):
            group = [np.asarray(boxes) for boxes in ground_truths_xyxy[first : first + _IMAGES_AT_ONCE]]
            boxes_per_image = [len(boxes) for boxes in group]
            if not all(boxes_per_image):
                raise ValueError(
                    f"image {first + boxes_per_image.index(0)} has no ground-truth box: "
                    "count it with add_skipped instead"
                )
            starts = np.concatenate([[0], np.cumsum(boxes_per_image)[:-1]])
            iou_ub = box_iou_inclusive(boxes_u4, np.concatenate(group))
            best_un = np.maximum.reduceat(iou_ub, starts, axis=1)
            correct_du += [(best_un >= wanted).sum(axis=1) for wanted in self.iou_thresholds]
        self._correct_dt += correct_du[:, of_threshold_t]
        self.images += len(ground_truths_xyxy)

    def add_failed(self) -> None:
        """Count one image that has ground truth but no map: wrong at every threshold."""
        self.images += 1
        self.failed += 1

    def add_skipped(self) -> None:
        """Note one image that has no ground truth: it stays out of the denominator, but not out of sight."""
        self.skipped += 1

    def accuracy_curve(self, *, iou: float = GT_KNOWN_IOU) -> npt.NDArray[np.float64]:
        """Share of images localized at each threshold, ``(T,)`` float64.

        Raises
        ------
        ValueError
            No image has been counted, or ``iou`` is not one of ``iou_thresholds``.
        """
        correct_t = self._correct_at(iou)
        return correct_t / self.images

    def max_box_acc(self, *, iou: float = GT_KNOWN_IOU) -> LocalizationScore:
        """Score at the one threshold, shared by all images, that is best on these images.

        The lowest of equally good ones. MaxBoxAcc of Choe et al. is this at IoU .5. The threshold is an
        oracle's: it was chosen on what it is scored on.

        Raises
        ------
        ValueError
            No image has been counted, or ``iou`` is not one of ``iou_thresholds``.
        """
        return self._score(iou, int(np.argmax(self._correct_at(iou))), oracle=True)

    def gt_known_loc(self, *, threshold: float | None = None) -> LocalizationScore:
        """GT-known Loc: the score at IoU .5 and one of ``thresholds``, or at the best one (an oracle's).

        Raises
        ------
        ValueError
            No image has been counted, ``threshold`` is not one of ``thresholds``, or .5 is not one of
            ``iou_thresholds``.
        """
        if threshold is None:
            return self.max_box_acc(iou=GT_KNOWN_IOU)
        index = int(np.argmin(np.abs(self.thresholds - threshold)))
        # arange(0, 1, .001) carries rounding errors of 1e-16, so 0.2 is looked up with a margin.
        if not math.isclose(self.thresholds[index], threshold, abs_tol=1e-9):
            raise ValueError(
                f"threshold {threshold} was not counted (the nearest of {len(self.thresholds)} is "
                f"{self.thresholds[index]:g}): give it to BoxAccuracy(thresholds=...)"
            )
        return self._score(GT_KNOWN_IOU, index, oracle=False)

    def _correct_at(self, iou: float) -> npt.NDArray[np.int64]:
        if iou not in self.iou_thresholds:
            raise ValueError(f"IoU {iou} was not counted, only {self.iou_thresholds}")
        if self.images == 0:
            raise ValueError(f"no image with ground truth was counted ({self.skipped} without were skipped)")
        correct_t: npt.NDArray[np.int64] = self._correct_dt[self.iou_thresholds.index(iou)]
        return correct_t

    def _score(self, iou: float, index: int, *, oracle: bool) -> LocalizationScore:
        return LocalizationScore(
            iou_threshold=iou,
            threshold=float(self.thresholds[index]),
            threshold_is_oracle=oracle,
            correct=int(self._correct_at(iou)[index]),
            images=self.images,
            failed=self.failed,
            skipped=self.skipped,
        )


def score_maps(
    samples: Iterable[tuple[npt.NDArray[np.generic] | None, npt.ArrayLike]],
    *,
    thresholds: npt.ArrayLike = WSOLEVAL_THRESHOLDS,
    frame_px: int = FRAME_PX,
) -> BoxAccuracy:
    """Score maps directly as localizers under ``wsoleval-v1``, one image at a time.

    Parameters
    ----------
    samples
        For every image its map ``(H, W)`` of any size and real dtype, or None when it failed, and its
        ground-truth boxes ``(B, 4)`` in the frame of ``frame_px`` pixels, where ``scale_boxes_truncated``
        moves them.
    thresholds
        ``(T,)`` fractions of each map's maximum to try.
    frame_px
        Side in pixels of the square frame that maps are resized to.

    Returns
    -------
    BoxAccuracy
        Counts of all images: without a map they are failed and wrong, without boxes they are skipped. A
        constant map, or one with a NaN, predicts the box ``(0, 0, 0, 0)`` and stays in the denominator.

    Raises
    ------
    ValueError
        A map is not two-dimensional or a box has its corners in the wrong order; the message names the
        sample.
    """
    accuracy = BoxAccuracy(thresholds=thresholds)
    for index, (map_hw, ground_truth_xyxy) in enumerate(samples):
        if len(np.asarray(ground_truth_xyxy)) == 0:
            accuracy.add_skipped()
            continue
        if map_hw is None:
            accuracy.add_failed()
            continue
        try:
            map_uint8_hw = normalise_score_map(map_hw, height=frame_px, width=frame_px)
            accuracy.add(boxes_at_thresholds(map_uint8_hw, accuracy.thresholds), ground_truth_xyxy)
        except ValueError as error:
            raise ValueError(f"sample {index} (counted from 0): {error}") from error
    return accuracy


def centred_gaussian_map(size: int = FRAME_PX, *, sigma: float = 0.25) -> npt.NDArray[np.float64]:
    """Centred Gaussian ``(size, size)`` float64 from 0 to 1: the baseline that never looks at the image.

    ``exp(-((x - c)^2 + (y - c)^2) / (2 (size sigma)^2))`` with ``c = (size - 1) / 2``, min-max normalised.

    Parameters
    ----------
    size
        Side in pixels, at least 2.
    sigma
        Standard deviation as a fraction of the side.

    Raises
    ------
    ValueError
        ``size`` is below 2, or ``sigma`` is not positive.

    Notes
    -----
    Under ``wsoleval-v1`` it localizes 54.06 % of ILSVRC val at IoU .5 (76.81 at .3, 29.28 at .7), with any
    sigma between .25 and 1: only the shape of its level sets matters.
    """
    if size < 2 or not sigma > 0:
        raise ValueError(f"expected size >= 2 and sigma > 0, found size={size} and sigma={sigma}")
    offset = np.arange(size, dtype=np.float64) - (size - 1) / 2
    squared_hw = offset[:, None] ** 2 + offset**2
    map_hw = np.exp(-squared_hw / (2 * (size * sigma) ** 2))
    map_hw -= map_hw.min()
    map_hw /= map_hw.max()
    return map_hw


def wilson_interval(correct: int, images: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of the rate ``correct / images``, as two fractions between 0 and 1.

    Unlike the textbook interval it stays inside [0, 1] and keeps its coverage near 0 and 1 (Wilson, "Probable
    inference, the law of succession, and statistical inference", JASA 1927).

    Raises
    ------
    ValueError
        Not ``0 <= correct <= images`` with ``images >= 1``, or not ``0 < confidence < 1``.

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson_interval(259, 500)]
    [0.4742, 0.5615]
    """
    if not (images >= 1 and 0 <= correct <= images and 0 < confidence < 1):
        raise ValueError(
            "expected 0 <= correct <= images, images >= 1 and 0 < confidence < 1, "
            f"found correct={correct}, images={images}, confidence={confidence}"
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = correct / images
    shrink = 1 + z * z / images
    centre = (rate + z * z / (2 * images)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / images + z * z / (4 * images * images))
    # With 0 or all correct a bound is the rate itself, which centre and half width miss by 1e-18.
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def _runs_of_equal_rows(
    rows_t4: npt.NDArray[np.generic],
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.intp]]:
    """First row of every run of equal rows ``(U, 4)``, and for each row its run ``(T,)``.

    Over rising thresholds the box of a map changes at most 255 times, so neighbours tell all repetitions.
    """
    changes = (rows_t4[1:] != rows_t4[:-1]).any(axis=1)
    run_t = np.concatenate([[0], np.cumsum(changes)]).astype(np.intp)
    first_u = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return rows_t4[first_u], run_t
