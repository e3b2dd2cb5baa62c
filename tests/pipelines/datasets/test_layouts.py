"""The four layouts: ids, paths, labels, order, detection and refusals, on small trees made by hand."""

from pathlib import Path

import pytest

from pipelines.datasets import DatasetError, load_boxes, open_dataset
from tests.pipelines.datasets.file_trees import make, summary, write, wsoleval_metadata

HEADER = "ImageId,PredictionString\n"


# CLS-LOC


@pytest.fixture
def clsloc(tmp_path):
    write(tmp_path, "LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 goldfish\nn03\n")
    write(tmp_path, "ImageSets/CLS-LOC/train_cls.txt", "n02/n02_5 1\nn01/n01_9 2\nn02/n02_1 3\n")
    write(tmp_path, "ImageSets/CLS-LOC/val.txt", "V_2 1\nV_1 2\nV_3 3\n")
    write(tmp_path, "ImageSets/CLS-LOC/test.txt", "T_1 1\n")
    write(tmp_path, "LOC_val_solution.csv", HEADER + "V_1,n03 0 0 5 5 n03 1 1 2 2 \nV_2,n01 3 2 1 4 \n")
    write(tmp_path, "LOC_train_solution.csv", HEADER + "n02_1,n02 1 2 3 4 \n")
    return tmp_path


def test_clsloc_train_in_list_order(clsloc):
    dataset = open_dataset(clsloc, split="train")
    assert (dataset.layout, dataset.split, dataset.root) == ("clsloc", "train", clsloc)
    assert summary(dataset) == [
        ("n02/n02_5", "Data/CLS-LOC/train/n02/n02_5.JPEG", "n02", 1),
        ("n01/n01_9", "Data/CLS-LOC/train/n01/n01_9.JPEG", "n01", 0),
        ("n02/n02_1", "Data/CLS-LOC/train/n02/n02_1.JPEG", "n02", 1),
    ]
    assert dataset.class_wnids == ("n01", "n02", "n03")
    assert dataset.class_words == ("tench, Tinca tinca", "goldfish", "n03")


def test_clsloc_val_classes_from_the_csv(clsloc):
    assert summary(open_dataset(str(clsloc), split="val", layout="clsloc")) == [
        ("V_2", "Data/CLS-LOC/val/V_2.JPEG", "n01", 0),
        ("V_1", "Data/CLS-LOC/val/V_1.JPEG", "n03", 2),
        ("V_3", "Data/CLS-LOC/val/V_3.JPEG", "", -1),
    ]


def test_clsloc_test_has_no_classes(clsloc):
    assert summary(open_dataset(clsloc, split="test")) == [("T_1", "Data/CLS-LOC/test/T_1.JPEG", "", -1)]


def test_clsloc_boxes_from_the_csv_have_no_frame(clsloc):
    boxes = load_boxes(open_dataset(clsloc, split="val"))
    assert list(boxes) == ["V_2", "V_1"]
    assert boxes["V_2"].boxes_xyxy.tolist() == [[1, 2, 3, 4]]
    assert boxes["V_1"].boxes_xyxy.tolist() == [[0, 0, 5, 5], [1, 1, 2, 2]]
    assert boxes["V_1"].frame_wh is None
    train = load_boxes(open_dataset(clsloc, split="train"))
    assert {image_id: box.boxes_xyxy.tolist() for image_id, box in train.items()} == {"n02/n02_1": [[1, 2, 3, 4]]}
    assert load_boxes(open_dataset(clsloc, split="test")) == {}


def test_clsloc_train_xml_images_without_are_absent(clsloc):
    box = "<object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
    text = f"<annotation><size><width>9</width><height>8</height></size>{box}</annotation>"
    write(clsloc, "Annotations/CLS-LOC/train/n02/n02_5.XML", text)
    write(clsloc, "Annotations/CLS-LOC/train/n02/n02_99.xml", "not in the list, so not read")
    boxes = load_boxes(open_dataset(clsloc, split="train"))
    assert list(boxes) == ["n02/n02_5"]
    assert boxes["n02/n02_5"].frame_wh == (9, 8)


def test_boxes_of_chosen_images_only(clsloc):
    dataset = open_dataset(clsloc, split="val")
    assert list(load_boxes(dataset, image_ids=["V_1", "V_3"])) == ["V_1"]
    assert load_boxes(dataset, image_ids=[]) == {}
    with pytest.raises(DatasetError, match="found 1 others, such as 'nope'"):
        load_boxes(dataset, image_ids=iter(["V_1", "nope"]))


def test_clsloc_does_not_look_at_listed_images(clsloc, monkeypatch):
    (clsloc / "Data/CLS-LOC/train/n01").mkdir(parents=True)
    expected = open_dataset(clsloc, split="train")
    monkeypatch.setattr("os.scandir", lambda *_: pytest.fail("a folder was listed"))
    touched = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **options: touched.append(self.name) or stat(self, **options))
    assert open_dataset(clsloc, split="train", layout="clsloc") == expected
    assert touched and not any("_" in name and name.startswith("n0") for name in touched)


def test_clsloc_scans_folders_without_lists(tmp_path):
    data = tmp_path / "Data/CLS-LOC"
    make(data, "train/n02/n02_5.JPEG", "train/n02/n02_10.jpeg", "train/n01/n01_1.JPEG", "train/n01/notes.txt")
    make(data, "train/n01/.n01_2.JPEG", "val/V_2.JPEG", "val/V_1.JPEG")
    train = open_dataset(tmp_path, split="train")
    assert summary(train) == [
        ("n01/n01_1", "Data/CLS-LOC/train/n01/n01_1.JPEG", "n01", 0),
        ("n02/n02_10", "Data/CLS-LOC/train/n02/n02_10.jpeg", "n02", 1),
        ("n02/n02_5", "Data/CLS-LOC/train/n02/n02_5.JPEG", "n02", 1),
    ]
    assert train.class_words == train.class_wnids == ("n01", "n02")
    val = open_dataset(tmp_path, split="val")
    assert [(record.image_id, record.label) for record in val.records] == [("V_1", -1), ("V_2", -1)]
    assert val.class_wnids == ("n01", "n02")
    assert load_boxes(val) == {}


def test_clsloc_classes_without_mapping_and_train_folders(tmp_path):
    write(tmp_path, "ImageSets/CLS-LOC/val.txt", "a\nb\n")
    write(tmp_path, "LOC_val_solution.csv", HEADER + "a,n07 0 0 1 1\nb,n03 0 0 1 1\n")
    dataset = open_dataset(tmp_path, split="val")
    assert dataset.class_wnids == ("n03", "n07")
    assert [record.label for record in dataset.records] == [1, 0]


def test_clsloc_below_the_folder_of_kaggles_archive(tmp_path):
    write(tmp_path, "LOC_synset_mapping.txt", "n01 tench\n")
    write(tmp_path, "ILSVRC/ImageSets/CLS-LOC/train_cls.txt", "n01/n01_1 1\n")
    dataset = open_dataset(tmp_path, split="train")
    assert dataset.records[0].path == "ILSVRC/Data/CLS-LOC/train/n01/n01_1.JPEG"
    assert dataset.class_words == ("tench",)


def test_clsloc_through_links(clsloc, tmp_path_factory):
    root = tmp_path_factory.mktemp("links") / "root"
    root.symlink_to(clsloc, target_is_directory=True)
    assert summary(open_dataset(root, split="val")) == summary(open_dataset(clsloc, split="val"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ImageSets/CLS-LOC/train_cls.txt", "n01/n01_1 1\nn01/n01_2 two\n", r"train_cls\.txt, line 2: .*space"),
        ("ImageSets/CLS-LOC/train_cls.txt", "n01/n01_1 1 1\n", "line 1: .*space and its number"),
        ("ImageSets/CLS-LOC/train_cls.txt", "n01_1 1\n", "line 1: .*wnid/name"),
        ("ImageSets/CLS-LOC/train_cls.txt", "n01/../../x 1\n", "line 1: .*path part"),
        ("ImageSets/CLS-LOC/train_cls.txt", "/etc/passwd 1\n", "line 1: .*absolute"),
        ("ImageSets/CLS-LOC/train_cls.txt", "n01/a 1\nn01/a 2\n", "line 2: .*already on line 1"),
        (
            "ImageSets/CLS-LOC/train_cls.txt",
            "n09/n09_1 1\n",
            r"train_cls\.txt, entry 1: image 'n09/n09_1' is of class 'n09', expected",
        ),
        ("ImageSets/CLS-LOC/train_cls.txt", "", r"found none; looked for the list .*train_cls\.txt"),
        ("LOC_synset_mapping.txt", "n01 a\nn01 b\n", r"mapping\.txt, line 2"),
    ],
)
def test_clsloc_refuses(clsloc, name, text, message):
    write(clsloc, name, text)
    with pytest.raises(DatasetError, match=message):
        open_dataset(clsloc, split="train")


def test_clsloc_refuses_a_val_class_that_is_not_in_the_mapping(clsloc):
    write(clsloc, "LOC_val_solution.csv", HEADER + "V_1,n01 0 0 1 1\nV_2,n99 0 0 1 1\n")
    with pytest.raises(DatasetError, match=r"LOC_val_solution\.csv, line 3: .*found 'n99'"):
        open_dataset(clsloc, split="val")


def test_clsloc_takes_a_csv_that_covers_more_than_the_list(clsloc):
    pairs = (("V_3", "n02"), ("V_1", "n01"), ("V_2", "n03"), ("else", "n99"))
    rows = [f"{name},{wnid} 0 0 1 1\n" for name, wnid in pairs]
    write(clsloc, "LOC_val_solution.csv", HEADER + "".join(rows))
    dataset = open_dataset(clsloc, split="val")
    assert [record.wnid for record in dataset.records] == ["n03", "n01", "n02"]
    assert list(load_boxes(dataset)) == ["V_2", "V_1", "V_3"]


# torchvision's ImageNet folder


def test_imagenet(tmp_path):
    make(tmp_path, "train/n00000002/b.JPEG", "train/n00000002/a.JPG", "train/n00000001/z.png", "val/n00000002/v.JPEG")
    write(tmp_path, "LOC_synset_mapping.txt", "n00000002 goldfish\nn00000009 eel\n")
    train = open_dataset(tmp_path, split="train")
    assert train.layout == "imagenet"
    assert summary(train) == [
        ("n00000001/z", "train/n00000001/z.png", "n00000001", 0),
        ("n00000002/a", "train/n00000002/a.JPG", "n00000002", 1),
        ("n00000002/b", "train/n00000002/b.JPEG", "n00000002", 1),
    ]
    assert train.class_words == ("n00000001", "goldfish")
    assert summary(open_dataset(tmp_path, split="val")) == [("n00000002/v", "val/n00000002/v.JPEG", "n00000002", 1)]
    assert load_boxes(train) == {}


# Plain image folders


def test_imagefolder_nested_with_suffixes_and_loose_images(tmp_path):
    make(
        tmp_path, "b/x.jpg", "b/x.png", "a-b/1.TIF", "a/deep/er/2.Jpeg", "a/1.bmp", "loose.webp", "a/.x.jpg", "a/t.txt"
    )
    (tmp_path / "empty").mkdir()
    dataset = open_dataset(tmp_path, split="train")
    assert dataset.layout == "imagefolder"
    assert summary(dataset) == [
        ("loose.webp", "loose.webp", "", -1),
        ("a/1.bmp", "a/1.bmp", "a", 0),
        ("a/deep/er/2.Jpeg", "a/deep/er/2.Jpeg", "a", 0),
        ("a-b/1.TIF", "a-b/1.TIF", "a-b", 1),
        ("b/x.jpg", "b/x.jpg", "b", 2),
        ("b/x.png", "b/x.png", "b", 2),
    ]
    assert dataset.class_words == ("a", "a-b", "b", "empty")
    (note,) = dataset.notes
    assert "1 folder" in note and "'empty'" in note


def test_imagefolder_with_splits_shares_labels(tmp_path):
    make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/dog/2.jpg", "test/3.jpg")
    assert summary(open_dataset(tmp_path, split="val")) == [
        ("dog/2.jpg", "val/dog/2.jpg", "dog", 1),
    ]
    assert summary(open_dataset(tmp_path, split="test")) == [("3.jpg", "test/3.jpg", "", -1)]
    classes = {open_dataset(tmp_path, split=split).class_wnids for split in ("train", "val", "test")}
    assert classes == {("cat", "dog")}


def test_folders_of_imagenetv2_are_labels(tmp_path):
    make(tmp_path, *(f"{label}/a.jpeg" for label in range(999)))
    label_of = {record.wnid: record.label for record in open_dataset(tmp_path, split="val").records}
    assert (label_of["2"], label_of["10"]) == (112, 2)
    make(tmp_path, "999/a.jpeg")
    dataset = open_dataset(tmp_path, split="val")
    assert [record.label for record in dataset.records if record.wnid == "10"] == [10]
    assert dataset.class_wnids == tuple(map(str, range(1000)))


def test_imagefolder_follows_links_but_not_in_circles(tmp_path):
    make(tmp_path, "far/1.jpg", "root/cat/0.jpg")
    (tmp_path / "root/cat/more").symlink_to(tmp_path / "far", target_is_directory=True)
    (tmp_path / "root/cat/link.jpg").symlink_to(tmp_path / "far/1.jpg")
    dataset = open_dataset(tmp_path / "root", split="train")
    assert [record.image_id for record in dataset.records] == ["cat/0.jpg", "cat/link.jpg", "cat/more/1.jpg"]
    (tmp_path / "root/cat/again").symlink_to(tmp_path / "root", target_is_directory=True)
    with pytest.raises(DatasetError, match=r"again: .*link back"):
        open_dataset(tmp_path / "root", split="train")


# Refusals and detection


@pytest.mark.parametrize(
    ("layout", "files", "message"),
    [
        ("imagenet", ["val/loose.JPEG", "train/n00000001/a.JPEG"], r"found 1 outside, such as 'loose\.JPEG'"),
        ("imagenet", ["val/dogs/a.JPEG", "val/n00000001/a.JPEG"], "found 'dogs'"),
        ("imagenet", ["val/n00000001/a.JPEG", "val/n00000001/a.png"], "already"),
        ("imagenet", ["val/n00000001/a.txt"], "found none"),
        ("imagenet", ["train/n00000001/a.JPEG"], "val: no such folder"),
        ("imagefolder", ["cat/a\\b.jpg"], "backslash"),
        ("imagefolder", ["cat/a\nb.jpg"], "control"),
        ("imagefolder", ["cat/a\udce9.jpg"], "UTF-8"),
        ("auto", ["c\\at/1.jpg"], "class folder name, found a backslash"),
        ("auto", ["train/cat/1.jpg"], "expected the folder 'val' beside 'train'"),
        ("auto", ["Data/CLS-LOC/val/a.JPEG", "Data/CLS-LOC/val/a.jpeg"], "already"),
        ("auto", ["CLS-LOC/val/one.JPEG"], "expected the root of a CLS-LOC tree, .*; give its parent"),
        ("clsloc", [], "expected a CLS-LOC tree"),
        ("auto", ["notes/readme.txt"], r"no known layout; .*Data/CLS-LOC.*<wnid>.*image files.*image_ids\.txt"),
    ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path, layout, files, message):
    make(tmp_path, *files)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path, split="val", layout=layout)


def test_auto_refuses_two_layouts(clsloc):
    wsoleval_metadata(clsloc)
    make(clsloc, "train/n00000001/a.JPEG")
    with pytest.raises(DatasetError, match="signs of clsloc and imagenet and wsoleval; name the one"):
        open_dataset(clsloc, split="val")
    assert open_dataset(clsloc, split="val", layout="wsoleval").layout == "wsoleval"


def test_bad_arguments(tmp_path):
    with pytest.raises(DatasetError, match="splits train, val, test, found 'Val'"):
        open_dataset(tmp_path, split="Val")
    with pytest.raises(DatasetError, match=r"layouts auto, clsloc, .*, wsoleval, found 'coco'"):
        open_dataset(tmp_path, split="val", layout="coco")
    with pytest.raises(DatasetError, match="nowhere: expected the folder"):
        open_dataset(tmp_path / "nowhere", split="val")
