"""Random but valid ImageScores, and the rules of invented protocols, for the tests of counting and storing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import boxes_in_image
from evaluation.boxes.overlaps import NO_BOX, Candidates, best_overlaps
from evaluation.image_scores import (
    BLACKLISTED,
    CONSTANT_MAP,
    MAP_NOT_USABLE,
    NO_BOXES,
    NO_MAP,
    SCORED,
    UNREADABLE_IMAGE,
    ImageScores,
)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Stands for a protocol of ``levels`` levels."""

    name: str
    levels: int = 1
    threshold_is_oracle: bool = False
    fallback_box: tuple[float, float, float, float] | None = None
    gt_known_exclusive: bool = False
    top1_exclusive: bool = False

    @property
    def thresholds_l(self) -> npt.NDArray[np.float64]:
        return np.linspace(0.0, 0.9, self.levels)

    def in_image(self, boxes_n4: npt.NDArray[np.float64], *, image_wh: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return boxes_in_image(boxes_n4, image_wh=image_wh)

    def describe(self) -> Mapping[str, str]:
        return {"iou": "invented"}


SWEEP = Rules(name="sweep", levels=7, threshold_is_oracle=True)
FIXED = Rules(name="fixed", top1_exclusive=True)
ALL_RULES = (SWEEP, FIXED)
IMAGE_WH = (448, 112)
LOCALIZERS = ("cam", "saliency")
CLASSES = ("n01", "n02", "n03", "n04", "n05", "n06", "n07")


def random_images(
    count: int,
    *,
    seed: int = 0,
    with_scores: bool = True,
    protocols: Sequence[Rules] = ALL_RULES,
    localizers: Sequence[str] = LOCALIZERS,
) -> list[ImageScores]:
    """Images of every status; overlaps of exactly .3, .5 and .7 are common."""
    rng = np.random.default_rng(seed)
    return [
        random_image(rng, index, with_scores=with_scores, protocols=protocols, localizers=localizers)
        for index in range(count)
    ]


def random_image(
    rng: np.random.Generator,
    index: int,
    *,
    with_scores: bool,
    protocols: Sequence[Rules],
    localizers: Sequence[str],
) -> ImageScores:
    statuses = [SCORED] * 8 + [NO_MAP, UNREADABLE_IMAGE, f"{MAP_NOT_USABLE}timeout", NO_BOXES, BLACKLISTED]
    status = statuses[rng.integers(len(statuses))]
    label = int(rng.integers(-1, len(CLASSES)))
    top_classes = top_probabilities = None
    rank = -1
    if with_scores and status != UNREADABLE_IMAGE:
        # Half of the images have their class first.
        order = rng.permutation(len(CLASSES))
        if label >= 0 and rng.random() < 0.5:
            order = np.concatenate([[label], order[order != label]])
        top_classes = order[:5].astype(np.int64)
        top_probabilities = np.sort(rng.random(5))[::-1].copy()
        rank = int(np.flatnonzero(order == label)[0]) if label >= 0 else -1
    iou, boxes, truths = {}, {}, {}
    if status not in (NO_BOXES, BLACKLISTED):
        truth_b4 = random_boxes(rng, int(rng.integers(1, 4)))
        truths = {rules.name: truth_b4 for rules in protocols}
    if status == SCORED:
        for rules in protocols:
            for localizer in localizers:
                iou_l, boxes_l4 = _levels(rng, rules, truth_b4)
                iou[localizer, rules.name] = iou_l
                boxes[localizer, rules.name] = boxes_l4
    return ImageScores(
        index=index,
        image_id=f"image {index}",
        label=label,
        wnid=CLASSES[label] if label >= 0 else "",
        status=status,
        notes=(CONSTANT_MAP,) if rng.random() < 0.2 else (),
        top_classes=top_classes,
        top_probabilities=top_probabilities,
        true_rank=rank,
        image_wh=IMAGE_WH if iou else None,
        iou=iou,
        boxes=boxes,
        ground_truth=truths,
    )


def random_boxes(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    corners = rng.integers(0, 224, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float64)


def _levels(
    rng: np.random.Generator, rules: Rules, truth_b4: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    boxes_l4 = random_boxes(rng, rules.levels)
    near = rng.random(rules.levels) < 0.5
    boxes_l4[near] = truth_b4[0]
    boxes_l4[near, 2] += rng.integers(0, 40)
    none = rng.random(rules.levels) < 0.15
    kept = np.flatnonzero(~none)
    candidates = Candidates(boxes_n4=boxes_l4[kept], first_level_n=kept, last_level_n=kept)
    iou_l, _ = best_overlaps(candidates, truth_b4, levels=rules.levels)
    # Overlaps on the limits themselves tell an exclusive rule from an inclusive one.
    on_limit = ~none & (rng.random(rules.levels) < 0.3)
    iou_l[on_limit] = rng.choice([0.3, 0.5, 0.7], size=int(on_limit.sum()))
    boxes_l4[none] = NO_BOX
    return iou_l, boxes_l4


def assert_same(first: ImageScores, second: ImageScores) -> None:
    """Every field equal to the last bit and of the same type."""
    for name in ("index", "image_id", "label", "wnid", "status", "notes", "true_rank"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a, type(a)) == (b, type(b)), name
    _same_array(first.top_classes, second.top_classes)
    _same_array(first.top_probabilities, second.top_probabilities)
    for name in ("iou", "boxes", "ground_truth"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.keys() == b.keys(), name
        for key in a:
            _same_array(a[key], b[key])


def _same_array(first: npt.NDArray[np.generic] | None, second: npt.NDArray[np.generic] | None) -> None:
    if first is None or second is None:
        assert first is second
        return
    assert (first.dtype, first.shape) == (second.dtype, second.shape)
    assert first.tobytes() == second.tobytes()
