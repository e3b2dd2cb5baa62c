"""Lists, CSV and XML files with ids that no image has."""

from pathlib import Path

import pytest

from pipelines.datasets import DatasetError, load_boxes, open_dataset
from tests.pipelines.datasets.file_trees import write, wsoleval_metadata

HEADER = "ImageId,PredictionString\n"
XML = "<annotation><object><name>n01</name><bndbox>{}</bndbox></object></annotation>".format(
    "".join(f"<{tag}>{value}</{tag}>" for tag, value in (("xmin", 1), ("ymin", 1), ("xmax", 3), ("ymax", 3)))
)


@pytest.mark.parametrize(
    ("name", "values"), [("class_labels.txt", "0"), ("localization.txt", "0,0,5,5"), ("image_sizes.txt", "20,10")]
)
@pytest.mark.parametrize("image_id", ["val/a.jpeg", "a.JPEG", "val/c.JPEG", "train/a.JPEG"])
def test_an_id_of_a_list_that_no_image_has_is_named_with_its_line(
    tmp_path: Path, name: str, values: str, image_id: str
) -> None:
    wsoleval_metadata(tmp_path)
    lines = (tmp_path / name).read_text() + f"{image_id},{values}\n"
    (tmp_path / name).write_text(lines)
    with pytest.raises(DatasetError, match=rf"{name}, line {lines.count(chr(10))}: .*found 1 .*'{image_id}'"):
        load_boxes(open_dataset(tmp_path, split="val"))


def clsloc(root: Path) -> Path:
    write(root, "LOC_synset_mapping.txt", "n01 tench\nn02 goldfish\n")
    write(root, "ImageSets/CLS-LOC/val.txt", "V_1 1\nV_2 2\n")
    return root


def test_rows_of_the_csv_for_other_images_are_refused_where_images_have_none(tmp_path: Path) -> None:
    write(clsloc(tmp_path), "LOC_val_solution.csv", HEADER + "V_1,n01 0 0 1 1\nv_2,n02 0 0 1 1\n")
    with pytest.raises(DatasetError, match=r"LOC_val_solution\.csv, line 3: .*'v_2'"):
        open_dataset(tmp_path, split="val")


def test_train_rows_of_other_images_alone_are_refused(tmp_path: Path) -> None:
    write(clsloc(tmp_path), "ImageSets/CLS-LOC/train_cls.txt", "n01/n01_1 1\nn01/n01_2 2\n")
    write(tmp_path, "LOC_train_solution.csv", HEADER + "n01_1,n01 0 0 1 1\nn01_9,n01 0 0 1 1\n")
    assert list(load_boxes(open_dataset(tmp_path, split="train"))) == ["n01/n01_1"]
    write(tmp_path, "LOC_train_solution.csv", HEADER + "n01_9,n01 0 0 1 1\n")
    with pytest.raises(DatasetError, match="'n01/n01_9'"):
        load_boxes(open_dataset(tmp_path, split="train"))


def test_xml_files_of_other_images_are_refused_where_images_have_none(tmp_path: Path) -> None:
    annotations = "Annotations/CLS-LOC/val"
    write(clsloc(tmp_path), f"{annotations}/V_1.xml", XML)
    assert list(load_boxes(open_dataset(tmp_path, split="val"))) == ["V_1"]
    write(tmp_path, f"{annotations}/V_3.xml", XML)
    with pytest.raises(DatasetError, match=r"CLS-LOC/val: .*'V_3'"):
        load_boxes(open_dataset(tmp_path, split="val"))
    # More annotations than images lead to no wrong number.
    write(tmp_path, f"{annotations}/V_2.xml", XML)
    assert list(load_boxes(open_dataset(tmp_path, split="val"))) == ["V_1", "V_2"]
