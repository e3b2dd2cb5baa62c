"""Maps refined by a network: the rule, what fails, the bytes, and that every reader of maps takes them."""

import dataclasses
import shlex
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

import pipelines.jobs.refinement as refinement
from evaluation.image_scores import UNREADABLE_IMAGE
from evaluation.maps import open_stored_maps
from evaluation.scoring import ImageMaps
from pipelines.datasets import open_dataset
from pipelines.jobs.evaluation_set import load_evaluation_set
from pipelines.jobs.refinement import Mean, geometric_mean, refined_map, sharpened_mean
from pipelines.reports.preview_page import described_configuration
from pseudo_maps.shards import STATUS_OK, MapIndex, ShardError, ShardWriter, make_provenance, quantise_map, shard_name
from pseudo_maps.shards.manifest import Manifest, agree_on_manifest, ids_digest, read_manifest
from pseudo_maps.shards.outcomes import row_of
from pseudo_maps.shards.sources import check_sources
from tests.integration.eval_command import evaluate, make_checkpoint, make_listed_data
from tests.integration.prep_command import error_lines, files, prep
from tests.pseudo_maps.shard_making import make_map, make_row
from tests.training.train_program import train
from tests.training.training_runs import make_colour_folders
from training.data.loading import check_maps
from training.inference.config import Views
from training.inference.images import EvaluationPixels
from training.inference.localizers import NetworkLocalizer, load_for_inference

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

NAMES = "abcdefg"
WITHOUT_MAP, WITHOUT_LABEL, SPOILT, RESIZED = "val/b.png", "val/d.png", "val/e.png", "val/f.png"
FAILED = {WITHOUT_MAP: "crashed", WITHOUT_LABEL: "no-label", SPOILT: "unreadable", RESIZED: "error"}
SIZE_WH = (80, 60)
SHARD_SIZE, MAP_SIZE = 3, 24


# --- the rule


def cubic_weight(distance: float) -> float:
    """Keys' kernel with OpenCV's constant of -0.75."""
    d = abs(distance)
    if d < 1:
        return 1.25 * d**3 - 2.25 * d**2 + 1
    return -0.75 * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def brute_force_share(cam_hw: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    """Resized activations pixel by pixel, by the definition of cubic interpolation with aligned pixel centres."""
    (height, width), (rows, columns) = size_hw, cam_hw.shape
    resized = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        v, u = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
        for row in range(-2, rows + 2):
            for column in range(-2, columns + 2):
                # Beyond the border as at the border.
                value = cam_hw[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)]
                resized[y, x] += cubic_weight(v - row) * cubic_weight(u - column) * float(value)
    positive = np.maximum(resized, 0)
    return positive / positive.max()


def sharpened_by_definition(map_hw: np.ndarray, share_hw: np.ndarray) -> np.ndarray:
    mean = np.exp((np.log(np.maximum(map_hw, 1e-300)) + 2 * np.log(np.maximum(share_hw, 1e-300))) / 3)
    mean /= mean.max()
    deviation = np.sqrt((mean**2).mean() - mean.mean() ** 2)
    return np.exp(np.log(mean) * 0.24 / deviation)


def test_the_mean_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(3)
    map_hw = generator.integers(0, 256, size=(11, 13), dtype=np.uint8)
    map_hw[3, 4] = 255
    cam_hw = generator.normal(size=(4, 5)).astype(np.float32)
    share_hw = brute_force_share(cam_hw, map_hw.shape)
    expected = {
        geometric_mean: np.sqrt(map_hw / 255 * share_hw),
        sharpened_mean: sharpened_by_definition(map_hw / 255, share_hw),
    }
    for mean, values_hw in expected.items():
        found = mean(map_hw, cam_hw)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, values_hw, atol=1e-5)
        np.testing.assert_allclose(mean(map_hw, 1000 * cam_hw), found, atol=1e-5)


def test_the_mean_of_a_vector_computed_by_hand() -> None:
    map_hw = np.array([[255, 0], [51, 204]], dtype=np.uint8)
    cam_hw = np.array([[2.0, 4.0], [-1.0, 1.0]], dtype=np.float32)
    np.testing.assert_allclose(geometric_mean(map_hw, cam_hw), [[0.5**0.5, 0], [0, 0.2**0.5]], rtol=1e-6)
    # 1/4 and .05 before, 1 and .2 after division by the maximum; the cubic roots deviate by about .4345.
    base = np.array([1, 0, 0, 0.2 ** (1 / 3)])
    expected = [[1, 0], [0, 0.2 ** (0.24 / 3 / base.std())]]
    np.testing.assert_allclose(sharpened_mean(map_hw, cam_hw), expected, rtol=1e-5)


@pytest.mark.parametrize("mean", [geometric_mean, sharpened_mean])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_without_a_positive_value_in_both_the_mean_is_zero(bad: float, mean: Mean) -> None:
    ones = np.full((4, 4), 255, dtype=np.uint8)
    cam_hw = np.ones((2, 2), dtype=np.float32)
    np.testing.assert_array_equal(mean(ones, cam_hw), np.ones((4, 4)))
    assert not mean(np.zeros_like(ones), cam_hw).any()
    assert not mean(ones, -cam_hw).any()
    cam_hw[0, 0] = bad
    assert not mean(ones, cam_hw).any()


def test_sharpening_lowers_the_halo_of_a_small_object_and_raises_that_of_a_large_one() -> None:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    small_hw, large_hw = np.exp(-(x**2 + y**2) / 0.02), 1 - np.abs(x)
    for map_hw in (small_hw, large_hw):
        map_hw /= map_hw.max()
        plain_hw, sharpened_hw = np.cbrt(map_hw**3), sharpened_mean(np.rint(255 * map_hw).astype(np.uint8), map_hw)
        inside_hw = (map_hw > 0.05) & (map_hw < 0.95)
        difference = sharpened_hw[inside_hw] - plain_hw[inside_hw]
        assert (difference < 0).all() if map_hw is small_hw else (difference > 0).all()


def test_each_reason_for_no_map_has_its_status() -> None:
    map_hw, row = np.full((4, 4), 255, dtype=np.uint8), make_row("a")
    seen = ImageMaps(whole={"cam": np.ones((2, 2), dtype=np.float32)}, file_wh=(500, 375))
    refined_hw, status, message = refined_map(map_hw, row, seen, mean=geometric_mean)
    assert (refined_hw.min(), status, message) == (1.0, STATUS_OK, "")
    cases = {
        "crashed": (dataclasses.replace(row, status="crashed"), None),
        "no-label": (row, None),
        "unreadable": (row, ImageMaps(failure=UNREADABLE_IMAGE)),
        "error": (row, dataclasses.replace(seen, file_wh=(375, 500))),
        "no-cam": (row, dataclasses.replace(seen, whole={"cam": -seen.whole["cam"]})),
    }
    for expected, (of_row, found) in cases.items():
        refined_hw, status, message = refined_map(map_hw, of_row, found, mean=geometric_mean)
        assert (status, refined_hw.shape, refined_hw.any()) == (expected, (4, 4), False) and message


# --- the command


def make_maps(folder: Path, data: Path, *, split: str = "val", size_wh: tuple[int, int] = SIZE_WH) -> Path:
    """Maps of all images of a data set, one of them failed and one of an image of another size."""
    records = open_dataset(data, split=split).records
    folder.mkdir()
    count = -(-len(records) // SHARD_SIZE)
    manifest = Manifest(
        split=split,
        images=len(records),
        shards=count,
        shard_size=SHARD_SIZE,
        ids_sha256=ids_digest(record.image_id for record in records),
        configuration={"method": "geodesic", "weighting": "objectness"},
    )
    agree_on_manifest(folder, manifest)
    provenance = make_provenance(manifest.configuration)
    for index in range(count):
        of_shard = records[index * SHARD_SIZE : (index + 1) * SHARD_SIZE]
        path = folder / shard_name(split, index, count)
        with ShardWriter(path, rows=len(of_shard), map_size=MAP_SIZE, provenance=provenance) as writer:
            for number, record in enumerate(of_shard):
                stored_hw, peak = quantise_map(make_map(number, size=MAP_SIZE))
                status, (width, height) = STATUS_OK, size_wh
                if record.image_id == WITHOUT_MAP:
                    stored_hw, peak, status, width, height = np.zeros_like(stored_hw), 0.0, "crashed", 0, 0
                if record.image_id == RESIZED:
                    width += 1
                row = row_of(record, height=height, width=width, peak=peak, proposals=9, status=status)
                writer.write(number, stored_hw, row)
            writer.commit()
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images of two classes: one without a class, one spoilt."""
    boxes = {name: [(4.0, 2.0, 70.0, 50.0)] for name in NAMES}
    labels = {name: number % 2 for number, name in enumerate(NAMES) if f"val/{name}.png" != WITHOUT_LABEL}
    root = tmp_path_factory.mktemp("refinement") / "data"
    make_listed_data(root, boxes, labels=labels, size_wh=SIZE_WH)
    (root / SPOILT).write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def maps(data: Path) -> Path:
    return make_maps(data.parent / "maps", data)


@pytest.fixture(scope="module")
def checkpoint(small_networks: None, data: Path) -> Path:
    return make_checkpoint(data.parent / "network.pt", classes=2)


def refine(maps: Path, data: Path, checkpoint: Path, out: Path, *words: object) -> Result:
    options = ("--split", "val", "--workers", 0, "--device", "cpu", "--max-failed", 4)
    return prep("refine", maps, "--data", data, "--with", checkpoint, "--out", out, *options, *words)


@pytest.fixture(scope="module")
def refined(maps: Path, data: Path, checkpoint: Path) -> Path:
    out = data.parent / "refined"
    result = refine(maps, data, checkpoint, out)
    assert result.exit_code == 0, result.output
    assert "maps:     3 ok of 7" in result.output
    return out


@pytest.mark.parametrize(("side_px", "mean"), [(None, geometric_mean), (96, sharpened_mean)])
def test_a_refined_map_is_the_mean_of_its_map_and_the_cam_of_its_label(
    maps: Path, data: Path, checkpoint: Path, refined: Path, tmp_path: Path, side_px: int | None, mean: Mean
) -> None:
    if side_px is not None:
        refined = tmp_path / "refined"
        assert refine(maps, data, checkpoint, refined, "--input-size", side_px, "--sharpen").exit_code == 0
    before, after = MapIndex(maps, "val"), MapIndex(refined, "val")
    model = load_for_inference(checkpoint)
    views = Views(scales=((side_px or model.input_size_px) / model.input_size_px,))
    localizer = NetworkLocalizer(model, localizers=["cam"], views=views)
    records = open_dataset(data, split="val").records
    assert list(after) == list(before)
    for record in records:
        row = after.row(record.image_id)
        assert row == dataclasses.replace(before.row(record.image_id), peak=row.peak, status=row.status)
        assert row.status == FAILED.get(record.image_id, STATUS_OK)
        if row.status != STATUS_OK:
            assert row.peak == 0 and not after.read_uint8(record.image_id).any()
            continue
        pixels = EvaluationPixels([record], root=data, side_px=side_px or model.input_size_px)[0]
        cam_hw = localizer(pixels.images_bchw, torch.tensor([record.label])).maps["cam"][0].numpy()
        expected_hw, peak = quantise_map(mean(before.read_uint8(record.image_id), cam_hw))
        assert expected_hw.max() == 255 and row.peak == pytest.approx(peak, rel=1e-4)
        assert np.abs(after.read_uint8(record.image_id).astype(int) - expected_hw).max() <= 1


def test_the_folder_says_what_it_was_made_of(maps: Path, refined: Path, checkpoint: Path) -> None:
    stored = read_manifest(refined, "val").configuration
    assert stored == MapIndex(refined, "val").provenance["configuration"]
    assert stored["uses"] == "class labels" and stored["rule"].startswith("sqrt(map x ")
    assert stored["maps"] == {
        "sha256": MapIndex(maps, "val").digest(),
        "configuration": MapIndex(maps, "val").provenance["configuration"],
    }
    model = load_for_inference(checkpoint)
    assert (stored["network"]["weights"], stored["network"]["input_size_px"]) == (model.digest, 64)


def test_every_reader_of_maps_takes_them(data: Path, refined: Path, tmp_path: Path) -> None:
    result = prep("verify", refined, "--data", data)
    assert result.exit_code == 1 and "was replaced: 80x60 pixels, its map is of 81x60" in result.output
    result = prep("verify", refined)
    assert result.exit_code == 0 and "val: 7 images, 3 ok, 1 crashed, 1 error, 1 no-label, 1 unread" in result.output
    told = described_configuration(read_manifest(refined, "val").configuration)
    assert "mean of another one and of the class activation map" in told and "geodesic object proposals" in told
    source = open_stored_maps(refined, split="val")
    images = load_evaluation_set(open_dataset(data, split="val")).images
    failures = {image.record.image_id: source.maps_of(image).failure for image in images}
    assert {key: value for key, value in failures.items() if value} == {
        image_id: f"map not usable: {status}" for image_id, status in FAILED.items()
    }
    kept, report = check_maps(open_dataset(data, split="val").records, MapIndex(refined, "val"), on_missing="skip")
    assert [record.image_id for record in kept] == ["val/a.png", "val/c.png", "val/g.png"]
    assert report.failed == {"crashed": 1, "no-label": 1, "unreadable": 1, "error": 1}


# --- again and again


def test_lost_shards_are_made_again_to_the_same_bytes_by_the_command_that_verify_prints(
    maps: Path, data: Path, checkpoint: Path, refined: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(refined, out)
    assert refine(maps, data, checkpoint, out).exit_code == 0
    assert files(out) == files(refined)
    (out / shard_name("val", 1, 3)).unlink()
    (out / ".val-00002-of-00003.h5.some-host.1.tmp").write_bytes(b"half")
    lines = prep("verify", out, "--data", data).stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("next: "))
    assert prep(*shlex.split(line)[2:]).exit_code == 0
    (out / ".val-00002-of-00003.h5.some-host.1.tmp").unlink()
    assert files(out) == files(refined)


def test_tasks_and_workers_do_not_change_the_bytes(
    maps: Path, data: Path, checkpoint: Path, refined: Path, tmp_path: Path
) -> None:
    for task in range(2):
        words = ("--task-index", task, "--task-count", 2, "--workers", task)
        assert refine(maps, data, checkpoint, tmp_path / "maps", *words).exit_code == 0
    assert files(tmp_path / "maps") == files(refined)


def test_batches_are_cut_at_the_same_places_whatever_is_there_already(
    maps: Path, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinement, "BATCH_IMAGES", 2)
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert refine(maps, data, checkpoint, whole).exit_code == 0
    part.mkdir()
    for name in ("val.manifest.json", shard_name("val", 0, 3), f"{shard_name('val', 0, 3)}.sha256"):
        shutil.copy(whole / name, part / name)
    assert refine(maps, data, checkpoint, part).exit_code == 0
    assert files(part) == files(whole)


def test_failed_images_are_tried_again_on_request(
    maps: Path, data: Path, checkpoint: Path, refined: Path, tmp_path: Path
) -> None:
    mended, out = tmp_path / "data", tmp_path / "maps"
    shutil.copytree(data, mended)
    shutil.copytree(refined, out)
    shutil.copy(mended / "val/a.png", mended / SPOILT)
    result = refine(maps, mended, checkpoint, out, "--retry-failed")
    assert result.exit_code == 0 and MapIndex(out, "val").status(SPOILT) == STATUS_OK


# --- what is refused


def test_another_network_into_the_same_folder_is_refused(maps: Path, data: Path, refined: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other.pt", classes=2, seed=1)
    before = files(refined)
    result = refine(maps, data, other, refined)
    assert result.exit_code == 1 and "configuration.network.weights" in result.output
    assert files(refined) == before


@pytest.mark.parametrize(("relabelled", "code"), [("a", 0), ("aceg", 1)])
def test_maps_of_other_labels_are_not_completed_scored_or_trained_on_in_silence(
    maps: Path, data: Path, checkpoint: Path, refined: Path, tmp_path: Path, relabelled: str, code: int
) -> None:
    other, out = tmp_path / "data", tmp_path / "maps"
    shutil.copytree(data, other)
    shutil.copytree(refined, out)
    labels = other / "class_labels.txt"
    for name in relabelled:
        labels.write_text(labels.read_text().replace(f"val/{name}.png,0", f"val/{name}.png,1"))
    assert labels.read_text() != (data / "class_labels.txt").read_text()
    said = "'val/a.png' (class 'n00000001', its map is of 'n00000000')"
    for result in (refine(maps, other, checkpoint, out), evaluate("maps", out, "--data", other, "--protocol", "cam")):
        assert result.exit_code == code and said in result.stderr
    with pytest.raises(ShardError, match="class") if code else nullcontext():
        (warning,) = check_sources(MapIndex(out, "val"), open_dataset(other, split="val").records, root=other)
        assert said in warning
    assert "'val/a.png' was replaced: class 'n00000001'" in prep("verify", out, "--data", other).output
    # Maps of proposals are of no class.
    assert prep("verify", maps, "--data", other).output.count("'n0000") == 0


def test_failures_beyond_the_limit_are_exit_1(maps: Path, data: Path, checkpoint: Path, refined: Path) -> None:
    result = refine(maps, data, checkpoint, refined, "--max-failed", 3)
    assert result.exit_code == 1 and "4 images failed, more than --max-failed 3" in result.output


def test_maps_of_other_images_are_refused(maps: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = make_listed_data(tmp_path / "data", {"x": [(0.0, 0.0, 9.0, 9.0)], "a": [(0.0, 0.0, 9.0, 9.0)]})
    result = refine(maps, other, checkpoint, tmp_path / "out")
    (line,) = error_lines(result.output)
    assert result.exit_code == 1 and "6 of 7 maps are of images" in line and "'val/b.png'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "said"),
    [("*.sha256", "lack their .sha256 files"), ("*.manifest.json", "no manifest of these shards: copy it from where")],
)
def test_shards_without_their_other_files_are_refused(
    missing: str, said: str, maps: Path, data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "maps"
    shutil.copytree(maps, bare, ignore=shutil.ignore_patterns(missing))
    result = refine(bare, data, checkpoint, tmp_path / "out")
    assert result.exit_code == 1 and said in result.output


# --- self-training


def test_a_second_round_learns_maps_that_the_first_round_s_network_refined(tmp_path: Path) -> None:
    data = make_colour_folders(tmp_path / "data", train=2, val=1)
    first = make_maps(tmp_path / "maps", data, split="train", size_wh=(96, 80))
    words = "--device cpu --input-size 64 --batch-size 3 --epochs 1 --workers 0 --no-triplet-loss --data".split()
    assert train(*words, data, "--maps", first, "--out", tmp_path / "teacher").exit_code == 0
    options = ("--split", "train", "--data", data, "--with", tmp_path / "teacher", "--device", "cpu", "--workers", 0)
    assert prep("refine", first, *options, "--out", tmp_path / "refined").exit_code == 0
    second = ("--maps", tmp_path / "refined", "--on-missing", "skip", "--out", tmp_path / "student")
    result = train(*words, data, *second)
    assert result.exit_code == 0, result.output
    teacher, student = (load_for_inference(tmp_path / name) for name in ("teacher", "student"))
    learnt = student.config["maps"]
    assert learnt["uses"] == "class labels" and learnt["maps"]["configuration"] == teacher.config["maps"]
    assert learnt["network"]["weights"] == teacher.digest != student.digest
