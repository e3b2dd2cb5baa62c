"""``wsol-eval`` as a user runs it: with one job or several, killed and resumed, with every option."""

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evaluation.protocols import PROTOCOLS
from pseudo_maps.shards import MapIndex
from tests.integration.eval_command import (
    SIDE_PX,
    evaluate,
    evaluated,
    make_checkpoint,
    make_listed_data,
    metrics_of,
    result_of,
    results_in,
)
from tests.integration.prep_command import VAL, prep, val_id
from tests.world import EVALUATION_OPTIONS, QUIET_RUN, World, copy_of

pytestmark = pytest.mark.usefixtures("one_torch_thread")

IMAGES = 10
FEW = (*EVALUATION_OPTIONS, "--name", "run")


@pytest.fixture
def network(world: World) -> Path:
    """The folder of a run with one checkpoint of a network of two classes."""
    return world.network


@pytest.fixture
def whole(world: World) -> Path:
    """A finished run that nothing disturbed, of FEW."""
    return world.evaluation


def rows(out: Path) -> list[dict[str, str]]:
    """One row an image, its results by columns such as ``cam cam iou``."""
    images: dict[str, dict[str, str]] = {}
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            own = {f"{row['localizer']} {row['protocol']} {column}": row[column] for column in ("iou", "verdict")}
            own[f"{row['localizer']} {row['protocol']} box"] = " ".join(row[side] for side in ("x0", "y0", "x1", "y1"))
            images.setdefault(row["image_id"], row).update(own)
    return list(images.values())


# --- what a run gives


def test_metrics_and_predictions_tell_the_same(whole: Path) -> None:
    metrics, table = metrics_of(whole), rows(whole)
    assert metrics["kind"] == "run"
    assert metrics["counts"] == {"asked": IMAGES, "scored": IMAGES, "failed": {}, "skipped": {}} | {
        "notes": metrics["counts"]["notes"]
    }
    assert [row["image_id"] for row in table] == [val_id(number) for number in range(1, IMAGES + 1)]
    right_class = sum(row["predicted_class"] == row["label"] for row in table)
    assert metrics["classification"]["top1"]["correct"] == right_class
    assert metrics["classification"]["top5"]["correct"] == IMAGES, "there are two classes"
    assert [(one["localizer"], one["protocol"]) for one in metrics["results"]] == [
        (localizer, protocol) for localizer in ("cam", "saliency", "cam*saliency") for protocol in ("cam", "psol-crop")
    ]
    for one in (*metrics["results"], *metrics["baselines"]):
        name = f"{one['localizer']} {one['protocol']}"
        verdicts = Counter(row[f"{name} verdict"] for row in table)
        assert {word: count for word, count in one["errors"].items() if count} == verdicts
        above = sum(float(row[f"{name} iou"]) >= 0.5 for row in table)
        assert one["gt_known_loc"]["correct"] == above
        assert one["top1_loc"]["correct"] <= min(above, right_class)
        assert one["top5_loc"]["correct"] == above
        assert sum(one["iou_histogram"]["counts"]) == IMAGES
    # The networks' boxes differ from image to image, or the comparisons of runs below would show nothing.
    assert len({row["cam cam box"] for row in table}) > IMAGES // 2


def test_the_network_is_named(whole: Path) -> None:
    config = metrics_of(whole)["config"]
    assert config["network"]["arch"] == "alexnet-gap"
    assert (config["network"]["step"], config["network"]["input_size_px"]) == (3, SIDE_PX)
    assert re.fullmatch("[0-9a-f]{12}", config["network"]["weights"])
    assert config["precision"] == "fp32"
    assert config["localizers"] == ["cam", "saliency", "cam*saliency"]


def test_a_finished_run_is_not_made_again(network: Path, data: Path, whole: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert evaluate("run", network, "--data", data, *FEW, "--out", whole).exit_code == 0
    assert {path.name: path.stat().st_mtime_ns for path in whole.iterdir()} == before


# --- the same bytes


def test_two_jobs_a_process_that_decodes_and_a_checkpoint_file_make_the_same(
    network: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    (checkpoint,) = network.iterdir()
    evaluated(tmp_path / "run", "run", checkpoint, "--data", data, *FEW, "--jobs", 2, "--workers", 1)
    assert results_in(tmp_path / "run") == results_in(whole)


def test_maps_are_scored_alike_by_one_job_and_two(data: Path, made: Path, tmp_path: Path) -> None:
    words = ("maps", made, "--data", data, "--panels", 0, "--name", "either")
    metrics = evaluated(tmp_path / "one", *words)
    evaluated(tmp_path / "two", *words, "--jobs", 2)
    assert results_in(tmp_path / "two") == results_in(tmp_path / "one")
    assert {one["protocol"] for one in metrics["results"]} == set(PROTOCOLS)
    assert metrics["classification"] is None and metrics["config"]["maps"]["format"] == "shards"


# --- saved maps


def test_saved_maps_score_as_the_network_did(network: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sweeps = ("--protocol", "wsoleval-v1", "--protocol", "wsoleval-v2", "--panels", 0)
    command = ("run", network, "--data", data, *QUIET_RUN, *sweeps, "--save-maps")
    of_network = evaluated(out, *command)
    assert {path.name for path in (out / "maps").iterdir()} == {"cam", "saliency", "cam-x-saliency"}
    for localizer, folder in (("cam", "cam"), ("cam*saliency", "cam-x-saliency")):
        assert prep("verify", out / "maps" / folder, "--data", data).exit_code == 0
        again = evaluated(tmp_path / folder, "maps", out / "maps" / folder, "--data", data, *sweeps)
        for protocol in ("wsoleval-v1", "wsoleval-v2"):
            wanted, found = (
                result_of(metrics, name, protocol) for metrics, name in ((of_network, localizer), (again, localizer))
            )
            for metric in ("gt_known_loc", "max_box_acc", "max_box_acc_v2", "curve", "iou_histogram", "threshold"):
                assert found[metric] == wanted[metric], (localizer, protocol, metric)
    # Ten maps that are the same would show nothing.
    index = MapIndex(out / "maps" / "cam", "val")
    assert len({index.read_uint8(image_id).tobytes() for image_id in index}) == IMAGES

    # A shard that is gone is made again; nothing else changes.
    before = results_in(out)
    (shard,) = (out / "maps" / "saliency").glob("*.h5")
    content = shard.read_bytes()
    shard.unlink()
    evaluated(out, *command)
    assert shard.read_bytes() == content and results_in(out) == before


# --- options of a run


@pytest.mark.parametrize(
    ("words", "views"),
    [
        ("--scale 1 --scale 1.5 --flip", "1.5"),
        ("--ten-crop", "ten"),
        ("--flip", "mirror"),
    ],
)
def test_views_change_the_maps_and_are_told(
    network: Path, data: Path, whole: Path, tmp_path: Path, words: str, views: str
) -> None:
    few = (*QUIET_RUN, "--limit", 3, "--localizer", "cam", "--protocol", "cam", "--protocol", "cam-release")
    metrics = evaluated(tmp_path / "views", "run", network, "--data", data, *few, *words.split())
    assert views in metrics["config"]["views"] and views not in metrics_of(whole)["config"]["views"]
    assert metrics["counts"]["scored"] == 3
    plain, viewed = ([row["cam cam box"] for row in rows(out)[:3]] for out in (whole, tmp_path / "views"))
    assert plain != viewed


def test_views_that_exclude_each_other_are_one_line(network: Path, data: Path) -> None:
    result = evaluate("run", network, "--data", data, *FEW, "--ten-crop", "--flip")
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert "ten crops have their own scale and mirror images" in result.output


def test_grad_cam_of_a_linear_classifier_is_the_positive_part_of_cam(network: Path, data: Path, tmp_path: Path) -> None:
    words = (*FEW, "--localizer", "cam", "--localizer", "grad-cam")
    metrics = evaluated(tmp_path / "run", "run", network, "--data", data, *words)
    assert metrics["config"]["localizers"] == ["cam", "grad-cam"]
    for row in rows(tmp_path / "run"):
        # The rule of cam clips at 0 anyway, so both have the same box, but for a bias that cam has not.
        assert row["grad-cam cam box"] == row["cam cam box"]
    assert result_of(metrics, "grad-cam", "cam")["gt_known_loc"] == result_of(metrics, "cam", "cam")["gt_known_loc"]


def test_a_network_without_decoder_has_no_saliency_map(data: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "gap.pt", classes=2, decoder=False)
    few = ("--limit", 2, *QUIET_RUN, "--protocol", "cam")
    metrics = evaluated(tmp_path / "run", "run", checkpoint, "--data", data, *few)
    assert metrics["config"]["localizers"] == ["cam"]
    result = evaluate("run", checkpoint, "--data", data, *few, "--localizer", "saliency")
    assert result.exit_code == 1
    assert "localizer 'saliency' needs a decoder" in result.output and str(checkpoint) in result.output


def test_a_network_of_other_classes_is_refused(data: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "three.pt", classes=3, decoder=False)
    result = evaluate("run", checkpoint, "--data", data, *FEW, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert f"{checkpoint}: a network of 3 classes, but the data has 2" in result.output
    assert not (tmp_path / "run").exists()


def test_images_that_do_not_decode_are_wrong_and_named(network: Path, data: Path, tmp_path: Path) -> None:
    spoilt = copy_of(data, tmp_path / "data")
    (spoilt / VAL / f"{val_id(2)}.JPEG").write_bytes(b"no image")
    (spoilt / VAL / f"{val_id(4)}.JPEG").unlink()
    metrics = evaluated(tmp_path / "run", "run", network, "--data", spoilt, *FEW, "--batch-size", 4, "--save-maps")
    assert metrics["counts"]["failed"] == {"unreadable image": 2}
    assert metrics["counts"]["scored"] == IMAGES
    assert metrics["classification"]["images"] == IMAGES, "a class that was not found is wrong"
    table = rows(tmp_path / "run")
    assert [row["image_id"] for row in table if row["status"] == "unreadable image"] == [val_id(2), val_id(4)]
    for row in (table[1], table[3]):
        assert (row["predicted_class"], row["true_rank"], row["cam cam verdict"]) == ("", "-1", "no box")
        assert row["whole-frame cam iou"] != ""
    words = ("--data", spoilt, "--panels", 0, "--protocol", "cam")
    again = evaluated(tmp_path / "maps", "maps", tmp_path / "run" / "maps" / "cam", *words)
    assert again["counts"]["failed"] == {"map not usable: no-score-map": 2}


# --- pictures, predictions, exports, reports


def test_a_picture_of_examples(network: Path, data: Path, tmp_path: Path) -> None:
    few = ("--localizer", "cam", "--protocol", "psol-crop", "--protocol", "cam", "--panels", 2)
    evaluated(tmp_path / "run", "run", network, "--data", data, *FEW, *few)
    picture = cv2.imread(str(tmp_path / "run" / "panels" / "examples.png"))
    assert picture is not None and picture.shape[0] > 2 * 224 and picture.shape[1] >= 3 * 224


def test_data_without_boxes_ends_in_a_report(network: Path, tmp_path: Path) -> None:
    data = make_listed_data(tmp_path / "data", {name: [] for name in "abc"})
    out, page = tmp_path / "out", tmp_path / "report.html"
    result = evaluate("run", network, "--data", data, *QUIET_RUN, "--panels", 2, "--localizer", "cam", "--out", out)
    assert result.exit_code == 0, result.output
    assert "none of the 3 images of split 'val'" in result.output and "localization is not scored" in result.output
    metrics = metrics_of(out)
    assert metrics["counts"]["skipped"] == {"no boxes": 3} and metrics["results"] == metrics["baselines"] == []
    assert metrics["classification"]["images"] == 3
    fixed = {name for name, protocol in PROTOCOLS.items() if not protocol.threshold_is_oracle}
    for row in rows(out):
        # Where no score of the centre is above 0, psol-crop has no box.
        assert fixed - {"psol-crop"} <= {name for name in PROTOCOLS if row[f"cam {name} box"].strip()} <= fixed
        assert (row["width"], row["height"], row["cam cam verdict"]) == ("40", "20", "")
    assert evaluate("report", out, "--out", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert (
        "was not scored: every image was skipped" in text
        and "Top-1 Class" in text
        and text.count(": predicted box") == 2
    )
    tables = evaluate("report", out, "--out", tmp_path / "report.csv")
    assert tables.exit_code == 0
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["top1_class"]) == pytest.approx(metrics["classification"]["top1"]["rate"], abs=1e-6)
    # Nothing to print and nothing to write.
    refused = evaluate("baseline", "--data", data)
    assert refused.exit_code == 1 and "none of the 3 images" in refused.output


def test_predict_a_folder_with_a_broken_file(network: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2):
        shutil.copy(data / VAL / f"{val_id(number)}.JPEG", folder)
    (folder / "broken.png").write_bytes(b"no image")
    (tmp_path / "names.txt").write_text("first\nsecond\n")
    words = ("--out", tmp_path / "out", "--device", "cpu", "--jobs", 1, "--class-names", tmp_path / "names.txt")
    result = evaluate("predict", network, folder, *words, "--localizer", "cam*saliency")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert (
        f"wsol-eval: error: 1 image without a prediction; {tmp_path / 'out'}/predictions.json says why" in result.output
    )
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert ["error" in entry for entry in content["images"]] == [True, False, False]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {f"{val_id(number)}.png" for number in (1, 2)}
    (folder / "broken.png").unlink()
    assert evaluate("predict", network, folder, *words).exit_code == 0


def test_export_of_an_onnx_file(network: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra 'export'")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    out = tmp_path / "network.onnx"
    result = evaluate("export", network, "--out", out, "--class", 1)
    assert (result.exit_code, result.output) == (0, f"{out}: alexnet-gap, 2 classes, input {SIDE_PX}x{SIDE_PX}\n")
    images = np.random.default_rng(0).random((3, 3, SIDE_PX, SIDE_PX), dtype=np.float32)
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    scores, maps = session.run(None, {"images01": images})
    assert scores.shape == (3, 2) and maps.shape[:2] == (3, 1)

    import torch

    from training.inference.localizers import NetworkLocalizer, load_for_inference

    seen = NetworkLocalizer(load_for_inference(network), localizers=["cam"])(
        torch.from_numpy(images), torch.tensor([1, 1, 1])
    )
    wanted = seen.maps["cam"].numpy()
    np.testing.assert_allclose(maps[:, 0], wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)


def test_export_of_a_torch_program(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.inference import export

    def write(model: Any, path: Path, *, classes: Any, class_names: Any) -> None:
        path.write_text(f"{model.arch} {classes} {class_names}")

    # What it writes is tested where it is written; it takes four seconds.
    monkeypatch.setattr(export, "export_torch", write)
    (tmp_path / "names.txt").write_text("first\nsecond\n")
    out = tmp_path / "network.pt2"
    words = ("--class", 1, "--class", 0, "--class-names", tmp_path / "names.txt")
    assert evaluate("export", network, "--out", out, *words).exit_code == 0
    assert out.read_text() == "alexnet-gap (1, 0) ['first', 'second']"


def test_export_of_a_class_that_is_none(network: Path, tmp_path: Path) -> None:
    result = evaluate("export", network, "--out", tmp_path / "network.pt2", "--class", 2)
    assert result.exit_code == 1 and "from 0 to 1" in result.output


def test_a_report_of_two_evaluations(whole: Path, data: Path, made: Path, tmp_path: Path) -> None:
    evaluated(tmp_path / "pseudo maps", "maps", made, "--data", data, "--panels", 1, "--protocol", "cam")
    page = tmp_path / "new folder" / "page.html"
    result = evaluate("report", whole, tmp_path / "pseudo maps", "--out", page)
    assert (result.exit_code, result.output) == (0, f"{page}: 2 runs\n")
    text = page.read_text(encoding="utf-8")
    assert "pseudo maps" in text and "centred-gaussian" in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text), "nothing is fetched"
