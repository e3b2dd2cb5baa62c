"""``wsol-eval predict``: any images in, one overlay each and one JSON file out."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.boxes.wsoleval import normalise_score_map
from evaluation.protocols import get_protocol
from pipelines.jobs.localizer import Localizer, read_class_names
from pipelines.jobs.prediction import CSV_COLUMNS, PREDICTIONS_FILE, PredictionOutput, predict_images
from pseudo_maps.records import ImageRecord
from tests.integration.eval_command import SIDE_PX, make_checkpoint
from training.inference.images import EvaluationPixels
from training.inference.localizers import NetworkLocalizer, load_for_inference
from training.run_folder.checkpoints import CheckpointError, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

CLASSES = 7
SIZES = {"wide.png": (100, 30), "deep/tall.JPEG": (20, 90), "deep/grey.bmp": (33, 44), "tiny.webp": (3, 2)}


@pytest.fixture(scope="module")
def checkpoint(small_networks: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("network") / "network.pt", classes=CLASSES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many kinds, one that is none, and a file that does not claim to be one."""
    root = tmp_path_factory.mktemp("any") / "images"
    generator = np.random.default_rng(3)
    for name, (width, height) in SIZES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("L" if "grey" in name else "RGB").save(path)
    (root / "broken.jpg").write_bytes(b"not an image")
    (root / "notes.txt").write_text("nothing to see")
    return root


def predict(checkpoint: Path, images: list[Path], out: Path, **options: Any) -> tuple[int, list[str]]:
    said: list[str] = []
    wanted = {name: options.pop(name) for name in ("overlays", "maps", "csv") if name in options}
    of_job = {name: options.pop(name) for name in ("label", "batch_size", "workers", "jobs") if name in options}
    network = Localizer(checkpoint, **{"device": "cpu", **options})
    output = PredictionOutput(folder=out, **wanted)
    return predict_images(network, images, output=output, say=said.append, **of_job), said


def entries(out: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((out / PREDICTIONS_FILE).read_text(encoding="utf-8"))
    return {Path(entry["image"]).name: entry for entry in content["images"]}


def names_file(path: Path, count: int = CLASSES) -> Path:
    path.write_text("".join(f"class {label}\n" for label in range(count)))
    return path


@pytest.fixture(scope="module")
def predicted(checkpoint: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("predicted") / "new" / "out"
    failed, said = predict(checkpoint, [folder], out)
    assert failed == 1
    return out, said


def test_a_folder_gives_a_picture_of_every_image_that_reads(predicted: tuple[Path, list[str]]) -> None:
    out, said = predicted
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {PREDICTIONS_FILE, "wide.png", "deep/tall.png", "deep/grey.png", "tiny.png"}
    for name, (width, height) in SIZES.items():
        picture = cv2.imread(str((out / name).with_suffix(".png")))
        assert picture is not None and picture.shape == (height, width, 3)
    assert len(said) == 5, "one line an image"


def test_the_json_tells_classes_and_boxes_in_pixels_of_the_file(
    predicted: tuple[Path, list[str]], checkpoint: Path
) -> None:
    content = json.loads((predicted[0] / PREDICTIONS_FILE).read_text(encoding="utf-8"))
    assert content["network"]["weights"] == load_for_inference(checkpoint).digest
    assert (content["network"]["arch"], content["network"]["step"]) == ("alexnet-gap", 3)
    assert (content["localizer"], content["protocol"]) == ("cam", "cam")
    for name, entry in entries(predicted[0]).items():
        if name == "broken.jpg":
            assert "overlay" not in entry and "broken.jpg" in entry["error"]
            continue
        width, height = entry["width"], entry["height"]
        assert (width, height) in SIZES.values()
        probabilities = [one["probability"] for one in entry["classes"]]
        assert len(probabilities) == 5 and probabilities == sorted(probabilities, reverse=True)
        assert entry["localized_label"] == entry["classes"][0]["label"]
        assert {one["name"] for one in entry["classes"]} == {""}
        x0, y0, x1, y1 = entry["box_xyxy"]
        # A box may be thinner than a pixel of a small file, never outside of it.
        assert 0 <= x0 <= width - 1 and 0 <= x1 <= width - 1 and x1 - x0 > -1
        assert 0 <= y0 <= height - 1 and 0 <= y1 <= height - 1 and y1 - y0 > -1


def test_the_box_is_the_protocol_s_moved_to_the_file(
    predicted: tuple[Path, list[str]], checkpoint: Path, folder: Path
) -> None:
    model = load_for_inference(checkpoint)
    pixels = EvaluationPixels([ImageRecord(image_id="a", path="wide.png")], root=folder, side_px=SIDE_PX)[0]
    seen = NetworkLocalizer(model, localizers=["cam"])(pixels.images_bchw, torch.tensor([-1]))
    (frame_box,) = get_protocol("cam").candidates(seen.maps["cam"][0].numpy()).boxes_n4
    left, top, right, bottom = frame_box
    # Edges of pixels move with the picture, so that the whole frame stays the whole file.
    expected = [left * 100 / 224, top * 30 / 224, (right + 1) * 100 / 224 - 1, (bottom + 1) * 30 / 224 - 1]
    found = entries(predicted[0])["wide.png"]
    np.testing.assert_allclose(found["box_xyxy"], np.clip(expected, 0, [99, 29, 99, 29]), atol=0.006)
    assert [one["label"] for one in found["classes"]] == seen.scores_bk[0].topk(5).indices.tolist()


@pytest.mark.parametrize("localizer", ["cam", "grad-cam", "saliency", "cam*saliency"])
@pytest.mark.parametrize("protocol", ["cam-release", "ts-cam"])
def test_every_localizer_under_every_rule(
    checkpoint: Path, folder: Path, tmp_path: Path, localizer: str, protocol: str
) -> None:
    failed, _ = predict(checkpoint, [folder / "wide.png"], tmp_path, localizer=localizer, protocol=protocol, label="6")
    assert failed == 0
    found = entries(tmp_path)["wide.png"]
    assert found["localized_label"] == 6
    if found["box_xyxy"] is not None:
        assert 0 <= min(found["box_xyxy"]) and max(found["box_xyxy"]) <= 99


def test_a_chosen_class_changes_the_map_and_not_the_prediction(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    pictures = {}
    for label in (None, 0, 1):
        out = tmp_path / str(label)
        predict(checkpoint, [folder / "wide.png"], out, label=None if label is None else str(label))
        found = entries(out)["wide.png"]
        pictures[label] = (out / "wide.png").read_bytes()
        assert found["localized_label"] == (found["classes"][0]["label"] if label is None else label)
    assert pictures[0] != pictures[1]


def test_class_names_are_written_and_said(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    names = names_file(tmp_path / "names.txt")
    _, said = predict(checkpoint, [folder / "wide.png"], tmp_path / "out", class_names=names)
    classes = entries(tmp_path / "out")["wide.png"]["classes"]
    assert [one["name"] for one in classes] == [f"class {one['label']}" for one in classes]
    assert f"wide.png: class {classes[0]['label']} (" in said[0]


def test_class_names_of_the_checkpoint_are_used_unless_others_are_given(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    stored = [f"stored {label}" for label in range(CLASSES)]
    named = tmp_path / "named.pt"
    save_checkpoint(named, {**load_checkpoint(checkpoint), "class_names": stored})
    _, said = predict(named, [folder / "wide.png"], tmp_path / "stored")
    classes = entries(tmp_path / "stored")["wide.png"]["classes"]
    assert [one["name"] for one in classes] == [stored[one["label"]] for one in classes]
    assert f"wide.png: {classes[0]['name']} (" in said[0]
    _, said = predict(named, [folder / "wide.png"], tmp_path / "given", class_names=names_file(tmp_path / "names.txt"))
    assert f"wide.png: class {classes[0]['label']} (" in said[0]
    save_checkpoint(named, {**load_checkpoint(checkpoint), "class_names": stored[1:]})
    with pytest.raises(CheckpointError, match=rf"named\.pt: .*{CLASSES - 1} class names, expected {CLASSES}"):
        predict(named, [folder / "wide.png"], tmp_path / "short")


@pytest.mark.parametrize("count", [CLASSES - 1, CLASSES + 1])
def test_another_number_of_names_is_refused(tmp_path: Path, count: int) -> None:
    path = names_file(tmp_path / "names.txt", count)
    with pytest.raises(ValueError, match=rf"names\.txt: expected the names of {CLASSES} classes.*found {count} lines"):
        read_class_names(path, classes=CLASSES)


def test_files_are_taken_whatever_their_name(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "picture of the day"
    shutil.copy(folder / "wide.png", odd)
    assert predict(checkpoint, [odd], tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "picture of the day.png").exists()


# --- what else is written


def test_images_of_one_name_have_pictures_and_maps_of_their_own(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("maps/wide.png", "other/wide.webp", "other/wide-2.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "wide.png", tmp_path / "in" / name)
    given = [folder / "wide.png", *sorted((tmp_path / "in" / "other").iterdir()), tmp_path / "in"]
    out = tmp_path / "out"
    assert predict(checkpoint, given, out, maps="png")[0] == 0
    content = json.loads((out / PREDICTIONS_FILE).read_text(encoding="utf-8"))["images"]
    made = [entry[kind] for entry in content for kind in ("overlay", "map")]
    assert [Path(entry["image"]) for entry in content] == [*given[:3], *sorted((tmp_path / "in").rglob("*.*"))]
    assert len(set(made)) == len(made) == 12
    assert made[:6:2] == ["wide.png", "wide-2.png", "wide-3.png"]
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert found == set(made)


def test_maps_are_the_network_s_or_heat_of_the_image_s_size(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    raw, grey = tmp_path / "raw", tmp_path / "grey"
    assert predict(checkpoint, [folder], raw, maps="npy", overlays=False)[0] == 1
    assert {path.suffix for path in raw.rglob("*") if path.is_file()} == {".json", ".npy"}
    predict(checkpoint, [folder], grey, maps="png", overlays=False)
    for name, (width, height) in SIZES.items():
        map_hw = np.load((raw / "maps" / name).with_suffix(".npy"), allow_pickle=False)
        assert map_hw.dtype == np.float32 and map_hw.ndim == 2
        heat_hw = cv2.imread(str((grey / "maps" / name).with_suffix(".png")), cv2.IMREAD_UNCHANGED)
        assert heat_hw.shape == (height, width)
        expected = cv2.resize(normalise_score_map(map_hw), (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(heat_hw, expected)


def test_the_csv_has_a_row_for_each_image(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    wnids, words = ([f"{kind}{label}" for label in range(CLASSES)] for kind in ("n0", "a word, word "))
    named = tmp_path / "named.pt"
    save_checkpoint(named, {**load_checkpoint(checkpoint), "class_wnids": wnids, "class_names": words})
    predict(named, [folder], tmp_path / "out", label="word 4", csv=tmp_path / "new" / "boxes.csv")
    with (tmp_path / "new" / "boxes.csv").open(encoding="utf-8", newline="") as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    found = entries(tmp_path / "out")
    assert list(rows) == list(found) and list(rows["wide.png"]) == list(CSV_COLUMNS)
    broken = rows.pop("broken.jpg")
    assert set(broken.values()) == {broken["image"], ""}
    for name, row in rows.items():
        entry = found[name]
        assert (row["class_index"], row["wnid"], row["name"]) == ("4", "n04", "a word, word 4")
        assert entry["localized"]["label"] == entry["localized_label"] == 4
        assert float(row["score"]) == entry["localized"]["probability"] <= entry["classes"][0]["probability"]
        assert [float(row[side]) for side in ("x0", "y0", "x1", "y1")] == entry["box_xyxy"]


def test_a_class_has_an_index_a_wnid_and_names(checkpoint: Path, tmp_path: Path) -> None:
    wnids = [f"n{label:08d}" for label in range(CLASSES)]
    words = ["tench, Tinca tinca", "crane", "crane", "2", "goldfish", "kite", "boat"]
    named = tmp_path / "named.pt"
    save_checkpoint(named, {**load_checkpoint(checkpoint), "class_wnids": wnids, "class_names": words})
    network = Localizer(named, device="cpu")
    wanted = {"4": 4, "n00000005": 5, "tinca tinca": 0, "Tench, Tinca tinca": 0, "BOAT": 6, "2": 2}
    assert {text: network.find_class(text) for text in wanted} == wanted
    with pytest.raises(ValueError, match=r"class 'crane': 2 classes have this name; .* indexes \[1, 2\]"):
        network.find_class("crane")
    with pytest.raises(ValueError, match=r"class 'golden fish': expected .*; similar are 'goldfish'"):
        network.find_class("golden fish")


def test_a_threshold_changes_the_box(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    areas = []
    for threshold in (0.1, 0.8):
        out = tmp_path / str(threshold)
        predict(checkpoint, [folder / "wide.png"], out, protocol="wsoleval-v1", threshold=threshold)
        x0, y0, x1, y1 = entries(out)["wide.png"]["box_xyxy"]
        areas.append((x1 - x0) * (y1 - y0))
        assert json.loads((out / PREDICTIONS_FILE).read_text(encoding="utf-8"))["threshold"] == threshold
    assert areas[0] > areas[1]


def test_processes_and_batches_change_nothing(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    contents = []
    for name, processes in (("one", {}), ("more", {"workers": 1, "jobs": 2})):
        predict(
            checkpoint, [folder], tmp_path / name, batch_size=2, maps="npy", csv=tmp_path / name / "b.csv", **processes
        )
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert contents[0] == contents[1] and len(contents[0]) == 2 + 2 * 4


# --- refused before anything is written


def refused(checkpoint: Path, images: list[Path], out: Path, *, match: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=match):
        predict(checkpoint, images, out, **options)
    assert not (out / PREDICTIONS_FILE).exists()


def test_files_of_an_earlier_prediction_are_counted(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    predict(checkpoint, [folder], tmp_path / "out")
    _, said = predict(checkpoint, [folder / "wide.png"], tmp_path / "out")
    assert said[-1] == f"warning: {tmp_path / 'out'}: 3 files of an earlier prediction left, such as deep/grey.png"
    _, said = predict(checkpoint, [folder / "wide.png"], tmp_path / "out")
    assert len(said) == 1


def test_pictures_never_replace_images(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    before = (mine / "wide.png").read_bytes()
    (tmp_path / "link").symlink_to(mine, target_is_directory=True)
    refused(checkpoint, [mine], mine, match=r"wide\.png would replace an image; give another folder")
    refused(checkpoint, [mine / "wide.png"], tmp_path / "link", match="would replace an image")
    assert (mine / "wide.png").read_bytes() == before
    assert sorted(path.name for path in mine.rglob("*.png")) == ["wide.png"]


def test_a_folder_without_images_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(checkpoint, [tmp_path / "empty"], tmp_path / "out", match="expected images in .*empty")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"label": str(CLASSES)}, f"class '{CLASSES}': expected an index from 0 to {CLASSES - 1}, a wnid or a name"),
        ({"protocol": "wsoleval-v1"}, "no threshold of its own"),
        ({"localizer": "cam2"}, "localizer 'cam2'"),
    ],
)
def test_options_that_do_not_fit_the_network_are_refused(
    checkpoint: Path, folder: Path, tmp_path: Path, options: dict[str, Any], match: str
) -> None:
    refused(checkpoint, [folder], tmp_path / "out", match=match, **options)


def test_a_file_that_is_no_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"wide\.png"):
        predict(folder / "wide.png", [folder], tmp_path / "out")
