"""Ground-truth boxes: every oddity of the ILSVRC annotations, and the scaling of inclusive boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.datasets import DatasetError, load_boxes, open_dataset, scale_boxes
from pipelines.datasets.annotation_xml import MAX_XML_BYTES, read_annotation_xml
from pipelines.datasets.boxes import tidy_boxes

SIZE = "<size><width>100</width><height>50</height><depth>3</depth></size>"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def xml(*boxes, size=SIZE, name="n1", filename="a"):
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(CORNERS, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    return f"<annotation><filename>{filename}</filename>{size}{objects}</annotation>"


def clsloc_val(root, text, *, mapping="n1 tench, Tinca tinca\nn2 crane\nn3 crane\n", csv="a,n1 0 0 1 1\n"):
    """A tree with the one val image ``a`` and its annotation."""
    for folder in ("ImageSets/CLS-LOC", "Annotations/CLS-LOC/val"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/CLS-LOC/val.txt").write_text("a 1\n")
    (root / "LOC_synset_mapping.txt").write_text(mapping)
    if csv:
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + csv)
    (root / "Annotations/CLS-LOC/val/a.xml").write_text(text)
    return open_dataset(root, split="val")


def annotation_of(tmp_path, text):
    return load_boxes(clsloc_val(tmp_path, text))["a"]


@pytest.mark.parametrize(
    ("written", "boxes"),
    [
        ([(1, 2, 30, 40)], [[1, 2, 30, 40]]),
        ([(-3, -1, 100, 77)], [[0, 0, 99, 49]]),
        ([(30, 2, 1, 40)], [[1, 2, 30, 40]]),
        ([(1.5, 2.25, " 30.0 ", "4e1")], [[1.5, 2.25, 30, 40]]),
        ([(100, 0, 120, 10), (5, 5, 5, 5), (-9, 3, -1, 4), (0, 50, 9, 60)], [[5, 5, 5, 5]]),
        ([(200, 0, 220, 10)], []),
        ([], []),
    ],
    ids=["plain", "clipped", "swapped", "floats", "some outside", "all outside", "no objects"],
)
def test_boxes_of_an_annotation(tmp_path, written, boxes):
    found = annotation_of(tmp_path, xml(*written, filename="%s"))
    assert found.boxes_xyxy.tolist() == boxes
    assert (found.boxes_xyxy.dtype, found.boxes_xyxy.shape) == (np.float64, (len(boxes), 4))
    assert found.frame_wh == (100, 50)
    assert not found.boxes_xyxy.flags.writeable


@pytest.mark.parametrize(
    "size",
    [
        "",
        "<size></size>",
        "<size><width>0</width><height>0</height></size>",
        "<size><width>100</width><height>0</height></size>",
        "<size><width></width><height>50</height></size>",
        "<size><height>50</height></size>",
    ],
)
def test_unknown_frame(tmp_path, size):
    found = annotation_of(tmp_path, xml((-1, 2, 5000, 40), size=size))
    assert found.frame_wh is None
    assert found.boxes_xyxy.tolist() == [[0, 2, 5000, 40]]


@pytest.mark.parametrize(
    ("name", "wnid", "label"),
    [
        ("n1", "n1", 0),
        ("N1", "n1", 0),
        ("tench, Tinca tinca", "n1", 0),
        ("Tinca Tinca", "n1", 0),
        ("crane", "", -1),
        ("no such thing", "", -1),
        ("", "", -1),
    ],
)
def test_class_of_a_val_image_from_its_xml(tmp_path, name, wnid, label):
    dataset = clsloc_val(tmp_path, xml((1, 2, 3, 4), name=name), csv="")
    assert (dataset.records[0].wnid, dataset.records[0].label) == (wnid, label)
    assert load_boxes(dataset)["a"].boxes_xyxy.tolist() == [[1, 2, 3, 4]]


def test_words_in_the_xml_leave_the_class_of_the_record(tmp_path):
    dataset = clsloc_val(tmp_path, xml((1, 2, 3, 4), name="crane"), csv="a,n2 0 0 1 1\n")
    assert (dataset.records[0].wnid, len(load_boxes(dataset)["a"].boxes_xyxy)) == ("n2", 1)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]>'
    "<annotation><filename>&y;</filename></annotation>"
)
EXTERNAL = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    "<annotation><filename>&x;</filename></annotation>"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "without entities"),
        (EXTERNAL, "without entities"),
        ("<annotation>\n<object>\n</annotation>", "line 3: expected well-formed"),
        ("", "line 1: expected well-formed"),
        ("<html/>", "root element <annotation>, found <html>"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "line 1: expected"),
        (xml((1, 2, "x", 4)), "object 1: expected a number in <xmax>, found 'x'"),
        (xml((1, 2, 3, 4), (1, 2, 3, "nan")), "object 2: expected a number in <ymax>"),
        ("<annotation><object><name>n1</name></object></annotation>", "object 1: expected <bndbox> with <xmin>"),
        (xml(size="<size><width>-5</width><height>5</height></size>"), "whole number of pixels in <width>"),
        (xml(size="<size><width>5</width><height>big</height></size>"), "in <height>, found 'big'"),
    ],
)
def test_xml_refuses(tmp_path, text, message):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        read_annotation_xml(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<annotation>\n<filename>\xff\xfe</filename></annotation>", "line 2: expected well-formed"),
        (b"<annotation>" + b" " * MAX_XML_BYTES + b"</annotation>", f"at most {MAX_XML_BYTES} bytes"),
    ],
    ids=["not UTF-8", "absurd size"],
)
def test_xml_bytes_that_are_refused(tmp_path, content, message):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_annotation_xml(path)


@pytest.mark.parametrize("frame", [(0, 10), (10, -1)])
def test_tidy_boxes_refuses_empty_frames(frame):
    with pytest.raises(ValueError, match="frame"):
        tidy_boxes([[0, 0, 1, 1]], frame_wh=frame)


@given(st.lists(st.tuples(*[st.integers(-8, 16)] * 4), max_size=5), st.integers(1, 10), st.integers(1, 10))
def test_tidy_boxes_covers_the_pixels_inside_the_frame(corners, width, height):
    expected = []
    for x0, y0, x1, y1 in corners:
        xs = [x for x in range(width) if min(x0, x1) <= x <= max(x0, x1)]
        ys = [y for y in range(height) if min(y0, y1) <= y <= max(y0, y1)]
        if xs and ys:
            expected.append([xs[0], ys[0], xs[-1], ys[-1]])
    assert tidy_boxes(corners, frame_wh=(width, height)).boxes_xyxy.tolist() == expected


def test_scale_boxes_by_hand():
    # 20x10 to 10x30: the box of columns 2..5 covers 2.0 to 6.0, at half the width 1.0 to 3.0, columns 1..2.
    annotation = tidy_boxes([[2, 1, 5, 4], [0, 0, 19, 9]], frame_wh=(20, 10))
    of_file = {"file_width": 20, "file_height": 10}
    assert scale_boxes(annotation, width=10, height=30, **of_file).tolist() == [[1, 3, 2, 14], [0, 0, 9, 29]]
    assert scale_boxes(annotation, width=20, height=10, **of_file).tolist() == annotation.boxes_xyxy.tolist()


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 500), st.integers(1, 500), st.data())
def test_scale_boxes_keeps_areas_and_comes_back(width, height, new_width, new_height, data):
    box = [*(data.draw(st.integers(0, side - 1)) for side in (width, height))]
    box += [data.draw(st.integers(low, side - 1)) for low, side in zip(box, (width, height), strict=True)]
    annotation = tidy_boxes([box], frame_wh=(width, height))
    scaled = scale_boxes(annotation, width=new_width, height=new_height, file_width=width, file_height=height)
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    x0, y0, x1, y1 = scaled[0]
    assert (x1 - x0 + 1) * (y1 - y0 + 1) == pytest.approx(area * new_width * new_height / (width * height))
    assert x0 >= 0 and y0 >= 0 and x1 <= new_width - 1 and y1 <= new_height - 1


def test_scale_boxes_without_frame_takes_the_files():
    annotation = tidy_boxes([[2, 1, 50, 4], [90, 0, 95, 2]])
    assert scale_boxes(annotation, width=10, height=20, file_width=20, file_height=10).tolist() == [[1, 2, 9, 9]]
    stated = tidy_boxes([[2, 1, 5, 4]], frame_wh=(20, 10))
    assert scale_boxes(stated, width=10, height=10, file_width=999, file_height=999).tolist() == [[1, 1, 2, 4]]
    with pytest.raises(ValueError, match="1 x 1"):
        scale_boxes(stated, width=0, height=5, file_width=20, file_height=10)
