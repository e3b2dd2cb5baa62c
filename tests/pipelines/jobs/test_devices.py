"""One process per device: all of them score the network that the evaluation was asked for."""

import shutil
from pathlib import Path

import pytest

from evaluation.image_scores import ImageScores
from evaluation.scoring import ScoringTask
from pipelines.datasets import open_dataset
from pipelines.jobs.devices import score_on_devices
from pipelines.jobs.evaluation_set import load_evaluation_set
from pipelines.jobs.network_maps import NetworkChoices, NetworkMaps
from tests.integration.eval_command import make_checkpoint, make_listed_data
from training.inference.config import Views

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CLASSES = 2


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint, and another one beside the folder."""
    (tmp_path / "run").mkdir()
    make_checkpoint(tmp_path / "run" / "checkpoint-00000003.pt", classes=CLASSES, decoder=False)
    make_checkpoint(tmp_path / "later.pt", classes=CLASSES, decoder=False, seed=1)
    return tmp_path / "run"


@pytest.fixture
def source(run: Path, tmp_path: Path) -> NetworkMaps:
    root = make_listed_data(tmp_path / "data", {name: [(4.0, 3.0, 30.0, 15.0)] for name in "abc"}, classes=CLASSES)
    choices = NetworkChoices(
        checkpoint=run,
        localizers=("cam",),
        views=Views(),
        precision="fp32",
        devices=("cpu", "cpu"),
        batch_size=1,
        workers=0,
        save_maps=False,
    )
    return NetworkMaps(
        choices, load_evaluation_set(open_dataset(root, split="val")), device="cpu", centre=False, out=None
    )


def scored(source: NetworkMaps) -> list[ImageScores]:
    images = source.evaluation_set
    task = ScoringTask(root=images.root, protocols=("cam",), localizers=("cam",))
    found = score_on_devices(source, images.batches(1), task=task, jobs=1)
    return sorted((scores for batch in found for scores in batch), key=lambda scores: scores.index)


def test_a_checkpoint_that_training_adds_meanwhile_changes_nothing(source: NetworkMaps, run: Path) -> None:
    shutil.copy(run.parent / "later.pt", run / "checkpoint-00000009.pt")
    probabilities = [scores.top_probabilities.tolist() for scores in scored(source)]
    own = [source.maps_of(image).top_probabilities for image in source.evaluation_set.images]
    assert probabilities == [one.tolist() for one in own if one is not None] and len(probabilities) == 3


def test_a_checkpoint_that_is_replaced_meanwhile_is_an_error_that_names_it(source: NetworkMaps, run: Path) -> None:
    shutil.copy(run.parent / "later.pt", run / "checkpoint-00000003.pt")
    with pytest.raises(RuntimeError, match=r"device cpu: .*checkpoint-00000003\.pt changed .*network\.weights"):
        scored(source)
