from typing import Any

import numpy as np
import pytest

from evaluation.image_scores import (
    MAP_NOT_USABLE,
    NO_BOXES,
    NO_MAP,
    SCORED,
    ImageScores,
    exceeds,
    is_failed,
    is_skipped,
    stack_levels,
)
from evaluation.protocols import PROTOCOLS
from tests.evaluation.scores_making import FIXED, SWEEP


def scored(**changes: Any) -> ImageScores:
    fields: dict[str, Any] = {
        "index": 3,
        "image_id": "val/x",
        "label": 1,
        "wnid": "n02",
        "status": SCORED,
        "top_classes": np.array([2, 1]),
        "top_probabilities": np.array([0.6, 0.4]),
        "true_rank": 1,
        "iou": {("cam", "fixed"): np.array([0.25])},
        "boxes": {("cam", "fixed"): np.array([[0.0, 1.0, 2.0, 3.0]])},
        "ground_truth": {"fixed": np.array([[0.0, 0.0, 9.0, 9.0]])},
    }
    return ImageScores(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "fine"}, "unknown status 'fine'"),
        ({"top_classes": None}, "found one of them"),
        ({"true_rank": -1}, "found rank -1"),
        ({"label": -1}, "found rank 1"),
        ({"top_classes": None, "top_probabilities": None}, "found rank 1"),
        ({"boxes": {}}, "and boxes of"),
        ({"status": NO_BOXES}, "status 'no boxes' with overlaps"),
        ({"iou": {("cam", "fixed"): np.zeros(2)}}, r"found \(2,\), \(1, 4\)"),
        ({"ground_truth": {}}, "ground truth under fixed"),
    ],
)
def test_fields_that_do_not_fit_name_the_image(changes: dict[str, Any], message: str) -> None:
    scored()
    with pytest.raises(ValueError, match=message) as caught:
        scored(**changes)
    assert str(caught.value).startswith("image 'val/x' (index 3): ")


def test_statuses_are_failures_or_reasons_to_skip_never_both() -> None:
    assert [is_failed(s) for s in (SCORED, NO_MAP, f"{MAP_NOT_USABLE}timeout", NO_BOXES)] == [False, True, True, False]
    assert [is_skipped(s) for s in (SCORED, NO_MAP, f"{MAP_NOT_USABLE}timeout", NO_BOXES)] == [False] * 3 + [True]


def test_the_limit_itself_counts_unless_the_rule_is_exclusive() -> None:
    iou = np.array([0.49, 0.5, 0.51])
    assert exceeds(iou, 0.5, exclusive=False).tolist() == [False, True, True]
    assert exceeds(iou, 0.5, exclusive=True).tolist() == [False, False, True]


def test_images_without_map_are_stacked_as_no_box_unless_a_baseline_gives_them_one() -> None:
    failed = scored(status=NO_MAP, iou={}, boxes={})
    baseline = scored(status=NO_MAP)
    iou_il, boxes_il4 = stack_levels([scored(), failed, baseline], localizer="cam", protocol=FIXED)
    assert iou_il.tolist() == [[0.25], [0.0], [0.25]]
    assert boxes_il4[:, 0].tolist() == [[0, 1, 2, 3], [-1, -1, -1, -1], [0, 1, 2, 3]]


def test_a_scored_image_without_the_localizer_or_of_other_levels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'val/x'.*expected 1 levels of localizer 'saliency'.*found nothing"):
        stack_levels([scored()], localizer="saliency", protocol=FIXED)
    ground_truth = {"sweep": np.zeros((1, 4))}
    iou, boxes = {("cam", "sweep"): np.zeros(2)}, {("cam", "sweep"): np.zeros((2, 4))}
    with pytest.raises(ValueError, match=r"expected 7 levels.*found 2 levels"):
        stack_levels([scored(iou=iou, boxes=boxes, ground_truth=ground_truth)], localizer="cam", protocol=SWEEP)


def test_every_protocol_follows_the_rules_that_counting_asks_for() -> None:
    for protocol in PROTOCOLS.values():
        levels = len(protocol.thresholds_l)
        assert levels == 1 or protocol.threshold_is_oracle
        iou_il, boxes_il4 = stack_levels([scored(status=NO_MAP, iou={}, boxes={})], localizer="cam", protocol=protocol)
        assert iou_il.shape == (1, levels) and boxes_il4.shape == (1, levels, 4)
