"""Classes of image folders: what is one, and splits that disagree about them."""

import os
from pathlib import Path

import pytest

from pipelines.datasets import DatasetError, load_boxes, open_dataset
from tests.pipelines.datasets.file_trees import make, summary, write

JUNK = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")
OUTPUT = (
    "maps/val.manifest.json",
    "maps/logs/val-1.jsonl",
    "runs/gap/seed-0/checkpoint-00000003.pt",
    "runs/gap/seed-1/metrics.jsonl",
    "eval/gap/predictions.csv",
    "eval/gap/panels/examples.png",
    "seen/predictions.json",
    "seen/cat.png",
)


@pytest.mark.parametrize("below", ["", "train/"])
def test_junk_and_our_own_output_are_no_classes(tmp_path: Path, below: str) -> None:
    make(tmp_path, *(f"{below}{name}/1.jpg" for name in ("zebra", "cat")))
    expected = summary(open_dataset(tmp_path, split="train"))
    make(tmp_path, *(f"{below}{name}/thumbnail.jpg" for name in (*JUNK, "cat/@eaDir")))
    make(tmp_path, *(f"{below}{name}" for name in OUTPUT))
    dataset = open_dataset(tmp_path, split="train")
    assert summary(dataset) == expected and dataset.class_wnids == ("cat", "zebra")
    (note,) = dataset.notes
    assert "9 folders" in note and "no class" in note and "'#recycle'" in note


def test_output_inside_a_class_has_no_images_of_it(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "cat/seen/predictions.json", "cat/seen/1.png", "dog/1.jpg")
    assert [record.image_id for record in open_dataset(tmp_path, split="train").records] == ["cat/1.jpg", "dog/1.jpg"]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["train/caf\xe9/1.jpg", "val/cafe\u0301/2.jpg"], r"'cafe\\u0301' \(its 'caf\xe9' is written otherwise"),
        (["train/Cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg"], "'cat'.*'Cat' is written otherwise"),
        (["train/cat/1.jpg", "val/cat/2.jpg", "val/emu/2.jpg"], "1 class folder .*'emu'"),
        (["train/n00000001/1.jpg", "val/n00000001/2.jpg", "val/n00000002/2.jpg"], "'n00000002'"),
        (["train/n00000001/1.jpg", "val/images/2.jpg"], "'images'.*one folder per class"),
    ],
)
def test_a_class_of_val_that_train_does_not_have_is_refused(
    tmp_path: Path, files: list[str], named: str, split: str
) -> None:
    make(tmp_path, *files)
    with pytest.raises(DatasetError, match=rf"val: .*train, found .*{named}"):
        open_dataset(tmp_path, split=split)


def test_a_class_of_val_whose_training_folder_is_empty_is_refused_for_training(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/1.jpg", "train/emu/notes.txt", "val/emu/1.jpg")
    with pytest.raises(DatasetError, match=r"val: .*'emu'"):
        open_dataset(tmp_path, split="train")


def test_classes_without_an_image_keep_their_label_and_are_counted(tmp_path: Path) -> None:
    make(
        tmp_path, "train/ant/notes.txt", "train/bee/notes.txt", "train/cat/1.jpg", "val/cat/1.jpg", "val/emu/notes.txt"
    )
    train, val = (open_dataset(tmp_path, split=split) for split in ("train", "val"))
    assert train.class_wnids == val.class_wnids == ("ant", "bee", "cat")
    assert train.records[0].label == val.records[0].label == 2
    assert len(train.notes) == 1 and "2 folders" in train.notes[0] and "'ant', 'bee'" in train.notes[0]


def test_test_images_in_a_folder_that_is_no_class_have_none(tmp_path: Path) -> None:
    make(tmp_path, "train/zebra/1.jpg", "val/zebra/1.jpg", "test/images/1.jpg")
    assert summary(open_dataset(tmp_path, split="test")) == [("images/1.jpg", "test/images/1.jpg", "", -1)]
    assert open_dataset(tmp_path, split="val").records[0].label == 0
    make(tmp_path, "test/zebra/1.jpg")
    with pytest.raises(DatasetError, match=r"test: .*'images'"):
        open_dataset(tmp_path, split="test")


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "train/cat/1.jpg", "train/locked/1.jpg")
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DatasetError, match=r"train/locked: .*permissions"):
        open_dataset(tmp_path, split="train")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Tiny ImageNet as it is downloaded: classes of val in a list, words of many more classes, test images without."""
    make(tmp_path, *(f"train/{wnid}/images/{wnid}_0.JPEG" for wnid in ("n02", "n01")), "test/images/test_0.JPEG")
    make(tmp_path, "val/images/val_0.JPEG", "val/images/val_1.JPEG")
    write(tmp_path, "train/n01/n01_boxes.txt", "n01_0.JPEG\t0\t1\t62\t63\n")
    write(tmp_path, "val/val_annotations.txt", "val_1.JPEG\tn02\t0\t32\t44\t62\nval_0.JPEG\tn01\t1\t2\t3\t4\n")
    write(tmp_path, "words.txt", "n01\tgoldfish\nn02\tgoldfish, too\nn03\tother\n")
    return tmp_path


def test_tiny_imagenet_as_it_is_downloaded(tiny: Path) -> None:
    train, val, test = (open_dataset(tiny, split=split) for split in ("train", "val", "test"))
    assert {train.layout, val.layout, test.layout} == {"tinyimagenet"}
    assert train.class_wnids == val.class_wnids == test.class_wnids == ("n01", "n02")
    assert train.class_words == ("goldfish", "goldfish, too")
    assert [(record.image_id, record.wnid, record.label) for record in train.records] == [
        ("n01/n01_0", "n01", 0),
        ("n02/n02_0", "n02", 1),
    ]
    assert summary(val) == [
        ("val_1", "val/images/val_1.JPEG", "n02", 1),
        ("val_0", "val/images/val_0.JPEG", "n01", 0),
    ]
    assert summary(test) == [("test_0", "test/images/test_0.JPEG", "", -1)]
    boxes = {image_id: box.boxes_xyxy.tolist() for image_id, box in load_boxes(val).items()}
    assert boxes == {"val_1": [[0, 32, 44, 62]], "val_0": [[1, 2, 3, 4]]}
    assert [box.boxes_xyxy.tolist() for box in load_boxes(train).values()] == [[[0, 1, 62, 63]]]
    assert load_boxes(test) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG\tn09\t0\t0\t1\t1\n", r"val_annotations\.txt, line 1: .*'n09'"),
        ("val_0.JPEG n01 0 0 1 1\n", "line 1: .*tabs"),
        ("val_0.JPEG\tn01\t0\t0\t1\n", "line 1: .*four corners"),
        ("../x.JPEG\tn01\t0\t0\t1\t1\n" * 2, "line 2: .*already"),
    ],
)
def test_tiny_imagenet_refuses(tiny: Path, line: str, message: str) -> None:
    write(tiny, "val/val_annotations.txt", line)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tiny, split="val")
