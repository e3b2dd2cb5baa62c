"""A run of ``wsol-prep proposals``: what it prints, makes, keeps, refuses and shares among tasks."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pseudo_maps.config import MapConfig
from pseudo_maps.shards import MapIndex
from tests.command_calls import start_python
from tests.counts import FULL_TESTS, full
from tests.integration.prep_command import files, prep, propose, states, val_id


@pytest.mark.usefixtures("made")  # the kernels are compiled then, which would be said
def test_a_run_says_what_it_does_and_what_it_did(data: Path, tmp_path: Path) -> None:
    done = propose(data, tmp_path / "m", split="train")
    assert done.exit_code == 0, done.stderr
    first, second, progress = done.stderr.splitlines()
    assert first == "train (clsloc): 4 images, up to 16 a shard: 1 shard; 0 finished, 4 images to do"
    assert second.startswith("geodesic: boundaries directed-sobel, superpixels 1000") and "maps 32px" in second
    assert progress.startswith("train: 4/4 images")
    out = done.stdout.splitlines()
    assert out[:2] == [f"maps:     4 ok of 4 in {tmp_path / 'm'}", "failed:   0"]
    assert re.fullmatch(r"this run: 4 images in \d+\.\d s, \d+\.\d images/s", out[2])
    assert re.fullmatch(r"size:     \d+\.\d KB a map", out[3])


def test_running_again_keeps_every_shard(data: Path, maps: Path) -> None:
    before, content = states(maps), files(maps)
    result = propose(data, maps, "--shard-size", "3")
    assert result.exit_code == 0
    assert "4 finished, 0 images to do" in result.output and "10 ok of 10" in result.output
    assert "this run" not in result.output
    assert states(maps) == before and files(maps) == content


def test_a_lost_shard_comes_back_with_the_same_bytes(data: Path, maps: Path) -> None:
    before, content = states(maps), files(maps)
    (maps / "val-00002-of-00004.h5").unlink()
    result = propose(data, maps, "--shard-size", "3", "--jobs", "1")
    assert result.exit_code == 0
    assert "3 finished, 3 images to do" in result.output and "this run: 3 images" in result.output
    assert files(maps) == content
    changed = {name for name, state in states(maps).items() if state != before[name]}
    assert changed == {"val-00002-of-00004.h5", "val-00002-of-00004.h5.sha256"}


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["--shard-size", "4"], ["shard_size", "shards"]),
        (["--shard-size", "3", "--map-size", "16"], ["configuration.map_size"]),
        (["--shard-size", "3", "--preset", "b2200"], ["levels", "max_iou", "seeds"]),
        (["--shard-size", "3", "--no-by-name"], ["configuration.by_name"]),
        (["--shard-size", "3", "--limit", "9"], ["images"]),
        (["--shard-size", "3", "--method", "selective-search"], ["configuration.method"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_other_settings_are_refused_naming_what_differs(
    data: Path, maps: Path, words: list[str], keys: list[str]
) -> None:
    before = states(maps)
    result = propose(data, maps, *words)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert f"wsol-prep: error: {maps / 'val.manifest.json'} was made from other images or settings" in result.output
    for key in keys:
        assert re.search(rf"(?m)^  [\w.]*{key}: .* stored, .* now", result.output), key
    assert "another output folder" in result.output
    dry = propose(data, maps, *words, "--dry-run")
    assert (dry.exit_code, dry.stderr) == (1, result.stderr)
    assert states(maps) == before


def test_another_number_of_images_leads_and_shows_no_digests(data: Path, maps: Path) -> None:
    result = propose(data, maps, "--limit", "9", "--map-size", "16")
    lines = result.stderr.splitlines()
    begin = next(number for number, line in enumerate(lines) if "was made from other images" in line)
    assert lines[begin + 1] == "  images: 10 stored, 9 now"
    assert "ids_sha256" not in result.stderr and "configuration.map_size: 32 stored, 16 now" in result.stderr


def test_compilation_is_announced(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warm_up(_config: MapConfig, *, on_compile: Callable[[], None], **_options: object) -> None:
        on_compile()

    monkeypatch.setattr("pseudo_maps.runs.generation.warm_up", warm_up)
    result = propose(data, tmp_path / "m", "--limit", 1)
    assert result.exit_code == 0 and "compiling, once for this installation" in result.stderr


@pytest.mark.skipif(not full(0, 1), reason=f"compiles for ten seconds: set {FULL_TESTS}=1")
def test_compilation_is_announced_once_for_an_installation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    # OpenCV's proposals need the fewest of the kernels.
    words = ("proposals", "--data", data, "--split", "val", "--method", "selective-search", "--limit", 1)
    for number, told in enumerate((1, 0)):
        run = start_python("-m", "pipelines.prep_cli", *words, "--out", tmp_path / f"m{number}", stderr=subprocess.PIPE)
        _, stderr = run.communicate()
        assert run.returncode == 0, stderr
        assert stderr.count("wsol-prep: compiling, once for this installation") == told


@pytest.mark.skipif(not full(0, 1), reason=f"compiles for a minute: set {FULL_TESTS}=1")
def test_nothing_is_left_to_compile_after_compile(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))
    before: list[Path] = []
    for module, *words in (
        ("pipelines.prep_cli", "compile"),
        ("pipelines.prep_cli", "proposals", "--data", data, "--split", "val", "--out", tmp_path / "m"),
        ("pipelines.eval_cli", "maps", tmp_path / "m", "--data", data, "--out", tmp_path / "e"),
    ):
        run = start_python("-m", module, *words)
        output, _ = run.communicate()
        assert run.returncode == 0, output
        assert ("compiling" in output, str(cache) in output) == (not before, not before)
        found = sorted(cache.iterdir())
        assert found and before in ([], found)
        before = found


def test_debug_adds_the_traceback(data: Path, maps: Path) -> None:
    result = propose(data, maps, "--shard-size", "4", "--debug")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.output and "wsol-prep: error:" in result.output


def test_a_dry_run_writes_nothing(data: Path, tmp_path: Path, maps: Path) -> None:
    result = propose(data, tmp_path / "new", "--dry-run", "--shard-size", "3")
    assert result.exit_code == 0 and "10 images, up to 3 a shard: 4 shards; 0 finished" in result.output
    assert not (tmp_path / "new").exists()
    (maps / "val-00000-of-00004.h5").unlink()
    before = states(maps)
    result = propose(data, maps, "--dry-run", "--shard-size", "3")
    assert result.exit_code == 0 and "3 finished, 3 images to do" in result.output
    assert states(maps) == before and len(list((maps / "logs").iterdir())) == 1


def test_limit_takes_the_first_images(data: Path, made: Path, tmp_path: Path) -> None:
    assert propose(data, tmp_path / "few", "--limit", "4").exit_code == 0
    few, whole = MapIndex(tmp_path / "few", "val"), MapIndex(made, "val")
    ids = [line.split()[0] for line in (data / "ImageSets/CLS-LOC/val.txt").read_text().splitlines()]
    assert len(few) == 4 and few.missing(ids) == ids[4:]
    for image_id in ids[:4]:
        np.testing.assert_array_equal(few.read_uint8(image_id), whole.read_uint8(image_id))


def test_splits_share_a_folder(data: Path, maps: Path) -> None:
    before = states(maps)
    assert propose(data, maps, split="train").exit_code == 0
    assert {name: state for name, state in states(maps).items() if name.startswith("val")} == before
    result = prep("verify", maps, "--data", data)
    assert result.exit_code == 0 and "train, val complete and undamaged" in result.output


def test_map_size_and_by_name_are_followed(data: Path, made: Path, tmp_path: Path) -> None:
    assert propose(data, tmp_path / "small", "--map-size", "20", "--no-by-name", "--limit", "2").exit_code == 0
    with h5py.File(tmp_path / "small" / "val-00000-of-00001.h5") as small:
        assert small["saliency/maps"].shape == (2, 20, 20) and "by_name" not in small
    with h5py.File(made / "val-00000-of-00004.h5") as named:
        assert named["saliency/maps"].shape == (3, 32, 32)
        assert sum(len(group) for group in named["by_name"].values()) == 3


def test_tasks_of_an_array_make_the_whole_folder(data: Path, made: Path, tmp_path: Path) -> None:
    for task in (2, 0, 1):
        result = propose(data, tmp_path / "m", "--shard-size", "3", "--task-index", task, "--task-count", 3)
        assert result.exit_code == 0 and f"task {task} of 3 has {(2, 1, 1)[task]}" in result.output
    assert files(tmp_path / "m") == files(made)


def test_slurm_variables_are_followed(data: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # sbatch --array=10-14:4 has the tasks 10 and 14.
    for task in (14, 10):
        values = {"ID": task, "MIN": 10, "MAX": 14, "STEP": 4, "COUNT": 2}
        for name, value in values.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        result = propose(data, tmp_path / "m", "--shard-size", "3")
        assert result.exit_code == 0 and f"task {(task - 10) // 4} of 2 has 2" in result.output
    assert files(tmp_path / "m") == files(made)


def test_a_slurm_array_with_holes_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ID": 3, "MIN": 3, "MAX": 7, "STEP": 1, "COUNT": 2}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    result = propose(data, tmp_path / "m")
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert "has holes" in result.output and "--array=0-63" in result.output
    assert not (tmp_path / "m").exists()
    result = propose(data, tmp_path / "m", "--task-index", "0", "--task-count", "1", "--dry-run")
    assert result.exit_code == 0, "explicit options win"


def test_selective_search_is_a_working_fallback(data: Path, tmp_path: Path) -> None:
    words = ["--method", "selective-search", "--search-mode", "single", "--limit", "3", "--working-size", "96"]
    for name in ("one", "two"):
        result = propose(data, tmp_path / name, *words)
        assert result.exit_code == 0 and "selective-search: mode single" in result.output
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert prep("verify", tmp_path / "one").exit_code == 0
    index = MapIndex(tmp_path / "one", "val")
    maps = [index.read_uint8(val_id(number)) for number in (1, 2, 3)]
    assert all(found.max() == 255 and found.min() < 200 for found in maps)
    assert not np.array_equal(maps[0], maps[1])
