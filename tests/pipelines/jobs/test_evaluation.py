"""An evaluation from its source of maps to its result folder: progress, resuming, views."""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.images import EvaluationImage
from evaluation.maps import StoredMaps
from evaluation.results.folder import ResultFolder
from evaluation.results.tables import metrics_table
from evaluation.schema import Metrics
from evaluation.scoring import ImageMaps
from pipelines.datasets import open_dataset
from pipelines.jobs.evaluation import EvaluationChoices, _evaluate, _views_under, evaluate_maps
from pipelines.jobs.evaluation_set import load_evaluation_set
from pseudo_maps.files import FolderBusy
from pseudo_maps.records import ImageRecord
from tests.integration.eval_command import bump, make_listed_data, results_in
from training.inference.config import Views

ONE, SEVERAL, TEN = Views(), Views(scales=(1.0, 1.25), flip=True), Views(ten_crop=True)


class Bumps(StoredMaps):
    """Maps in batches of two, which stop with an error at a chosen image."""

    batch_size = 2

    def __init__(self, *, stop_at: int | None = None) -> None:
        self._stop_at = stop_at
        self.asked: list[int] = []

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        if image.index == self._stop_at:
            raise KeyboardInterrupt
        self.asked.append(image.index)
        return ImageMaps(whole={self.localizers[0]: bump(centre_xy=(0.3 + image.index / 10, 0.5))})

    def _names(self) -> list[str]:
        return []

    def _names_of(self, record: ImageRecord) -> list[str]:
        return []


@pytest.fixture
def choices(tmp_path: Path) -> EvaluationChoices:
    root = make_listed_data(tmp_path / "data", {name: [(4.0, 3.0, 30.0, 15.0)] for name in "abcde"})
    return EvaluationChoices(
        name="bumps",
        evaluation_set=load_evaluation_set(open_dataset(root, split="val")),
        protocols=("cam",),
        boxes="all",
        bootstrap_samples=10,
        seed=0,
        out=tmp_path / "out",
        jobs=1,
        panels=0,
    )


def test_progress_is_told_and_a_stopped_evaluation_resumes_with_the_next_batch(
    choices: EvaluationChoices, tmp_path: Path
) -> None:
    told: list[tuple[int, bool]] = []

    def tell(count: int, *, earlier: bool = False) -> None:
        told.append((count, earlier))

    with pytest.raises(KeyboardInterrupt):
        evaluate_maps(choices, Bumps(stop_at=3), advance=tell)
    assert told == [(2, False)]
    told.clear()
    source = Bumps()
    metrics = evaluate_maps(choices, source, advance=tell)
    assert (told, source.asked) == ([(2, True), (2, False), (1, False)], [2, 3, 4])
    assert (metrics.counts.asked, metrics.config["unused_maps"]) == (5, 0)
    stopped = results_in(tmp_path / "out")
    for path in (tmp_path / "out").glob("*.*"):
        path.unlink()
    evaluate_maps(choices, Bumps(), advance=tell)
    assert results_in(tmp_path / "out") == stopped


def test_a_finished_evaluation_asks_for_no_map(choices: EvaluationChoices) -> None:
    told: list[tuple[int, bool]] = []
    evaluate_maps(choices, Bumps(), advance=lambda count: None)
    source = Bumps()
    evaluate_maps(choices, source, advance=lambda count, *, earlier: told.append((count, earlier)))
    assert (told, source.asked) == ([(5, True)], [])


def test_images_whose_maps_were_not_saved_are_looked_at_again(choices: EvaluationChoices) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate_maps(choices, Bumps(stop_at=4), advance=lambda count: None)
    stopped = Bumps()
    stopped.config = lambda: {"unused_maps": 0}  # type: ignore[method-assign]
    _evaluate(choices, stopped, kind="maps", advance=lambda count, **_: None, unsaved=frozenset({2, 3}))
    assert stopped.asked == [2, 3, 4]
    # Also when all is finished.
    finished = Bumps()
    finished.config = stopped.config  # type: ignore[method-assign]
    _evaluate(choices, finished, kind="maps", advance=lambda count, **_: None, unsaved=frozenset({0, 1}))
    assert finished.asked == [0, 1, 2, 3, 4]


def test_thresholds_chosen_on_other_images_are_applied_as_by_hand(choices: EvaluationChoices, tmp_path: Path) -> None:
    def evaluated(**changes: Any) -> Metrics:
        return evaluate_maps(replace(choices, **changes), Bumps(), advance=lambda count: None)

    protocols = ("cam", "wsoleval-v1", "wsoleval-v2")
    large = make_listed_data(tmp_path / "large", {name: [(0.0, 0.0, 39.0, 19.0)] for name in "xyz"})
    others = load_evaluation_set(open_dataset(large, split="val"))
    theirs = evaluated(name="theirs", evaluation_set=others, protocols=protocols, out=tmp_path / "theirs")
    oracle = evaluated(protocols=protocols, out=tmp_path / "oracle")
    calibrated = evaluated(protocols=protocols, out=tmp_path / "ours", threshold_from=tmp_path / "theirs")
    for chosen_on, best, found in zip(theirs.all_results, oracle.all_results, calibrated.all_results, strict=True):
        if found.protocol == "cam":
            assert found == best
            continue
        assert chosen_on.curve is not None and best.curve is not None and found.max_box_acc is not None
        by_hand = []
        for iou in ("30", "50", "70"):
            on_theirs = getattr(chosen_on.curve, f"gt_known_{iou}")
            level = min(level for level, rate in enumerate(on_theirs) if rate == max(on_theirs))
            by_hand.append(getattr(best.curve, f"gt_known_{iou}")[level])
        assert [rate.rate for rate in found.max_box_acc.values()] == by_hand
        assert found.max_box_acc_v2 is not None and found.max_box_acc_v2.rate == pytest.approx(sum(by_hand) / 3)
        assert (found.gt_known_loc.rate, found.threshold) == (by_hand[1], chosen_on.threshold)
        assert (found.threshold_is_oracle, found.calibrated_on) == (False, "theirs (val, 3 images)")
    # Their boxes are the whole images, which low thresholds find; ours are small.
    pairs = list(zip(oracle.results, calibrated.results, strict=True))
    assert any(best.gt_known_loc.correct > found.gt_known_loc.correct for best, found in pairs)
    assert "calibrated on" not in metrics_table(oracle) and "0.000 calibrated" in metrics_table(calibrated)
    # The same thresholds are part of what is resumed.
    with pytest.raises(ValueError, match="thresholds"):
        evaluated(protocols=protocols, out=tmp_path / "ours")


def test_thresholds_of_other_results_that_cannot_serve_are_refused(choices: EvaluationChoices, tmp_path: Path) -> None:
    def evaluate(**changes: Any) -> Metrics:
        return evaluate_maps(replace(choices, **changes), Bumps(), advance=lambda count: None)

    one, other = tmp_path / "one", make_listed_data(tmp_path / "other", {"z": [(4.0, 3.0, 30.0, 15.0)]})
    evaluate(protocols=("wsoleval-v1",), out=one)
    with pytest.raises(ValueError, match="evaluation of the images to score"):
        evaluate(protocols=("wsoleval-v1",), out=None, threshold_from=one)
    twice = replace(choices.evaluation_set, split="test")
    with pytest.raises(ValueError, match="evaluation of the images to score"):
        evaluate(evaluation_set=twice, protocols=("wsoleval-v1",), out=None, threshold_from=one)
    fewer = replace(choices.evaluation_set, images=choices.evaluation_set.images[3:])
    with pytest.raises(ValueError, match=r"evaluation of 2 of the 2 images to score too, such as 'val/d\.png'"):
        evaluate(evaluation_set=fewer, protocols=("wsoleval-v1",), out=None, threshold_from=one)
    others = load_evaluation_set(open_dataset(other, split="val"))
    with pytest.raises(ValueError, match="expected a curve of pseudo-map under wsoleval-v2, found pseudo-map under ws"):
        evaluate(evaluation_set=others, protocols=("cam", "wsoleval-v2"), out=None, threshold_from=one)
    with pytest.raises(ValueError, match="no protocol asked for has a threshold to choose"):
        evaluate(evaluation_set=others, out=None, threshold_from=one / "metrics.json")
    with pytest.raises(ValueError, match=r"metrics\.json: not found"):
        evaluate(evaluation_set=others, out=None, threshold_from=other)


FILES = {"format": "files", "files": 2}


def stored_maps(**changes: Any) -> dict[str, Any]:
    made = {"method": "imported", "files": {"sha256": "of these images"}, "map_size": 8}
    return {"maps": {"provenance": {"configuration": {**made, **changes}}}}


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"boxes": "first"}, {}, "boxes: "),
        ({"network": {"weights": "1f"}}, {"network": {"weights": "2e"}}, "network.weights: "),
        ({"views": "one"}, {"views": "mirrored too"}, "views: "),
        ({"maps": FILES}, {"maps": {**FILES, "range": "min-max"}}, "range: "),
        (stored_maps(), stored_maps(map_size=9), "maps.map_size: 8 stored, 9 now"),
        (stored_maps(score_maps={"network": {"weights": "1f"}}), {"network": {"weights": "2e"}}, "network.weights: "),
        (stored_maps(score_maps={"image_bytes": 1}), stored_maps(score_maps={"image_bytes": 2}), ""),
        (stored_maps(), stored_maps(files={"sha256": "of others"}), ""),
        ({"precision": "bf16", "maps": FILES}, {"precision": "fp32", **stored_maps()}, ""),
    ],
)
def test_thresholds_chosen_for_other_maps_are_refused(
    choices: EvaluationChoices, tmp_path: Path, before: dict[str, Any], now: dict[str, Any], said: str
) -> None:
    def evaluate(config: dict[str, Any], names: str, **changes: Any) -> Metrics:
        source, root = Bumps(), make_listed_data(tmp_path / names, {one: [(4.0, 3.0, 30.0, 15.0)] for one in names})
        source.config = lambda: config  # type: ignore[method-assign]
        images = load_evaluation_set(open_dataset(root, split="val"))
        changed = replace(choices, evaluation_set=images, protocols=("wsoleval-v1",), **changes)
        return evaluate_maps(changed, source, advance=lambda count: None)

    evaluate(before, "xy", boxes=before.get("boxes", "all"))
    if not said:
        evaluate(now, "ab", out=None, threshold_from=tmp_path / "out")
        return
    with pytest.raises(ValueError, match=rf"another network or of maps made otherwise \({said}"):
        evaluate(now, "ab", out=None, threshold_from=tmp_path / "out")


@pytest.mark.parametrize(
    ("views", "of_cam", "of_release"),
    [
        (ONE, ONE.describe(), "one view; the release sums ten crops (--ten-crop)"),
        (SEVERAL, SEVERAL.describe(), f"{SEVERAL.describe()}; the release sums ten crops (--ten-crop)"),
        (TEN, "sum of absolute ten-crop maps", TEN.describe()),
    ],
    ids=["one", "several", "ten"],
)
def test_views_mean_ten_crops_to_the_release_alone(views: Views, of_cam: str, of_release: str) -> None:
    assert (_views_under("cam", views), _views_under("cam-release", views)) == (of_cam, of_release)


def test_a_second_equal_evaluation_is_refused_while_the_first_is_at_work(
    choices: EvaluationChoices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.results.folder.LOCK_WAIT_S", 0.0)
    refused = []

    def start_another(_images: int) -> None:
        with pytest.raises(FolderBusy, match=f"^{tmp_path / 'out'}: process .* at work in this folder; wait"):
            evaluate_maps(choices, Bumps(), advance=lambda _: None)
        refused.append(1)

    evaluate_maps(choices, Bumps(), advance=start_another)
    assert len(refused) == 3
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"metrics.json", "per_class.csv", "predictions.csv"}


def test_a_second_equal_evaluation_that_waited_for_the_first_has_its_results(
    choices: EvaluationChoices, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Bumps(), Bumps()
    lock = ResultFolder.alone

    def let_the_other_end(folder: ResultFolder) -> AbstractContextManager[None]:
        with monkeypatch.context() as patched:
            patched.setattr(ResultFolder, "alone", lock)
            evaluate_maps(choices, first, advance=lambda _: None)
        return lock(folder)

    monkeypatch.setattr(ResultFolder, "alone", let_the_other_end)
    assert evaluate_maps(choices, second, advance=lambda _, **__: None).counts.asked == 5
    assert (first.asked, second.asked) == ([0, 1, 2, 3, 4], [])
