"""CUB-200-2011 as downloaded, made small."""

import pytest

from pipelines.datasets import DatasetError, load_boxes, open_dataset
from tests.pipelines.datasets.file_trees import summary, write

ALBATROSS, ANI = "001.Black_footed_Albatross", "002.Groove_billed_Ani"
LISTS = {
    "images.txt": f"1 {ALBATROSS}/A_1.jpg\n2 {ALBATROSS}/A_2.jpg\n3 {ANI}/B_1.jpg\n4 {ANI}/B_2.jpg\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n",
    "train_test_split.txt": "1 0\n2 1\n3 1\n4 0\n",
    "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n2 0.0 0.0 9.5 9.0\n3 1.0 2.0 3.0 4.0\n4 5.0 6.0 7.0 8.0\n",
    "classes.txt": f"1 {ALBATROSS}\n2 {ANI}\n",
}


@pytest.fixture
def cub(tmp_path):
    for name, text in LISTS.items():
        write(tmp_path, f"CUB_200_2011/{name}", text)
    return tmp_path


@pytest.mark.parametrize("below", ["", "CUB_200_2011"])
def test_lists_tell_splits_classes_and_boxes(cub, below):
    root = cub / below
    prefix = "images" if below else "CUB_200_2011/images"
    train, val, test = (open_dataset(root, split=split) for split in ("train", "val", "test"))
    assert (train.layout, train.class_wnids) == ("cub", (ALBATROSS, ANI))
    assert train.class_words == ("Black footed Albatross", "Groove billed Ani")
    assert summary(train) == [
        (f"{ALBATROSS}/A_2.jpg", f"{prefix}/{ALBATROSS}/A_2.jpg", ALBATROSS, 0),
        (f"{ANI}/B_1.jpg", f"{prefix}/{ANI}/B_1.jpg", ANI, 1),
    ]
    assert summary(val) == summary(test) and [row[0] for row in summary(test)] == [
        f"{ALBATROSS}/A_1.jpg",
        f"{ANI}/B_2.jpg",
    ]
    assert "val is its test images" in val.notes[0] and not test.notes and not train.notes
    boxes = {image_id: one.boxes_xyxy.tolist() for image_id, one in load_boxes(test).items()}
    # The first image's corners in the metadata of the wsolevaluation project.
    assert boxes == {f"{ALBATROSS}/A_1.jpg": [[60, 27, 385, 331]], f"{ANI}/B_2.jpg": [[5, 6, 12, 14]]}
    assert list(load_boxes(train, image_ids=[f"{ANI}/B_1.jpg"])) == [f"{ANI}/B_1.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "images.txt",
            f"1 {ALBATROSS}/A_1.jpg\n1 {ALBATROSS}/A_2.jpg\n",
            r"images\.txt, line 2: expected a new",
        ),
        ("images.txt", "1 ../a.jpg\n2 b/b.jpg\n3 c/c.jpg\n4 d/d.jpg\n", r"images\.txt, line 1: .* '\.\.'"),
        ("train_test_split.txt", "1 0\n2 1\n3 1\n", r"train_test_split\.txt: .* no line of image 4"),
        ("train_test_split.txt", "1 0\n2 1\n3 1\n4 2\n", r"train_test_split\.txt, line 4"),
        ("image_class_labels.txt", "1 1\n2 1\n3 2\n4 3\n", r"image_class_labels\.txt, line 4"),
        ("bounding_boxes.txt", "1 1 2 3 4\n2 1 2 3 4\n3 1 2 3 4\n4 1 2 3 nan\n", r"image 4: expected x, y, width"),
        ("bounding_boxes.txt", "1 1 2 3\n", r"bounding_boxes\.txt, line 1: expected a new number and 4 more"),
    ],
)
def test_lists_that_do_not_fit_are_named(cub, name, text, message):
    write(cub, f"CUB_200_2011/{name}", text)
    with pytest.raises(DatasetError, match=message):
        load_boxes(open_dataset(cub, split="test"))
