"""Score maps as shards: which file a map goes to, when it appears, what it says."""

from pathlib import Path

import numpy as np
import pytest

import pipelines.jobs.score_map_shards as score_map_shards
from evaluation.boxes.wsoleval import normalise_score_map
from evaluation.image_scores import UNREADABLE_IMAGE
from evaluation.images import EvaluationImage
from evaluation.scoring import ImageMaps
from pipelines.jobs.score_map_shards import ScoreMapShards, folder_name
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import STATUS_OK, MapIndex
from pseudo_maps.shards.manifest import ManifestMismatch
from pseudo_maps.shards.verify import verify_folder
from tests.integration.eval_command import bump

LOCALIZERS = ("cam", "cam*saliency")
IMAGES = [
    EvaluationImage(
        index=index,
        record=ImageRecord(image_id=f"n1/{index}", path=f"val/n1/{index}.JPEG", wnid="n1", label=0),
        boxes_xyxy=np.zeros((0, 4)),
        frame_wh=None,
        blacklisted=False,
    )
    for index in range(7)
]


@pytest.fixture(autouse=True)
def three_rows_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_map_shards, "SHARD_ROWS", 3)


def maps_of(index: int) -> ImageMaps:
    cam = bump(centre_xy=(index / 10, 0.5)) - 0.2
    return ImageMaps(whole={"cam": cam, "cam*saliency": cam**2}, file_wh=(500 + index, 375))


def shards_in(folder: Path, *, step: int = 1) -> ScoreMapShards:
    return ScoreMapShards(folder, images=IMAGES, localizers=LOCALIZERS, split="val", config={"step": step})


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.h5"))


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    shards = shards_in(tmp_path / "maps")
    for image in IMAGES:
        shards.add(image, maps_of(image.index))
    return tmp_path / "maps"


def test_a_folder_s_name_needs_no_quotes() -> None:
    assert [folder_name(name) for name in ("cam", "grad-cam", "cam*saliency")] == ["cam", "grad-cam", "cam-x-saliency"]


def test_a_shard_appears_when_its_last_map_is_there(tmp_path: Path) -> None:
    shards = shards_in(tmp_path)
    assert shards.missing() == set(range(7))
    for image in (IMAGES[2], IMAGES[6], IMAGES[0]):
        shards.add(image, maps_of(image.index))
    # The last shard has one row only.
    assert names(tmp_path) == ["cam-x-saliency/val-00002-of-00003.h5", "cam/val-00002-of-00003.h5"]
    assert shards.missing() == set(range(6))
    shards.add(IMAGES[1], maps_of(1))
    assert shards.missing() == {3, 4, 5}
    (tmp_path / "cam" / "val-00000-of-00003.h5").unlink()
    assert shards_in(tmp_path).missing() == {0, 1, 2, 3, 4, 5}


def test_the_order_of_the_images_does_not_matter(complete: Path, tmp_path: Path) -> None:
    shards = shards_in(tmp_path / "backwards")
    for image in reversed(IMAGES):
        shards.add(image, maps_of(image.index))
    assert names(tmp_path / "backwards") == names(complete)
    for name in names(complete):
        assert (tmp_path / "backwards" / name).read_bytes() == (complete / name).read_bytes()


def test_every_reader_of_shards_reads_them(complete: Path) -> None:
    for localizer in LOCALIZERS:
        index = MapIndex(complete / folder_name(localizer), "val")
        assert list(index) == [image.record.image_id for image in IMAGES]
        assert index.provenance["configuration"] == {"score_maps": {"localizer": localizer, "step": 1}}
        for image in IMAGES:
            stored_hw = index.read_uint8(image.record.image_id)
            np.testing.assert_array_equal(stored_hw, normalise_score_map(maps_of(image.index).whole[localizer]))
            # Scoring a stored map again sees the very same grey levels.
            np.testing.assert_array_equal(normalise_score_map(stored_hw), stored_hw)
        row = index.row("n1/4")
        assert (row.path, row.wnid, row.label, row.height, row.width) == ("val/n1/4.JPEG", "n1", 0, 375, 504)
        assert (row.peak, row.proposals, row.status) == (1.0, 0, STATUS_OK)


def test_failures_and_flat_maps_keep_their_rows(tmp_path: Path) -> None:
    shards = shards_in(tmp_path)
    flat = np.full((7, 7), np.nan)
    shards.add(IMAGES[0], ImageMaps(failure=UNREADABLE_IMAGE))
    shards.add(IMAGES[1], ImageMaps(whole={"cam": flat, "cam*saliency": np.ones((7, 7))}, file_wh=(5, 6)))
    for image in IMAGES[2:]:
        shards.add(image, maps_of(image.index))
    index = MapIndex(tmp_path / "cam-x-saliency", "val")
    assert index.counts() == {"ok": 6, "no-score-map": 1}
    failed = index.row("n1/0")
    assert (failed.status, failed.peak, failed.height, failed.width) == ("no-score-map", 0.0, 0, 0)
    assert index.status("n1/1") == STATUS_OK and index.peak("n1/1") == 0.0
    for localizer in LOCALIZERS:
        stored = MapIndex(tmp_path / folder_name(localizer), "val")
        assert not stored.read_uint8("n1/0").any() and not stored.read_uint8("n1/1").any()


def test_the_folders_are_complete_and_undamaged(complete: Path) -> None:
    assert [verify_folder(complete / folder_name(localizer)) for localizer in LOCALIZERS] == [[], []]


def test_maps_of_another_network_are_neither_kept_nor_replaced(complete: Path) -> None:
    before = {name: (complete / name).read_bytes() for name in names(complete)}
    others = shards_in(complete, step=2)
    with pytest.raises(ManifestMismatch, match="step"):
        others.missing()
    with pytest.raises(ManifestMismatch, match="step"):
        others.add(IMAGES[6], maps_of(6))
    assert {name: (complete / name).read_bytes() for name in names(complete)} == before


def test_shards_without_manifest_are_made_again(complete: Path) -> None:
    (complete / "cam" / "val.manifest.json").unlink()
    assert shards_in(complete).missing() == set(range(7))
