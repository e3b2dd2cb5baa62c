"""Record of one evaluated image, shared by tallies, prediction files and journals.

Legend: I images, L threshold levels of a protocol, B ground-truth boxes of one image, k classes kept (at most 5).
Boxes are ``x0, y0, x1, y1`` in pixels of a protocol's frame, both corners inside the box.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from evaluation.boxes.overlaps import NO_BOX
from evaluation.protocols import Protocol
from pseudo_maps.records import UNKNOWN_LABEL
from pseudo_maps.shards import STATUS_TIMEOUT, STATUSES_OF_LOST_PROCESSES

Pair: TypeAlias = tuple[str, str]
"""Localizer and protocol, by name."""

TOP_CLASSES = 5
"""Classes kept per image: Top-5 is the widest metric of ILSVRC's classification and localization tasks."""

UNKNOWN_RANK = -1
"""Rank of the true class where the class is unknown or no class scores exist."""

SCORED = "scored"
"""Status of an image whose map and boxes were scored."""
NO_MAP = "no map"
"""Failure, counted as wrong: no map exists for the image."""
UNREADABLE_IMAGE = "unreadable image"
"""Failure, counted as wrong: the image file is missing or cannot be decoded."""
TIMEOUT = STATUS_TIMEOUT
"""Failure, counted as wrong: the image file was not read within the limit (``pseudo_maps.reading.within_limit``)."""
MAP_NOT_USABLE = "map not usable: "
"""Failure, counted as wrong: the shard marks the map as failed; the shard's own status follows."""
NOT_TO_DECODE = frozenset({TIMEOUT, *(f"{MAP_NOT_USABLE}{status}" for status in STATUSES_OF_LOST_PROCESSES)})
"""Failures of images whose files have ended, filled or held up a process before."""
NO_BOXES = "no boxes"
"""Skipped, outside the localization denominators: the image has no ground-truth box."""
NO_LABEL = "no class label"
"""Skipped: nobody knows of which class its map has to be."""
BLACKLISTED = "blacklisted"
"""Skipped, outside all denominators: the devkit's blacklist names the image."""

FAILED_STATUSES = (NO_MAP, UNREADABLE_IMAGE, TIMEOUT)
"""Failures without a reason of their own; the others start with ``MAP_NOT_USABLE``."""
SKIPPED_STATUSES = (NO_BOXES, NO_LABEL, BLACKLISTED)
"""Reasons to leave an image out of the localization denominators."""

CONSTANT_MAP = "constant map"
"""Note: all scores of a map are equal."""
NON_FINITE_MAP = "NaN or infinite map"
"""Note: a map holds a NaN or an infinity."""
OTHER_SHAPE = "boxes drawn on another shape than the file"
"""Note: the frame that the annotation states is no enlargement or reduction of the image file."""
BOXES_CLIPPED = "boxes clipped to the file"
"""Note: the annotation states no frame, and a box reached beyond the image file."""


def is_failed(status: str) -> bool:
    """Whether an image of this status stays in the denominators and counts as wrong."""
    return status in FAILED_STATUSES or status.startswith(MAP_NOT_USABLE)


def is_skipped(status: str) -> bool:
    """Whether an image of this status is outside the localization denominators."""
    return status in SKIPPED_STATUSES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageScores:
    """One image of the data set: its scores under every localizer and protocol.

    Raises
    ------
    ValueError
        A field does not fit the others; the message names the image.
    """

    index: int
    """Position in the data set's order, from 0."""
    image_id: str
    label: int
    """True class, or ``UNKNOWN_LABEL``."""
    wnid: str
    """Name of the true class; empty when unknown."""
    status: str
    """``SCORED``, a failure (``is_failed``) or a reason to skip (``is_skipped``)."""
    notes: tuple[str, ...] = ()
    """Remarks that change no count, ``CONSTANT_MAP`` and ``NON_FINITE_MAP`` among them."""
    top_classes: npt.NDArray[np.int64] | None = None
    """(k,) classes of the highest scores, best first; None without class scores."""
    top_probabilities: npt.NDArray[np.float64] | None = None
    """(k,) their probabilities; None without class scores."""
    image_wh: tuple[int, int] | None = None
    """Width and height in pixels of the frame that the image's boxes refer to; None where nobody had to know."""
    true_rank: int = UNKNOWN_RANK
    """How many classes score above the true one (0: it is the first), or ``UNKNOWN_RANK``."""
    iou: dict[Pair, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(L,) for each localizer and protocol: best overlap of the map's boxes with any ground-truth box.

    A failed image may have some too: a baseline needs no map.
    """
    boxes: dict[Pair, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(L, 4) for each localizer and protocol: the box that reaches it, ``NO_BOX`` where there is none.

    An image without ground truth has those of protocols with a fixed threshold alone, and no overlaps.
    """
    ground_truth: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(B, 4) for each protocol: the image's boxes in the protocol's frame."""
    pixels: dict[str, npt.NDArray[np.uint16]] = field(default_factory=dict)
    """(2, T) for each localizer and a baseline, as ``evaluation.metrics.pixels.count_pixels`` gives them.

    Empty where no masks were given or the image counts for nothing; a failed image has the baseline's alone.
    """

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(f"image {self.image_id!r} (index {self.index}): {problem}")

    def _problem(self) -> str:
        if not (self.status == SCORED or is_failed(self.status) or is_skipped(self.status)):
            return f"unknown status {self.status!r}: use a constant of evaluation.image_scores"
        if (self.top_classes is None) != (self.top_probabilities is None):
            return "expected top classes and their probabilities together, found one of them"
        if (self.label != UNKNOWN_LABEL and self.top_classes is not None) != (self.true_rank != UNKNOWN_RANK):
            return f"expected a rank when label and class scores are known, and only then, found rank {self.true_rank}"
        if self.iou if is_skipped(self.status) else self.iou.keys() != self.boxes.keys():
            return f"status {self.status!r} with overlaps of {sorted(self.iou)} and boxes of {sorted(self.boxes)}"
        for pair, iou_l in self.iou.items():
            if iou_l.ndim != 1 or self.boxes[pair].shape != (len(iou_l), 4) or pair[1] not in self.ground_truth:
                return (
                    f"{pair}: expected overlaps (L,), boxes (L, 4) and ground truth under {pair[1]}, found "
                    f"{iou_l.shape}, {self.boxes[pair].shape} and {sorted(self.ground_truth)}"
                )
        return ""


def exceeds(iou: npt.NDArray[np.float64], wanted: float, *, exclusive: bool) -> npt.NDArray[np.bool_]:
    """Where overlaps of any shape are good enough: ``iou > wanted`` when exclusive, else ``iou >= wanted``."""
    return iou > wanted if exclusive else iou >= wanted


def stack_levels(
    images: Sequence[ImageScores], *, localizer: str, protocol: Protocol
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Overlaps (I, L) and boxes (I, L, 4) of many images; 0 and ``NO_BOX`` where one without map has none.

    ValueError names a scored image that lacks the localizer under this protocol, or has another number of levels.
    """
    pair = (localizer, protocol.name)
    levels = len(protocol.thresholds_l)
    iou_il = np.zeros((len(images), levels))
    boxes_il4 = np.empty((len(images), levels, 4))
    boxes_il4[:] = NO_BOX
    for row, image in enumerate(images):
        iou_l = image.iou.get(pair)
        if iou_l is None and image.status != SCORED:
            continue
        if iou_l is None or len(iou_l) != levels:
            found = "nothing" if iou_l is None else f"{len(iou_l)} levels"
            raise ValueError(
                f"image {image.image_id!r} (index {image.index}): expected {levels} levels of localizer {localizer!r} "
                f"under {protocol.name!r}, found {found}; score every image under the same localizers and protocols"
            )
        iou_il[row] = iou_l
        boxes_il4[row] = image.boxes[pair]
    return iou_il, boxes_il4
