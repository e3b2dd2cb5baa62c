"""Class scores of other classifiers: CSV and .npy files, names, orders, and the metrics that come of them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.images import EvaluationSet
from pipelines.datasets import open_dataset
from pipelines.jobs.class_scores import read_class_scores
from pipelines.jobs.evaluation_set import load_evaluation_set
from tests.integration.eval_command import bump, evaluate, evaluated, make_listed_data, result_of

CLASSES, IMAGES = 12, 30
NAMES = [f"image{number:02d}" for number in range(IMAGES)]
WNIDS = [f"n{number:08d}" for number in range(CLASSES)]
LABELS = np.arange(IMAGES) % CLASSES


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    boxes = {name: [(4.0, 2.0, 35.0, 17.0)] for name in NAMES}
    return make_listed_data(tmp_path_factory.mktemp("classes") / "data", boxes, classes=CLASSES)


@pytest.fixture(scope="module")
def images(data: Path) -> EvaluationSet:
    return load_evaluation_set(open_dataset(data, split="val"))


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    """(IMAGES, CLASSES): the true class is first in a third of the images, fourth in another, ninth in the rest."""
    scores_ik = np.random.default_rng(8).random((IMAGES, CLASSES))
    for row, label in enumerate(LABELS):
        rank = (0, 3, 8)[row % 3]
        order_k = [klass for klass in np.argsort(-scores_ik[row]) if klass != label]
        order_k.insert(rank, label)
        scores_ik[row, order_k] = np.linspace(1, 0, CLASSES)
    return scores_ik


RANKS = [(0, 3, 8)[row % 3] for row in range(IMAGES)]


def save_csv(path: Path, header: Sequence[object], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def ranks(path: Path, images: EvaluationSet) -> list[int]:
    by_image = read_class_scores(path, images).by_image
    return [by_image[image.record.image_id]["true_rank"] for image in images.images]


def test_an_array_of_scores_is_in_the_order_of_the_data(
    images: EvaluationSet, scores: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "s.npy", scores.astype(np.float32))
    assert ranks(tmp_path / "s.npy", images) == RANKS
    first = read_class_scores(tmp_path / "s.npy", images).by_image["val/image00.png"]
    assert first["top_classes"].tolist() == np.argsort(-scores[0])[:5].tolist() and first["top_probabilities"][0] == 1


def test_an_array_of_labels_holds_the_best_five(images: EvaluationSet, scores: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.argsort(-scores, axis=1)[:, :5])
    assert ranks(tmp_path / "s.npy", images) == [min(rank, 5) for rank in RANKS]


@pytest.mark.parametrize("name", ["val/{}.png", "val/{}", "{}.png", "{}"])
@pytest.mark.parametrize("by", [WNIDS, list(range(CLASSES))], ids=["by name", "by number"])
def test_a_csv_names_images_and_classes_in_any_order(
    images: EvaluationSet, scores: np.ndarray, tmp_path: Path, name: str, by: list[Any]
) -> None:
    order = np.random.default_rng(2).permutation(CLASSES)
    rows = [[name.format(NAMES[row]), *scores[row, order]] for row in reversed(range(IMAGES))]
    path = save_csv(tmp_path / "s.csv", ["image", *(by[klass] for klass in order)], rows)
    assert ranks(path, images) == RANKS
    best = [[name.format(NAMES[row]), *(by[k] for k in np.argsort(-scores[row])[:5])] for row in range(IMAGES)]
    path = save_csv(tmp_path / "best.csv", ["image", *(f"top{place}" for place in range(1, 6))], best)
    assert ranks(path, images) == [min(rank, 5) for rank in RANKS]


TOP = ["image", *(f"top{place}" for place in range(1, 6))]


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        (TOP, ["nobody", 0, 1, 2, 3, 4], "line 32: expected the name of an image"),
        (TOP, [NAMES[3], 0, 1, 2, 3, 4], "line 32: expected the name of an image of the data, once in the file"),
        (TOP, ["", 0, 1], "line 32: expected the name of an image"),
        (
            TOP,
            None,
            "expected a row for each image of the evaluation, found none for 1 of 30, such as 'val/image29.png'",
        ),
        (TOP[:4], None, "line 1: expected columns top1 to top5, found top1, top2, top3"),
        (["image", "cat", "dog"], None, "line 1: expected each class by name, such as 'n00000000', or by number"),
        (["image", *WNIDS[:-1]], None, "line 1: expected each class by name"),
        (["image", *WNIDS[:-1], WNIDS[0]], None, "line 1: expected each class by name"),
        ([], None, "line 1: expected each class by name"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(
    images: EvaluationSet, tmp_path: Path, header: list[str], row: list[Any] | None, expected: str
) -> None:
    rows = [[name, 0, 1, 2, 3, 4][: len(header)] for name in NAMES]
    path = save_csv(tmp_path / "s.csv", header, [*rows, row] if row else rows[:-1])
    with pytest.raises(ValueError, match=r"s\.csv") as caught:
        read_class_scores(path, images)
    assert expected in str(caught.value)


@pytest.mark.parametrize("value", ["", "high", "n99999999", "12", "-1"])
def test_a_label_that_is_no_class_is_refused(images: EvaluationSet, tmp_path: Path, value: str) -> None:
    rows = [[name, 0, 1, 2, 3, value if name == NAMES[7] else 4] for name in NAMES]
    with pytest.raises(ValueError, match="expected classes by name"):
        read_class_scores(save_csv(tmp_path / "s.csv", TOP, rows), images)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((IMAGES - 1, CLASSES)),
        np.zeros((IMAGES, 5)),
        np.zeros((IMAGES, 4), dtype=int),
        np.zeros(IMAGES, dtype=int),
        np.full((IMAGES, 5), CLASSES),
        np.full((IMAGES, 5), -1),
        np.zeros((IMAGES, CLASSES), dtype=complex),
    ],
    ids=["fewer rows", "fewer scores", "four labels", "one label", "label K", "label -1", "complex"],
)
def test_an_array_that_does_not_fit_is_refused(images: EvaluationSet, tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "s.npy", array)
    with pytest.raises(ValueError, match=r"s\.npy: expected"):
        read_class_scores(tmp_path / "s.npy", images)


def test_rows_in_another_order_are_noticed(images: EvaluationSet, tmp_path: Path) -> None:
    right, shifted = np.eye(CLASSES)[LABELS], np.eye(CLASSES)[(LABELS + 5) % CLASSES]
    for array, warnings in ((right, 0), (-shifted - 2 * right, 1)):
        np.save(tmp_path / "s.npy", array)
        assert len(read_class_scores(tmp_path / "s.npy", images).warnings) == warnings


@pytest.mark.parametrize("classes", [2, 7, 10])
def test_rows_in_another_order_are_noticed_among_few_classes(tmp_path: Path, classes: int) -> None:
    labels = {name: number % classes for number, name in enumerate(NAMES)}
    boxes = {name: [(4.0, 2.0, 35.0, 17.0)] for name in NAMES}
    data = make_listed_data(tmp_path / "data", boxes, labels=labels, classes=classes)
    few = load_evaluation_set(open_dataset(data, split="val"))
    for shift, warnings in ((0, 0), (1, 1)):
        np.save(tmp_path / "s.npy", np.eye(classes)[(np.array([*labels.values()]) + shift) % classes])
        assert len(read_class_scores(tmp_path / "s.npy", few).warnings) == warnings


def test_scores_give_the_classification_and_localization_of_the_maps(
    data: Path, scores: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "maps").mkdir()
    for number, name in enumerate(NAMES):
        # The box is found in every image but the last six.
        np.save(tmp_path / "maps" / f"{name}.npy", bump(centre_xy=(0.5 if number < 24 else 0.02, 0.5)))
    spoilt = scores.copy()
    spoilt[3, 2] = np.nan
    np.save(tmp_path / "s.npy", spoilt)
    words = ("maps", tmp_path / "maps", "--data", data, "--protocol", "cam", "--localizer", "ts-cam")
    metrics = evaluated(tmp_path / "out", *words, "--scores", tmp_path / "s.npy")
    result = result_of(metrics, "ts-cam", "cam")
    # A third is first, another fourth; image 3 was first and is NaN; the last six have two of each.
    assert (metrics["classification"]["top1"]["correct"], metrics["classification"]["top5"]["correct"]) == (9, 19)
    assert [result[name]["correct"] for name in ("gt_known_loc", "top1_loc", "top5_loc")] == [24, 7, 15]
    assert "class_scores" in str(metrics["config"])
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list({row["image_id"]: row for row in csv.DictReader(file)}.values())
    assert (rows[0]["predicted_class"], rows[0]["predicted_score"], rows[1]["true_rank"]) == ("0", "1", "3")
    assert rows[3]["predicted_class"] == "" and rows[3]["true_rank"] == "-1"
    again = evaluate(*words, "--out", tmp_path / "out")
    assert again.exit_code == 1 and "class_scores" in again.stderr, "the scores decide the result"


def test_labels_have_no_score_in_the_files(data: Path, scores: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for name in NAMES:
        np.save(tmp_path / "maps" / f"{name}.npy", bump())
    np.save(tmp_path / "s.npy", np.argsort(-scores, axis=1)[:, :5])
    words = ("--protocol", "cam", "--limit", 6, "--scores", tmp_path / "s.npy")
    metrics = evaluated(tmp_path / "out", "maps", tmp_path / "maps", "--data", data, *words)
    assert (metrics["classification"]["top1"]["correct"], metrics["classification"]["top5"]["correct"]) == (2, 4)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        assert {row["predicted_score"] for row in csv.DictReader(file)} == {""}
