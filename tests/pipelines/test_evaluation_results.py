"""The folder of one evaluation: finished, stopped, gone on with, refused."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.image_scores import SCORED, ImageScores
from evaluation.metrics_schema import MetricsError, read_metrics
from evaluation.predictions import read_predictions
from pipelines.datasets import open_dataset
from pipelines.evaluation_results import (
    METRICS_FILE,
    PREDICTIONS_FILE,
    EvaluationPlan,
    ResultFolder,
    write_atomically,
)
from pipelines.evaluation_set import EvaluationImage, load_evaluation_set
from pipelines.image_scoring import ImageMaps, ScoringTask, score_images
from pseudo_maps import __version__
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
        self._task = ScoringTask(
            root=plan.evaluation_set.dataset.root, protocols=plan.protocols, localizers=plan.localizers
        )
        self._stop_before = stop_before
        self.asked: list[int] = []
        self.told: list[int] = []

    def __call__(self, images: Sequence[EvaluationImage]) -> Iterator[list[ImageScores]]:
        self.asked = [image.index for image in images]
        for first in range(0, len(images), 2):
            batch = images[first : first + 2]
            if self._stop_before in [image.index for image in batch]:
                raise KeyboardInterrupt
            maps = [ImageMaps(whole={"pseudo-map": bump(centre_xy=(0.3 + image.index / 10, 0.5))}) for image in batch]
            yield score_images(batch, maps, task=self._task)


def finish(out: Path | None, plan: EvaluationPlan, scoring: Scoring, **options: object) -> dict[str, object]:
    with ResultFolder(out, plan=plan) as folder:
        folder.score(scoring, advance=scoring.told.append, **options)  # type: ignore[arg-type]
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


def test_a_finished_evaluation_is_two_files_that_read(plan: EvaluationPlan, undisturbed: Path) -> None:
    assert {path.name for path in undisturbed.iterdir()} == {METRICS_FILE, PREDICTIONS_FILE}
    metrics = read_metrics(undisturbed / METRICS_FILE)
    assert (metrics.kind, metrics.name, metrics.counts.asked, metrics.counts.scored) == ("maps", "a plan", 5, 4)
    assert dict(metrics.counts.skipped) == {"no boxes": 1}
    rows = list(read_predictions(undisturbed / PREDICTIONS_FILE))
    assert [row["image_id"] for row in rows] == [f"val/{name}.png" for name in NAMES]
    assert [row["status"] for row in rows] == [SCORED] * 3 + ["no boxes", SCORED]
    right = sum(row["pseudo-map cam verdict"] == "correct" for row in rows)
    (result,) = (one for one in metrics.results if one.protocol == "cam")
    assert result.gt_known_loc.correct == right > 0


def test_metrics_tell_versions_and_configuration(plan: EvaluationPlan, undisturbed: Path) -> None:
    metrics = json.loads((undisturbed / METRICS_FILE).read_text(encoding="utf-8"))
    assert metrics["versions"]["saliency-aware-wsol"] == __version__
    assert {"python", "numpy", "torch"} <= set(metrics["versions"])
    assert metrics["config"] == json.loads(json.dumps(plan.config()))
    assert metrics["config"]["maps"] == {"format": "made"}
    assert metrics["pixels"] is None
    assert [(one["localizer"], one["protocol"]) for one in metrics["baselines"]] == [
        (name, protocol) for name in ("centred-gaussian", "whole-frame") for protocol in PROTOCOLS
    ]


def test_without_a_folder_nothing_stays(plan: EvaluationPlan, undisturbed: Path) -> None:
    scoring = Scoring(plan)
    with ResultFolder(None, plan=plan) as folder:
        folder.score(scoring, advance=scoring.told.append)
        metrics = folder.write()
        assert (folder.folder / METRICS_FILE).exists()
    assert not folder.folder.exists()
    assert metrics == json.loads((undisturbed / METRICS_FILE).read_text(encoding="utf-8"))


def test_progress_is_told_in_full(plan: EvaluationPlan, tmp_path: Path) -> None:
    scoring = Scoring(plan)
    finish(tmp_path, plan, scoring)
    assert scoring.told == [0, 2, 2, 1]


# --- stopped, and gone on with


def test_a_stopped_evaluation_goes_on_where_it_was(plan: EvaluationPlan, tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "out"
    stopped(out, plan)
    assert not (out / METRICS_FILE).exists()
    scoring = Scoring(plan)
    finish(out, plan, scoring)
    assert (scoring.asked, scoring.told) == ([2, 3, 4], [2, 2, 1])
    assert results_in(out) == results_in(undisturbed)
    assert not (out / "journal").exists()


def test_images_may_be_asked_for_again(plan: EvaluationPlan, tmp_path: Path, undisturbed: Path) -> None:
    stopped(tmp_path, plan)
    scoring = Scoring(plan)
    finish(tmp_path, plan, scoring, again=frozenset({1}))
    assert (scoring.asked, scoring.told) == ([1, 2, 3, 4], [1, 2, 2])
    assert results_in(tmp_path) == results_in(undisturbed)


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
        ({"seed": 1}, r"bootstrap\.seed was 0, now 1"),
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


def finished(out: Path, plan: EvaluationPlan) -> dict[str, object] | None:
    with ResultFolder(out, plan=plan) as folder:
        return folder.finished()


def test_a_finished_evaluation_is_known_by_its_plan(plan: EvaluationPlan, undisturbed: Path, tmp_path: Path) -> None:
    assert finished(tmp_path, plan) is None
    found = finished(undisturbed, plan)
    assert found == json.loads((undisturbed / METRICS_FILE).read_text(encoding="utf-8"))
    # The name decides no figure; what a stamp stands for may have changed since.
    assert finished(undisturbed, replace(plan, name="another name")) == found
    assert finished(undisturbed, replace(plan, stamp="times of files")) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"protocols": ("cam",)}, "protocols"),
        ({"localizers": ("cam",), "kind": "run"}, "kind, localizers"),
        ({"bootstrap_samples": 21}, "bootstrap"),
        ({"source": {}}, "maps"),
        ({"source": {"maps": {"format": "made"}, "views": "all"}}, "views"),
    ],
    ids=str,
)
def test_results_of_another_plan_are_refused_and_kept(
    plan: EvaluationPlan, undisturbed: Path, changes: dict[str, object], named: str
) -> None:
    before = results_in(undisturbed)
    with pytest.raises(ValueError, match=rf"which differs in {named}; use another --out"):
        finished(undisturbed, replace(plan, **changes))
    assert results_in(undisturbed) == before


@pytest.mark.parametrize("content", ["", "{}", '{"schema": "other"}'])
def test_a_file_that_is_no_result_is_refused(plan: EvaluationPlan, tmp_path: Path, content: str) -> None:
    (tmp_path / METRICS_FILE).write_text(content)
    with pytest.raises(MetricsError, match=r"metrics\.json"):
        finished(tmp_path, plan)
    assert (tmp_path / METRICS_FILE).read_text() == content


def test_a_write_that_fails_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    write_atomically(tmp_path / "free", b"content")
    assert (tmp_path / "free").read_bytes() == b"content"
