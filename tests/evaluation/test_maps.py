"""Folders of shards and of files as sources of maps: names, gaps, doubles, and files that hold no map."""

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from evaluation.image_scores import MAP_NOT_USABLE, NO_MAP
from evaluation.images import EvaluationImage
from evaluation.maps import MAP_LOCALIZER, FileMaps, ShardMaps, open_stored_maps
from pseudo_maps.records import ImageRecord
from tests.integration.eval_command import bump
from tests.pseudo_maps.shard_making import make_folder

IMAGE = EvaluationImage(
    index=0,
    record=ImageRecord(image_id="n01/name.v2", path="val/n01/name.v2.JPEG"),
    boxes_xyxy=np.zeros((0, 4)),
    frame_wh=None,
    blacklisted=False,
)


def image_of(image_id: str, path: str = "") -> EvaluationImage:
    return replace(IMAGE, record=ImageRecord(image_id=image_id, path=path or f"val/{image_id}.JPEG"))


def save(path: Path, array: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, bump() if array is None else array)
    return path


def records(images: list[EvaluationImage]) -> list[ImageRecord]:
    return [image.record for image in images]


# --- what the results are called


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        ({"score_maps": {"localizer": "cam*saliency"}}, "cam*saliency"),
        ({"score_maps": {"localizer": "grad-cam"}}, "grad-cam"),
        ({"score_maps": {"localizer": "cam under\n<b>"}}, MAP_LOCALIZER),
        ({"score_maps": {"localizer": 3}}, MAP_LOCALIZER),
        ({"score_maps": "cam"}, MAP_LOCALIZER),
        ({"map_size": 224}, MAP_LOCALIZER),
    ],
)
def test_stored_score_maps_keep_the_name_of_their_localizer(
    tmp_path: Path, configuration: dict[str, object], name: str
) -> None:
    ids, _ = make_folder(tmp_path, configuration=configuration)
    source = ShardMaps(tmp_path, split="val")
    assert source.localizers == (name,)
    assert list(source.maps_of(image_of(ids[0])).whole) == [name]


# --- which source


def test_a_folder_without_maps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001.h5").touch()
    with pytest.raises(ValueError, match=r"expected shards named val-00000-of-\.\.\.\.h5 or files .*found neither"):
        open_stored_maps(tmp_path, split="val")


def test_shards_are_taken_before_npy_files(tmp_path: Path) -> None:
    save(tmp_path / "a.npy")
    assert isinstance(open_stored_maps(tmp_path, split="val"), FileMaps)
    make_folder(tmp_path)
    assert isinstance(open_stored_maps(tmp_path, split="val"), ShardMaps)
    assert isinstance(open_stored_maps(tmp_path, split="train"), FileMaps), "shards of another split are not meant"


# --- shards


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """Seven maps in three shards; the third image failed."""
    folder = tmp_path / "shards"
    folder.mkdir()
    _, stored = make_folder(folder, failed=["val_2"])
    return folder, stored


def test_shards_give_the_stored_map_or_the_reason(shards: tuple[Path, list[np.ndarray]]) -> None:
    source = open_stored_maps(shards[0], split="val")
    maps = source.maps_of(image_of("val_5"))
    assert maps.failure is None and maps.top_classes is None
    np.testing.assert_array_equal(maps.whole[MAP_LOCALIZER], shards[1][5])
    failed = source.maps_of(image_of("val_2"))
    assert (failed.failure, failed.whole) == (f"{MAP_NOT_USABLE}decode", {})
    missing = source.maps_of(image_of("val_7"))
    assert (missing.failure, missing.whole) == (NO_MAP, {})


def test_shards_of_unknown_images_are_counted(shards: tuple[Path, list[np.ndarray]]) -> None:
    source = open_stored_maps(shards[0], split="val")
    assert source.unused(records([image_of(f"val_{number}") for number in range(9)])) == []
    unused = source.unused(records([image_of("val_1"), image_of("val_8")]))
    assert unused == ["val_0", "val_2", "val_3", "val_4", "val_5", "val_6"]


def test_shards_without_checksums_are_told_apart_by_their_files(shards: tuple[Path, list[np.ndarray]]) -> None:
    path = shards[0] / "val-00001-of-00003.h5"
    path.with_name(f"{path.name}.sha256").unlink()
    source = open_stored_maps(shards[0], split="val")
    assert source.config()["maps"]["sha256"] is None and source.stamp() is not None
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert open_stored_maps(shards[0], split="val").stamp() != source.stamp()


def test_the_configuration_of_shards_tells_their_content_and_not_their_place(
    shards: tuple[Path, list[np.ndarray]], tmp_path: Path
) -> None:
    config = open_stored_maps(shards[0], split="val").config()
    assert config["maps"]["format"] == "shards"
    assert config["maps"]["provenance"]["configuration"]["method"] == "geodesic"
    moved = Path(shutil.copytree(shards[0], tmp_path / "moved"))
    source = open_stored_maps(moved, split="val")
    assert source.config() == config and source.stamp() is None
    (tmp_path / "others").mkdir()
    make_folder(tmp_path / "others", failed=["val_3"])
    assert open_stored_maps(tmp_path / "others", split="val").config() != config


# --- .npy files


@pytest.mark.parametrize(
    "name",
    ["n01/name.v2", "val/n01/name.v2.JPEG", "val/n01/name.v2", "name.v2.JPEG", "name.v2", "deep/below/name.v2"],
    ids=["id", "path", "path without suffix", "file name", "stem", "anywhere"],
)
def test_a_file_is_found_by_any_name_of_its_image(tmp_path: Path, name: str) -> None:
    wanted = bump(centre_xy=(0.2, 0.7))
    save(tmp_path / f"{name}.npy", wanted)
    save(tmp_path / "other.npy")
    source = open_stored_maps(tmp_path, split="val")
    np.testing.assert_array_equal(source.maps_of(IMAGE).whole[MAP_LOCALIZER], wanted)
    assert source.unused([IMAGE.record]) == ["other.npy"]


def test_a_file_of_any_kind_is_found_and_two_kinds_of_one_image_are_refused(tmp_path: Path) -> None:
    wanted = (bump() * 255).astype(np.uint8)
    PIL.Image.fromarray(wanted).save(tmp_path / "name.v2.png")
    np.testing.assert_array_equal(open_stored_maps(tmp_path, split="val").maps_of(IMAGE).whole[MAP_LOCALIZER], wanted)
    np.savez(tmp_path / "name.v2.npz", wanted)
    with pytest.raises(ValueError, match=r"expected one map, found .*v2\.npz and .*v2\.png"):
        open_stored_maps(tmp_path, split="val").maps_of(IMAGE)


def test_a_stack_of_masks_is_refused_with_what_to_do(tmp_path: Path) -> None:
    save(tmp_path / "name.v2.npy", np.ones((5, 8, 8)))
    with pytest.raises(ValueError, match=r"name\.v2\.npy: expected one map .*\(5, 8, 8\).* wsol-prep import"):
        open_stored_maps(tmp_path, split="val").maps_of(IMAGE)


def test_the_maps_have_the_name_that_is_given(tmp_path: Path) -> None:
    save(tmp_path / "name.v2.npy")
    source = open_stored_maps(tmp_path, split="val", localizer="ts-cam")
    assert source.localizers == ("ts-cam",) and list(source.maps_of(IMAGE).whole) == ["ts-cam"]


def test_an_image_without_file_has_no_map(tmp_path: Path) -> None:
    save(tmp_path / "name.npy")
    assert open_stored_maps(tmp_path, split="val").maps_of(IMAGE).failure == NO_MAP


def test_two_files_of_one_image_are_named(tmp_path: Path) -> None:
    first, second = save(tmp_path / "name.v2.npy"), save(tmp_path / "n01" / "name.v2.npy")
    with pytest.raises(ValueError, match=r"image 'n01/name\.v2': expected one map, found ") as caught:
        open_stored_maps(tmp_path, split="val").maps_of(IMAGE)
    assert str(first) in str(caught.value) and str(second) in str(caught.value)


def test_a_file_of_two_images_is_named_with_both(tmp_path: Path) -> None:
    save(tmp_path / "one.npy")
    twins = [ImageRecord(image_id=f"{folder}/one.jpg", path=f"{folder}/one.jpg") for folder in ("cats", "dogs")]
    with pytest.raises(
        ValueError, match=r"one\.npy: would be the map of the images 'cats/one\.jpg' and 'dogs/one\.jpg'"
    ):
        open_stored_maps(tmp_path, split="val").unused(twins)
    (tmp_path / "one.npy").unlink()
    for twin in twins:
        save(tmp_path / f"{twin.image_id}.npy")
    assert open_stored_maps(tmp_path, split="val").unused(twins) == []


@pytest.mark.parametrize(
    ("place", "strange"),
    [
        ("train/cat/1.npy", "train"),
        ("dog/1.npy", "dog"),
        ("val/dog/1.npy", "dog"),
        ("cat/1.npy", ""),
        ("model/test/cat/1.npy", ""),
        ("1.npy", ""),
    ],
)
def test_a_file_name_in_the_folder_of_other_images_is_refused(tmp_path: Path, place: str, strange: str) -> None:
    save(tmp_path / place)
    records = [ImageRecord(image_id=name, path=f"val/{name}") for name in ("cat/1.jpg", "dog/2.jpg")]
    source = open_stored_maps(tmp_path, split="val")
    if not strange:
        assert source.unused(records) == []
        return
    with pytest.raises(ValueError, match=rf"^{place}: has the file name of val/cat/1\.jpg, but .* folder '{strange}'"):
        source.unused(records)


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=bump(), b=bump())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (lambda: b"", "expected a plain numeric array"),
        (lambda: npy_bytes(bump())[:-40], "plain numeric array"),
        (lambda: npy_bytes(bump())[:40], "plain numeric array"),
        (lambda: npy_bytes(np.array([[{"a": 1}]], dtype=object)), "allow_pickle=False"),
        (lambda: b"\x80\x04K\x01.", "plain numeric array"),
        (lambda: b"<html>404</html>", "plain numeric array"),
        (npz_bytes, "plain numeric array"),
        (lambda: npz_bytes()[:300], "plain numeric array"),
        (lambda: b"PK\x03\x04 and no archive", "plain numeric array"),
    ],
    ids=[
        "nothing",
        "cut off",
        "half a header",
        "objects",
        "a pickle",
        "a web page",
        "an archive",
        "half an archive",
        "garbage",
    ],
)
def test_files_that_hold_no_array_are_named_and_nothing_in_them_is_run(
    tmp_path: Path, content: Callable[[], bytes], found: str
) -> None:
    path = tmp_path / "name.v2.npy"
    path.write_bytes(content())
    with pytest.raises(ValueError, match=found) as caught:
        open_stored_maps(tmp_path, split="val").maps_of(IMAGE)
    assert str(path) in str(caught.value)


def test_the_stamp_of_npy_files_tells_changes_and_the_configuration_their_number(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy")
    before = open_stored_maps(tmp_path, split="val")
    assert before.config() == {"maps": {"format": "files", "files": 1}}
    assert open_stored_maps(tmp_path, split="val").stamp() == before.stamp()
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    changed = open_stored_maps(tmp_path, split="val")
    assert changed.stamp() != before.stamp() and changed.config() == before.config()
    path.rename(tmp_path / "b.npy")
    assert open_stored_maps(tmp_path, split="val").stamp() != changed.stamp()
