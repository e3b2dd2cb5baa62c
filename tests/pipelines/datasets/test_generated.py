"""The generated data set: same bytes for the same seed, exact boxes and masks, safe reruns."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import load_boxes, open_dataset
from pipelines.datasets.generated import MARK_COLOURS, MARK_SHAPES, PARAMETERS_FILE, make_clsloc_dataset
from pseudo_maps.images import decode_image

SMALL = {"classes": 3, "train_per_class": 2, "val_per_class": 3, "size_px": (64, 90)}


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_clsloc_dataset(tmp_path_factory.mktemp("synthetic") / "data", **SMALL)


def test_same_seed_same_bytes(small, tmp_path):
    again = make_clsloc_dataset(str(tmp_path / "deep" / "again"), **SMALL)
    assert digests(again) == digests(small)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["again"]


def test_other_seed_other_images(small, tmp_path):
    other = digests(make_clsloc_dataset(tmp_path / "other", **SMALL, seed=1))
    mine = digests(small)
    assert other.keys() == mine.keys()
    images = [name for name in mine if name.endswith((".JPEG", ".png"))]
    assert images and all(other[name] != mine[name] for name in images)
    assert len({mine[name] for name in images}) == len(images) == 3 * 2 + 3 * 3 + 3 * 3


def test_reads_as_clsloc(small):
    train, val = (open_dataset(small, split=split) for split in ("train", "val"))
    assert train.layout == val.layout == "clsloc"
    assert train.class_wnids == val.class_wnids == ("n90000001", "n90000002", "n90000003")
    assert train.class_words == ("red star", "yellow cross", "blue ring")
    assert [record.label for record in train.records] == [0, 0, 1, 1, 2, 2]
    assert train.records[3].image_id == "n90000002/n90000002_2"
    assert sorted(record.label for record in val.records) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for dataset in (train, val):
        for record in dataset.records:
            image = decode_image(small / record.path)
            assert 64 <= min(image.file_width, image.file_height) <= max(image.file_width, image.file_height) <= 90


def test_boxes_are_tight_around_the_masks(small):
    val = open_dataset(small, split="val")
    boxes = load_boxes(val)
    assert list(boxes) == [record.image_id for record in val.records]
    for record in val.records:
        with Image.open(small / "Masks" / "CLS-LOC" / "val" / f"{record.image_id}.png") as file:
            mask = np.asarray(file)
        assert set(np.unique(mask)) == {0, 255}
        rows, columns = np.nonzero(mask)
        found = boxes[record.image_id]
        assert found.boxes_xyxy.tolist() == [[columns.min(), rows.min(), columns.max(), rows.max()]]
        image = decode_image(small / record.path)
        assert mask.shape == found.frame_wh[::-1] == (image.file_height, image.file_width)
        # The object is neither a speck nor the whole frame, and ends before the border.
        assert 0.02 < np.mean(mask > 0) < 0.7
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()


def test_mask_lies_on_the_object(small):
    """Pixels just inside and just outside the mask differ more than neighbours elsewhere in the image."""
    ratios = []
    for record in open_dataset(small, split="val").records:
        grey = decode_image(small / record.path).rgb_hwc.astype(np.float64)
        with Image.open(small / "Masks" / "CLS-LOC" / "val" / f"{record.image_id}.png") as file:
            inside = np.asarray(file) > 0
        step = np.abs(grey[:, 3:] - grey[:, :-3]).sum(axis=2)
        crossing = inside[:, 3:] != inside[:, :-3]
        ratios.append(step[crossing].mean() / step[~crossing].mean())
    assert np.median(ratios) > 1.5


def test_csv_and_xml_agree_and_only_val_has_xml(small, tmp_path):
    assert not (small / "Annotations" / "CLS-LOC" / "train").exists()
    from_xml = load_boxes(open_dataset(small, split="val"))
    copy = shutil.copytree(small, tmp_path / "copy", ignore=shutil.ignore_patterns("Annotations"))
    from_csv = load_boxes(open_dataset(copy, split="val"))
    assert list(from_csv) == list(from_xml) and len(from_xml) == 9
    for image_id, annotation in from_xml.items():
        assert annotation.boxes_xyxy.tolist() == from_csv[image_id].boxes_xyxy.tolist()
        assert annotation.frame_wh is not None and from_csv[image_id].frame_wh is None


def test_every_class_has_a_mark_of_its_own(tmp_path):
    most = len(MARK_SHAPES) * len(MARK_COLOURS)
    root = make_clsloc_dataset(tmp_path / "all", classes=most, train_per_class=1, val_per_class=1, size_px=(64, 64))
    words = open_dataset(root, split="val").class_words
    assert len(set(words)) == most == 36


def test_rerun_with_the_same_arguments_writes_nothing(small):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert make_clsloc_dataset(small, **SMALL) == small
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_other_content_is_left_alone(small, tmp_path):
    with pytest.raises(FileExistsError, match=r'"seed": 5.*found .*"seed": 0'):
        make_clsloc_dataset(small, **SMALL, seed=5)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=f"found no {PARAMETERS_FILE}"):
        make_clsloc_dataset(foreign, **SMALL)
    assert [path.name for path in foreign.iterdir()] == ["precious.txt"]
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(FileExistsError):
        make_clsloc_dataset(file, **SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "foreign"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    root = make_clsloc_dataset(tmp_path / "empty", classes=1, train_per_class=1, val_per_class=1, size_px=(64, 64))
    stored = json.loads((root / PARAMETERS_FILE).read_text())
    assert stored["size_px"] == [64, 64] and stored["classes"] == 1


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("disk full")

    monkeypatch.setattr("pipelines.datasets.generated._write_image", fail)
    with pytest.raises(OSError, match="disk full"):
        make_clsloc_dataset(tmp_path / "data", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_made_meanwhile_by_another_process_is_taken(tmp_path, monkeypatch):
    import pipelines.datasets.generated as generated

    write = generated._write_dataset
    target = tmp_path / "data"

    def write_late(staging, *, parameters):
        write(staging, parameters=parameters)
        if not target.exists():
            write(target, parameters=parameters)

    monkeypatch.setattr(generated, "_write_dataset", write_late)
    assert make_clsloc_dataset(target, **SMALL) == target
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 0}, "1 to 36 classes, found 0"),
        ({"classes": 37}, "found 37"),
        ({"train_per_class": 0}, "1 image for each class"),
        ({"val_per_class": -1}, "1 image for each class"),
        ({"seed": -1}, "seed"),
        ({"size_px": (100, 90)}, "smallest <= largest"),
        ({"size_px": (10, 90)}, "64 <= smallest"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        make_clsloc_dataset(tmp_path / "data", **{**SMALL, **change})
    assert not (tmp_path / "data").exists()
