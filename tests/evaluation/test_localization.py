import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import localization
from evaluation.boxes import (
    WSOLEVAL_THRESHOLDS,
    box_iou_inclusive,
    boxes_at_thresholds,
    normalise_score_map,
    scale_boxes_truncated,
)
from evaluation.localization import (
    IOU_THRESHOLDS,
    BoxAccuracy,
    centred_gaussian_map,
    score_maps,
    wilson_interval,
)

WHOLE_FRAME = [[0, 0, 223, 223]]


def random_boxes(rng: np.random.Generator, count: int, side: int = 40) -> np.ndarray:
    corners = rng.integers(0, side, size=(2, count, 2))
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)


# --- counting


def test_counts_equal_a_loop_over_images_thresholds_and_overlaps() -> None:
    rng = np.random.default_rng(0)
    thresholds = np.linspace(0, 0.9, 7)
    accuracy = BoxAccuracy(thresholds=thresholds)
    correct = np.zeros((3, 7), dtype=int)
    for _ in range(60):
        boxes = random_boxes(rng, 7)[np.sort(rng.integers(0, 7, size=7))]  # with repetitions, as maps give
        truth = random_boxes(rng, int(rng.integers(1, 5)))
        accuracy.add(boxes, truth)
        for d, wanted in enumerate(IOU_THRESHOLDS):
            for t in range(7):
                correct[d, t] += any(box_iou_inclusive([boxes[t]], [box])[0, 0] >= wanted for box in truth)
    assert accuracy.images == 60 and correct[0].any()
    for d, wanted in enumerate(IOU_THRESHOLDS):
        np.testing.assert_array_equal(accuracy.accuracy_curve(iou=wanted), correct[d] / 60)
        best = accuracy.max_box_acc(iou=wanted)
        assert (best.correct, best.images, best.iou_threshold) == (correct[d].max(), 60, wanted)
        assert best.threshold == thresholds[correct[d].argmax()] and best.threshold_is_oracle


def test_same_boxes_for_many_images_count_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localization, "_IMAGES_AT_ONCE", 7)
    rng = np.random.default_rng(1)
    boxes = np.repeat(random_boxes(rng, 5), 3, axis=0)
    truths = [random_boxes(rng, int(rng.integers(1, 4))) for _ in range(30)]
    together, single = (BoxAccuracy(thresholds=np.arange(15) / 15) for _ in range(2))
    together.add_same_boxes(boxes, truths)
    for truth in truths:
        single.add(boxes, truth)
    for wanted in IOU_THRESHOLDS:
        np.testing.assert_array_equal(together.accuracy_curve(iou=wanted), single.accuracy_curve(iou=wanted))
    assert together.images == single.images == 30 and together.max_box_acc(iou=0.3).correct > 0


def test_an_overlap_of_exactly_the_wanted_value_counts_and_any_box_will_do() -> None:
    accuracy = BoxAccuracy(thresholds=[0.0])
    accuracy.add([[0, 0, 9, 9]], [[30, 30, 39, 39], [0, 0, 4, 9]])  # IoU 0 and 50 / 100
    assert [accuracy.max_box_acc(iou=iou).correct for iou in IOU_THRESHOLDS] == [1, 1, 0]


def test_failed_images_are_wrong_and_skipped_ones_are_out_of_the_denominator() -> None:
    accuracy = BoxAccuracy(thresholds=[0.0])
    accuracy.add(WHOLE_FRAME, WHOLE_FRAME)
    accuracy.add_failed()
    accuracy.add_skipped()
    score = accuracy.gt_known_loc()
    assert (score.rate, score.images, score.failed, score.skipped) == (0.5, 2, 1, 1)


def test_the_lowest_of_equally_good_thresholds_is_taken() -> None:
    accuracy = BoxAccuracy(thresholds=[0.1, 0.2, 0.3])
    accuracy.add([[50, 50, 60, 60], *WHOLE_FRAME, *WHOLE_FRAME], WHOLE_FRAME)
    assert accuracy.max_box_acc().threshold == 0.2


def test_gt_known_loc_at_a_chosen_threshold() -> None:
    accuracy = BoxAccuracy()
    boxes = np.zeros((1000, 4), dtype=int)
    boxes[200] = WHOLE_FRAME[0]
    accuracy.add(boxes, WHOLE_FRAME)
    chosen = accuracy.gt_known_loc(threshold=0.2)
    assert (chosen.correct, chosen.threshold_is_oracle) == (1, False)
    assert accuracy.gt_known_loc(threshold=0.201).correct == 0
    assert accuracy.gt_known_loc() == accuracy.max_box_acc(iou=0.5)
    with pytest.raises(ValueError, match=r"threshold 0\.2005 was not counted"):
        accuracy.gt_known_loc(threshold=0.2005)


def test_what_cannot_be_counted_is_refused_and_leaves_no_trace() -> None:
    accuracy = BoxAccuracy(thresholds=[0.0])
    with pytest.raises(ValueError, match=r"shape \(1, 4\), found \(2, 4\)"):
        accuracy.add(WHOLE_FRAME * 2, WHOLE_FRAME)
    with pytest.raises(ValueError, match=r"image 1 has no ground-truth box.*add_skipped"):
        accuracy.add_same_boxes(WHOLE_FRAME, [WHOLE_FRAME, np.zeros((0, 4))])
    with pytest.raises(ValueError, match="x0 <= x1"):
        accuracy.add(WHOLE_FRAME, [[3, 0, 2, 5]])
    with pytest.raises(ValueError, match=r"no image with ground truth was counted"):
        accuracy.max_box_acc()
    accuracy.add(WHOLE_FRAME, WHOLE_FRAME)
    assert (accuracy.max_box_acc().correct, accuracy.images) == (1, 1)
    with pytest.raises(ValueError, match=r"IoU 0\.9 was not counted"):
        accuracy.accuracy_curve(iou=0.9)
    for nothing in ({"thresholds": []}, {"iou_thresholds": []}):
        with pytest.raises(ValueError, match="at least one threshold"):
            BoxAccuracy(**nothing)


# --- maps


def test_maps_are_scored_by_their_boxes_at_every_threshold() -> None:
    rng = np.random.default_rng(2)
    samples = [(rng.random((7, 7)), random_boxes(rng, 2, side=224)) for _ in range(4)]
    accuracy = score_maps([*samples, (None, WHOLE_FRAME), (rng.random((7, 7)), [])])
    expected = BoxAccuracy()
    for map_hw, truth in samples:
        expected.add(boxes_at_thresholds(normalise_score_map(map_hw)), truth)
    expected.add_failed()
    assert (accuracy.images, accuracy.failed, accuracy.skipped) == (5, 1, 1)
    for wanted in IOU_THRESHOLDS:
        np.testing.assert_array_equal(accuracy.accuracy_curve(iou=wanted), expected.accuracy_curve(iou=wanted))


def test_a_constant_map_stays_in_the_denominator() -> None:
    samples = [(np.full((14, 14), 0.3), WHOLE_FRAME), (np.full((14, 14), np.nan), WHOLE_FRAME)]
    score = score_maps(samples).max_box_acc(iou=0.3)
    assert (score.correct, score.images, score.failed) == (0, 2, 0)


def test_other_frames_and_thresholds() -> None:
    square = np.zeros((20, 20))
    square[5:10, 2:8] = 1
    accuracy = score_maps([(square, [[2, 5, 8, 10]])], thresholds=[0.2, 1.0], frame_px=20)
    assert accuracy.accuracy_curve(iou=0.7).tolist() == [1.0, 0.0]


def test_a_map_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"sample 1 \(counted from 0\): expected a score map"):
        score_maps([(np.zeros((3, 3)), WHOLE_FRAME), (np.zeros(3), WHOLE_FRAME)])


def test_centred_gaussian_is_the_formula() -> None:
    found = centred_gaussian_map()
    x, y = 30, 190
    values = [math.exp(-((a - 111.5) ** 2 + (b - 111.5) ** 2) / (2 * 56**2)) for a, b in ((x, y), (0, 0))]
    peak = math.exp(-(0.5**2 + 0.5**2) / (2 * 56**2))
    assert found.shape == (224, 224) and found.dtype == np.float64
    assert found[y, x] == pytest.approx((values[0] - values[1]) / (peak - values[1]), abs=1e-12)
    assert found.min() == 0 and found.max() == 1 == found[111, 112]
    for size, sigma in ((1, 0.25), (224, 0.0)):
        with pytest.raises(ValueError, match="size >= 2 and sigma > 0"):
            centred_gaussian_map(size, sigma=sigma)


# --- interval


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=100, deadline=None)
def test_wilson_bounds_are_where_the_score_test_turns(counts: tuple[int, int]) -> None:
    correct, images = counts
    low, high = wilson_interval(correct, images)
    assert 0 <= low <= correct / images <= high <= 1
    for bound in (low, high):
        # By definition the bounds p solve (rate - p)^2 = z^2 p (1 - p) / n.
        score = (correct / images - bound) ** 2 - 1.959963984540054**2 * bound * (1 - bound) / images
        assert score == pytest.approx(0, abs=1e-12)


def test_wilson_refuses_impossible_counts() -> None:
    for correct, images, confidence in ((0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)):
        with pytest.raises(ValueError, match="0 <= correct <= images"):
            wilson_interval(correct, images, confidence=confidence)


# --- ILSVRC val, annotations only


def read_ground_truth(folder: Path) -> list[np.ndarray]:
    """Boxes of every image of a wsolevaluation metadata folder, in the frame of 224 pixels."""
    sizes = np.loadtxt(folder / "image_sizes.txt", dtype=str, delimiter=",")
    lines = np.loadtxt(folder / "localization.txt", dtype=str, delimiter=",")
    starts = np.flatnonzero(np.r_[True, lines[1:, 0] != lines[:-1, 0]])
    np.testing.assert_array_equal(lines[starts, 0], sizes[:, 0])  # grouped, and in the order of the sizes
    boxes = np.split(lines[:, 1:].astype(float), starts[1:])
    return [
        scale_boxes_truncated(box, from_wh=(w, h), to_wh=(224, 224))
        for box, (w, h) in zip(boxes, sizes[:, 1:].astype(float).tolist(), strict=True)
    ]


@pytest.mark.real_data
def test_baselines_on_ilsvrc_val_are_the_published_ones(real_data: Path) -> None:
    truths = read_ground_truth(real_data / "ilsvrc_val_meta")
    assert (len(truths), sum(map(len, truths))) == (50_000, 80_477)

    def percent(boxes: object, thresholds: object, ground_truths: list[np.ndarray]) -> list[float]:
        accuracy = BoxAccuracy(thresholds=thresholds)
        accuracy.add_same_boxes(boxes, ground_truths)
        return [round(100 * accuracy.max_box_acc(iou=iou).rate, 3) for iou in IOU_THRESHOLDS]

    boxes = boxes_at_thresholds(normalise_score_map(centred_gaussian_map()))
    figures = percent(boxes, WSOLEVAL_THRESHOLDS, truths)
    assert figures == [76.814, 54.062, 29.280] and round(sum(figures) / 3, 3) == 53.385
    assert percent(WHOLE_FRAME, [0.0], truths) == [63.06, 41.108, 22.594]
    first_only = percent(boxes, WSOLEVAL_THRESHOLDS, [truth[:1] for truth in truths])
    assert round(first_only[1], 2) == 52.50
