import gc
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.image_scores import NO_BOXES, NO_MAP, SCORED, ImageScores, is_failed, is_skipped, stack_levels
from evaluation.metrics.calibration import Calibration
from evaluation.metrics.errors import image_verdicts
from evaluation.metrics.intervals import percentile_interval, poisson_weights
from evaluation.metrics.registry import GT_KNOWN_IOU, IOU_THRESHOLDS
from evaluation.metrics.tally import HISTOGRAM_EDGES, Tally
from evaluation.names import ERROR_KINDS
from evaluation.schema import parse_metrics
from tests.counts import full
from tests.evaluation.scores_making import (
    ALL_RULES,
    CLASSES,
    FIXED,
    LOCALIZERS,
    SWEEP,
    Rules,
    random_images,
)

SAMPLES = 40


def tally_of(images: Sequence[ImageScores], *, batch: int = 1000, **options: Any) -> Tally:
    settings_ = {"class_wnids": CLASSES, "bootstrap_samples": SAMPLES, "seed": 9} | options
    tally = Tally(ALL_RULES, LOCALIZERS, **settings_)
    for start in range(0, len(images), batch):
        tally.add(images[start : start + batch])
    return tally


def content(tally: Tally) -> dict[str, Any]:
    """What metrics.json holds of a tally."""
    parts = (tally.counts(), tally.classification(), tally.results(), tally.results(baselines=True))
    made = json.loads(json.dumps(msgspec.to_builtins(parts), allow_nan=False))
    return dict(zip(("counts", "classification", "results", "baselines"), made, strict=True))


def make(index: int, iou_l: Sequence[float], *, rank: int = -1, label: int = 0, **fields: Any) -> ImageScores:
    """Image under SWEEP alone, by its overlaps at the seven levels."""
    classes = [1, 2, 3, 4, 5]
    if 0 <= rank < 5:
        classes[rank] = label
    scores = {"top_classes": np.array(classes), "top_probabilities": np.full(5, 0.2), "true_rank": rank}
    return ImageScores(
        **{
            "index": index,
            "image_id": f"{index}",
            "label": label,
            "wnid": CLASSES[label],
            "status": SCORED,
            "iou": {("cam", "sweep"): np.array(iou_l)},
            "boxes": {("cam", "sweep"): np.tile([0.0, 0.0, 9.0, 9.0], (len(iou_l), 1))},
            "ground_truth": {"sweep": np.array([[0.0, 0.0, 9.0, 9.0]])},
            **(scores if rank >= 0 else {}),
            **fields,
        }
    )


def sweep_result(images: Sequence[ImageScores]) -> dict[str, Any]:
    tally = Tally([SWEEP], ["cam"], class_wnids=CLASSES, bootstrap_samples=0)
    tally.add(images)
    result: dict[str, Any] = content(tally)["results"][0]
    return result


def test_one_threshold_serves_all_numbers_of_a_result() -> None:
    images = [
        make(0, [0.1, 0.6, 0.6, 0.2, 0.8, 0.0, 0.0], rank=0),
        make(1, [0.8, 0.5, 0.2, 0.2, 0.2, 0.0, 0.0], rank=3),
        make(2, [0.8, 0.7, 0.2, 0.2, 0.2, 0.0, 0.0], rank=6, label=6),
    ]
    result = sweep_result(images)
    # GT-known: 2, 3, 1, 0, 1, 0, 0 of 3 by level: level 1, though Top-1 alone would do as well at level 4.
    assert result["threshold"] == pytest.approx(0.15)
    assert [result[key]["correct"] for key in ("gt_known_loc", "top1_loc", "top5_loc")] == [3, 1, 2]
    assert {iou: rate["correct"] for iou, rate in result["max_box_acc"].items()} == {"0.3": 3, "0.5": 3, "0.7": 2}
    assert result["max_box_acc_v2"]["rate"] == pytest.approx(8 / 9)
    assert result["max_box_acc_v2"]["name"] == "V2 over largest boxes"
    assert result["curve"]["gt_known_0.7"] == pytest.approx([2 / 3, 1 / 3, 0, 0, 1 / 3, 0, 0])
    assert result["errors"]["correct"] == 1 and result["errors"]["wrong class"] == 2
    assert [(row["wnid"], row["images"], row["top1_loc"], row["top1_class"]) for row in result["per_class"]] == [
        ("n01", 2, 0.5, 0.5),
        ("n07", 1, 0.0, 0.0),
    ]


def test_equally_good_levels_give_the_lowest_threshold() -> None:
    assert sweep_result([make(0, [0.1, 0.6, 0.6, 0.9, 0.6, 0.0, 0.0])])["threshold"] == pytest.approx(0.15)


def test_calibrated_levels_replace_the_best_ones() -> None:
    images = [
        make(0, [0.1, 0.6, 0.6, 0.2, 0.8, 0.0, 0.0], rank=0),
        make(1, [0.8, 0.5, 0.2, 0.2, 0.2, 0.0, 0.0], rank=3),
        make(2, [0.8, 0.7, 0.2, 0.2, 0.4, 0.0, 0.0], rank=6, label=6),
    ]
    levels = {("cam", "sweep"): {"0.3": 2, "0.5": 4, "0.7": 0}}
    calibration = Calibration(name="theirs (val, 9 images)", levels=levels)
    tally = Tally([SWEEP], ["cam"], class_wnids=CLASSES, bootstrap_samples=SAMPLES, calibration=calibration)
    tally.add(images)
    (result,) = content(tally)["results"]
    assert (result["threshold"], result["threshold_is_oracle"]) == (pytest.approx(0.6), False)
    assert result["calibrated_on"] == "theirs (val, 9 images)" and "theirs" in result["describe"]["reported threshold"]
    assert [result[key]["correct"] for key in ("gt_known_loc", "top1_loc", "top5_loc")] == [1, 1, 1]
    assert {iou: rate["correct"] for iou, rate in result["max_box_acc"].items()} == {"0.3": 1, "0.5": 1, "0.7": 2}
    assert result["max_box_acc_v2"]["rate"] == pytest.approx(4 / 9)
    assert result["errors"]["correct"] == 1 and tally.reported_levels() == {("cam", "sweep"): 4}
    # The resamples keep the level, at which the first image alone is right.
    weights_is = poisson_weights([0, 1, 2], samples=SAMPLES, seed=0).astype(float)
    sums_s = weights_is.sum(axis=0)
    expected = percentile_interval(weights_is[0, sums_s > 0] / sums_s[sums_s > 0])
    assert result["gt_known_loc"]["interval"] == pytest.approx(expected)


def test_failures_are_wrong_and_skipped_images_outside() -> None:
    nothing: dict[str, Any] = {"iou": {}, "boxes": {}}
    images = [
        make(0, [0.9] * 7, rank=0),
        make(1, [], rank=0, status=NO_MAP, **nothing),
        make(2, [], rank=0, status=NO_BOXES, ground_truth={}, **nothing),
        make(3, [], rank=0, status="blacklisted", ground_truth={}, **nothing),
        make(4, [], status="unreadable image", **nothing),
    ]
    tally = Tally([SWEEP], ["cam"], class_wnids=CLASSES, bootstrap_samples=0)
    tally.add(images)
    metrics = content(tally)
    assert metrics["counts"] == {
        "asked": 5,
        "scored": 3,
        "failed": {"no map": 1, "unreadable image": 1},
        "skipped": {"blacklisted": 1, "no boxes": 1},
        "notes": {},
    }
    assert metrics["results"][0]["gt_known_loc"]["rate"] == pytest.approx(1 / 3)
    assert metrics["results"][0]["errors"]["no box"] == 2
    assert (metrics["classification"]["images"], metrics["classification"]["top1"]["correct"]) == (4, 3)


def test_without_a_scored_image_there_are_counts_but_no_results() -> None:
    tally = tally_of([])
    assert content(tally)["results"] == content(tally)["baselines"] == []
    assert content(tally)["counts"]["asked"] == 0
    assert content(tally)["classification"] is None


def oracle(
    images: Sequence[ImageScores], rules: Rules, localizer: str, weights: Sequence[int] | None
) -> dict[str, Any]:
    """All numbers by plain loops; ``weights`` None means every image once, else by index."""
    inside = [image for image in images if not is_skipped(image.status)]
    weight = {image.index: 1 if weights is None else weights[image.index] for image in images}

    def iou(image: ImageScores, level: int) -> float:
        row = image.iou.get((localizer, rules.name))
        return 0.0 if row is None else float(row[level])

    def right(value: float, wanted: float, *, exclusive: bool) -> bool:
        return value > wanted or (value == wanted and not exclusive)

    def gt_known(level: int, wanted: float) -> int:
        return sum(
            weight[image.index]
            for image in inside
            if right(iou(image, level), wanted, exclusive=rules.gt_known_exclusive)
        )

    def top(level: int, k: int) -> int:
        return sum(
            weight[image.index]
            for image in inside
            if 0 <= image.true_rank < k and right(iou(image, level), GT_KNOWN_IOU, exclusive=rules.top1_exclusive)
        )

    levels = range(rules.levels)
    best = max(levels, key=lambda level: gt_known(level, 0.5))
    total = sum(weight[image.index] for image in inside)
    labelled = sum(weight[image.index] for image in inside if image.label >= 0)
    counts, _ = np.histogram([iou(image, best) for image in inside], bins=HISTOGRAM_EDGES)
    return {
        "level": best,
        "gt_known_loc": gt_known(best, 0.5) / total,
        "top1_loc": top(best, 1) / labelled,
        "top5_loc": top(best, 5) / labelled,
        "max_box_acc": [max(gt_known(level, wanted) for level in levels) / total for wanted in IOU_THRESHOLDS],
        "curve": [[gt_known(level, wanted) / total for level in levels] for wanted in IOU_THRESHOLDS],
        "histogram": counts.tolist(),
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_number_and_interval_agrees_with_plain_loops(seed: int) -> None:
    images = random_images(150, seed=seed)
    tally = tally_of(images)
    metrics = content(tally)
    weights = poisson_weights(range(150), samples=SAMPLES, seed=9)
    for result, (localizer, rules) in zip(
        metrics["results"], [(loc, rules) for loc in LOCALIZERS for rules in ALL_RULES], strict=True
    ):
        assert (result["localizer"], result["protocol"]) == (localizer, rules.name)
        expected = oracle(images, rules, localizer, None)
        samples = [oracle(images, rules, localizer, weights[:, s].tolist()) for s in range(SAMPLES)]
        assert tally.reported_levels()[localizer, rules.name] == expected["level"]
        assert result["threshold"] == rules.thresholds_l[expected["level"]]
        for key in ("gt_known_loc", "top1_loc", "top5_loc"):
            assert result[key]["rate"] == expected[key]
            interval = np.percentile([sample[key] for sample in samples], [2.5, 97.5])
            assert result[key]["interval"] == pytest.approx(interval, abs=1e-12)
        assert result["iou_histogram"]["counts"] == expected["histogram"]
        if rules is FIXED:
            assert result["max_box_acc"] is result["max_box_acc_v2"] is result["curve"] is None
            continue
        assert [rate["rate"] for rate in result["max_box_acc"].values()] == expected["max_box_acc"]
        assert result["max_box_acc_v2"]["rate"] == pytest.approx(np.mean(expected["max_box_acc"]), abs=1e-15)
        interval = np.percentile([np.mean(sample["max_box_acc"]) for sample in samples], [2.5, 97.5])
        assert result["max_box_acc_v2"]["interval"] == pytest.approx(interval, abs=1e-12)
        assert [result["curve"][f"gt_known_{wanted}"] for wanted in IOU_THRESHOLDS] == expected["curve"]


def test_counts_classification_errors_and_classes_agree_with_plain_loops() -> None:
    images = random_images(400, seed=4)
    metrics = content(tally_of(images))
    inside = [image for image in images if not is_skipped(image.status)]
    counts = metrics["counts"]
    assert counts["asked"] == 400 and counts["scored"] == len(inside)
    assert counts["failed"] == Counter(image.status for image in images if is_failed(image.status))
    assert counts["skipped"] == Counter(image.status for image in images if is_skipped(image.status))
    assert counts["notes"] == {"constant map": sum(bool(image.notes) for image in images)}
    classified = [image for image in images if image.label >= 0 and image.status != "blacklisted"]
    assert metrics["classification"]["images"] == len(classified)
    for key, k in (("top1", 1), ("top5", 5)):
        correct = sum(0 <= image.true_rank < k for image in classified)
        assert metrics["classification"][key]["correct"] == correct
        assert metrics["classification"][key]["rate"] == correct / len(classified)
    result = metrics["results"][0]
    level = int(np.argmin(np.abs(SWEEP.thresholds_l - result["threshold"])))
    iou_il, boxes_il4 = stack_levels(inside, localizer="cam", protocol=SWEEP)
    verdicts = image_verdicts(inside, protocol=SWEEP, iou_il=iou_il, boxes_il4=boxes_il4)[:, level]
    assert result["errors"] == {word: int((verdicts == kind).sum()) for kind, word in enumerate(ERROR_KINDS)}
    assert sum(result["errors"].values()) == len(inside)
    for row in result["per_class"]:
        members = [number for number, image in enumerate(inside) if image.label == row["label"]]
        assert row["images"] == len(members)
        assert row["gt_known_loc"] == sum(iou_il[m, level] >= 0.5 for m in members) / len(members)
        assert row["top1_loc"] == sum(iou_il[m, level] >= 0.5 and inside[m].true_rank == 0 for m in members) / len(
            members
        )
        of_class = [image for image in classified if image.label == row["label"]]
        assert row["top1_class"] == sum(image.true_rank == 0 for image in of_class) / len(of_class)
    assert [row["label"] for row in result["per_class"]] == list(range(len(CLASSES)))


@settings(max_examples=full(6, 15), deadline=None)
@given(order=st.randoms(use_true_random=False), batch=st.integers(1, 200))
def test_order_and_batches_do_not_matter(order: random.Random, batch: int) -> None:
    images = random_images(150, seed=1)
    expected = content(tally_of(images))
    order.shuffle(images)
    assert content(tally_of(images, batch=batch)) == expected


def test_metrics_can_be_asked_for_in_between() -> None:
    images = random_images(80, seed=2)
    tally = tally_of(images[:30])
    assert content(tally) == content(tally_of(images[:30]))
    tally.add(images[30:])
    assert content(tally) == content(tally_of(images))


def test_without_class_scores_nothing_about_classes_is_claimed() -> None:
    metrics = content(tally_of(random_images(60, with_scores=False)))
    assert metrics["classification"] is None
    for result in metrics["results"]:
        assert result["top1_loc"] is result["top5_loc"] is None
        assert result["errors"]["wrong class"] == 0
        assert result["errors"]["correct"] == result["gt_known_loc"]["correct"]
        assert all(row["top1_loc"] is row["top1_class"] is None for row in result["per_class"])


def test_with_known_classes_correct_is_what_top1_loc_counts() -> None:
    images = [image for image in random_images(300, seed=6) if image.label >= 0]
    for result in content(tally_of(images))["results"]:
        assert result["errors"]["correct"] == result["top1_loc"]["correct"]


def test_exclusive_rules_leave_the_limit_itself_out() -> None:
    counted = {}
    for exclusive in (False, True):
        for top1_exclusive in (False, True):
            rules = Rules(name="fixed", gt_known_exclusive=exclusive, top1_exclusive=top1_exclusive)
            pair, boxes = ("cam", "fixed"), np.array([[0.0, 0.0, 9.0, 9.0]])
            image = make(0, [], rank=0, iou={pair: np.array([0.5])}, boxes={pair: boxes}, ground_truth={"fixed": boxes})
            tally = Tally([rules], ["cam"], class_wnids=CLASSES, bootstrap_samples=0)
            tally.add([image])
            result = content(tally)["results"][0]
            counted[exclusive, top1_exclusive] = (result["gt_known_loc"]["correct"], result["top1_loc"]["correct"])
    assert counted == {(False, False): (1, 1), (False, True): (1, 0), (True, False): (0, 1), (True, True): (0, 0)}


def test_baselines_stand_apart_and_the_file_follows_the_schema() -> None:
    images = random_images(50)
    metrics = content(tally_of(images, baselines=["saliency"]))
    assert {result["localizer"] for result in metrics["results"]} == {"cam"}
    assert {result["localizer"] for result in metrics["baselines"]} == {"saliency"}
    head = {"schema": "wsol-metrics-1", "kind": "run", "name": "x", "pixels": None, "config": {}, "versions": {}}
    parsed = parse_metrics(json.loads(json.dumps(head | metrics, allow_nan=False)))
    assert parsed.results[0].gt_known_loc.interval is not None
    assert "best for GT-known Loc" in parsed.results[0].describe["reported threshold"]
    assert parsed.results[1].describe["reported threshold"] == "fixed by the protocol"


@pytest.mark.parametrize(("overlap", "interval"), [(0.0, (0.0, 0.2775)), (1.0, (0.7225, 1.0))])
def test_rates_of_0_and_1_have_an_interval_that_resamples_cannot_give(
    overlap: float, interval: tuple[float, float]
) -> None:
    tally = Tally([SWEEP], ["cam"], class_wnids=CLASSES, bootstrap_samples=20)
    pair, levels = ("cam", SWEEP.name), len(SWEEP.thresholds_l)
    boxes_l4 = np.tile([0.0, 0.0, 9.0, 9.0], (levels, 1))
    truth = {SWEEP.name: boxes_l4[:1]}
    for number in range(10):
        iou = {pair: np.full(levels, overlap)}
        tally.add([make(number, [], rank=0, iou=iou, boxes={pair: boxes_l4}, ground_truth=truth)])
    result = content(tally)["results"][0]
    for rate in (result["gt_known_loc"], result["top1_loc"], result["max_box_acc"]["0.5"], result["max_box_acc_v2"]):
        assert rate["interval"] == pytest.approx(interval, abs=1e-4)
        assert rate["interval_kind"] == "Wilson 95 %"


def test_without_bootstrap_there_are_rates_but_no_intervals() -> None:
    metrics = content(tally_of(random_images(50), bootstrap_samples=0))
    rate = metrics["results"][0]["max_box_acc_v2"]
    assert rate["rate"] > 0 and rate["interval"] is rate["interval_kind"] is None
    assert metrics["classification"]["top1"]["interval"] is None


def test_memory_does_not_grow_with_images() -> None:
    tally = tally_of([])
    held = []
    batches = [random_images(256, seed=seed) for seed in range(4)]
    tracemalloc.start()
    for batch in batches:
        tally.add(batch)
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # Less than 4 bytes for each of the last 512 images.
    assert held[-1] - held[1] < 2048


def test_a_label_without_a_class_is_refused_by_image() -> None:
    with pytest.raises(ValueError, match=r"'0' \(index 0\): expected a label below 0"):
        Tally([SWEEP], ["cam"], class_wnids=()).add([make(0, [0.5] * 7)])
