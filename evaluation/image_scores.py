"""Turns what is known of one evaluated image into the record that tallies, prediction files and journals share.

Legend: I images, L threshold levels of a protocol, B ground-truth boxes of one image, k classes kept (at most 5).
Boxes are ``x0, y0, x1, y1`` in pixels of a protocol's frame, both corners inside the box.
"""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from evaluation.boxes.overlaps import NO_BOX
from pseudo_maps.records import UNKNOWN_LABEL

__all__ = [
    "BLACKLISTED",
    "CONSTANT_MAP",
    "FAILED_STATUSES",
    "MAP_NOT_USABLE",
    "NON_FINITE_MAP",
    "NO_BOXES",
    "NO_MAP",
    "SCORED",
    "SKIPPED_STATUSES",
    "TOP_CLASSES",
    "UNKNOWN_RANK",
    "UNREADABLE_IMAGE",
    "ImageScores",
    "Pair",
    "ScoringRules",
    "exceeds",
    "is_failed",
    "is_skipped",
    "stack_levels",
]

Pair: TypeAlias = tuple[str, str]
"""Localizer and protocol, by name."""

TOP_CLASSES = 5
"""Classes kept an image: Top-5 is the widest figure of ILSVRC's classification and localization tasks."""

UNKNOWN_RANK = -1
"""Rank of the true class where the class is unknown or no class scores exist."""

SCORED = "scored"
"""Status of an image whose map and boxes were scored."""
NO_MAP = "no map"
"""Failure, counted as wrong: no map exists for the image."""
UNREADABLE_IMAGE = "unreadable image"
"""Failure, counted as wrong: the image file is missing or cannot be decoded."""
MAP_NOT_USABLE = "map not usable: "
"""Failure, counted as wrong: the shard marks the map as failed; the shard's own status follows."""
NO_BOXES = "no boxes"
"""Skipped, outside the localization denominators: the image has no ground-truth box."""
BLACKLISTED = "blacklisted"
"""Skipped, outside all denominators: the devkit's blacklist names the image."""

FAILED_STATUSES = (NO_MAP, UNREADABLE_IMAGE)
"""Failures without a reason of their own; the others start with ``MAP_NOT_USABLE``."""
SKIPPED_STATUSES = (NO_BOXES, BLACKLISTED)
"""Reasons to leave an image out of the localization denominators."""

CONSTANT_MAP = "constant map"
"""Note: all scores of a map are equal."""
NON_FINITE_MAP = "NaN or infinite map"
"""Note: a map holds a NaN or an infinity."""


class ScoringRules(typing.Protocol):
    """What counting needs to know of an evaluation protocol."""

    @property
    def name(self) -> str:
        """Name of the protocol, without spaces."""

    @property
    def thresholds_l(self) -> npt.NDArray[np.float64]:
        """(L,) threshold that each level stands for, rising."""

    @property
    def threshold_is_oracle(self) -> bool:
        """Whether the level is chosen on the evaluated images; otherwise L is 1."""

    @property
    def fallback_box(self) -> tuple[float, float, float, float] | None:
        """The box that stands where nothing stands out of a map; None when there is none then."""

    @property
    def gt_known_exclusive(self) -> bool:
        """Whether GT-known Loc asks for more than the wanted overlap, instead of at least that."""

    @property
    def top1_exclusive(self) -> bool:
        """Whether Top-1 and Top-5 Loc ask for more than the wanted overlap, instead of at least that."""

    def describe(self) -> Mapping[str, str]:
        """The protocol's rules in words, by subject."""


def is_failed(status: str) -> bool:
    """Whether an image of this status stays in the denominators and counts as wrong."""
    return status in FAILED_STATUSES or status.startswith(MAP_NOT_USABLE)


def is_skipped(status: str) -> bool:
    """Whether an image of this status is outside the localization denominators."""
    return status in SKIPPED_STATUSES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageScores:
    """One image of the data set: what it scores, under every localizer and protocol.

    Raises
    ------
    ValueError
        A field does not fit the others; the message names the image.
    """

    index: int
    """Position in the data set's order, from 0."""
    image_id: str
    """Name of the image inside its split."""
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
    true_rank: int = UNKNOWN_RANK
    """How many classes score above the true one (0: it is the first), or ``UNKNOWN_RANK``."""
    iou: dict[Pair, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(L,) for each localizer and protocol: best overlap of the map's boxes with any ground-truth box.

    A failed image may have some too: a baseline needs no map.
    """
    boxes: dict[Pair, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(L, 4) for each localizer and protocol: the box that reaches it, ``NO_BOX`` where there is none."""
    ground_truth: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """(B, 4) for each protocol: the image's boxes in the protocol's frame."""

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(f"image {self.image_id!r} (index {self.index}): {problem}")

    def _problem(self) -> str:
        if self.index < 0 or self.label < UNKNOWN_LABEL or self.true_rank < UNKNOWN_RANK:
            return (
                f"expected index >= 0, label >= -1 and rank >= -1, found {self.index}, {self.label}, {self.true_rank}"
            )
        if not (self.status == SCORED or is_failed(self.status) or is_skipped(self.status)):
            return f"unknown status {self.status!r}: use a constant of evaluation.image_scores"
        return self._class_problem() or self._box_problem()

    def _class_problem(self) -> str:
        if (self.top_classes is None) != (self.top_probabilities is None):
            return "expected top classes and their probabilities together, found one of them"
        ranked = self.label != UNKNOWN_LABEL and self.top_classes is not None
        if ranked != (self.true_rank != UNKNOWN_RANK):
            return f"expected a rank when label and class scores are known, and only then, found rank {self.true_rank}"
        if self.top_classes is None or self.top_probabilities is None:
            return ""
        kept = self.top_classes.size
        if (
            self.top_classes.shape != (kept,)
            or self.top_probabilities.shape != (kept,)
            or not 1 <= kept <= TOP_CLASSES
            or self.top_classes.dtype != np.int64
            or self.top_probabilities.dtype != np.float64
        ):
            return (
                f"expected 1 to {TOP_CLASSES} top classes (k,) int64 with probabilities (k,) float64, found "
                f"{self.top_classes.dtype} {self.top_classes.shape} and "
                f"{self.top_probabilities.dtype} {self.top_probabilities.shape}"
            )
        place = np.flatnonzero(self.top_classes == self.label)
        expected = [self.true_rank] if 0 <= self.true_rank < kept else []
        if ranked and place.tolist() != expected:
            return (
                f"class {self.label} has rank {self.true_rank} but stands at {place.tolist()} of the top classes "
                f"{self.top_classes.tolist()}: break ties the same way for both"
            )
        return ""

    def _box_problem(self) -> str:
        if self.iou.keys() != self.boxes.keys():
            return f"overlaps are there for {sorted(self.iou)} but boxes for {sorted(self.boxes)}"
        if is_skipped(self.status) and self.iou:
            return f"expected no overlaps with status {self.status!r}, found {sorted(self.iou)}"
        for pair, iou_l in self.iou.items():
            boxes_l4 = self.boxes[pair]
            if iou_l.ndim != 1 or boxes_l4.shape != (len(iou_l), 4) or len(iou_l) == 0:
                return f"{pair}: expected overlaps (L,) and boxes (L, 4), found {iou_l.shape} and {boxes_l4.shape}"
            if iou_l.dtype != np.float64 or boxes_l4.dtype != np.float64:
                return f"{pair}: expected float64, found {iou_l.dtype} and {boxes_l4.dtype}"
            if not ((iou_l >= 0) & (iou_l <= 1)).all():
                return f"{pair}: expected overlaps from 0 to 1, found {iou_l.min()} to {iou_l.max()}"
            if pair[1] not in self.ground_truth:
                return f"{pair}: no ground truth under {pair[1]}, only under {sorted(self.ground_truth)}"
        for protocol, truth_b4 in self.ground_truth.items():
            if truth_b4.ndim != 2 or truth_b4.shape[1] != 4 or truth_b4.dtype != np.float64:
                return (
                    f"ground truth under {protocol}: expected (B, 4) float64, found {truth_b4.dtype} {truth_b4.shape}"
                )
        return ""


def exceeds(iou: npt.NDArray[np.float64], wanted: float, *, exclusive: bool) -> npt.NDArray[np.bool_]:
    """Where overlaps of any shape are good enough: ``iou > wanted`` when exclusive, else ``iou >= wanted``."""
    return iou > wanted if exclusive else iou >= wanted


def stack_levels(
    images: Sequence[ImageScores], *, localizer: str, rules: ScoringRules
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Overlaps (I, L) and boxes (I, L, 4) of many images; 0 and ``NO_BOX`` where one without map has none.

    Raises
    ------
    ValueError
        A scored image lacks the localizer under this protocol, or has another number of levels; it is named.
    """
    pair = (localizer, rules.name)
    levels = len(rules.thresholds_l)
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
                f"under {rules.name!r}, found {found}; score every image under the same localizers and protocols"
            )
        iou_il[row] = iou_l
        boxes_il4[row] = image.boxes[pair]
    return iou_il, boxes_il4
