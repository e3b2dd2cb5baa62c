"""Stanford Dogs as downloaded, made small."""

import numpy as np
import pytest
from scipy.io import savemat

from pipelines.datasets import DatasetError, load_boxes, open_dataset
from tests.pipelines.datasets.file_trees import make, summary, write

DINGO, BASENJI = "n02115641-dingo", "n02110806-basenji_dog"
BOX = "<object><name>dingo</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>19</ymax></bndbox></object>"


def write_list(path, names):
    savemat(path, {"file_list": np.array([[name] for name in names], dtype=object), "labels": np.ones((len(names), 1))})


@pytest.fixture
def dogs(tmp_path):
    make(tmp_path, f"Images/{DINGO}/n02115641_1.jpg", f"Images/{BASENJI}/n02110806_7.jpg", "Annotation/x")
    size = "<size><width>40</width><height>20</height></size>"
    boxes = BOX.format(5) + BOX.format(0)
    write(tmp_path, f"Annotation/{DINGO}/n02115641_1", f"<annotation><filename>%s</filename>{size}{boxes}</annotation>")
    write_list(tmp_path / "train_list.mat", [f"{BASENJI}/n02110806_7.jpg"])
    write_list(tmp_path / "test_list.mat", [f"{DINGO}/n02115641_1.jpg"])
    return tmp_path


@pytest.mark.parametrize("below", ["", "lists"])
def test_lists_tell_splits_and_folders_classes(dogs, below):
    if below:
        (dogs / below).mkdir()
        for path in dogs.glob("*.mat"):
            path.rename(dogs / below / path.name)
    train, val, test = (open_dataset(dogs, split=split) for split in ("train", "val", "test"))
    assert (train.layout, train.class_wnids) == ("stanforddogs", ("n02110806", "n02115641"))
    assert train.class_words == ("basenji dog", "dingo")
    assert summary(train) == [(f"{BASENJI}/n02110806_7.jpg", f"Images/{BASENJI}/n02110806_7.jpg", "n02110806", 0)]
    assert (
        summary(test)
        == summary(val)
        == [(f"{DINGO}/n02115641_1.jpg", f"Images/{DINGO}/n02115641_1.jpg", "n02115641", 1)]
    )
    assert "val is its test images" in val.notes[0] and not test.notes
    (boxes,) = load_boxes(test).values()
    assert boxes.boxes_xyxy.tolist() == [[5, 2, 30, 19], [0, 2, 30, 19]]
    assert boxes.frame_wh == (40, 20)
    assert not load_boxes(train)


def test_lists_that_do_not_fit_are_named(dogs):
    write_list(dogs / "test_list.mat", ["n00000001-cat/a.jpg"])
    with pytest.raises(DatasetError, match=r"test_list\.mat, line 1: .*n00000001-cat"):
        open_dataset(dogs, split="test")
    write_list(dogs / "test_list.mat", ["../a.jpg"])
    with pytest.raises(DatasetError, match=r"test_list\.mat, line 1: .* '\.\.'"):
        open_dataset(dogs, split="test")
    (dogs / "test_list.mat").write_bytes(b"no matrix")
    with pytest.raises(DatasetError, match=r"test_list\.mat: expected MATLAB's file_list"):
        open_dataset(dogs, split="test")
