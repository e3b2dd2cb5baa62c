"""A network read from a checkpoint or the folder of a run, and what is refused."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.inference.conftest import WITH_DECODER, assert_near, make_state
from tests.training.training_runs import SIDE_PX, SMALL, make_colour_folders, make_trainer, records
from training.data.augmentation import EVALUATION_CROP
from training.data.loading import TrainingImages
from training.data.sampling import SampleKey
from training.inference.config import LOCALIZERS
from training.inference.localizers import InferenceModel, NetworkLocalizer, available_localizers, load_for_inference
from training.networks.model import LocalizationModel
from training.run_folder.checkpoints import CheckpointError, CheckpointFolder, DamagedCheckpointWarning, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")


def test_a_checkpoint_gives_the_network_that_was_saved(folder: Path, images: Tensor) -> None:
    model = load_for_inference(str(folder / "saliency.pt"))
    assert (model.arch, model.classes, model.input_size_px, model.step) == ("alexnet-gap", 3, SIDE_PX, 7)
    assert model.class_names == ()
    assert model.source == folder / "saliency.pt" and model.config == WITH_DECODER.as_json()
    assert not any(part.training for part in model.network.modules())
    assert not any(weights.requires_grad for weights in model.network.parameters())
    state = make_state(WITH_DECODER)
    expected = LocalizationModel("alexnet-gap", 3).eval()
    expected.load_state_dict(state["model"])
    with torch.no_grad():
        for one, other in zip(expected(images), model.network(images), strict=True):
            assert one is other is None or torch.equal(one, other)


def test_loading_does_not_move_the_random_numbers(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_for_inference(folder / "gap.pt")
    assert torch.equal(torch.rand(2), expected)


def test_the_digest_tells_weights_apart_and_nothing_else(tmp_path: Path, states: dict[bool, dict[str, Any]]) -> None:
    def digest(state: dict[str, Any]) -> str:
        save_checkpoint(tmp_path / "one.pt", state)
        return load_for_inference(tmp_path / "one.pt").digest

    state = states[False]
    first = digest(state)
    assert len(first) == 12 and int(first, 16) >= 0
    weights = {name: value.clone() for name, value in state["model"].items()}
    assert digest({**state, "step": 8, "model": dict(reversed(weights.items()))}) == first
    rows_last = {
        name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in weights.items()
    }
    assert digest({**state, "model": rows_last}) == first
    weights["classifier.linear.bias"][1] += 1e-3
    assert digest({**state, "model": weights}) != first


def test_the_digest_is_a_plain_sha256(model: InferenceModel) -> None:
    by_hand = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        by_hand.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode() + value.contiguous().numpy().tobytes())
    assert model.digest == by_hand.hexdigest()[:12]


def test_a_run_of_the_trainer_is_read_from_its_folder(tmp_path: Path) -> None:
    data = make_colour_folders(tmp_path / "data")
    trainer = make_trainer(data, tmp_path / "run", replace(SMALL, epochs=1))
    trainer.fit()
    model = load_for_inference(tmp_path / "run")
    assert model.step == 3 and model.source.name == "checkpoint-00000003.pt"
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value)

    crop = replace(EVALUATION_CROP, input_size=SIDE_PX)
    batch = TrainingImages(records(data, split="val"), root=data, crop=crop, seed=0).__getitems__(
        [SampleKey(epoch=0, position=position) for position in range(6)]
    )
    found = NetworkLocalizer(model, localizers=["cam"])(batch.images_bchw, batch.labels_b)
    with torch.no_grad():
        expected = trainer.model.eval()(batch.images_bchw / 255, cam_classes=batch.labels_b[:, None])
    assert_near(found.probabilities_bk, expected.scores.softmax(dim=1))
    assert_near(found.maps["cam"], expected.activation_maps[:, 0])


def test_the_newest_good_checkpoint_of_a_folder_counts(tmp_path: Path, states: dict[bool, dict[str, Any]]) -> None:
    run = CheckpointFolder(tmp_path)
    for step in (1, 2, 3):
        run.save(step, {**states[False], "step": step})
    assert load_for_inference(tmp_path).step == 3
    run.path(3).write_bytes(run.path(3).read_bytes()[:1000])
    with pytest.warns(DamagedCheckpointWarning, match="checkpoint-00000003.pt"):
        assert load_for_inference(tmp_path).step == 2


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: nothing is there, expected a checkpoint file or the folder"):
        load_for_inference(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"a folder without checkpoint-<step>.pt, expected the --out folder"):
        load_for_inference(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other.pt: a torch file of another program"):
        load_for_inference(tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(CheckpointError, match=r"text.pt: not a checkpoint, or damaged"):
        load_for_inference(tmp_path / "text.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("config"), "without config, expected one that wsol-train wrote"),
        (lambda state: state["config"].update(arch="vgg"), "make no network: ValueError: arch: expected one of"),
        (lambda state: state["config"].update(classes=4), "size mismatch for classifier.linear"),
        (lambda state: state["config"].pop("batch_norm"), "make no network: KeyError: 'batch_norm'"),
        (lambda state: state["config"].update(crop={"input_size": "big"}), "input size 'big', expected pixels"),
        (lambda state: state["model"].pop("classifier.linear.bias"), "Missing key.*classifier.linear.bias"),
    ],
)
def test_a_state_that_makes_no_network_is_refused(
    tmp_path: Path, states: dict[bool, dict[str, Any]], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    state = {**states[False], "config": copy.deepcopy(states[False]["config"]), "model": dict(states[False]["model"])}
    change(state)
    save_checkpoint(tmp_path / "one.pt", state)
    with pytest.raises(CheckpointError, match=f"one.pt: .*{message}"):
        load_for_inference(tmp_path / "one.pt")


def test_a_network_without_decoder_has_no_saliency(folder: Path) -> None:
    model = load_for_inference(folder / "gap.pt")
    assert available_localizers(model) == ("cam", "grad-cam")
    with pytest.raises(CheckpointError, match=r"gap.pt: a network without decoder \(method 'gap'\)"):
        load_for_inference(folder / "gap.pt", require_decoder=True)
    for name in ("saliency", "cam*saliency"):
        with pytest.raises(ValueError, match=r"needs a decoder, and .*gap.pt has none: .* cam, grad-cam"):
            NetworkLocalizer(model, localizers=["cam", name])


def test_a_network_with_decoder_has_everything(folder: Path) -> None:
    model = load_for_inference(folder / "saliency.pt", require_decoder=True)
    assert available_localizers(model) == tuple(LOCALIZERS)
