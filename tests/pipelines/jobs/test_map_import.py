"""Maps of other tools as shards: forms, scaling, averages, failures, and that all commands take the shards."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from evaluation.maps import FileMaps
from pipelines.datasets import open_dataset
from pipelines.jobs.map_import import average_stack, stored_map
from pseudo_maps.proposals import PRESETS, propose
from pseudo_maps.records import ImageRecord
from pseudo_maps.resampling import area_average
from pseudo_maps.shards import MapIndex, quantise_map
from pseudo_maps.shards.manifest import read_manifest
from tests.integration.eval_command import evaluate, evaluated, make_listed_data
from tests.integration.prep_command import error_lines, files, log_text, prep
from tests.world import World
from training.data.loading import check_maps

NAMES = ("a", "b", "c", "d", "e")
SIZE_WH = (40, 20)
SMALL = ("--map-size", "16")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of 40 x 20 pixels, ids ``val/a.png`` and on."""
    boxes = {name: [(4.0, 2.0, 25.0, 17.0)] for name in NAMES}
    return make_listed_data(tmp_path_factory.mktemp("import") / "data", boxes, size_wh=SIZE_WH)


def scores(seed: int, height: int = 20, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width))


def imported(folder: Path, data: Path, out: Path, *words: object) -> MapIndex:
    result = prep("import", folder, "--data", data, "--split", "val", "--out", out, *SMALL, *words)
    assert result.exit_code == 0, result.output
    return MapIndex(out, "val")


# --- one map


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_a_map_is_averaged_over_area_and_scaled_to_its_peak(dtype: type) -> None:
    map_hw = (scores(1, 30, 50) * 200).astype(dtype)
    found, peak = stored_map(map_hw, map_size=10, min_max=False)
    means_hw = map_hw.astype(np.float64).reshape(10, 3, 10, 5).mean(axis=(1, 3))
    assert peak == pytest.approx(means_hw.max(), rel=1e-5)
    assert np.abs(found - 255 * means_hw / means_hw.max()).max() <= 0.51


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1, 1e30, 1e308])
def test_the_range_does_not_matter(scale: float) -> None:
    expected, unit_peak = stored_map(scores(2), map_size=16, min_max=False)
    found, peak = stored_map(scores(2) * scale, map_size=16, min_max=False)
    np.testing.assert_array_equal(found, expected)
    assert peak == pytest.approx(unit_peak * scale)


def test_negative_values_are_zero_or_the_minimum_is() -> None:
    map_hw = np.array([[-1.0, 0.0], [1.0, 3.0]])
    assert stored_map(map_hw, map_size=2, min_max=False)[0].tolist() == [[0, 0], [85, 255]]
    assert stored_map(map_hw, map_size=2, min_max=True)[0].tolist() == [[0, 64], [128, 255]]
    assert stored_map(-np.ones((2, 2)), map_size=2, min_max=False) == (pytest.approx(np.zeros((2, 2))), 0.0)


def test_a_small_map_is_interpolated() -> None:
    found, _ = stored_map(np.array([[0.0, 1.0]]), map_size=8, min_max=False)
    assert found[0].tolist() == found[7].tolist() == [0, 0, 32, 96, 159, 223, 255, 255]


@pytest.mark.parametrize(
    "map_hw", [np.array([[np.nan]]), np.array([[1j]]), np.zeros((0, 3)), np.array([["a"]]), np.ones(3)]
)
def test_what_is_no_map_is_refused(map_hw: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        stored_map(map_hw, map_size=4, min_max=False)


# --- several masks of an image


def test_masks_are_averaged_as_our_own_proposals_are() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
    pixels[10:30, 20:50] //= 4
    ours = propose(pixels, config=PRESETS["b650"])
    stack_nhw = ours.masks[:, ours.labels]
    for dtype, inside in ((np.bool_, 1), (np.uint8, 255), (np.float32, 1)):
        found, count = average_stack(stack_nhw.astype(dtype) * dtype(inside))
        assert count == len(ours.masks)
        np.testing.assert_array_equal(found, ours.average())


def test_soft_masks_are_averaged_by_value() -> None:
    stack_nhw = np.array([[[0.0, 1.0]], [[0.5, 0.0]], [[1.0, 0.2]]])
    found, count = average_stack(stack_nhw)
    assert (found.tolist(), count) == ([[0.5, pytest.approx(0.4)]], 3)


# --- the command


def test_every_form_of_file_becomes_the_same_map(data: Path, tmp_path: Path) -> None:
    """One image for each form: an array, an archive, a picture, pages of masks, a folder of masks."""
    folder = tmp_path / "theirs"
    (folder / "val").mkdir(parents=True)
    masks = np.random.default_rng(3).integers(0, 2, size=(6, 20, 40), dtype=np.uint8)
    mean = masks.mean(axis=0)
    np.save(folder / "val" / "a.png.npy", mean[None])
    np.savez(folder / "b.npz", masks)
    Image.fromarray(masks.sum(axis=0, dtype=np.uint8)).save(folder / "c.png")
    savemat(folder / "d.mat", {"masks": np.moveaxis(masks, 0, -1)})
    (folder / "e").mkdir()
    for number, mask in enumerate(masks):
        Image.fromarray(mask * 255).save(folder / "e" / f"{number}.png")
    index = imported(folder, data, tmp_path / "maps")
    expected, peak = quantise_map(area_average(mean.astype(np.float32), height=16, width=16))
    peaks = {"a": peak, "b": peak, "c": peak * 6, "d": peak, "e": peak}
    for name, count in zip(NAMES, (0, 6, 0, 6, 6), strict=True):
        row = index.row(f"val/{name}.png")
        np.testing.assert_array_equal(index.read_uint8(row.image_id), expected)
        assert (row.status, row.proposals, row.width, row.height) == ("ok", count, *SIZE_WH)
        assert row.peak == pytest.approx(peaks[name])


def test_what_failed_costs_its_own_row(data: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "theirs", tmp_path / "maps"
    folder.mkdir()
    np.save(folder / "a.npy", scores(1))
    (folder / "b.npy").write_bytes(b"no array")
    np.save(folder / "c.npy", scores(1).T)
    np.save(folder / "d.npy", np.full((20, 40), np.nan))
    np.save(folder / "unknown.npy", scores(1))
    result = prep("import", folder, "--data", data, "--split", "val", "--out", out, *SMALL)
    assert result.exit_code == 1 and "failed:   4 (3 bad-map, 1 no-map)" in result.output
    assert f"1 map in {folder} without an image of the data set: unknown.npy" in result.stderr
    assert "has maps of 4 of 5 images; an image without one counts as failed; --limit 4 takes" in result.stderr
    assert [line for line in error_lines(result.stderr) if "4 images failed, more than --max-failed 0" in line]
    log = log_text(out)
    assert (
        f"{folder / 'b.npy'}: expected a plain numeric array" in log and f"{folder / 'd.npy'}: expected finite" in log
    )
    assert f"{folder / 'c.npy'}: transposed: the image has 20 rows and 40 columns" in log
    assert [MapIndex(out, "val").status(f"val/{name}.png") for name in NAMES] == ["ok", *["bad-map"] * 3, "no-map"]
    assert prep("verify", out, "--data", data).exit_code == 0


def test_masks_in_another_order_of_axes_are_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    savemat(folder / "a.mat", {"masks": np.ones((6, 20, 40))})
    np.save(folder / "b.npy", np.ones((20, 40, 3)))
    assert prep("import", folder, "--data", data, "--split", "val", "--out", tmp_path / "maps").exit_code == 1
    log = log_text(tmp_path / "maps")
    assert "expected masks (H, W, N) of the shape of the image" in log
    assert "expected a stack (N, H, W), found (20, 40, 3)" in log


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "expected files of maps (.npy, .npz, .png, .tif, .tiff, .mat), found none"),
        (["x.npy"], "no map fits any of 5 images: map ids are like 'x.npy'"),
        (["a.npy", "a.png.npy"], "image 'val/a.png': expected one map, found"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_before_any_work(
    data: Path, tmp_path: Path, names: list[str], expected: str
) -> None:
    (tmp_path / "theirs").mkdir()
    for name in names:
        np.save(tmp_path / "theirs" / name, scores(1))
    out = tmp_path / "maps"
    result = prep("import", tmp_path / "theirs", "--data", data, "--split", "val", "--out", out)
    assert result.exit_code == 1 and expected in result.stderr and not out.exists()


@pytest.fixture(scope="module")
def theirs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ten maps of the world's shards as files."""
    folder = tmp_path_factory.mktemp("theirs")
    index = MapIndex(world.maps, "val")
    for number, image_id in enumerate(index):
        map_hw = index.read_uint8(image_id)
        if number % 2:
            Image.fromarray(map_hw).save(folder / f"{image_id}.png")
        else:
            np.save(folder / f"{image_id}.npy", map_hw / np.float32(255))
    return folder


def test_imported_maps_are_those_they_came_from_and_every_command_takes_them(
    world: World, theirs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    result = prep("import", theirs, "--data", world.data, "--split", "val", "--out", out, "--map-size", 32)
    assert result.exit_code == 0 and "maps:     10 ok of 10" in result.output
    index, source = MapIndex(out, "val"), MapIndex(world.maps, "val")
    for image_id in source:
        np.testing.assert_array_equal(index.read_uint8(image_id), source.read_uint8(image_id))
    stored = json.dumps(index.provenance)
    assert '"method": "imported"' in stored and str(theirs) not in stored
    verified = prep("verify", out, "--data", world.data)
    assert verified.exit_code == 0 and "complete and undamaged" in verified.output
    assert prep("preview", out, "--data", world.data, "--html", tmp_path / "page.html").exit_code == 0
    assert "imported" in (tmp_path / "page.html").read_text()
    records = open_dataset(world.data, split="val").records
    assert check_maps(records, index)[0] == list(records)
    metrics = [
        evaluated(tmp_path / f"eval{number}", "maps", folder, "--data", world.data, "--name", "x", "--panels", 0)
        for number, folder in enumerate((out, world.maps, theirs))
    ]
    assert metrics[0]["results"] == metrics[1]["results"] == metrics[2]["results"]


def test_the_same_files_give_the_same_bytes_whatever_the_tasks_jobs_and_place(
    world: World, theirs: Path, tmp_path: Path
) -> None:
    words = ("--data", world.data, "--split", "val")
    imported(theirs, world.data, tmp_path / "whole")
    for task in (1, 0):
        result = prep(
            *("import", theirs, *words, *SMALL, "--out", tmp_path / "tasks", "--task-index", task, "--task-count", 2)
        )
        assert result.exit_code == 0, result.output
    moved = tmp_path / "moved"
    moved.symlink_to(theirs)
    imported(moved, world.data, tmp_path / "jobs", "--jobs", 2)
    assert files(tmp_path / "whole") == files(tmp_path / "tasks") == files(tmp_path / "jobs")


def test_a_removed_shard_is_made_again_by_the_command_that_verify_names(
    world: World, theirs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    imported(theirs, world.data, out)
    before = files(out)
    assert read_manifest(out, "val").shards == 1
    (out / "val-00000-of-00001.h5").unlink()
    verified = prep("verify", out, "--data", world.data)
    assert verified.exit_code == 1
    (command,) = (line.removeprefix("next: ") for line in verified.output.splitlines() if line.startswith("next: "))
    assert prep(*shlex.split(command)[1:]).exit_code == 0
    assert files(out) == before


def test_other_files_under_the_same_names_are_another_import(data: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "theirs", tmp_path / "maps"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        np.save(folder / f"{name}.npy", scores(number))
    imported(folder, data, out)
    words = ("import", folder, "--data", data, "--split", "val", "--out", out, *SMALL)
    assert prep(*words).exit_code == 0
    np.save(folder / "c.npy", scores(9))
    result = prep(*words)
    assert result.exit_code == 1 and "configuration.files.sha256" in result.stderr
    assert prep(*words, "--map-range", "min-max").exit_code == 1


def test_jobs_of_zero_are_bad_usage(data: Path, theirs: Path, tmp_path: Path) -> None:
    words = ("import", theirs, "--data", data, "--split", "val", "--out", tmp_path / "maps", "--jobs", 0)
    assert prep(*words).exit_code == 2


@pytest.mark.parametrize("name", ["centred-square", "two words", "", "<b>"])
def test_a_name_that_tables_cannot_show_is_bad_usage(world: World, theirs: Path, name: str) -> None:
    result = evaluate("maps", theirs, "--data", world.data, "--localizer", name)
    assert result.exit_code == 2 and "--localizer" in result.stderr


def test_a_folder_of_a_class_is_not_a_stack_of_masks(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    np.save(tmp_path / "cats" / "one.npy", scores(1))
    records = [ImageRecord(image_id=f"cats/{name}.jpg", path=f"cats/{name}.jpg") for name in ("one", "cats")]
    with pytest.raises(ValueError, match=r"would be the map of the images 'cats/one\.jpg' and 'cats/cats\.jpg'"):
        FileMaps(tmp_path, stacks=True).unused(records)
