"""Maps of 500 real ILSVRC images, saved as files and imported: the numbers of the shards that they came from."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudo_maps.shards import MapIndex
from tests.integration.eval_command import evaluated
from tests.integration.prep_command import prep

pytestmark = pytest.mark.real_data


def test_500_imported_maps_score_as_the_shards_they_came_from(real_data: Path, tmp_path: Path) -> None:
    data, shards, theirs = real_data / "ilsvrc10", tmp_path / "shards", tmp_path / "theirs"
    words = ("--data", data, "--split", "val")
    assert prep("proposals", *words, "--out", shards, "--working-size", 64, "--jobs", 2).exit_code == 0
    index = MapIndex(shards, "val")
    theirs.mkdir()
    for number, image_id in enumerate(index):
        map_hw, path = index.read_uint8(image_id), theirs / f"{image_id}.JPEG"
        if number % 3 == 0:
            Image.fromarray(map_hw).save(f"{path}.png")
        elif number % 3 == 1:
            np.savez_compressed(f"{path}.npz", (map_hw / 255)[None])
        else:
            np.save(f"{path}.npy", index.read(image_id)[..., None])
    imported = prep("import", theirs, *words, "--out", tmp_path / "imported")
    assert imported.exit_code == 0 and "maps:     500 ok of 500" in imported.output
    assert prep("verify", tmp_path / "imported", "--data", data).exit_code == 0
    assert all(np.array_equal(map_hw, index.read_uint8(i)) for i, map_hw in _maps(tmp_path / "imported"))
    scores = tmp_path / "scores.csv"
    with scores.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "top1", "top2", "top3", "top4", "top5"])
        # Every second image is recognised.
        writer.writerows([i, *((index.row(i).label + n + place) % 10 for place in range(5))] for n, i in _twos(index))
    results = []
    for folder in (shards, tmp_path / "imported", theirs):
        out = tmp_path / f"evaluation of {folder.name}"
        protocols = ("--protocol", "cam", "--protocol", "wsoleval-v2")
        options = (*protocols, "--bootstrap-samples", 0, "--panels", 0, "--localizer", "theirs", "--scores", scores)
        metrics = evaluated(out, "maps", folder, "--data", data, *options)
        assert metrics["classification"]["top1"]["correct"] == 250
        assert metrics["classification"]["top5"]["correct"] == 250
        results.append(metrics["results"])
    assert results[0] == results[1] == results[2]
    assert {result["localizer"] for result in results[0]} == {"theirs"}


def _maps(folder: Path) -> list[tuple[str, np.ndarray]]:
    index = MapIndex(folder, "val")
    return [(image_id, index.read_uint8(image_id)) for image_id in index]


def _twos(index: MapIndex) -> list[tuple[int, str]]:
    return [(number % 2, image_id) for number, image_id in enumerate(index)]
