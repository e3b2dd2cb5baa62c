"""Checkpoints of small networks, with and without decoder, and images for them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.training_runs import SIDE_PX, SMALL, saliency
from training.config import TrainConfig
from training.inference.localizers import InferenceModel, load_for_inference
from training.networks.model import LocalizationModel
from training.run_folder.checkpoints import save_checkpoint

WITH_DECODER = saliency(use_triplet=False)


def make_state(config: TrainConfig, *, step: int = 7, seed: int = 0) -> dict[str, Any]:
    """What the trainer saves, with weights large enough for maps of both signs."""
    torch.manual_seed(seed)
    model = LocalizationModel(config.arch, config.classes, decoder=config.loss.needs_saliency)
    torch.nn.init.normal_(model.classifier.linear.weight)
    model.train()(torch.rand(4, 3, SIDE_PX, SIDE_PX))  # moves the running statistics
    return {"model": model.state_dict(), "config": config.as_json(), "step": step, "optimiser": {}}


@pytest.fixture(scope="module")
def states(small_networks: None) -> dict[bool, dict[str, Any]]:
    return {False: make_state(SMALL), True: make_state(WITH_DECODER)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, states: dict[bool, dict[str, Any]]) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for decoder, state in states.items():
        save_checkpoint(folder / f"{'saliency' if decoder else 'gap'}.pt", state)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> InferenceModel:
    return load_for_inference(folder / "saliency.pt")


@pytest.fixture(scope="module")
def images() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(3, 3, SIDE_PX, SIDE_PX)


def assert_near(found: Tensor, wanted: Tensor) -> None:
    """Equal up to the rounding of sums of many terms, whose size is that of the largest value."""
    torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)
