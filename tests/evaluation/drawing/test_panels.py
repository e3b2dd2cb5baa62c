"""Example pictures: which images, whose boxes, what is left out, and the file that reports read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.drawing.overlays import GROUND_TRUTH_RGB, PREDICTED_RGB, overlay_heat
from evaluation.drawing.panels import (
    CaptionedPicture,
    Column,
    PanelRow,
    Panels,
    draw_panels,
    panel_indexes,
    read_panels,
)
from evaluation.drawing.picture_grid import GAP_PX, LINE_PX
from evaluation.image_scores import MAP_NOT_USABLE, NO_MAP, ImageScores, Pair
from evaluation.images import EvaluationImage, EvaluationSet
from evaluation.schema import write_json
from evaluation.scoring import ImageMaps, MapBatch, ScoringTask, score
from pipelines.datasets import open_dataset
from pipelines.jobs.evaluation_set import load_evaluation_set
from tests.integration.eval_command import bump, make_listed_data

BOX = (4.0, 3.0, 30.0, 15.0)
BASELINE = "centred-gaussian"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images; the third has no box, and the last is spoilt after it was listed."""
    boxes = {name: [] if name == "c" else [BOX] for name in "abcdef"}
    data = make_listed_data(tmp_path_factory.mktemp("panels") / "data", boxes)
    (data / "val" / "f.png").write_bytes(b"no image")
    return data


@pytest.fixture(scope="module")
def dataset(root: Path) -> EvaluationSet:
    return load_evaluation_set(open_dataset(root, split="val"))


def maps_of(image: EvaluationImage) -> ImageMaps:
    if image.record.image_id == "val/d.png":
        return ImageMaps(failure=NO_MAP)
    return ImageMaps(whole={"cam": bump(centre_xy=(0.4, 0.6))})


def draw(
    path: Path,
    dataset: EvaluationSet,
    *,
    shown: Sequence[int],
    protocol: str = "cam",
    levels: Mapping[Pair, int] | None = None,
    scored: Sequence[ImageScores] | None = None,
) -> np.ndarray | None:
    """The picture, (H, W, 3) BGR, or None when there is none."""
    task = ScoringTask(root=dataset.root, protocols=(protocol,), localizers=("cam",))
    scored = scored or score(MapBatch(dataset.images, [maps_of(image) for image in dataset.images]), task=task)
    draw_panels(
        path,
        [scored[index] for index in shown],
        dataset,
        maps_of=maps_of,
        localizers=("cam",),
        protocol=protocol,
        levels=levels or {(name, protocol): 0 for name in (BASELINE, "cam")},
    )
    return cv2.imread(str(path)) if path.exists() else None


# --- which images


def test_images_with_boxes_are_spread_evenly(dataset: EvaluationSet) -> None:
    assert panel_indexes(dataset.images, count=2) == [0, 5]
    assert panel_indexes(dataset.images, count=3) == [0, 3, 5]
    assert panel_indexes(dataset.images, count=1) == [0]
    assert panel_indexes(dataset.images, count=0) == []


def test_more_than_there_are_is_all_of_them_once(dataset: EvaluationSet) -> None:
    assert panel_indexes(dataset.images, count=50) == [0, 1, 3, 4, 5]
    assert panel_indexes(dataset.images[2:3], count=50) == [2], "none of them has a box"


def test_the_blacklist_is_not_shown(dataset: EvaluationSet) -> None:
    listed = [replace(image, blacklisted=image.index == 0) for image in dataset.images]
    assert panel_indexes(listed, count=2) == [1, 5]


# --- the picture


def test_a_row_an_image_and_a_column_a_localizer(dataset: EvaluationSet, tmp_path: Path) -> None:
    one = draw(tmp_path / "new folder" / "one.png", dataset, shown=[0])
    two = draw(tmp_path / "two.png", dataset, shown=[0, 1])
    assert one is not None and two is not None
    # Image, baseline and cam, each 224 wide, between headings and captions.
    assert one.shape[1] == two.shape[1] >= 3 * 224
    assert two.shape[0] - one.shape[0] >= 224
    np.testing.assert_array_equal(two[: one.shape[0]], one)


def test_what_cannot_be_shown_is_left_out(dataset: EvaluationSet, tmp_path: Path) -> None:
    # Without boxes, and spoilt.
    assert draw(tmp_path / "none.png", dataset, shown=[2, 5]) is None
    one = draw(tmp_path / "one.png", dataset, shown=[0])
    np.testing.assert_array_equal(draw(tmp_path / "three.png", dataset, shown=[0, 2, 5]), one)


def test_an_image_that_ended_a_process_before_is_left_out(
    dataset: EvaluationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ScoringTask(root=dataset.root, protocols=("cam",), localizers=("cam",))
    maps = ImageMaps(failure=f"{MAP_NOT_USABLE}timeout")
    scored = score(MapBatch(dataset.images[:1], [maps]), task=task)
    monkeypatch.setattr("evaluation.drawing.panels.decode_image", pytest.fail)
    assert draw(tmp_path / "none.png", dataset, shown=[0], scored=scored) is None


def test_without_ground_truth_maps_and_boxes_are_shown(dataset: EvaluationSet, tmp_path: Path) -> None:
    picture = draw(tmp_path / "one.png", dataset, shown=[2])
    panels = read_panels(tmp_path / "one.json")
    assert picture is not None and panels is not None
    assert [column.localizer for column in panels.columns] == ["cam"]
    assert panels.rows[0].predictions[0].caption == "predicted box"
    assert (picture == PREDICTED_RGB[::-1]).all(axis=2).any()
    assert not (picture == GROUND_TRUTH_RGB[::-1]).all(axis=2).any()
    assert draw(tmp_path / "sweep.png", dataset, shown=[2], protocol="wsoleval-v1") is None


def test_an_image_without_map_keeps_its_row(dataset: EvaluationSet, tmp_path: Path) -> None:
    failed = draw(tmp_path / "failed.png", dataset, shown=[3])
    fine = draw(tmp_path / "fine.png", dataset, shown=[0])
    assert failed is not None and fine is not None
    assert failed.shape == fine.shape


def test_the_reported_level_is_drawn(dataset: EvaluationSet, tmp_path: Path) -> None:
    pictures = [
        draw(
            tmp_path / f"{level}.png",
            dataset,
            shown=[0],
            protocol="wsoleval-v1",
            levels={(BASELINE, "wsoleval-v1"): 40, ("cam", "wsoleval-v1"): level},
        )
        for level in (40, 200)
    ]
    assert pictures[0] is not None and pictures[1] is not None
    changed_w = (pictures[0] != pictures[1]).any(axis=(0, 2))
    # Only the last of three columns differs.
    assert changed_w.any() and not changed_w[: pictures[0].shape[1] * 2 // 3].any()


def test_levels_without_box_are_shown_without_one(dataset: EvaluationSet, tmp_path: Path) -> None:
    task = ScoringTask(root=dataset.root, protocols=("cam",), localizers=("cam",))
    flat = [ImageMaps(whole={"cam": np.zeros((9, 9))})]
    scored = score(MapBatch(dataset.images[:1], flat), task=task)
    without = draw(tmp_path / "without.png", dataset, shown=[0], scored=scored)
    with_box = draw(tmp_path / "with.png", dataset, shown=[0])
    assert without is not None and with_box is not None and without.shape == with_box.shape
    assert (without != with_box).any()


def cell(picture: np.ndarray, *, column: int) -> np.ndarray:
    """A picture of the first row, (224, 224, 3) RGB."""
    left = GAP_PX + column * (224 + GAP_PX)
    return picture[LINE_PX : LINE_PX + 224, left : left + 224, ::-1]


def extent(picture: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return [columns.min(), rows.min(), columns.max(), rows.max()]


def test_boxes_stand_at_their_place_in_every_picture(dataset: EvaluationSet, tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png", dataset, shown=[0])
    assert picture is not None
    task = ScoringTask(root=dataset.root, protocols=("cam",), localizers=("cam",))
    (scores,) = score(MapBatch(dataset.images[:1], [maps_of(dataset.images[0])]), task=task)
    found = extent(cell(picture, column=0), GROUND_TRUTH_RGB)
    np.testing.assert_allclose(found, scores.ground_truth["cam"][0], atol=2.5)
    assert not (cell(picture, column=0) == PREDICTED_RGB).all(axis=2).any()
    for column, localizer in ((1, BASELINE), (2, "cam")):
        found = extent(cell(picture, column=column), PREDICTED_RGB)
        np.testing.assert_allclose(found, scores.boxes[localizer, "cam"][0], atol=2)
        # The predicted box may cover parts of the truth, not all of it.
        assert (cell(picture, column=column) == GROUND_TRUTH_RGB).all(axis=2).any()


def test_the_map_lies_over_the_image(dataset: EvaluationSet, tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png", dataset, shown=[0])
    assert picture is not None
    image, heat = cell(picture, column=0), cell(picture, column=2)
    y, x = 224 * 6 // 10, 224 * 4 // 10
    peak = overlay_heat(image[y : y + 1, x : x + 1], np.full((1, 1), 255, dtype=np.uint8))[0, 0]
    np.testing.assert_allclose(heat[y, x].astype(int), peak, atol=6)


# --- the file beside it


def panels(caption: str = "n01 a/\udcff") -> Panels:
    one = CaptionedPicture(caption=caption, jpeg=b"\xff\xd8\xff")
    columns = (Column(localizer=BASELINE, is_baseline=True), Column(localizer="cam*saliency", is_baseline=False))
    return Panels(protocol="cam", columns=columns, rows=(PanelRow(image=one, predictions=(one, one)),) * 2)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "examples.json", panels())
    assert read_panels(tmp_path / "examples.json") == panels()
    assert read_panels(tmp_path / "none.json") is None


def test_single_pictures_are_those_of_the_whole_one(dataset: EvaluationSet, tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png", dataset, shown=[0, 3])
    found = read_panels(tmp_path / "a.json")
    assert picture is not None and found is not None
    assert [(column.localizer, column.is_baseline) for column in found.columns] == [(BASELINE, True), ("cam", False)]
    assert [row.image.caption for row in found.rows] == ["n00000000 val/a.png", "n00000001 val/d.png"]
    texts = [one.caption for row in found.rows for one in row.predictions]
    assert [text[:6] for text in texts] == ["IoU 0.", "IoU 0.", "IoU 0.", "no map"]
    for column, one in enumerate((found.rows[0].image, *found.rows[0].predictions)):
        decoded = cv2.imdecode(np.frombuffer(one.jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(decoded.astype(int) - cell(picture, column=column)).mean() < 8


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        '{"schema": "wsol-panels-1", "protocol": "cam", "columns": [], "rows": []}',
        '{"schema": "wsol-panels-2", "protocol": "cam", "columns": []}',
        '{"schema": "wsol-panels-2", "protocol": "cam", "columns": [], "rows": '
        '[{"image": {"caption": "", "jpeg": ""}, "predictions": [{"caption": "", "jpeg": ""}]}]}',
        '{"schema": "wsol-panels-2", "protocol": "cam", "columns": [], "rows": '
        '[{"image": {"caption": "", "jpeg": "<>"}, "predictions": []}]}',
    ],
    ids=["text", "list", "schema", "no rows", "too many predictions", "no base64"],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "examples.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"examples\.json: expected the pictures .* evaluate again"):
        read_panels(path)
