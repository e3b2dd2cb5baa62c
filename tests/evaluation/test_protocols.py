import pickle
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.boxes.fixed_thresholds import one_box
from evaluation.boxes.overlaps import Candidates
from evaluation.boxes.wsoleval import normalise_score_map
from evaluation.metrics.baselines import centred_square_box
from evaluation.protocols import FRAME_PX, PROTOCOLS, Protocol, get_protocol
from pipelines.datasets.wsoleval import load_wsoleval_boxes, open_wsoleval

NAMES = ["cam", "cam-release", "wsoleval-v1", "wsoleval-v2", "ts-cam", "psol-crop"]
SWEEPS = ["wsoleval-v1", "wsoleval-v2"]


@pytest.fixture(params=NAMES)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return get_protocol(request.param)


def boxes_at(candidates: Candidates, level: int) -> list:
    stands = (candidates.first_level_n <= level) & (level <= candidates.last_level_n)
    return candidates.boxes_n4[stands].tolist()


# --- the table


def test_the_six_protocols_in_order_with_cam_first() -> None:
    assert list(PROTOCOLS) == NAMES
    assert [protocol.name for protocol in PROTOCOLS.values()] == NAMES
    assert next(iter(PROTOCOLS)) == "cam" and get_protocol("cam") is PROTOCOLS["cam"]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"unknown protocol 'wsoleval': expected one of {', '.join(NAMES)}"):
        get_protocol("wsoleval")


def test_what_each_protocol_asks_for() -> None:
    def names(attribute: str) -> list[str]:
        return [protocol.name for protocol in PROTOCOLS.values() if getattr(protocol, attribute)]

    assert names("crops_centre") == ["psol-crop"]
    assert names("threshold_is_oracle") == SWEEPS
    assert names("gt_known_exclusive") == ["psol-crop"]
    assert names("top1_exclusive") == ["ts-cam", "psol-crop"]
    assert {name: protocol.fallback_box for name, protocol in PROTOCOLS.items() if protocol.fallback_box} == {
        "wsoleval-v1": (0, 0, 0, 0),
        "wsoleval-v2": (0, 0, 0, 0),
        "ts-cam": (0, 0, 1, 1),
    }


def test_thresholds() -> None:
    fixed = {name: PROTOCOLS[name].thresholds_l.tolist() for name in NAMES if name not in SWEEPS}
    assert fixed == {"cam": [0.2], "cam-release": [20 / 255], "ts-cam": [0.12], "psol-crop": [0.2]}
    for name in SWEEPS:
        lowest: dict[int, float] = {}
        for threshold in np.arange(0, 1, 0.001).tolist():
            lowest.setdefault(int(threshold * 255), threshold)
        assert PROTOCOLS[name].thresholds_l.tolist() == list(lowest.values())
        assert list(lowest) == list(range(255))


def test_descriptions_are_words_for_every_rule(protocol: Protocol) -> None:
    described = protocol.describe()
    assert list(described) == ["summary", "map", "threshold", "box", "ground_truth", "iou"]
    assert all(len(words) > 10 for words in described.values())
    assert ("above the wanted" in described["iou"]) == protocol.top1_exclusive
    assert described["ground_truth"].startswith("all boxes, scaled to ")
    assert "any ground-truth box; " in described["iou"]


def test_a_single_ground_truth_box_is_said_and_nothing_else_changes(protocol: Protocol) -> None:
    every, first = protocol.describe(), replace(protocol, first_box_only=True).describe()
    assert first["ground_truth"] == every["ground_truth"].replace("all boxes", "first box only")
    assert first["iou"] == every["iou"].replace("any ground-truth box", "the first ground-truth box")
    assert {key for key in every if first[key] != every[key]} == {"ground_truth", "iou"}


def test_protocols_travel_to_other_processes_and_stay_as_they_are(protocol: Protocol) -> None:
    copy = pickle.loads(pickle.dumps(protocol))
    map_hw = np.eye(7)
    assert copy.name == protocol.name
    assert copy.candidates(map_hw).boxes_n4.tolist() == protocol.candidates(map_hw).boxes_n4.tolist()
    with pytest.raises(ValueError, match="read-only"):
        protocol.thresholds_l[0] = 0
    for field in ("name", "thresholds_l"):
        with pytest.raises(AttributeError, match="cannot assign"):
            setattr(protocol, field, None)


# --- maps


def one_object() -> NDArray[np.float64]:
    scores = np.zeros((FRAME_PX, FRAME_PX))
    scores[40:80, 60:120] = 1
    return scores


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("cam", [60, 40, 119, 79]),
        ("psol-crop", [60, 40, 119, 79]),
        ("cam-release", [60, 40, 120, 80]),
        ("ts-cam", [60, 40, 120, 80]),
        ("wsoleval-v1", [60, 40, 120, 80]),
        ("wsoleval-v2", [60, 40, 120, 80]),
    ],
)
def test_box_of_one_object_under_each_protocol(name: str, box: list) -> None:
    candidates = get_protocol(name).candidates(one_object())
    assert {tuple(row) for row in candidates.boxes_n4.tolist()} == {tuple(box)}
    for level in range(len(get_protocol(name).thresholds_l)):
        assert boxes_at(candidates, level) == [box]


def test_largest_or_all_contours() -> None:
    scores = one_object()
    scores[150:160, 150:160] = 0.5
    v1, v2 = (get_protocol(name).candidates(scores) for name in SWEEPS)
    assert boxes_at(v1, 100) == [[60, 40, 120, 80]]
    assert sorted(boxes_at(v2, 100)) == [[60, 40, 120, 80], [150, 150, 160, 160]]
    assert boxes_at(v2, 128) == [[60, 40, 120, 80]]


BAD_MAPS = {
    "zeros": np.zeros((7, 7)),
    "negative constant": np.full((7, 7), -1.0),
    "nan": np.where(np.eye(9) > 0, np.nan, 1.0),
    "all nan": np.full((3, 3), np.nan),
    "inf": np.where(np.eye(9) > 0, np.inf, 1.0),
    "-inf": np.where(np.eye(9) > 0, -np.inf, 1.0),
}
FRAME, RELEASE_FRAME, NOTHING = (0, 0, 223, 223), (0, 0, 219, 219), None
ANSWERS = {
    "cam": dict.fromkeys(BAD_MAPS, NOTHING),
    "psol-crop": dict.fromkeys(BAD_MAPS, NOTHING),
    "cam-release": dict.fromkeys(BAD_MAPS, NOTHING) | {"negative constant": RELEASE_FRAME},
    "ts-cam": dict.fromkeys(BAD_MAPS, (0, 0, 1, 1)),
    "wsoleval-v1": dict.fromkeys(BAD_MAPS, (0, 0, 0, 0)),
    "wsoleval-v2": dict.fromkeys(BAD_MAPS, (0, 0, 0, 0)),
}


@pytest.mark.parametrize("kind", BAD_MAPS)
def test_maps_without_contrast_or_with_no_numbers_have_a_defined_answer(protocol: Protocol, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        candidates = protocol.candidates(BAD_MAPS[kind])
    expected = ANSWERS[protocol.name][kind]
    assert protocol.fallback_box in (None, expected)
    for level in range(len(protocol.thresholds_l)):
        assert boxes_at(candidates, level) == ([] if expected is NOTHING else [list(expected)])


@pytest.mark.parametrize("shape", [(1, 1), (7, 5)])
def test_constant_maps_above_zero(protocol: Protocol, shape: tuple[int, int]) -> None:
    frames = {"cam": FRAME, "psol-crop": FRAME, "cam-release": RELEASE_FRAME, "ts-cam": (0, 0, 1, 1)}
    expected = frames.get(protocol.name, (0, 0, 0, 0))
    assert boxes_at(protocol.candidates(np.full(shape, 0.3)), 0) == [list(expected)]


@pytest.mark.parametrize("power_of_two", [-990, 60])
@pytest.mark.parametrize("shape", [(7, 9), (224, 224)])
def test_the_scale_of_a_map_does_not_matter(protocol: Protocol, power_of_two: int, shape: tuple[int, int]) -> None:
    # ts-cam computes in float32, which has no smaller numbers.
    power_of_two = max(power_of_two, -100) if protocol.name == "ts-cam" else power_of_two
    scores = np.random.default_rng(4).normal(size=shape)
    one, other = protocol.candidates(scores), protocol.candidates(scores * 2.0**power_of_two)
    assert len(one.boxes_n4)
    for name in ("boxes_n4", "first_level_n", "last_level_n"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 7, 7)), np.zeros(49), np.zeros((0, 7)), np.zeros((7, 7), complex), np.array([["a"]])]
)
def test_maps_of_wrong_shape_or_kind_are_refused(protocol: Protocol, wrong: NDArray) -> None:
    with pytest.raises(ValueError, match=r"expected a score map \(H, W\)"):
        protocol.candidates(wrong)


# --- ground truth and overlap


def test_ground_truth_of_each_protocol() -> None:
    boxes = [[50, 100, 499, 333]]
    moved = {name: get_protocol(name).ground_truth(boxes, image_wh=(500, 334)).tolist() for name in NAMES}
    scaled = [[50 * 224 / 500, 100 * 224 / 334, 499 * 224 / 500, 333 * 224 / 334]]
    assert moved["cam"] == moved["cam-release"] == scaled
    assert moved["wsoleval-v1"] == moved["wsoleval-v2"] == moved["ts-cam"] == [[22, 67, 223, 223]]
    assert moved["psol-crop"] == [[pytest.approx(9.6), pytest.approx(60.6467, abs=1e-4), 223, 223]]


def test_overlap_is_inclusive_and_best_over_boxes_and_truths(protocol: Protocol) -> None:
    levels = len(protocol.thresholds_l)
    stands = np.array([0, 0]), np.array([levels - 1, levels - 1])
    boxes = np.array([[1, 2, 5, 6], [100, 100, 110, 110]], dtype=np.float64)
    pair = Candidates(boxes_n4=boxes, first_level_n=stands[0], last_level_n=stands[1])
    truths = [[[3, 1, 4, 5], [200, 200, 210, 210]], [[100, 100, 120, 110]]]
    for truth, box, expected in zip(truths, boxes, (8 / 27, 11 / 21), strict=True):
        iou_l, boxes_l4 = protocol.overlaps(pair, truth)
        assert iou_l.tolist() == [expected] * levels
        assert boxes_l4[-1].tolist() == box.tolist()


# --- the published baselines


@pytest.mark.real_data
def test_fixed_boxes_on_ilsvrc_val(real_data: Path) -> None:
    dataset = open_wsoleval(real_data / "ilsvrc_val_meta", split="val")
    annotations = load_wsoleval_boxes(dataset, wanted=[record.image_id for record in dataset.records])

    def right(name: str, sides: Sequence[int]) -> dict[int, int]:
        protocol = get_protocol(name)
        truths = []
        for record in dataset.records:
            annotation = annotations[record.image_id]
            truths.append(protocol.ground_truth(annotation.boxes_xyxy, image_wh=annotation.frame_wh))
        assert len(truths) == 50_000 and sum(len(boxes) for boxes in truths) == 80_477
        found = {}
        for side in sides:
            low, high = 112 - side / 2, 111 + side / 2
            box = one_box((low, low, high, high))
            iou_i = np.array([protocol.overlaps(box, truth)[0][0] for truth in truths])
            found[side] = int((iou_i > 0.5 if protocol.gt_known_exclusive else iou_i >= 0.5).sum())
        return found

    assert centred_square_box().tolist() == [112 - 84, 112 - 84, 111 + 84, 111 + 84]
    of_crop = right("psol-crop", (224, 168, 170, 172))
    assert of_crop[224] == 25_408  # 50.8 %
    assert max(of_crop, key=of_crop.get) == 170 and of_crop[170] == 28_638  # 57.28 %
    assert of_crop[168] == 28_600  # 57.20 %
    assert right("cam", (158, 159, 160, 168)) == {158: 25_418, 159: 26_962, 160: 26_951, 168: 26_787}  # 53.92, 53.57 %
    assert right("ts-cam", (158, 159, 160, 168)) == {158: 25_387, 159: 27_013, 160: 27_007, 168: 26_819}  # 53.64 %


# --- boxes in pixels of the image, without ground truth


def test_a_box_in_the_image_is_the_protocol_s_moved_to_it() -> None:
    map_hw = np.zeros((4, 4))
    map_hw[1:3, 0:2] = 1
    for name in ("cam", "cam-release", "ts-cam", "psol-crop"):
        protocol = get_protocol(name)
        (box_4,) = protocol.candidates(map_hw).boxes_n4
        found = protocol.box_in_image(map_hw, image_wh=(500, 375))
        # psol-crop shows the central 224 of 256 pixels.
        side, margin = (256, 16) if protocol.crops_centre else (224, 0)
        x0, y0, x1, y1 = box_4 + margin
        expected = [x0 * 500 / side, y0 * 375 / side, (x1 + 1) * 500 / side - 1, (y1 + 1) * 375 / side - 1]
        np.testing.assert_allclose(found, expected)
    assert get_protocol("cam").box_in_image(np.zeros((4, 4)), image_wh=(5, 5)) is None
    # A fallback that the evaluator scores is no box of an object.
    assert get_protocol("ts-cam").box_in_image(np.zeros((4, 4)), image_wh=(5, 5)) is None


def test_a_higher_threshold_gives_a_smaller_box() -> None:
    ramp_hw = np.tile(np.linspace(0, 1, 224), (224, 1))
    for name in ("cam", "ts-cam", "psol-crop", "wsoleval-v1"):
        protocol = get_protocol(name)
        lefts = []
        for threshold in (0.1, 0.5, 0.9):
            found = protocol.box_in_image(ramp_hw, image_wh=(224, 224), threshold=threshold)
            assert found is not None
            lefts.append(found[0])
        assert lefts == sorted(set(lefts)), name
        if not protocol.crops_centre:
            np.testing.assert_allclose(lefts, [22.4, 112, 201], atol=2)
    cam = get_protocol("cam")
    np.testing.assert_array_equal(
        cam.box_in_image(ramp_hw, image_wh=(500, 375)), cam.box_in_image(ramp_hw, image_wh=(500, 375), threshold=0.2)
    )
    assert cam.box_in_image(ramp_hw, image_wh=(5, 5), threshold=0.99999999) is None


@pytest.mark.parametrize(
    ("name", "threshold", "message"),
    [
        ("wsoleval-v1", None, "no threshold of its own"),
        ("wsoleval-v2", 0.5, "has its own rule"),
        ("cam-release", 0.5, "has its own rule"),
        ("cam", 1.0, "expected 0 <= t < 1"),
        ("cam", -0.1, "expected 0 <= t < 1"),
    ],
)
def test_thresholds_that_a_protocol_has_not_are_refused(name: str, threshold: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_protocol(name).box_in_image(np.eye(4), image_wh=(5, 5), threshold=threshold)


# --- what a picture shows


def test_grey_levels_are_scaled_as_the_protocol_cuts_the_map() -> None:
    map_hw = np.array([[-2.0, 0.0], [1.0, 2.0]])
    assert get_protocol("cam").grey_levels(map_hw).tolist() == [[0, 0], [127, 255]]
    assert get_protocol("psol-crop").grey_levels(map_hw).tolist() == [[0, 0], [127, 255]]
    assert get_protocol("wsoleval-v1").grey_levels(map_hw).tolist() == normalise_score_map(map_hw).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("name", ["cam", "wsoleval-v1"])
def test_a_map_without_a_positive_or_finite_peak_is_dark(name: str, bad: float) -> None:
    assert not get_protocol(name).grey_levels(np.full((4, 4), bad)).any()
