"""A checkout of the wsolevaluation project: what its names of splits and data sets mean."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets import DatasetError, load_boxes, load_masks, open_dataset
from tests.pipelines.datasets.file_trees import make, write


def checkout(root: Path, *names: str) -> Path:
    for name in names:
        write(root, f"metadata/{name}/val/image_ids.txt", "val2/0/1.jpeg\n")
        write(root, f"metadata/{name}/test/image_ids.txt", "val/ILSVRC2012_val_00000001.JPEG\n")
        make(root, f"dataset/{name}/val2/0/1.jpeg", f"dataset/{name}/val/ILSVRC2012_val_00000001.JPEG")
    return root


def test_val_is_said_not_to_be_ilsvrc_s_and_test_to_be_it(tmp_path: Path) -> None:
    val, test = (open_dataset(checkout(tmp_path, "ILSVRC"), split=split) for split in ("val", "test"))
    assert val.records[0].path == "dataset/ILSVRC/val2/0/1.jpeg"
    (note,) = val.notes
    assert "not ILSVRC's" in note and "test" in note and "val2/0/1.jpeg" in note
    (note,) = test.notes
    assert "ILSVRC's val" in note


def test_lists_outside_a_checkout_need_no_word(tmp_path: Path) -> None:
    write(tmp_path, "val/image_ids.txt", "val2/0/1.jpeg\n")
    assert open_dataset(tmp_path, split="val").notes == ()


@pytest.mark.parametrize("name", ["CUB", "OpenImages"])
def test_another_data_set_is_read_where_it_is_alone_and_noted_beside_ilsvrc(tmp_path: Path, name: str) -> None:
    alone = open_dataset(checkout(tmp_path / "alone", name), split="val")
    assert alone.layout == "wsoleval" and alone.records[0].path == f"dataset/{name}/val2/0/1.jpeg"
    assert alone.notes == ()
    both = open_dataset(checkout(tmp_path / "both", "ILSVRC", name), split="test")
    assert both.records[0].path.startswith("dataset/ILSVRC/") and any(name in note for note in both.notes)


def test_metadata_of_one_of_several_data_sets_is_read_with_its_images(tmp_path: Path, monkeypatch: Any) -> None:
    root = checkout(tmp_path, "ILSVRC", "CUB", "OpenImages")
    write(root, "metadata/CUB/val/localization.txt", "val2/0/1.jpeg,60,27,385,331\n")
    lines = ("1a.png,val2/0/1_ignore.png", "1b.png,", "1c.png,")
    write(root, "metadata/OpenImages/val/localization.txt", "".join(f"val2/0/1.jpeg,val2/0/{one}\n" for one in lines))
    cub, images = (open_dataset(root / "metadata" / name, split="val") for name in ("CUB", "OpenImages"))
    for dataset, name in ((cub, "CUB"), (images, "OpenImages")):
        assert (dataset.root, dataset.records[0].path) == (root, f"dataset/{name}/val2/0/1.jpeg")
        assert (dataset.layout, dataset.notes) == ("wsoleval", ())
    assert load_boxes(cub)["val2/0/1.jpeg"].boxes_xyxy.tolist() == [[60, 27, 385, 331]]
    assert load_boxes(images) == {} and load_masks(cub) == {}
    assert load_masks(images) == {
        "val2/0/1.jpeg": (["val2/0/1a.png", "val2/0/1b.png", "val2/0/1c.png"], "val2/0/1_ignore.png")
    }
    monkeypatch.chdir(root / "metadata")
    assert open_dataset("CUB", split="val").root == root
    (note,) = open_dataset(root / "metadata" / "ILSVRC", split="val").notes
    assert "not ILSVRC's" in note


@pytest.mark.parametrize("layout", ["auto", "wsoleval"])
def test_two_other_data_sets_are_refused_by_name(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DatasetError, match="CUB and OpenImages"):
        open_dataset(checkout(tmp_path, "CUB", "OpenImages"), split="val", layout=layout)


def test_a_checkout_is_never_taken_for_an_image_folder(tmp_path: Path) -> None:
    root = checkout(tmp_path, "ILSVRC", "CUB")
    with pytest.raises(DatasetError, match=rf"dataset: .*ILSVRC and CUB: expected {root}, "):
        open_dataset(root / "dataset", split="val")
    for name in ("ILSVRC", "CUB"):
        for split in ("val", "test"):
            (root / "metadata" / name / split / "image_ids.txt").unlink()
    with pytest.raises(DatasetError, match=r"ILSVRC and CUB.*metadata/ILSVRC/val/image_ids\.txt"):
        open_dataset(root, split="val")
