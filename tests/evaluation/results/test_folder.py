"""The folder of one evaluation: finished, interrupted, resumed, refused."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.image_scores import SCORED, ImageScores
from evaluation.images import EvaluationBatch
from evaluation.names import BASELINES
from evaluation.results.folder import EvaluationPlan, ResultFolder
from evaluation.results.journal import ResultJournal
from evaluation.results.per_class import PER_CLASS_FILE
from evaluation.results.predictions import PREDICTIONS_FILE, read_predictions
from evaluation.results.tables import metrics_table
from evaluation.schema import METRICS_FILE, Metrics, MetricsError, read_metrics
from evaluation.scoring import ImageMaps, MapBatch, ScoringTask, score
from pipelines.datasets import open_dataset
from pipelines.jobs.evaluation_set import load_evaluation_set
from pseudo_maps import __version__
from tests.command_calls import REPOSITORY
from tests.integration.eval_command import bump, make_listed_data, results_in

NAMES = ("a", "b", "c", "d", "e")
PROTOCOLS = ("cam", "wsoleval-v1")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> EvaluationPlan:
    """Five images; the fourth has no box."""
    boxes = {name: [] if name == "d" else [(4.0, 3.0, 30.0, 15.0)] for name in NAMES}
    root = make_listed_data(tmp_path_factory.mktemp("results") / "data", boxes)
    return EvaluationPlan(
        kind="maps",
        name="a plan",
        evaluation_set=load_evaluation_set(open_dataset(root, split="val")),
        protocols=PROTOCOLS,
        localizers=("pseudo-map",),
        boxes="all",
        bootstrap_samples=20,
        seed=0,
        source={"maps": {"format": "made"}},
    )


class Scoring:
    """Scores images in batches of two, remembers which, and stops with an error before a chosen one."""

    def __init__(self, plan: EvaluationPlan, *, stop_before: int | None = None) -> None:
        self._task = ScoringTask(root=plan.evaluation_set.root, protocols=plan.protocols, localizers=plan.localizers)
        self._stop_before = stop_before
        self.asked: list[int] = []

    def __call__(self, batches: Sequence[EvaluationBatch]) -> Iterator[list[ImageScores]]:
        self.asked = [image.index for batch in batches for image in batch]
        for batch in batches:
            if self._stop_before in [image.index for image in batch]:
                raise KeyboardInterrupt
            maps = [ImageMaps(whole={"pseudo-map": bump(centre_xy=(0.3 + image.index / 10, 0.5))}) for image in batch]
            yield score(MapBatch(batch, maps), task=self._task)


def fill(folder: ResultFolder, plan: EvaluationPlan, scoring: Scoring) -> None:
    done = folder.journal.done()
    for scores in scoring([batch for batch in plan.evaluation_set.batches(2) if batch[0].index not in done]):
        folder.add(scores)


def finish(out: Path | None, plan: EvaluationPlan, scoring: Scoring) -> Metrics:
    with ResultFolder(out, plan=plan) as folder:
        fill(folder, plan, scoring)
        return folder.write()


@pytest.fixture(scope="module")
def undisturbed(plan: EvaluationPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(out, plan, Scoring(plan))
    return out


def stopped(out: Path, plan: EvaluationPlan) -> None:
    with pytest.raises(KeyboardInterrupt):
        finish(out, plan, Scoring(plan, stop_before=2))


# --- what is written


def test_a_finished_evaluation_is_files_that_read(plan: EvaluationPlan, undisturbed: Path) -> None:
    assert {path.name for path in undisturbed.iterdir()} == {METRICS_FILE, PREDICTIONS_FILE, PER_CLASS_FILE}
    metrics = read_metrics(undisturbed / METRICS_FILE)
    assert (metrics.kind, metrics.name, metrics.counts.asked, metrics.counts.scored) == ("maps", "a plan", 5, 4)
    assert dict(metrics.counts.skipped) == {"no boxes": 1}
    rows = [
        row
        for row in read_predictions(undisturbed / PREDICTIONS_FILE)
        if (row["localizer"], row["protocol"]) == ("pseudo-map", "cam")
    ]
    assert [row["image_id"] for row in rows] == [f"val/{name}.png" for name in NAMES]
    assert [row["status"] for row in rows] == [SCORED] * 3 + ["no boxes", SCORED]
    # The image without ground truth has a box, and nothing that it could be compared with.
    assert all(row["x0"] and row["width"] for row in rows)
    assert [row["iou"] == "" for row in rows] == [row["verdict"] == "" for row in rows] == [False] * 3 + [True, False]
    right = sum(row["verdict"] == "correct" for row in rows)
    (result,) = (one for one in metrics.results if one.protocol == "cam")
    assert result.gt_known_loc.correct == right > 0
    with (undisturbed / PER_CLASS_FILE).open(encoding="utf-8", newline="") as file:
        classes = list(csv.DictReader(file))
    assert [
        (row["localizer"], row["protocol"], int(row["label"]), row["wnid"], int(row["images"])) for row in classes
    ] == [
        (one.localizer, one.protocol, score.label, score.wnid, score.images)
        for one in metrics.all_results
        for score in one.per_class
    ]
    assert [float(row["gt_known_loc"]) for row in classes] == pytest.approx(
        [score.gt_known_loc for one in metrics.all_results for score in one.per_class], abs=1e-6
    )
    assert {row["name"] for row in classes} <= set(plan.evaluation_set.class_words)


def test_metrics_tell_versions_and_configuration(plan: EvaluationPlan, undisturbed: Path) -> None:
    metrics = json.loads((undisturbed / METRICS_FILE).read_text(encoding="utf-8"))
    assert metrics["versions"]["saliency-aware-wsol"] == __version__
    assert {"python", "numpy", "torch"} <= set(metrics["versions"])
    assert metrics["config"] == json.loads(json.dumps(plan.config()))
    assert metrics["config"]["maps"] == {"format": "made"}
    assert metrics["pixels"] is None
    assert [(one["localizer"], one["protocol"]) for one in metrics["baselines"]] == [
        (name, protocol) for name in BASELINES for protocol in PROTOCOLS
    ]


def test_without_a_folder_nothing_stays(plan: EvaluationPlan, undisturbed: Path) -> None:
    with ResultFolder(None, plan=plan) as folder:
        fill(folder, plan, Scoring(plan))
        metrics = folder.write()
        assert {path.name for path in folder.folder.iterdir()} == {METRICS_FILE, PREDICTIONS_FILE, PER_CLASS_FILE}
    assert not folder.folder.exists()
    assert metrics == read_metrics(undisturbed / METRICS_FILE)


def test_baselines_alone_are_an_evaluation(plan: EvaluationPlan, tmp_path: Path) -> None:
    plan = replace(plan, kind="baseline", localizers=())
    assert finish(tmp_path, plan, Scoring(plan)).results == ()
    assert {path.name for path in tmp_path.iterdir()} == {METRICS_FILE, PREDICTIONS_FILE, PER_CLASS_FILE}


def test_neither_matplotlib_nor_torch_is_loaded() -> None:
    code = "import sys, evaluation.results.folder; assert not {'matplotlib', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_a_single_ground_truth_box_is_said_of_every_result(plan: EvaluationPlan) -> None:
    plan = replace(plan, boxes="first")
    metrics = finish(None, plan, Scoring(plan))
    described = [one.describe for one in metrics.all_results]
    assert len(described) == 2 * (1 + len(BASELINES))
    for rules in described:
        assert rules["ground_truth"].startswith("first box only, scaled to 224")
        assert "the first ground-truth box" in rules["iou"] and "any" not in rules["iou"]
    assert "ground truth: first box of each image only" in metrics_table(metrics).splitlines()


def test_views_are_said_of_every_result_but_of_no_baseline(plan: EvaluationPlan) -> None:
    views = {"cam": "one view", "cam-release": "ten crops"}
    plan = replace(plan, protocols=tuple(views), source={"views": "ten"}, views=views)
    metrics = finish(None, plan, Scoring(plan))
    assert [one.describe["views"] for one in metrics.results] == list(views.values())
    assert not [one for one in metrics.baselines if "views" in one.describe]
    assert metrics_table(metrics).splitlines()[1] == "views: ten"


def test_a_map_in_which_nothing_stands_out_is_no_box_among_the_errors(plan: EvaluationPlan, tmp_path: Path) -> None:
    protocols = ("cam", "wsoleval-v1", "wsoleval-v2", "ts-cam")
    plan = replace(plan, protocols=protocols)
    task = ScoringTask(root=plan.evaluation_set.root, protocols=protocols, localizers=plan.localizers)

    flat = ImageMaps(whole={"pseudo-map": np.zeros((7, 7))})
    with ResultFolder(tmp_path, plan=plan) as folder:
        for batch in plan.evaluation_set.batches(2):
            folder.add(score(MapBatch(batch, [flat] * len(batch)), task=task))
        metrics = folder.write()
    assert [one.errors and one.errors["no box"] for one in metrics.results] == [4] * 4
    by_pair = {(row["localizer"], row["protocol"]): row for row in read_predictions(tmp_path / PREDICTIONS_FILE)}
    row = by_pair["pseudo-map", "ts-cam"]
    assert (row["x0"], row["y0"], row["iou"], row["verdict"]) == ("0", "0", "0", "no box")


def test_a_name_that_is_no_utf8_comes_back(plan: EvaluationPlan, tmp_path: Path) -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    plan = replace(plan, name=name)
    finish(tmp_path, plan, Scoring(plan))
    assert read_metrics(tmp_path / METRICS_FILE).name == name


# --- interrupted and resumed


def test_a_stopped_evaluation_goes_on_where_it_was(plan: EvaluationPlan, tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "out"
    stopped(out, plan)
    assert not (out / METRICS_FILE).exists()
    scoring = Scoring(plan)
    finish(out, plan, scoring)
    assert scoring.asked == [2, 3, 4]
    assert results_in(out) == results_in(undisturbed)
    assert not (out / "journal").exists()


def test_counting_before_all_are_there_names_the_first_that_is_missing(plan: EvaluationPlan, tmp_path: Path) -> None:
    stopped(tmp_path, plan)
    with (
        ResultFolder(tmp_path, plan=plan) as folder,
        pytest.raises(RuntimeError, match=r"no result of image 'val/c\.png' \(index 2\); run the same command again"),
    ):
        folder.write()
    assert not (tmp_path / METRICS_FILE).exists() and not (tmp_path / PREDICTIONS_FILE).exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"protocols": ("cam",)}, "protocols"),
        ({"localizers": ("pseudo-map", "cam")}, "localizers"),
        ({"boxes": "first"}, "boxes"),
        ({"seed": 1}, r"bootstrap\.seed: 0 stored, 1 now"),
        ({"source": {"maps": {"format": "other"}}}, r"maps\.format"),
        ({"kind": "run"}, "kind"),
        ({"stamp": "files of another time"}, "stamp"),
    ],
    ids=str,
)
def test_a_journal_of_another_plan_is_refused(
    plan: EvaluationPlan, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    stopped(tmp_path, plan)
    scoring = Scoring(plan)
    with pytest.raises(ValueError, match=rf"another configuration: .*{named}"):
        finish(tmp_path, replace(plan, **changes), scoring)
    assert scoring.asked == []


# --- finished before


def finished(out: Path, plan: EvaluationPlan) -> Metrics | None:
    with ResultFolder(out, plan=plan) as folder:
        return folder.finished()


def test_a_finished_evaluation_is_known_by_its_plan(plan: EvaluationPlan, undisturbed: Path, tmp_path: Path) -> None:
    assert finished(tmp_path, plan) is None
    found = finished(undisturbed, plan)
    assert found == read_metrics(undisturbed / METRICS_FILE)
    # What a stamp stands for may have changed since.
    assert finished(undisturbed, replace(plan, stamp="times of files")) is None


def test_another_name_is_written_into_the_results(plan: EvaluationPlan, undisturbed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    assert read_metrics(out / METRICS_FILE).name == "a plan"
    renamed = finished(out, replace(plan, name="another name"))
    assert renamed is not None and renamed.name == "another name"
    before, after = ((folder / METRICS_FILE).read_text(encoding="utf-8") for folder in (undisturbed, out))
    assert after == before.replace('"a plan"', '"another name"', 1)
    assert finished(out, replace(plan, name="another name")) == renamed


@pytest.mark.parametrize("lost", [PREDICTIONS_FILE, PER_CLASS_FILE, METRICS_FILE])
def test_without_one_of_its_files_an_evaluation_is_not_finished(
    plan: EvaluationPlan, undisturbed: Path, tmp_path: Path, lost: str
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (out / lost).unlink()
    assert finished(out, plan) is None
    finish(out, plan, Scoring(plan))
    assert results_in(out) == results_in(undisturbed)


def test_interrupted_before_its_journal_is_removed_it_resumes(
    plan: EvaluationPlan, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ResultJournal, "remove", stop)
        finish(tmp_path, plan, Scoring(plan))
    assert results_in(tmp_path) == results_in(undisturbed)
    assert finished(tmp_path, plan) is None
    scoring = Scoring(plan)
    finish(tmp_path, plan, scoring)
    assert scoring.asked == [] and results_in(tmp_path) == results_in(undisturbed)
    assert finished(tmp_path, plan) is not None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"protocols": ("cam",)}, 'protocols: ["cam", "wsoleval-v1"] stored, ["cam"] now'),
        ({"localizers": ("cam",), "kind": "run"}, 'kind: "maps" stored, "run" now'),
        ({"bootstrap_samples": 21}, "bootstrap.samples: 20 stored, 21 now"),
        ({"source": {}}, 'maps: {"format": "made"} stored, nothing now'),
        ({"source": {"maps": {"format": "made"}, "views": "all"}}, 'views: nothing stored, "all" now'),
    ],
    ids=str,
)
def test_results_of_another_plan_are_refused_and_kept(
    plan: EvaluationPlan, undisturbed: Path, changes: dict[str, object], named: str
) -> None:
    before = results_in(undisturbed)
    with pytest.raises(ValueError, match=re.escape(f"another evaluation ({named}); use another --out")):
        finished(undisturbed, replace(plan, **changes))
    assert results_in(undisturbed) == before


@pytest.mark.parametrize("content", ["", "{}", '{"schema": "other"}'])
def test_a_file_that_is_no_result_is_refused(plan: EvaluationPlan, tmp_path: Path, content: str) -> None:
    (tmp_path / METRICS_FILE).write_text(content)
    with pytest.raises(MetricsError, match=r"metrics\.json"):
        finished(tmp_path, plan)
    assert (tmp_path / METRICS_FILE).read_text() == content
