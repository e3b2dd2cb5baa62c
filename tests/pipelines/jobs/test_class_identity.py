"""A network and a data set whose classes are the same in another order, or not the same."""

import csv
from pathlib import Path

import pytest

from pipelines.datasets import open_dataset
from pipelines.datasets.generated import make_clsloc_dataset
from tests.integration.eval_command import evaluate, evaluated, make_checkpoint, make_listed_data
from training.config import CropConfig
from training.data.loading import TrainingImages
from training.run_folder.checkpoints import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

OPTIONS = ("--protocol", "cam", "--bootstrap-samples", 0, "--jobs", 1, "--panels", 0, "--workers", 0, "--device", "cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    make_clsloc_dataset(root, classes=3, train_per_class=1, val_per_class=3, size_px=(64, 96))
    return root


@pytest.fixture
def checkpoint(data: Path, tmp_path: Path) -> Path:
    path = make_checkpoint(tmp_path / "network.pt", classes=3, decoder=False)
    lines = mapping(data).read_text().splitlines()
    wnids, words = zip(*(line.split(" ", 1) for line in lines), strict=True)
    save_checkpoint(path, {**load_checkpoint(path), "class_wnids": list(wnids), "class_names": list(words)})
    return path


@pytest.mark.parametrize(("limit", "warned"), [(None, True), (4, False)])
def test_evaluation_on_the_training_images_is_said(
    data: Path, checkpoint: Path, tmp_path: Path, limit: int | None, warned: bool
) -> None:
    images = TrainingImages(open_dataset(data, split="val").records[:limit], root=data, crop=CropConfig(), seed=0)
    save_checkpoint(checkpoint, {**load_checkpoint(checkpoint), "images_sha256": images.sha256()})
    result = evaluate("run", checkpoint, "--data", data, "--out", tmp_path / "out", *OPTIONS)
    assert result.exit_code == 0 and ("that the network was trained on" in result.stderr) is warned


def mapping(data: Path) -> Path:
    return data / "LOC_synset_mapping.txt"


def reorder(data: Path) -> list[str]:
    """Another order of the classes; the wnids in it."""
    lines = mapping(data).read_text().splitlines()
    moved = [*lines[1:], lines[0]]
    mapping(data).write_text("".join(f"{line}\n" for line in moved))
    return [line.partition(" ")[0] for line in moved]


def test_a_network_is_scored_the_same_whatever_the_order_of_the_data_s_classes(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    outcomes = []
    for name in ("first", "second"):
        out = tmp_path / name
        metrics = evaluated(out, "run", checkpoint, "--data", data, *OPTIONS)
        with (out / "predictions.csv").open() as file:
            rows = [
                {key: row[key] for key in row if key not in ("label", "predicted_class")}
                for row in csv.DictReader(file)
            ]
        outcomes.append((metrics["classification"]["top1"]["correct"], metrics["results"][0]["top1_loc"], rows))
        reorder(data)
    assert outcomes[0] == outcomes[1]
    assert "matched by name" in metrics["config"]["network"]["classes"]


def test_the_other_order_is_said_and_resumed_under(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ("run", checkpoint, "--data", data, *OPTIONS, "--out", tmp_path / "out")
    assert "classes matched" not in evaluate(*words).output
    order = reorder(data)
    refused = evaluate(*words)
    assert refused.exit_code == 1 and "another evaluation" in refused.output
    again = evaluate(*words[:-1], tmp_path / "other")
    assert again.exit_code == 0 and f"that of the data {', '.join(order)}" in again.output


def test_classes_of_other_names_are_refused(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    state = load_checkpoint(checkpoint)
    wnids = ["n00000001", *state["class_wnids"][1:]]
    save_checkpoint(checkpoint, {**state, "class_wnids": wnids, "class_names": wnids})
    result = evaluate("run", checkpoint, "--data", data, *OPTIONS, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert ", ".join(wnids) in result.output and ", ".join(state["class_wnids"]) in result.output


@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_file_of_names_in_another_order_is_refused(
    data: Path, checkpoint: Path, tmp_path: Path, command: str
) -> None:
    reorder(data)
    out = tmp_path / ("out" if command == "predict" else "out.pt2")
    image = [next(data.rglob("*.JPEG"))] if command == "predict" else []
    result = evaluate(command, checkpoint, *image, "--class-names", mapping(data), "--out", out)
    assert result.exit_code == 1 and "LOC_synset_mapping.txt, line 1" in result.output and not out.exists()


def test_an_image_without_a_label_is_never_counted_under_the_class_it_is_taken_for(tmp_path: Path) -> None:
    boxes = {name: [(2.0, 2.0, 30.0, 15.0)] for name in "abc"}
    checkpoint = make_checkpoint(tmp_path / "network.pt", classes=2, decoder=False)
    data = make_listed_data(tmp_path / "data", boxes, labels={"a": 0, "b": 1})
    counts = evaluated(tmp_path / "run", "run", checkpoint, "--data", data, "--save-maps", *OPTIONS)["counts"]
    assert (counts["scored"], counts["skipped"]) == (2, {"no class label": 1})
    words = ("--data", data, "--protocol", "cam", "--bootstrap-samples", 0, "--jobs", 1)
    stored = evaluated(tmp_path / "stored", "maps", tmp_path / "run" / "maps" / "cam", *words, "--panels", 0)["counts"]
    assert stored["skipped"] == {"no class label": 1}, "the stored map is of the class that was predicted"
    assert evaluated(tmp_path / "baseline", "baseline", *words)["counts"]["skipped"] == {}
    (data / "class_labels.txt").unlink()
    result = evaluate("run", checkpoint, "--data", data, *OPTIONS, "--out", tmp_path / "none")
    assert result.exit_code == 1 and "class labels" in result.output
