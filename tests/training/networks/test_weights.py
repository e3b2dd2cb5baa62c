from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.counts import full
from tests.training.networks.test_perceptual import randomise_statistics
from training.networks.model import LocalizationModel
from training.networks.normalisation import Normalisation
from training.networks.parts import conv_units
from training.networks.registry import ARCHITECTURES, build_encoder
from training.networks.weights import WeightsError, initialise_from_imagenet, load_perceptual_network
from training.run_folder.checkpoints import save_checkpoint

torch.set_num_threads(1)

INCEPTION_NAMES = ["3a", "3b", "4a", "4b", "4c", "4d", "4e"]
BRANCHES = ["one", "three_reduce", "three", "five_reduce", "five", "pool_project"]


def in_half(network: nn.Module) -> dict[str, Tensor]:
    """Half the bytes; the network is set to the rounded values, so nothing is lost between it and the file."""
    state = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    return state


def of_one_number(network: nn.Module) -> dict[str, Tensor]:
    """A state dict of the right shapes whose file is small, for files that are refused."""
    return {key: torch.zeros(()).expand(value.shape) for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.resnet50(weights=None)
        randomise_statistics(network)
        return network.eval()


@pytest.fixture(scope="module")
def alexnet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.alexnet(weights=None).eval()


@pytest.fixture(scope="module")
def googlenet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.googlenet(weights=None, transform_input=True, init_weights=False, aux_logits=False)
        randomise_statistics(network)
        return network.eval()


@pytest.fixture(scope="module")
def resnet_file(resnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(in_half(resnet), path)
    return path


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 96, 80, generator=torch.Generator().manual_seed(5))


def pooled(resnet: nn.Module, images: Tensor) -> Tensor:
    """torchvision's own features before its last layer."""
    kept = []
    handle = resnet.avgpool.register_forward_hook(lambda module, args, output: kept.append(output.flatten(1)))
    with torch.no_grad():
        resnet(Normalisation()(images))
    handle.remove()
    return kept[0]


# --- encoders


# With batch norm and without it, units are copied in test_perceptual.
@pytest.mark.parametrize(("arch", "batch_norm"), [("alexnet-gap", True), ("alexnet-gap-plus", False)])
def test_alexnet_computes_what_torchvisions_does(
    arch: str, batch_norm: bool, alexnet: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    state = {key: value for key, value in alexnet.state_dict().items() if key.startswith("features.")}
    torch.save(state, tmp_path / "alexnet.pth")
    encoder = build_encoder(arch, batch_norm=batch_norm)
    random_conv5 = encoder.conv5.conv.weight.clone()
    report = initialise_from_imagenet(encoder, weights=str(tmp_path / "alexnet.pth"))
    with torch.no_grad():
        conv5, conv4, conv3, conv2, conv1 = encoder.eval()(Normalisation()(images)).skips
        for found, end in ((conv1, 2), (conv2, 5), (conv3, 8), (conv4, 10), (conv5, 12)):
            if end == 12 and arch == "alexnet-gap-plus":
                continue
            expected = alexnet.features[:end](Normalisation()(images))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    five = ("conv1", "conv2", "conv3", "conv4", "conv5")
    if arch == "alexnet-gap":
        assert (report.loaded, report.random) == (five, ("cam_conv",))
    else:
        assert (report.loaded, report.random) == (five[:4], ("conv5", "conv6", "conv7"))
        assert torch.equal(encoder.conv5.conv.weight, random_conv5)
    assert ("no batch norm" in report.describe()) == batch_norm
    assert str(tmp_path / "alexnet.pth") in report.describe() and "classifier" in report.describe()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_googlenet_computes_what_torchvisions_does(
    batch_norm: bool, googlenet: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.save(googlenet.state_dict(), tmp_path / "googlenet.pth")
    encoder = build_encoder("googlenet-gap", batch_norm=batch_norm)
    report = initialise_from_imagenet(encoder, weights=str(tmp_path / "googlenet.pth"))
    expected = []
    hooks = [
        getattr(googlenet, name).register_forward_hook(lambda module, args, output: expected.insert(0, output))
        for name in ("inception4e", "inception4b", "inception3b", "conv3", "conv1")
    ]
    with torch.no_grad():
        googlenet(Normalisation()(images))
        for hook in hooks:
            hook.remove()
        found = encoder.eval()(Normalisation()(images)).skips
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.std() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    inceptions = tuple(f"inception{name}.{branch}" for name in INCEPTION_NAMES for branch in BRANCHES)
    assert report.loaded == ("conv1", "conv2", "conv3", *inceptions)
    assert report.random == ("cam_conv",)
    # The rescaling is a part of the weights: it has to survive a checkpoint.
    again = build_encoder("googlenet-gap", batch_norm=batch_norm)
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(Normalisation()(images)).skips[0], found[0])


def test_vgg_computes_what_torchvisions_does(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None).features
    theirs = theirs.to_empty(device="cpu").eval()
    state = theirs.state_dict()
    for key, value in state.items():
        drawn = torch.rand(value.shape)
        state[key] = nn.init.kaiming_normal_(drawn) if value.dim() > 1 else drawn
    theirs.load_state_dict(state)
    torch.save({f"features.{key}": value for key, value in state.items()}, tmp_path / "vgg16.pth")
    encoder = build_encoder("vgg16-gap", batch_norm=False).eval()
    report = initialise_from_imagenet(encoder, weights=str(tmp_path / "vgg16.pth"))
    expected, maps = [], Normalisation()(images)
    with torch.no_grad():
        for layer in theirs:
            if isinstance(layer, nn.MaxPool2d):
                expected.insert(0, maps)
            maps = layer(maps)
        found = encoder(Normalisation()(images)).skips
    for ours, wanted in zip(found, expected, strict=True):
        assert wanted.std() > 1e-3
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3)
    assert len(report.loaded) == 13 and report.random == ("cam_conv",)


@pytest.mark.parametrize(("stride", "dilated"), [(8, [False, True, True]), (16, [False, False, True])][: full(1, 2)])
def test_a_dilated_resnet_computes_what_torchvisions_does(
    stride: int, dilated: list[bool], resnet: nn.Module, resnet_file: Path, images: Tensor
) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=dilated)
    theirs.load_state_dict(resnet.state_dict(), assign=True)
    encoder = build_encoder("resnet50-gap", output_stride=stride)
    initialise_from_imagenet(encoder, weights=str(resnet_file))
    with torch.no_grad():
        features = encoder.eval()(Normalisation()(images)).features
    torch.testing.assert_close(features.mean(dim=(2, 3)), pooled(theirs.eval(), images), rtol=1e-4, atol=1e-5)


def test_resnet_computes_what_torchvisions_does(resnet: nn.Module, resnet_file: Path, images: Tensor) -> None:
    encoder = build_encoder("resnet50-gap")
    report = initialise_from_imagenet(encoder, weights=str(resnet_file))
    with torch.no_grad():
        features = encoder.eval()(Normalisation()(images)).features
    torch.testing.assert_close(features.mean(dim=(2, 3)), pooled(resnet, images), rtol=1e-4, atol=1e-5)
    assert report.loaded == tuple(conv_units(encoder)) and len(report.loaded) == 53
    assert report.random == () and report.notes == ()


def test_nothing_is_loaded_when_one_tensor_is_wrong(alexnet: nn.Module, tmp_path: Path) -> None:
    state = alexnet.features.state_dict(prefix="features.")
    state["features.10.weight"] = torch.zeros(256, 256, 1, 1)
    torch.save(state, tmp_path / "alexnet.pth")
    encoder = build_encoder("alexnet-gap")
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    message = r"torchvision AlexNet: features.10.weight has shape \(256, 256, 1, 1\), expected \(256, 256, 3, 3\)$"
    with pytest.raises(WeightsError, match=message):
        initialise_from_imagenet(encoder, weights=str(tmp_path / "alexnet.pth"))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


# --- the perceptual network


def test_the_perceptual_network_of_a_torchvision_file(resnet: nn.Module, resnet_file: Path, images: Tensor) -> None:
    network = load_perceptual_network(str(resnet_file))
    expected = pooled(resnet, images)
    assert expected.std() > 0.01
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES, key="googlenet-gap".__ne__)[: full(2, len(ARCHITECTURES))])
def test_the_perceptual_network_of_our_checkpoint(arch: str, images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LocalizationModel(arch, 3, decoder=False)
    randomise_statistics(model)
    model.encoder.adapt_to_imported_weights()
    path = tmp_path / "checkpoint-00000001.pt"
    save_checkpoint(path, {"model": in_half(model), "config": {"arch": arch}})
    with torch.no_grad():
        expected = model.eval()(images).features.mean(dim=(2, 3))
    network = load_perceptual_network(str(path))
    assert network.features == expected.shape[1] == model.encoder.feature_channels
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("wrap", "prefix"), [("model", ""), ("state_dict", "module.")])
def test_usual_wrappings_are_undone(wrap: str, prefix: str, meta_resnet: nn.Module, tmp_path: Path) -> None:
    state = of_one_number(meta_resnet)
    state["bn1.bias"] = torch.arange(64.0)
    torch.save({wrap: {f"{prefix}{key}": value for key, value in state.items()}}, tmp_path / "resnet50.pth")
    network = load_perceptual_network(str(tmp_path / "resnet50.pth"))
    assert torch.equal(network.trunk.conv1.conv.bias, torch.arange(64.0))


def test_random_weights_are_seeded_and_leave_the_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = load_perceptual_network("random")(images)
    assert torch.equal(features, load_perceptual_network("random")(images))
    assert not torch.equal(features, load_perceptual_network("random", seed=1)(images))
    assert torch.equal(torch.get_rng_state(), before)
    assert 0.05 < features.square().mean().sqrt() < 20


# --- files that are not what they should be


def refused(path: Path | str) -> str:
    with pytest.raises(WeightsError) as caught:
        load_perceptual_network(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.pth"):
        assert refused(path) == (
            f"{path}: no such file; expected --perceptual-weights imagenet or the path of a weights file"
        )


def test_damaged_files(meta_resnet: nn.Module, tmp_path: Path) -> None:
    good, path = tmp_path / "good.pth", tmp_path / "bad.pth"
    torch.save(of_one_number(meta_resnet), good)
    encoded = good.read_bytes()
    for length in (0, 1, 100, len(encoded) // 2, len(encoded) - 1):
        path.write_bytes(encoded[:length])
        assert refused(path).startswith(f"{path}: not a file of tensors that torch.save made, or damaged")
    path.write_text("<html>404 Not Found</html>")
    assert "damaged" in refused(path)


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"weight": torch.full((64,), 3.0)}, path)
    encoded = path.read_bytes()
    place = encoded.index(torch.full((64,), 3.0).numpy().tobytes()) + 17
    path.write_bytes(encoded[:place] + bytes([encoded[place] ^ 1]) + encoded[place + 1 :])
    assert "wrong checksum" in refused(path)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_a_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Bomb()}, "bomb.pth")
    assert "not a file of tensors" in refused("bomb.pth")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"arch": "x"}}, torch.zeros(3)])
def test_a_file_without_a_state_dict(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    assert "holds no named tensors, expected a state dict" in refused(tmp_path / "file.pth")


def test_foreign_and_mismatched_networks(meta_resnet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    message = refused(path)
    assert "expected the weights of a torchvision ResNet-50: conv1.weight is missing" in message
    assert message.endswith("; and 261 more")  # 53 convolutions with a weight and four numbers a channel
    with torch.device("meta"):
        wide = torchvision.models.wide_resnet50_2(weights=None)
    torch.save(of_one_number(wide), path)
    assert "layer1.0.conv1.weight has shape (128, 64, 1, 1), expected (64, 64, 1, 1)" in refused(path)
    state = of_one_number(meta_resnet)
    nothing = (torch.full((64,), float("nan")), torch.zeros(64, dtype=torch.int64), torch.zeros(64, device="meta"))
    for running_var in nothing:
        torch.save({**state, "bn1.running_var": running_var}, path)
        assert refused(path).endswith("bn1.running_var holds something else than finite floating-point numbers")


def test_a_googlenet_without_its_input_scaling(tmp_path: Path) -> None:
    state = LocalizationModel("googlenet-gap", 2, decoder=False).state_dict()
    del state["encoder.input_scale"]
    torch.save({"model": state, "config": {"arch": "googlenet-gap"}}, tmp_path / "checkpoint.pt")
    assert "input_scale is missing" in refused(tmp_path / "checkpoint.pt")


def test_checkpoints_of_other_architectures(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = LocalizationModel("alexnet-gap", 2)
    state = of_one_number(model)
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": state, "config": {"arch": "vgg16"}}, path)
    assert refused(path).startswith(f"{path}: a checkpoint of another program: arch: expected one of alexnet-gap, ")
    torch.save({"model": {"encoder.conv1.conv.weight": torch.zeros(1)}, "config": {"arch": "alexnet-gap"}}, path)
    assert "expected the weights of a checkpoint of alexnet-gap: conv1.conv.weight has shape (1,)" in refused(path)
    torch.save({"model": state, "config": {}}, path)
    message = refused(path)
    assert "checkpoint of resnet50-gap: conv1.conv.weight has shape (64, 3, 11, 11), expected (64, 3, 7, 7)" in message
