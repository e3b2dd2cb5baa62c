"""Lists of boxes beside image folders: the same ids with and without them."""

from pathlib import Path

import pytest

from pipelines.datasets import DatasetError, load_boxes, open_dataset
from tests.pipelines.datasets.file_trees import make, write

BOX = [[1, 2, 3, 4]]


def boxes_of(root: Path, split: str = "val") -> dict[str, list[list[float]]]:
    return {image_id: box.boxes_xyxy.tolist() for image_id, box in load_boxes(open_dataset(root, split=split)).items()}


@pytest.mark.parametrize("name", ["localization.txt", "boxes.csv"])
@pytest.mark.parametrize("written", ["food/1.jpg", "val/food/1.jpg"])
def test_boxes_in_the_folder_of_the_split_leave_ids_alone(tmp_path: Path, name: str, written: str) -> None:
    make(tmp_path, "train/food/1.jpg", "val/food/1.jpg", "val/food/2.jpg")
    before = open_dataset(tmp_path, split="val")
    write(tmp_path, f"val/{name}", f"{written},1,2,3,4\n{written},5,6,7,8\n")
    assert open_dataset(tmp_path, split="val") == before
    assert boxes_of(tmp_path) == {"food/1.jpg": [*BOX, [5, 6, 7, 8]]}
    assert boxes_of(tmp_path, "train") == {}


def test_boxes_in_the_root_are_of_the_split_that_their_path_names(tmp_path: Path) -> None:
    make(tmp_path, "train/food/1.jpg", "val/food/1.jpg")
    write(tmp_path, "boxes.csv", "image,x0,y0,x1,y1\nval/food/1.jpg,1,2,3,4\ntrain/food/1.jpg,0,0,9,9\n")
    assert boxes_of(tmp_path) == {"food/1.jpg": BOX}
    assert boxes_of(tmp_path, "train") == {"food/1.jpg": [[0, 0, 9, 9]]}
    write(tmp_path, "boxes.csv", "food/1.jpg,1,2,3,4\n")
    with pytest.raises(DatasetError, match=r"boxes\.csv, line 1: .*'food/1\.jpg'"):
        boxes_of(tmp_path)


def test_boxes_beside_a_folder_without_splits_and_wnid_folders(tmp_path: Path) -> None:
    make(tmp_path, "plain/food/1,2.jpg", "wnids/val/n00000001/a.JPEG")
    write(tmp_path, "plain/localization.txt", "food/1,2.jpg,1,2,3,4\n")
    write(tmp_path, "wnids/val/localization.txt", "n00000001/a,1,2,3,4\n")
    assert boxes_of(tmp_path / "plain") == {"food/1,2.jpg": BOX}
    assert boxes_of(tmp_path / "wnids") == {"n00000001/a": BOX}


def test_sizes_beside_the_boxes_are_the_frame(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.jpg", "cat/2.jpg")
    write(tmp_path, "boxes.csv", "cat/1.jpg,1,2,300,4\ncat/2.jpg,1,2,300,4\n")
    write(tmp_path, "image_sizes.txt", "cat/1.jpg,20,10\n")
    found = load_boxes(open_dataset(tmp_path, split="val"))
    assert found["cat/1.jpg"].frame_wh == (20, 10)
    assert found["cat/1.jpg"].boxes_xyxy.tolist() == [[1, 2, 19, 4]]
    assert found["cat/2.jpg"].frame_wh is None


@pytest.mark.parametrize(
    "header",
    ["image,x0,y0,x1,y1", "id,xmin,ymin,xmax,ymax", 'name,"bbox_x1", "bbox_y1", X2, Y2', "path,left,top,right,bottom"],
)
def test_a_header_names_corners(tmp_path: Path, header: str) -> None:
    make(tmp_path, "cat/1.jpg")
    write(tmp_path, "boxes.csv", f"{header}\ncat/1.jpg,1,2,3,4\n")
    assert boxes_of(tmp_path) == {"cat/1.jpg": BOX}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"boxes.csv": "cat/3.jpg,1,2,3,4\n"}, r"boxes\.csv, line 1: .*'cat/3\.jpg'"),
        ({"boxes.csv": "name,x0,y0,x1,y1\ncat/1.jpg,1,2,3\n"}, "line 2: expected id,x0"),
        ({"boxes.csv": "image,x,y,width,height\ncat/1.jpg,1,2,3,4\n"}, "line 1: .* columns id,x0,y0,x1,y1, .*width"),
        ({"boxes.csv": "image,ymin,xmin,ymax,xmax\ncat/1.jpg,1,2,3,4\n"}, "line 1: .* columns id,x0,y0,x1,y1"),
        ({"localization.txt": "name,x0,y0,x1,y1\n"}, "line 1: expected id,x0"),
        ({"boxes.csv": "cat/1.jpg,1,2,3,4\n", "localization.txt": "cat/1.jpg,1,2,3,4\n"}, "one file of boxes"),
        ({"boxes.csv": "cat/1.jpg,1,2,3,4\n", "image_sizes.txt": "cat/4.jpg,5,5\n"}, r"image_sizes\.txt, line 1"),
    ],
)
def test_what_fits_no_image_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    make(tmp_path, "cat/1.jpg")
    for name, text in files.items():
        write(tmp_path, name, text)
    with pytest.raises(DatasetError, match=message):
        boxes_of(tmp_path)
