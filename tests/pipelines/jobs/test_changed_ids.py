"""Maps whose images have other ids now, because lists were added beside a plain folder or its layout is another."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import open_dataset
from pseudo_maps.config import MapConfig
from pseudo_maps.runs.generation import RunConfig, plan_run
from pseudo_maps.shards import MapIndex
from pseudo_maps.shards.manifest import ManifestMismatch
from tests.integration.eval_command import evaluate, evaluated
from tests.pipelines.datasets.file_trees import write
from tests.pseudo_maps.shard_making import make_folder
from training.data.loading import MapsMissingError, check_maps

IDS = ("food/1.png", "food/2.png")
OPTIONS = ("--protocol", "cam", "--bootstrap-samples", 0, "--jobs", 1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for image_id in IDS:
        (root / "val" / image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 40, 3), 90, np.uint8)).save(root / "val" / image_id)
    write(root, "val/localization.txt", "".join(f"{image_id},10,5,29,14\n" for image_id in IDS))
    return root


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    make_folder(tmp_path / "maps", ids=IDS, shard_size=16, configuration=MapConfig().as_json(), size_wh=(40, 20))
    return tmp_path / "maps"


def add_lists(data: Path) -> None:
    """What wsolevaluation's layout needs; its ids begin with the split."""
    write(data, "val/image_ids.txt", "".join(f"val/{image_id}\n" for image_id in IDS))
    write(data, "val/localization.txt", "".join(f"val/{image_id},10,5,29,14\n" for image_id in IDS))


def test_maps_of_the_plain_folder_are_scored_with_boxes_beside_it(data: Path, maps: Path, tmp_path: Path) -> None:
    counts = evaluated(tmp_path / "out", "maps", maps, "--data", data, *OPTIONS, "--panels", 0)["counts"]
    assert (counts["scored"], counts["failed"]) == (2, {})


def test_maps_of_other_ids_are_not_scored_as_missing(data: Path, maps: Path, tmp_path: Path) -> None:
    add_lists(data)
    result = evaluate("maps", maps, "--data", data, *OPTIONS, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "error" in result.output
    assert "'food/1.png'" in result.output and "'val/food/1.png'" in result.output and "--layout" in result.output


def test_the_first_id_that_changed_is_named_where_maps_are_to_be_made(data: Path, maps: Path) -> None:
    def plan() -> None:
        records = open_dataset(data, split="val").records
        plan_run(records, split="val", configuration=MapConfig().as_json(), run=RunConfig(root=data, out=maps))

    plan()
    add_lists(data)
    with pytest.raises(ManifestMismatch, match=r"Image 0 is 'food/1\.png' there and 'val/food/1\.png' here"):
        plan()


def test_a_training_names_an_id_of_the_maps(data: Path, maps: Path) -> None:
    index = MapIndex(maps, "val")
    assert len(check_maps(open_dataset(data, split="val").records, index)[0]) == 2
    add_lists(data)
    with pytest.raises(MapsMissingError, match=r"val/food/1\.png.*--layout.*'food/1\.png'"):
        check_maps(open_dataset(data, split="val").records, index)
