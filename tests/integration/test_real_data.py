"""``wsol-prep`` on real ILSVRC images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import Dataset, open_dataset
from pseudo_maps.config import MapConfig
from pseudo_maps.images import decode_image
from pseudo_maps.map_making import saliency_map
from pseudo_maps.shards import MapIndex, quantise_map
from tests.integration import prep_command

pytestmark = pytest.mark.real_data

LIMIT = 40


def prep(*words: object) -> str:
    done = prep_command.prep(*words)
    assert done.exit_code == 0, done.output
    return done.output


def assert_maps_are_right(index: MapIndex, dataset: Dataset, image_ids: list[str]) -> None:
    """Each map is what ``saliency_map`` gives for the decoded image, and its row says so."""
    records = {record.image_id: record for record in dataset.records}
    for image_id in image_ids:
        record, row = records[image_id], index.row(image_id)
        decoded = decode_image(dataset.root / record.path, enough_px=500)
        saliency, count = saliency_map(decoded.rgb_hwc, config=MapConfig(weighting="objectness"))
        expected, peak = quantise_map(saliency)
        np.testing.assert_array_equal(index.read_uint8(image_id), expected)
        assert (row.status, row.proposals, row.peak) == ("ok", count, peak)
        assert (row.height, row.width) == (decoded.file_height, decoded.file_width)
        assert (row.path, row.wnid, row.label) == (record.path, record.wnid, record.label)


def is_grey(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode == "L"


def test_forty_val_images_of_the_clsloc_tree(real_data: Path, tmp_path: Path) -> None:
    data, out = real_data / "ilsvrc10", tmp_path / "maps"
    assert f"maps:     {LIMIT} ok of {LIMIT}" in prep(
        "proposals", "--data", data, "--split", "val", "--out", out, "--limit", LIMIT, "--jobs", 2
    )
    assert "complete and undamaged" in prep("verify", out)
    dataset, index = open_dataset(data, split="val"), MapIndex(out, "val")
    ids = [record.image_id for record in dataset.records[:LIMIT]]
    assert dataset.layout == "clsloc" and len(index) == LIMIT and index.missing(ids) == []
    assert_maps_are_right(index, dataset, ids[::4])
    for image_id in ids:
        row, map_hw = index.row(image_id), index.read_uint8(image_id)
        assert row.wnid.startswith("n") and 0 <= row.label < 10 and (row.height, row.width) == (224, 224)
        assert map_hw.max() == 255 and map_hw.std() > 5 and 300 < row.proposals < 6000


def test_grey_images_among_the_clsloc_images(real_data: Path, tmp_path: Path) -> None:
    source = open_dataset(real_data / "ilsvrc10", split="val")
    grey = [record for record in source.records if is_grey(source.root / record.path)][:3]
    assert len(grey) == 3
    data = tmp_path / "data"
    for record in grey:
        link = data / record.wnid / Path(record.path).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.root / record.path)
    words = ["--data", data, "--layout", "imagefolder", "--split", "val", "--out", tmp_path / "maps"]
    assert "3 ok of 3" in prep("proposals", *words)
    dataset, index = open_dataset(data, split="val", layout="imagefolder"), MapIndex(tmp_path / "maps", "val")
    assert_maps_are_right(index, dataset, [record.image_id for record in dataset.records])


def test_a_plain_folder_of_photographs(real_data: Path, tmp_path: Path) -> None:
    data, out = real_data / "woof_dev", tmp_path / "maps"
    words = ["--data", data, "--layout", "imagefolder", "--split", "val"]
    assert "12 ok of 12" in prep("proposals", *words, "--out", out, "--limit", 12, "--jobs", 2)
    assert "complete and undamaged" in prep("verify", out)
    dataset, index = open_dataset(data, split="val", layout="imagefolder"), MapIndex(out, "val")
    assert len(dataset.records) == 100
    ids = [record.image_id for record in dataset.records[:12]]
    assert_maps_are_right(index, dataset, ids[::3])
    assert any(index.row(image_id).height != index.row(image_id).width for image_id in ids), "aspect ratio is kept"
    sheet = tmp_path / "sheet.png"
    prep("preview", out, "--data", data, "--layout", "imagefolder", "--out", sheet, "--count", 4)
    with Image.open(sheet) as picture:
        assert np.asarray(picture).std() > 20
