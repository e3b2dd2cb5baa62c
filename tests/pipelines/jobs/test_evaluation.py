"""An evaluation from its source of maps to its result folder: progress, resuming, views."""

from pathlib import Path

import pytest

from evaluation.images import EvaluationImage
from evaluation.maps import StoredMaps
from evaluation.scoring import ImageMaps
from pipelines.datasets import open_dataset
from pipelines.jobs.evaluation import EvaluationChoices, _evaluate, _views_under, evaluate_maps
from pipelines.jobs.evaluation_set import load_evaluation_set
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
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        evaluate_maps(choices, Bumps(stop_at=3), masks=None, advance=told.append)
    assert told == [0, 2]
    told.clear()
    source = Bumps()
    metrics = evaluate_maps(choices, source, masks=None, advance=told.append)
    assert (told, source.asked) == ([2, 2, 1], [2, 3, 4])
    assert (metrics.counts.asked, metrics.config["unused_maps"]) == (5, 0)
    stopped = results_in(tmp_path / "out")
    for path in (tmp_path / "out").glob("*.*"):
        path.unlink()
    evaluate_maps(choices, Bumps(), masks=None, advance=told.append)
    assert results_in(tmp_path / "out") == stopped


def test_a_finished_evaluation_asks_for_no_map(choices: EvaluationChoices) -> None:
    told: list[int] = []
    evaluate_maps(choices, Bumps(), masks=None, advance=lambda count: None)
    source = Bumps()
    evaluate_maps(choices, source, masks=None, advance=told.append)
    assert (told, source.asked) == ([5], [])


def test_images_whose_maps_were_not_saved_are_looked_at_again(choices: EvaluationChoices) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate_maps(choices, Bumps(stop_at=4), masks=None, advance=lambda count: None)
    stopped = Bumps()
    stopped.config = lambda: {"unused_maps": 0}  # type: ignore[method-assign]
    _evaluate(choices, stopped, kind="maps", advance=lambda count: None, unsaved=frozenset({2, 3}))
    assert stopped.asked == [2, 3, 4]
    # Also when all is finished.
    finished = Bumps()
    finished.config = stopped.config  # type: ignore[method-assign]
    _evaluate(choices, finished, kind="maps", advance=lambda count: None, unsaved=frozenset({0, 1}))
    assert finished.asked == [0, 1, 2, 3, 4]


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
