"""wsolevaluation's metadata: ids, labels, boxes, and refusals."""

import pytest

from pipelines.datasets import DatasetError, load_boxes, load_masks, open_dataset
from tests.pipelines.datasets.file_trees import summary, write, wsoleval_metadata


@pytest.mark.parametrize("below", ["", "val", "metadata/ILSVRC/val"])
def test_wsoleval(tmp_path, below):
    wsoleval_metadata(tmp_path / below)
    write(tmp_path, "synsets.txt", "n7\nn3\n")
    dataset = open_dataset(tmp_path, split="val")
    assert dataset.layout == "wsoleval"
    assert summary(dataset) == [("val/b.JPEG", "val/b.JPEG", "n7", 0), ("val/a.JPEG", "val/a.JPEG", "n3", 1)]
    assert dataset.class_wnids == ("n7", "n3")
    boxes = load_boxes(dataset)
    assert list(boxes) == ["val/b.JPEG", "val/a.JPEG"]
    assert boxes["val/a.JPEG"].boxes_xyxy.tolist() == [[1, 2, 19, 4], [0, 0, 1.5, 1]]
    assert boxes["val/a.JPEG"].frame_wh == (20, 10)
    assert boxes["val/b.JPEG"].frame_wh is None


def test_wsoleval_without_wnids_and_with_the_projects_image_folder(tmp_path):
    wsoleval_metadata(tmp_path / "metadata/ILSVRC/val", labels="val/a.JPEG,2\n")
    (tmp_path / "dataset/ILSVRC").mkdir(parents=True)
    dataset = open_dataset(tmp_path, split="val")
    assert summary(dataset) == [
        ("val/b.JPEG", "dataset/ILSVRC/val/b.JPEG", "", -1),
        ("val/a.JPEG", "dataset/ILSVRC/val/a.JPEG", "2", 2),
    ]
    assert dataset.class_wnids == dataset.class_words == ("0", "1", "2")


def test_wsoleval_with_ids_alone(tmp_path):
    write(tmp_path, "image_ids.txt", "x, y.jpg\n")
    dataset = open_dataset(tmp_path, split="test")
    assert summary(dataset) == [("x, y.jpg", "x, y.jpg", "", -1)]
    assert (dataset.class_wnids, load_boxes(dataset)) == ((), {})


def test_wsoleval_ids_with_commas(tmp_path):
    write(tmp_path, "image_ids.txt", "x,y.jpg\n")
    write(tmp_path, "class_labels.txt", "x,y.jpg,0\n")
    write(tmp_path, "localization.txt", "x,y.jpg,1,2,3,4\n")
    dataset = open_dataset(tmp_path, split="val")
    assert dataset.records[0].label == 0
    assert load_boxes(dataset)["x,y.jpg"].boxes_xyxy.tolist() == [[1, 2, 3, 4]]


def test_wsoleval_refuses_the_list_of_another_split(tmp_path):
    wsoleval_metadata(tmp_path)
    with pytest.raises(DatasetError, match=r"expected images of split 'train', found 'val/b\.JPEG'"):
        open_dataset(tmp_path, split="train")
    assert len(open_dataset(tmp_path, split="test").records) == 2  # ILSVRC val, as the project calls it


def test_labels_and_classes_in_different_orders_are_refused(tmp_path):
    ids = [f"train/n0000000{number}/{number}.JPEG" for number in (1, 2)]
    write(tmp_path, "image_ids.txt", "".join(f"{image_id}\n" for image_id in ids))
    write(tmp_path, "class_labels.txt", f"{ids[0]},1\n{ids[1]},0\n")
    assert len(open_dataset(tmp_path, split="train", layout="wsoleval").records) == 2
    write(tmp_path, "synsets.txt", "n00000002\nn00000001\n")
    assert [one.wnid for one in open_dataset(tmp_path, split="train").records] == ["n00000001", "n00000002"]
    write(tmp_path, "synsets.txt", "n00000001\nn00000002\n")
    with pytest.raises(DatasetError, match=r"1\.JPEG' has the label 1, .* n00000002, but .* folder of n00000001"):
        open_dataset(tmp_path, split="train")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("image_ids.txt", "val/a.JPEG\n../b\n", "line 2: .*path part"),
        ("image_ids.txt", "val/a.JPEG\nval/a.JPEG\n", "line 2: .*already"),
        ("image_ids.txt", "", "found an empty file"),
        ("class_labels.txt", "val/a.JPEG,1\nval/b.JPEG\n", "line 2: expected id,label"),
        ("class_labels.txt", "val/a.JPEG,-1\n", "line 1: expected id,label"),
        ("class_labels.txt", "val/a.JPEG,5000000\n", "line 1: expected id,label"),
        ("class_labels.txt", "val/a.JPEG,1\nval/a.JPEG,1\n", "line 2: .*already"),
        ("synsets.txt", "n7\n", r"synsets\.txt: .*label up to 1 .*found 1 classes"),
        ("localization.txt", "val/a.JPEG,1,2,3,4\nval/a.JPEG,1,2,3\n", r"localization\.txt, line 2: expected id,x0"),
        ("localization.txt", "val/a.JPEG,1,2,3,inf\n", "line 1: expected id,x0"),
        ("image_sizes.txt", "val/a.JPEG,20\n", "line 1: expected id,width,height"),
        ("image_sizes.txt", "val/a.JPEG,20,1e1\n", "line 1: expected id,width,height"),
    ],
)
def test_wsoleval_refuses(tmp_path, name, text, message):
    wsoleval_metadata(tmp_path)
    write(tmp_path, name, text)
    with pytest.raises(DatasetError, match=message) as caught:
        load_boxes(open_dataset(tmp_path, split="val"))
    assert name in str(caught.value)


def test_wsoleval_without_the_split(tmp_path):
    wsoleval_metadata(tmp_path / "metadata/ILSVRC/val")
    with pytest.raises(DatasetError, match=r"image_ids\.txt for split 'train', found none; looked in"):
        open_dataset(tmp_path, split="train")


def mask_list(root, text):
    wsoleval_metadata(root)
    write(root, "localization.txt", text)
    return open_dataset(root, split="val")


def test_wsoleval_with_masks_in_place_of_boxes(tmp_path):
    dataset = mask_list(tmp_path, "val/a.JPEG,m/a1.png,m/a0.png\nval/b.JPEG,m/b.png,\nval/a.JPEG,m/a2.png,\n")
    assert load_boxes(dataset) == {}
    assert load_masks(dataset) == {
        "val/a.JPEG": (["m/a1.png", "m/a2.png"], "m/a0.png"),
        "val/b.JPEG": (["m/b.png"], ""),
    }


def test_wsoleval_with_boxes_lists_no_masks(tmp_path):
    wsoleval_metadata(tmp_path)
    assert load_masks(open_dataset(tmp_path, split="val")) == {}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("val/c.JPEG,m/c.png, val/a.JPEG,,m/i.png val/a.JPEG,m/a2.png,m/late.png val/a.JPEG", "id,mask,ignored"),
        ("val/b.JPEG,../b.png, val/b.JPEG,/b.png, val/b.JPEG,m/b.png,m/../../i.png", "masks inside the folder"),
    ],
)
def test_wsoleval_refuses_a_mask_list_that_does_not_fit(tmp_path, lines, expected):
    for line in lines.split():
        dataset = mask_list(tmp_path, f"val/a.JPEG,m/a.png,\n{line}\n")
        with pytest.raises(DatasetError, match=rf"localization\.txt, line 2: expected {expected}"):
            load_masks(dataset)
