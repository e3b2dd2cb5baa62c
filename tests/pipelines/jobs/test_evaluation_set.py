from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluation.images import EvaluationSet
from pipelines.datasets import DatasetError, open_dataset
from pipelines.jobs.evaluation_set import load_evaluation_set, read_blacklist
from pseudo_maps.records import ImageRecord
from tests.integration.eval_command import make_listed_data

FIRST, SECOND = (1.0, 2.0, 30.0, 15.0), (0.0, 0.0, 5.0, 5.0)
BOXES = {"a": [FIRST, SECOND], "b": [], "c": [SECOND]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_listed_data(tmp_path / "data", BOXES)


def loaded(root: Path, **options: object) -> EvaluationSet:
    return load_evaluation_set(open_dataset(root, split="val"), **options)  # type: ignore[arg-type]


def blacklist(root: Path, text: str) -> Path:
    path = root / "blacklist.txt"
    path.write_text(text)
    return path


def test_images_come_in_the_list_s_order_with_boxes_and_frames(root: Path) -> None:
    images = loaded(root).images
    assert [image.record.image_id for image in images] == ["val/a.png", "val/b.png", "val/c.png"]
    assert [image.index for image in images] == [0, 1, 2]
    assert images[0].boxes_xyxy.tolist() == [list(FIRST), list(SECOND)]
    assert images[1].boxes_xyxy.shape == (0, 4)
    assert {image.boxes_xyxy.dtype for image in images} == {np.dtype(np.float64)}
    # An image without annotation has no frame either.
    assert [image.frame_wh for image in images] == [(40, 20), None, (40, 20)]
    assert not any(image.blacklisted for image in images)


def test_frames_that_the_annotation_does_not_state_are_unknown(tmp_path: Path) -> None:
    root = make_listed_data(tmp_path / "data", BOXES, sizes=False)
    assert [image.frame_wh for image in loaded(root).images] == [None] * 3


def test_only_the_boxes_and_images_that_are_asked_for(root: Path) -> None:
    images = loaded(root, boxes="first").images
    assert [image.boxes_xyxy.tolist() for image in images] == [[list(FIRST)], [], [list(SECOND)]]
    assert [image.record.image_id for image in loaded(root, limit=2).images] == ["val/a.png", "val/b.png"]
    assert len(loaded(root, limit=7).images) == 3
    with pytest.raises(ValueError, match="boxes 'largest', expected one of all, first"):
        loaded(root, boxes="largest")


@pytest.mark.parametrize(("of_b", "limit"), [([], None), ([FIRST], 1)])
def test_images_that_have_no_box_are_refused(tmp_path: Path, of_b: list[object], limit: int | None) -> None:
    root = make_listed_data(tmp_path / "data", {"a": [], "b": of_b})  # type: ignore[dict-item]
    with pytest.raises(DatasetError, match=rf"none of the {limit or 2} images of split 'val' \(layout wsoleval\)"):
        loaded(root, limit=limit)


# --- the digest of what is scored


def set_of(tmp_path: Path, **changes: object) -> EvaluationSet:
    return loaded(make_listed_data(tmp_path / str(len(list(tmp_path.iterdir()))), **{"boxes": BOXES, **changes}))


def test_the_configuration_names_split_counts_and_digest(root: Path) -> None:
    config = loaded(root).config()
    assert {name: config[name] for name in ("split", "images", "classes")} == {
        "split": "val",
        "images": 3,
        "classes": 2,
    }
    assert len(str(config["sha256"])) == 64


def test_the_place_of_the_data_is_not_in_the_configuration(tmp_path: Path) -> None:
    assert set_of(tmp_path).config() == set_of(tmp_path).config()


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": {**BOXES, "c": [(0.0, 0.0, 5.0, 6.0)]}},
        {"boxes": {**BOXES, "a": [SECOND, FIRST]}},
        {"boxes": {"a": BOXES["a"], "b": [], "d": [SECOND]}},
        {"boxes": {"a": BOXES["a"], "c": [SECOND], "b": []}, "labels": {"a": 0, "b": 1, "c": 0}},
        {"labels": {"a": 0, "b": 1, "c": 1}},
        {"size_wh": (41, 20)},
        {"sizes": False},
        {"classes": 3},
    ],
    ids=["box", "order of boxes", "name", "order of images", "label", "frame", "no frame", "classes"],
)
def test_whatever_changes_a_result_changes_the_configuration(tmp_path: Path, changes: dict[str, object]) -> None:
    assert set_of(tmp_path, **changes).config() != set_of(tmp_path).config()


@pytest.mark.parametrize(
    "change",
    [lambda root: {"boxes": "first"}, lambda root: {"blacklist": blacklist(root, "val/a.png")}],
    ids=["boxes", "list"],
)
def test_so_do_the_choices(root: Path, change: Callable[[Path], dict[str, object]]) -> None:
    assert loaded(root, **change(root)).config() != loaded(root).config()


# --- the blacklist


def ilsvrc(*numbers: int) -> list[ImageRecord]:
    names = [f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in numbers]
    return [ImageRecord(image_id=name, path=name) for name in names]


def test_a_blacklist_names_ids(root: Path) -> None:
    images = loaded(root, blacklist=blacklist(root, "\ufeffval/a.png\n\nval/c.png\n")).images
    assert [image.blacklisted for image in images] == [True, False, True]


def test_a_number_is_that_of_the_image_whatever_the_order_and_the_part_of_ilsvrc(tmp_path: Path) -> None:
    path = blacklist(tmp_path, "\ufeff36\r\n 3\n50000\n")
    assert read_blacklist(path, ilsvrc(36, 1, 3)) == {f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in (3, 36)}
    assert read_blacklist(path, [ImageRecord(image_id="ILSVRC2012_val_00000003", path="3")]) == {
        "ILSVRC2012_val_00000003"
    }
    assert read_blacklist(path, ilsvrc(4, 5)) == frozenset()


@pytest.mark.parametrize("line", ["0", "50001", "-1", "1.5", "٣", "ILSVRC2012_val_00000003"])
def test_a_number_that_no_image_of_ilsvrc_can_have_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(DatasetError, match=r"blacklist\.txt: line 2: .*1 to 50000"):
        read_blacklist(blacklist(tmp_path, f"1\n{line}\n"), ilsvrc(1, 2, 3))


def test_a_number_means_nothing_for_other_images(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"line 1: expected an image id, such as 'val/a\.png', found '3'"):
        loaded(root, blacklist=blacklist(root, "3\n"))


def test_an_id_that_looks_like_a_number_is_an_id(tmp_path: Path) -> None:
    records = [
        record
        for name in ("2", "1")
        for record in open_dataset(make_listed_data(tmp_path / name, {name: [FIRST]}), split="val").records
    ]
    numbered = [type(record)(image_id=record.image_id[4:-4], path=record.path) for record in records]
    assert [record.image_id for record in numbered] == ["2", "1"]
    assert read_blacklist(blacklist(tmp_path, "1\n"), numbered) == {"1"}
