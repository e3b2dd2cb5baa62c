"""Maps of images to their scores: hand-made maps whose boxes and overlaps are known, and every status."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.boxes.overlaps import NO_BOX
from evaluation.image_scores import (
    BLACKLISTED,
    BOXES_CLIPPED,
    CONSTANT_MAP,
    MAP_NOT_USABLE,
    NO_BOXES,
    NO_MAP,
    NON_FINITE_MAP,
    OTHER_SHAPE,
    SCORED,
    UNREADABLE_IMAGE,
    ImageScores,
)
from evaluation.images import EvaluationImage
from evaluation.metrics.baselines import centred_gaussian_map
from evaluation.names import BASELINES
from evaluation.protocols import PROTOCOLS
from evaluation.scoring import ImageMaps, MapBatch, ScoringTask, centre_crop, score
from pipelines.datasets import open_dataset
from pipelines.jobs.evaluation_set import load_evaluation_set
from pseudo_maps.shards import STATUSES_OF_LOST_PROCESSES
from tests.evaluation.scores_making import assert_same
from tests.integration.eval_command import bump, make_listed_data

ALL = tuple(PROTOCOLS)
BOX = (112.0, 0.0, 223.0, 111.0)
"""The upper right quarter of the frame, for an image of its size."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of 224 x 224 with the box, and one without boxes."""
    return make_listed_data(
        tmp_path_factory.mktemp("scoring") / "data", {"a": [BOX], "b": []}, size_wh=(224, 224), sizes=True
    )


@pytest.fixture(scope="module")
def image(root: Path) -> EvaluationImage:
    return load_evaluation_set(open_dataset(root, split="val")).images[0]


def quarter_map(*, columns: slice = slice(112, 224)) -> np.ndarray:
    """(224, 224) float64: 1 in the upper rows of the columns, 0 elsewhere."""
    map_hw = np.zeros((224, 224))
    map_hw[:112, columns] = 1
    return map_hw


def score_one(image: EvaluationImage, maps: ImageMaps, *, root: Path, protocols: tuple[str, ...] = ALL) -> ImageScores:
    task = ScoringTask(root=root, protocols=protocols, localizers=("cam",))
    (scores,) = score(MapBatch([image], [maps]), task=task)
    return scores


# --- boxes and overlaps


def test_a_perfect_map_is_a_perfect_box(image: EvaluationImage, root: Path) -> None:
    scores = score_one(image, ImageMaps(whole={"cam": quarter_map()}), root=root, protocols=("cam", "wsoleval-v1"))
    assert (scores.status, scores.notes, scores.index, scores.image_id) == (SCORED, (), 0, "val/a.png")
    assert scores.boxes["cam", "cam"].tolist() == [list(BOX)]
    assert scores.ground_truth["cam"].tolist() == [list(BOX)]
    assert scores.iou["cam", "cam"].tolist() == [1.0]
    # One row is added below by the reference's arithmetic: 112 x 112 of 112 x 113.
    np.testing.assert_allclose(scores.iou["cam", "wsoleval-v1"], 112 / 113)


def test_all_protocols_have_their_levels_and_baselines(image: EvaluationImage, root: Path) -> None:
    scores = score_one(image, ImageMaps(whole={"cam": bump()}), root=root)
    assert set(scores.iou) == {(name, protocol) for name in ("cam", *BASELINES) for protocol in ALL}
    for (_, protocol), iou_l in scores.iou.items():
        assert len(iou_l) == len(PROTOCOLS[protocol].thresholds_l)
    assert set(scores.ground_truth) == set(ALL)


def test_the_whole_frame_overlaps_by_its_share(image: EvaluationImage, root: Path) -> None:
    scores = score_one(image, ImageMaps(whole={"cam": bump()}), root=root)
    for protocol in ("cam", "cam-release", "wsoleval-v1", "wsoleval-v2", "ts-cam"):
        np.testing.assert_array_equal(scores.iou["whole-frame", protocol], 0.25)
        assert (scores.boxes["whole-frame", protocol] == [0, 0, 223, 223]).all()


def test_the_centred_square_is_the_same_box_at_every_level_of_every_protocol(
    image: EvaluationImage, root: Path
) -> None:
    assert BASELINES == ("centred-gaussian", "centred-square", "whole-frame")
    scores = score_one(image, ImageMaps(whole={"cam": bump()}), root=root)
    for protocol in ALL:
        boxes_l4 = scores.boxes["centred-square", protocol]
        assert boxes_l4.tolist() == [[28, 28, 195, 195]] * len(PROTOCOLS[protocol].thresholds_l)
    # 84 x 84 pixels are shared by 112 x 112 and 168 x 168.
    shared = 84 * 84
    expected = shared / (112 * 112 + 168 * 168 - shared)
    for protocol in ("cam", "cam-release", "wsoleval-v1", "wsoleval-v2", "ts-cam"):
        np.testing.assert_allclose(scores.iou["centred-square", protocol], expected)


@pytest.mark.parametrize("protocol", ALL)
def test_the_centred_gaussian_is_scored_as_a_map_would_be(image: EvaluationImage, root: Path, protocol: str) -> None:
    gaussian = centred_gaussian_map()
    scores = score_one(
        image, ImageMaps(whole={"cam": gaussian}, centre={"cam": gaussian}), root=root, protocols=(protocol,)
    )
    np.testing.assert_array_equal(scores.iou["cam", protocol], scores.iou["centred-gaussian", protocol])
    np.testing.assert_array_equal(scores.boxes["cam", protocol], scores.boxes["centred-gaussian", protocol])


# --- the centre crop


def test_the_centre_of_a_map_of_256_is_cut_out_unchanged() -> None:
    map_hw = np.random.default_rng(0).random((256, 256))
    np.testing.assert_array_equal(centre_crop(map_hw), map_hw[16:240, 16:240])


@pytest.mark.parametrize("side", [8, 64, 128])
def test_the_crop_of_a_slope_lies_where_pixel_centres_say(side: int) -> None:
    map_hw = np.broadcast_to(np.arange(side, dtype=np.float32), (side, side))
    # Pixel x of the crop has its centre at (x + 16.5) / 256 of the image's width.
    expected_w = (np.arange(224) + 16.5) / 256 * side - 0.5
    np.testing.assert_allclose(centre_crop(map_hw), np.broadcast_to(expected_w.clip(0, side - 1), (224, 224)))


def test_a_map_of_the_crop_counts_instead_of_a_cut(image: EvaluationImage, root: Path) -> None:
    whole, centre = quarter_map(), quarter_map(columns=slice(0, 112))
    both = ImageMaps(whole={"cam": whole}, centre={"cam": centre})
    scores = score_one(image, both, root=root, protocols=("psol-crop", "cam"))
    assert scores.boxes["cam", "psol-crop"].tolist() == [[0, 0, 111, 111]]
    assert scores.boxes["cam", "cam"].tolist() == [list(BOX)]
    # 112 * 256 / 224 - 16 = 112 is where the quarter begins in the crop too; it ends at 127 - 16 below.
    alone = score_one(image, ImageMaps(whole={"cam": whole}), root=root, protocols=("psol-crop",))
    np.testing.assert_allclose(alone.boxes["cam", "psol-crop"], [[112, 0, 223, 111]], atol=1)


# --- where the size of the image comes from


def framed(image: EvaluationImage, frame_wh: tuple[int, int] | None) -> EvaluationImage:
    return replace(image, frame_wh=frame_wh)


@pytest.mark.parametrize(
    ("frame_wh", "file_wh", "expected"),
    [((448, 448), (224, 224), 55.5), (None, (448, 448), 55.5), (None, None, 111.0)],
    ids=["annotation", "decoded", "file"],
)
def test_boxes_refer_to_the_annotation_s_frame_else_to_the_file(
    image: EvaluationImage,
    root: Path,
    frame_wh: tuple[int, int] | None,
    file_wh: tuple[int, int] | None,
    expected: float,
) -> None:
    maps = ImageMaps(whole={"cam": bump()}, file_wh=file_wh)
    scores = score_one(framed(image, frame_wh), maps, root=root, protocols=("cam",))
    assert scores.ground_truth["cam"][0, 3] == expected


def test_without_any_size_an_image_is_wrong_for_all(image: EvaluationImage, tmp_path: Path) -> None:
    scores = score_one(framed(image, None), ImageMaps(whole={"cam": bump()}), root=tmp_path)
    assert (scores.status, scores.iou, scores.ground_truth) == (UNREADABLE_IMAGE, {}, {})


@pytest.mark.parametrize("status", sorted(STATUSES_OF_LOST_PROCESSES))
def test_an_image_that_ended_a_process_before_is_not_decoded_for_its_size(
    image: EvaluationImage, root: Path, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.scoring.decode_image", pytest.fail)
    scores = score_one(framed(image, None), ImageMaps(failure=f"{MAP_NOT_USABLE}{status}"), root=root)
    assert (scores.status, scores.iou) == (UNREADABLE_IMAGE, {})


# --- statuses


@pytest.mark.parametrize("failure", [NO_MAP, UNREADABLE_IMAGE, "map not usable: timeout"])
def test_a_failure_leaves_the_baselines(image: EvaluationImage, root: Path, failure: str) -> None:
    scores = score_one(image, ImageMaps(failure=failure), root=root)
    assert scores.status == failure
    assert set(scores.iou) == {(name, protocol) for name in BASELINES for protocol in ALL}


def test_skipped_images_have_no_overlaps_but_their_classes(image: EvaluationImage, root: Path) -> None:
    maps = ImageMaps(
        whole={"cam": quarter_map()},
        top_classes=np.array([1, 0]),
        top_probabilities=np.array([0.7, 0.3]),
        true_rank=1,
    )
    without = replace(image, boxes_xyxy=np.zeros((0, 4)))
    for changed, status in (
        (without, NO_BOXES),
        (replace(image, blacklisted=True), BLACKLISTED),
        (replace(without, blacklisted=True), BLACKLISTED),
    ):
        scores = score_one(changed, maps, root=root)
        assert (scores.status, scores.iou, bool(scores.boxes)) == (status, {}, status == NO_BOXES)
        assert scores.top_classes is not None and scores.top_classes.tolist() == [1, 0]
        assert scores.true_rank == 1


def test_without_ground_truth_there_are_boxes_where_no_ground_truth_chooses_them(
    image: EvaluationImage, root: Path
) -> None:
    without = framed(replace(image, boxes_xyxy=np.zeros((0, 4))), None)
    scores = score_one(without, ImageMaps(whole={"cam": quarter_map()}), root=root)
    assert set(scores.boxes) == {("cam", name) for name, one in PROTOCOLS.items() if not one.threshold_is_oracle}
    np.testing.assert_array_equal(scores.boxes["cam", "cam"], [BOX])
    assert scores.image_wh == (224, 224) and scores.notes == ()
    flat = score_one(without, ImageMaps(whole={"cam": np.zeros((7, 7))}), root=root)
    assert tuple(flat.boxes["cam", "cam"][0]) == NO_BOX and flat.notes == (CONSTANT_MAP,)
    failed = score_one(without, ImageMaps(failure=NO_MAP), root=root)
    assert (failed.status, failed.boxes, failed.notes) == (NO_BOXES, {}, (NO_MAP,))


# --- odd maps


@pytest.mark.parametrize(
    ("map_hw", "note"),
    [
        (np.zeros((7, 7)), CONSTANT_MAP),
        (np.full((7, 7), 0.3, dtype=np.float32), CONSTANT_MAP),
        (np.full((7, 7), -2.0), CONSTANT_MAP),
        (np.full((7, 7), 9, dtype=np.uint8), CONSTANT_MAP),
        (np.ones((1, 1)), CONSTANT_MAP),
        (np.where(np.eye(7) > 0, np.nan, 1), NON_FINITE_MAP),
        (np.where(np.eye(7) > 0, np.inf, 1), NON_FINITE_MAP),
        (np.full((7, 7), -np.inf), NON_FINITE_MAP),
    ],
    ids=["zeros", "constant", "negative", "uint8", "one pixel", "NaN", "infinity", "all infinite"],
)
def test_constant_and_infinite_maps_are_scored_with_a_note(
    image: EvaluationImage, root: Path, map_hw: np.ndarray, note: str
) -> None:
    scores = score_one(image, ImageMaps(whole={"cam": map_hw}), root=root)
    assert (scores.status, scores.notes) == (SCORED, (note,))
    for (name, _), iou_l in scores.iou.items():
        assert name != "cam" or ((iou_l >= 0) & (iou_l <= 0.26)).all(), "at best the whole frame"
    if note == NON_FINITE_MAP or not (map_hw > 0).any():
        assert scores.boxes["cam", "cam"].tolist() == [list(NO_BOX)]


def test_notes_tell_of_the_crop_s_map_too(image: EvaluationImage, root: Path) -> None:
    maps = ImageMaps(whole={"cam": bump()}, centre={"cam": np.zeros((3, 3))})
    assert score_one(image, maps, root=root).notes == (CONSTANT_MAP,)
    assert score_one(image, ImageMaps(whole={"cam": bump()}), root=root).notes == ()


BAD_MAPS: dict[str, tuple[np.ndarray[Any, Any], str]] = {
    "empty": (np.zeros((0, 5)), r"float64 of shape \(0, 5\)"),
    "one dimension": (np.zeros(5), r"float64 of shape \(5,\)"),
    "three dimensions": (np.zeros((4, 4, 3)), r"float64 of shape \(4, 4, 3\)"),
    "scalar": (np.array(3.0), r"float64 of shape \(\)"),
    "complex": (np.ones((4, 4)) * 1j, r"complex128 of shape \(4, 4\)"),
    "text": (np.array([["1", "2"], ["3", "4"]]), r"<U1 of shape \(2, 2\)"),
    "dates": (np.zeros((4, 4), dtype="datetime64[s]"), r"datetime64\[s\] of shape \(4, 4\)"),
    "structured": (np.zeros((4, 4), dtype=[("score", "f4")]), r"shape \(4, 4\)"),
}


@pytest.mark.parametrize("protocol", ["cam", "wsoleval-v2", "psol-crop"])
@pytest.mark.parametrize("kind", BAD_MAPS)
def test_a_map_that_is_none_is_an_error_that_names_the_image(
    image: EvaluationImage, root: Path, kind: str, protocol: str
) -> None:
    map_hw, found = BAD_MAPS[kind]
    with pytest.raises(ValueError, match=rf"^image 'val/a\.png': cam map: expected a score map .*{found}"):
        score_one(image, ImageMaps(whole={"cam": map_hw}), root=root, protocols=(protocol,))


# --- batches


def test_a_batch_is_its_images_one_by_one(root: Path) -> None:
    images = load_evaluation_set(open_dataset(root, split="val")).images
    maps = [ImageMaps(whole={"cam": bump(centre_xy=(0.3, 0.6))}), ImageMaps(failure=NO_MAP)]
    task = ScoringTask(root=root, protocols=ALL, localizers=("cam",))
    together = score(MapBatch(images, maps), task=task)
    assert [scores.status for scores in together] == [SCORED, NO_BOXES]
    for scores, image, of_image in zip(together, images, maps, strict=True):
        assert_same(scores, score_one(image, of_image, root=root))


def test_images_and_maps_must_match(image: EvaluationImage, root: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        score(MapBatch([image], []), task=ScoringTask(root=root, protocols=ALL, localizers=()))


# --- boxes that do not fit the file


def test_boxes_without_a_frame_are_clipped_to_the_file_as_those_with_one_are(
    image: EvaluationImage, root: Path
) -> None:
    boxes_n4 = np.array([[112.0, 0, 300, 111], [224, 0, 300, 50]])
    maps = ImageMaps(whole={"cam": quarter_map()}, file_wh=(224, 224))
    scores = score_one(replace(image, frame_wh=None, boxes_xyxy=boxes_n4), maps, root=root, protocols=("cam",))
    assert scores.ground_truth["cam"].tolist() == [list(BOX)]
    assert scores.notes == (BOXES_CLIPPED,)
    outside = replace(image, frame_wh=None, boxes_xyxy=boxes_n4[1:])
    assert score_one(outside, maps, root=root, protocols=("cam",)).status == NO_BOXES


def test_a_file_of_another_shape_than_the_frame_is_noted(image: EvaluationImage, root: Path) -> None:
    whole = {"cam": quarter_map()}
    notes = [
        score_one(image, ImageMaps(whole=whole, file_wh=size), root=root, protocols=("cam",)).notes
        for size in ((224, 224), (448, 449), (320, 240))
    ]
    assert notes == [(), (), (OTHER_SHAPE,)]
