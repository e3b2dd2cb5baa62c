"""Real ILSVRC lists and annotations, read whole and checked against their published counts."""

import pytest

from pipelines.datasets import load_boxes, open_dataset
from pipelines.datasets.clsloc import read_solution_csv
from pseudo_maps.images import decode_image

pytestmark = pytest.mark.real_data


def test_ilsvrc10(real_data):
    root = real_data / "ilsvrc10"
    val, train = (open_dataset(root, split=split) for split in ("val", "train"))
    assert (val.layout, len(val.records), len(train.records)) == ("clsloc", 500, 4800)
    assert val.class_wnids == train.class_wnids
    assert len(val.class_wnids) == 10 and val.class_words[0] == "tench"
    assert sorted(record.label for record in train.records) == [label for label in range(10) for _ in range(480)]
    for dataset in (val, train):
        for record in dataset.records[::97]:
            image = decode_image(root / record.path)
            assert (image.file_width, image.file_height) == (224, 224)


def test_ilsvrc10_xml_equals_csv(real_data):
    val = open_dataset(real_data / "ilsvrc10", split="val")
    boxes = load_boxes(val)
    rows = read_solution_csv(real_data / "ilsvrc10" / "LOC_val_solution.csv", split="val")
    assert len(boxes) == 500
    for record in val.records:
        found = boxes[record.image_id]
        assert found.boxes_xyxy.tolist() == [list(corners) for corners in rows[record.image_id].corners]
        assert found.frame_wh == (224, 224)
        assert set(rows[record.image_id].names) == {record.wnid}


def test_all_of_ilsvrc_val(real_data):
    val = open_dataset(real_data / "ilsvrc_val_meta", split="val")
    assert (val.layout, len(val.records), len(val.class_wnids)) == ("wsoleval", 50_000, 1000)
    counts = [len(annotation.boxes_xyxy) for annotation in load_boxes(val).values()]
    assert (len(counts), sum(counts), sum(count > 1 for count in counts)) == (50_000, 80_477, 11_715)
