"""Names of image files: all of JPEG's are read, pictures in other formats are counted, hidden files are ignored."""

from pathlib import Path

import pytest

from pipelines.datasets import DatasetError, open_dataset
from pipelines.jobs.prediction import PredictionOutput, _find_files
from tests.pipelines.datasets.file_trees import make

WNID = "n00000001"


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPE", ".jpg"])
@pytest.mark.parametrize(("layout", "name"), [("imagefolder", "cat"), ("imagenet", WNID)])
def test_all_names_of_jpeg_files_are_read(tmp_path: Path, layout: str, name: str, suffix: str) -> None:
    make(tmp_path, f"train/{name}/a{suffix}")
    assert len(open_dataset(tmp_path, split="train", layout=layout).records) == 1


@pytest.mark.parametrize(("layout", "name"), [("imagefolder", "cat"), ("imagenet", WNID)])
def test_pictures_in_other_formats_are_counted_with_names(tmp_path: Path, layout: str, name: str) -> None:
    make(
        tmp_path, *(f"train/{name}/{one}" for one in ("a.jpg", "b.gif", "c.HEIC", "d.avif", "e.jp2", "f.txt", ".g.gif"))
    )
    dataset = open_dataset(tmp_path, split="train", layout=layout)
    assert [record.image_id.partition(".")[0] for record in dataset.records] == [f"{name}/a"]
    (note,) = dataset.notes
    assert "4 pictures" in note and ".heic" in note and "'b.gif', 'c.HEIC', 'd.avif', ..." in note


def test_a_folder_of_other_formats_alone_says_so(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/a.gif", "train/dog/b.gif")
    with pytest.raises(DatasetError, match=r"one folder per class.*2 pictures left out, \.gif"):
        open_dataset(tmp_path, split="train", layout="imagefolder")


def test_predictions_are_made_of_what_the_data_sets_would_read(tmp_path: Path) -> None:
    make(tmp_path / "photos", "a.jfif", ".hidden.jpg", ".thumbnails/a.jpg", "__MACOSX/a.jpg", "deep/b.png", "c.gif")
    said: list[str] = []
    found = _find_files([tmp_path / "photos"], output=PredictionOutput(folder=tmp_path / "out"), say=said.append)
    assert {path.relative_to(tmp_path / "photos").as_posix() for path in found.values()} == {"a.jfif", "deep/b.png"}
    (line,) = said
    assert "1 picture" in line and "c.gif" in line


def test_predictions_of_other_formats_alone_say_so(tmp_path: Path) -> None:
    make(tmp_path / "photos", "c.gif")
    with pytest.raises(ValueError, match=r"expected images in .*, found none; .*\.gif is not read"):
        _find_files([tmp_path / "photos"], output=PredictionOutput(folder=tmp_path / "out"), say=print)


def test_unsorted_images_beside_wnid_folders_are_advised_what_works(tmp_path: Path) -> None:
    make(tmp_path, f"train/{WNID}/a.JPEG", "val/b.JPEG")
    with pytest.raises(DatasetError, match="one folder per class") as raised:
        open_dataset(tmp_path, split="val")
    assert "imagefolder" not in str(raised.value) and "clsloc" not in str(raised.value)
