"""Content of a metrics.json with plausible numbers, for the tests of its readers."""

import copy
import math
from typing import Any

IMAGES = 200
LEVELS = 25
KINDS = ("correct", "wrong class", "multi-instance", "part", "more", "other", "no box")
SWEEPS = {"wsoleval-v1": "V2 over largest boxes", "wsoleval-v2": "MaxBoxAccV2"}


def rate(correct: int, images: int = IMAGES) -> dict[str, Any]:
    share = correct / images
    half = 1.96 * math.sqrt(share * (1 - share) / images)
    ends = [max(0.0, share - half), min(1.0, share + half)]
    return {
        "rate": share,
        "correct": correct,
        "images": images,
        "interval": ends,
        "interval_kind": "bootstrap 95 %",
    }


def result(
    localizer: str, protocol: str, *, correct: int, classified: bool = True, classes: int = 20
) -> dict[str, Any]:
    thresholds = [level / LEVELS for level in range(LEVELS)]
    peak = 0.3
    curve = [correct / IMAGES * math.exp(-8 * (threshold - peak) ** 2) for threshold in thresholds]
    wrong = IMAGES - correct
    errors = dict.fromkeys(KINDS, wrong // 6) | {"correct": correct}
    errors["no box"] += wrong - 6 * (wrong // 6)
    bins = [wrong // 10] * 10 + [correct // 10] * 10
    bins[0] += wrong % 10
    bins[-1] += correct % 10
    made: dict[str, Any] = {
        "localizer": localizer,
        "protocol": protocol,
        "describe": {"map": "squashed to 224 x 224", "threshold": f"as {protocol} cuts", "IoU": "inclusive, >= .5"},
        "threshold": 0.2,
        "threshold_is_oracle": False,
        "gt_known_loc": rate(correct),
        "top1_loc": rate(correct * 2 // 3) if classified else None,
        "top5_loc": rate(correct * 5 // 6) if classified else None,
        "max_box_acc": None,
        "max_box_acc_v2": None,
        "curve": None,
        "iou_histogram": {"edges": [edge / 20 for edge in range(21)], "counts": bins},
        "errors": errors,
        "per_class": [
            {
                "label": label,
                "wnid": f"n{label:08d}",
                "images": IMAGES // classes,
                "gt_known_loc": label / classes,
                "top1_loc": label / classes / 2 if classified else None,
                "top1_class": 0.5 if classified else None,
            }
            for label in range(classes)
        ],
    }
    if protocol in SWEEPS:
        high, low = min(IMAGES, correct + 40), correct // 2
        made |= {
            "threshold": peak,
            "threshold_is_oracle": True,
            "max_box_acc": {"0.3": rate(high), "0.5": rate(correct), "0.7": rate(low)},
            "max_box_acc_v2": {
                "name": SWEEPS[protocol],
                **rate(correct),
                "rate": (high + correct + low) / 3 / IMAGES,
                "correct": None,
            },
            "curve": {
                "thresholds": thresholds,
                "gt_known_0.3": [min(1.0, value * 1.2) for value in curve],
                "gt_known_0.5": curve,
                "gt_known_0.7": [value / 2 for value in curve],
            },
        }
    return made


def metrics(name: str = "gap", *, kind: str = "run", correct: int = 120, **changes: Any) -> dict[str, Any]:
    classified = kind == "run"
    protocols = ("cam", "wsoleval-v1")
    made: dict[str, Any] = {
        "schema": "wsol-metrics-1",
        "kind": kind,
        "name": name,
        "counts": {
            "asked": IMAGES + 5,
            "scored": IMAGES,
            "failed": {"no map": 2, "unreadable image": 1},
            "skipped": {"no boxes": 5},
            "notes": {"constant map": 4},
        },
        "classification": {"images": IMAGES, "top1": rate(130), "top5": rate(170)} if classified else None,
        "results": [
            result(localizer, protocol, correct=correct + extra, classified=classified)
            for localizer, extra in (("cam", 0), ("saliency", 10))
            for protocol in protocols
        ],
        "baselines": [result("centred-gaussian", protocol, correct=108, classified=False) for protocol in protocols],
        "pixels": None,
        "config": {"data": "ilsvrc10", "split": "val", "views": {"scales": [1.0, 1.25], "flip": False}},
        "versions": {"saliency-aware-wsol": "0.1.0", "torch": "2.15.0"},
    }
    return copy.deepcopy(made) | changes


def plain(name: str = "gap", **changes: Any) -> dict[str, Any]:
    """``metrics`` without what charts are drawn from: charts take most of a page's time."""
    made = metrics(name, **changes)
    for one in (*made["results"], *made["baselines"]):
        one |= {"curve": None, "iou_histogram": None, "errors": None}
    return made
