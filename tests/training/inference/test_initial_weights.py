"""Weights that a training starts from: earlier networks of ours, and files that cannot serve."""

import hashlib
from pathlib import Path

import pytest
import torch

from tests.world import World
from training.class_names import NO_NAMES, ClassNames
from training.inference.initial_weights import initial_weights_identity, initialise
from training.networks.model import LocalizationModel
from training.networks.weights import WeightsError
from training.run_folder.checkpoints import CheckpointError, load_checkpoint, save_checkpoint

ARCH = "alexnet-gap"


def started(weights: Path, names: ClassNames, *, classes: int, **options: bool) -> tuple[dict[str, torch.Tensor], str]:
    """State of a new network that starts from these weights, and what was said."""
    model = LocalizationModel(ARCH, classes, **options)
    said = initialise(model, str(weights), arch=ARCH, names=names)
    return model.state_dict(), said


@pytest.fixture(scope="module")
def named(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network's checkpoint with names of its classes."""
    state = load_checkpoint(next(world.network.glob("*.pt")))
    path = tmp_path_factory.mktemp("named") / "named.pt"
    save_checkpoint(path, {**state, "class_wnids": ["cat", "dog"], "class_names": ["a cat", "a dog"]})
    return path


def test_a_run_gives_all_its_weights_to_a_network_of_its_classes(world: World) -> None:
    stored = load_checkpoint(next(world.network.glob("*.pt")))["model"]
    state, said = started(world.network, ClassNames(("cat", "dog"), ("cat", "dog")), classes=2)
    assert state.keys() == stored.keys() and all(torch.equal(state[key], stored[key]) for key in stored)
    assert "checkpoint-00000003.pt: encoder, decoder, classifier" in said


def test_classes_are_matched_by_name_and_others_get_a_new_classifier(named: Path) -> None:
    stored = load_checkpoint(named)["model"]
    state, said = started(named, ClassNames(("dog", "cat"), ("dog", "cat")), classes=2, decoder=False)
    weight, bias = (stored[f"classifier.linear.{name}"][[1, 0]] for name in ("weight", "bias"))
    assert torch.equal(state["classifier.linear.weight"], weight)
    assert torch.equal(state["classifier.linear.bias"], bias)
    assert "classes matched by name" in said and not any(key.startswith("decoder.") for key in state)
    state, said = started(named, ClassNames(("cat", "cow", "dog"), ("cat", "cow", "dog")), classes=3)
    fitting = {key for key in stored if not key.startswith("classifier.")}
    assert all(torch.equal(state[key], stored[key]) for key in fitting)
    assert state["classifier.linear.weight"].shape[0] == 3
    assert state["classifier.linear.weight"].std() < 0.02 < weight.std()
    assert "encoder, decoder; random: classifier" in said
    assert "a new classifier: the checkpoint's 2 classes lack some of the 3 here" in said


def test_files_of_other_networks_are_refused_by_name(world: World, tmp_path: Path) -> None:
    model = LocalizationModel(ARCH, 2, decoder=False)

    def refused(weights: Path, *, arch: str = ARCH) -> str:
        with pytest.raises((WeightsError, CheckpointError)) as found:
            initialise(model, str(weights), arch=arch, names=NO_NAMES)
        return str(found.value)

    (checkpoint,) = world.network.glob("*.pt")
    assert f"{checkpoint}: a checkpoint of {ARCH}, expected one of vgg16-gap (--arch)" in refused(
        world.network, arch="vgg16-gap"
    )
    other = tmp_path / "resnet.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, other)
    assert "expected the weights of a torchvision AlexNet: features.0.weight is missing" in refused(other)
    assert "--arch timm:resnet18@FILE" in refused(other, arch="timm:resnet18")
    (tmp_path / "text.pth").write_text("no weights")
    assert "text.pth: not a file of tensors" in refused(tmp_path / "text.pth")
    assert "nowhere.pth: no such file; expected --init imagenet or the path" in refused(tmp_path / "nowhere.pth")
    assert "a folder without checkpoint" in refused(tmp_path)
    with pytest.raises(WeightsError, match=r"give --no-batch-norm as it was there; .*conv\.bias"):
        started(checkpoint, NO_NAMES, classes=2, decoder=False, batch_norm=False)


def test_the_identity_of_a_run_is_that_of_its_newest_checkpoint(world: World) -> None:
    (checkpoint,) = world.network.glob("*.pt")
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert [initial_weights_identity(str(path)) for path in (checkpoint, world.network)] == [sha256, sha256]
    assert [initial_weights_identity(name) for name in ("imagenet", "random")] == ["imagenet", "random"]
