"""Images replaced under their names after something was made of them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import open_dataset
from pipelines.experiments.steps import DataIdentity, FileSet, Step
from tests.integration.eval_command import evaluate, make_checkpoint
from tests.integration.prep_command import VAL, files, prep, propose, val_id
from tests.world import World, copy_of

SCORED = ("--protocol", "cam", "--bootstrap-samples", 0, "--panels", 0, "--jobs", 1)


@pytest.fixture
def data(world: World, tmp_path: Path) -> Path:
    return copy_of(world.data, tmp_path / "data")


@pytest.fixture
def maps(world: World, tmp_path: Path) -> Path:
    return copy_of(world.maps, tmp_path / "maps")


def replace_image(data: Path, number: int, *, size_wh: tuple[int, int] = (33, 44)) -> None:
    path = data / VAL / f"{val_id(number)}.JPEG"
    Image.fromarray(np.full((size_wh[1], size_wh[0], 3), 7, np.uint8)).save(path)


def test_verification_names_them_and_the_repair_makes_their_maps_again(data: Path, maps: Path) -> None:
    before = files(maps)
    assert prep("verify", maps, "--data", data).exit_code == 0
    replace_image(data, 4)
    result = prep("verify", maps, "--data", data, "--repair")
    assert result.exit_code == 1 and f"'{val_id(4)}'" in result.output and "33x44" in result.output
    again = propose(data, maps, "--shard-size", "3", "--jobs", "1")
    assert again.exit_code == 0 and "this run: 3 images" in again.output
    changed = {name for name, content in files(maps).items() if before.get(name) != content}
    assert changed == {"val-00001-of-00004.h5", "val-00001-of-00004.h5.sha256"}
    result = prep("verify", maps, "--data", data)
    assert result.exit_code == 0 and "note" not in result.output


def test_an_image_that_is_newer_than_its_map_is_noted(data: Path, maps: Path) -> None:
    path = data / VAL / f"{val_id(1)}.JPEG"
    os.utime(path, ns=(2**62, 2**62))
    result = prep("verify", maps, "--data", data)
    assert result.exit_code == 0 and f"1 image written after the map, such as '{val_id(1)}'" in result.output


@pytest.mark.parametrize(("numbers", "code"), [((2,), 0), ((1, 2, 3, 5, 8), 1)])
def test_finished_maps_of_other_pictures_are_not_kept_in_silence(
    data: Path, maps: Path, numbers: tuple[int, ...], code: int, tmp_path: Path
) -> None:
    for number in numbers:
        replace_image(data, number)
    results = [
        propose(data, maps, "--shard-size", "3", "--jobs", "1"),
        evaluate("maps", maps, "--data", data, *SCORED, "--out", tmp_path / "out"),
        prep("preview", maps, "--data", data, "--split", "val", "--out", tmp_path / "sheet.png"),
    ]
    for result in results:
        assert result.exit_code == code, result.output
        assert f"{len(numbers)} of 10 images compared" in result.output and f"'{val_id(numbers[0])}'" in result.output


def test_a_finished_evaluation_of_other_pictures_is_not_taken_for_this_one(data: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "network.pt", classes=2, decoder=False)
    words = ("run", checkpoint, "--data", data, *SCORED, "--workers", 0, "--device", "cpu", "--out", tmp_path / "out")
    assert evaluate(*words).exit_code == 0 and evaluate(*words).exit_code == 0
    with Image.open(data / VAL / f"{val_id(3)}.JPEG") as image:
        size_wh = image.size
    replace_image(data, 3, size_wh=size_wh)
    result = evaluate(*words)
    assert result.exit_code == 1 and "image_bytes" in result.output and "another --out" in result.output


def test_the_record_of_a_step_knows_images_by_size_and_time(data: Path, tmp_path: Path) -> None:
    step = Step(
        name="maps", stage="proposals", program="wsol-prep", arguments=(), makes=FileSet(path=tmp_path / "maps")
    )

    def state() -> str:
        return step.input_state(DataIdentity(*(open_dataset(data, split=split) for split in ("train", "val"))))

    before = state()
    assert state() == before
    path = data / VAL / f"{val_id(6)}.JPEG"
    seen, content = path.stat(), path.read_bytes()
    path.write_bytes(content + b"\0")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert state() != before
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1))
    assert state() != before
