import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from training.networks.normalisation import Normalisation
from training.networks.parts import ConvUnit
from training.networks.perceptual import PerceptualNetwork
from training.networks.resnet import ResNet50Encoder

torch.set_num_threads(1)


def randomise_statistics(module: nn.Module) -> None:
    """Batch norm as after training: the identity would hide a fold that is wrong."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.2, 0.6)
            nn.init.normal_(norm.bias, std=0.2)
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)


@pytest.fixture(scope="module")
def trunk() -> ResNet50Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = ResNet50Encoder(batch_norm=True)
        randomise_statistics(trunk)
        return trunk.eval()


@pytest.fixture(scope="module")
def network(trunk: ResNet50Encoder) -> PerceptualNetwork:
    return PerceptualNetwork(trunk)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    torch.manual_seed(1)
    yield


def test_folding_by_hand() -> None:
    unit = ConvUnit(1, 1, kernel=1, batch_norm=True, norm_eps=1.0).eval()
    nn.init.constant_(unit.conv.weight, 7.0)
    for name, value in (("weight", 6.0), ("bias", 1.0), ("running_mean", 5.0), ("running_var", 8.0)):
        nn.init.constant_(unit.norm.state_dict()[name], value)
    maps = torch.randn(2, 1, 3, 3)
    expected = unit(maps)
    # (7 x - 5) * 6 / sqrt(8 + 1) + 1 = 14 x - 9
    assert [value.item() for value in unit.folded()] == [14.0, -9.0]
    unit.fold()
    assert unit.norm is None and set(unit.state_dict()) == {"conv.weight", "conv.bias"}
    torch.testing.assert_close(unit(maps), expected)


@pytest.mark.parametrize("source_norm", [True, False])
@pytest.mark.parametrize("target_norm", [True, False])
@pytest.mark.parametrize("kernel", [3, 1])
def test_a_copied_unit_computes_the_same(source_norm: bool, target_norm: bool, kernel: int) -> None:
    options = {"norm_eps": 0.1, "stride": 2}
    source = ConvUnit(3, 4, kernel=kernel, padding=kernel // 2, batch_norm=source_norm, **options).double().eval()
    randomise_statistics(source)
    if not source_norm:
        nn.init.normal_(source.conv.bias)
    target = ConvUnit(3, 4, kernel=3, padding=1, batch_norm=target_norm, **options).double().eval()
    target.copy_from(source)
    maps = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    # What the identity norm adds and subtracts passes through float32 once.
    torch.testing.assert_close(target(maps), source(maps), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("channels", "kernel"), [(2, 3), (3, 2), (3, 5)])
def test_units_that_do_not_fit_are_refused(channels: int, kernel: int) -> None:
    unit = ConvUnit(3, 4, kernel=3, batch_norm=True)
    with pytest.raises(ValueError, match=rf"shape \(4, {channels}, {kernel}, {kernel}\), expected \(4, 3, 3, 3\)"):
        unit.copy_from(ConvUnit(channels, 4, kernel=kernel, batch_norm=True))


def test_it_computes_what_the_trunk_with_batch_norm_does(trunk: ResNet50Encoder, network: PerceptualNetwork) -> None:
    images = torch.rand(2, 3, 64, 72)
    with torch.no_grad():
        expected = trunk(Normalisation()(images)).features.mean(dim=(2, 3))
        found = network(images)
    assert found.shape == (2, network.features) == (2, 2048)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in trunk.modules()) == 53


def test_making_it_draws_no_random_numbers(trunk: ResNet50Encoder) -> None:
    before = torch.get_rng_state()
    PerceptualNetwork(trunk)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_stays_fixed(network: PerceptualNetwork) -> None:
    images = torch.rand(2, 3, 64, 64)
    before = network(images)
    assert network.train() is network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not nn.Sequential(network).train()[0].training
    assert torch.equal(network(images), before)


def test_the_gradient_reaches_the_input_and_is_right(trunk: ResNet50Encoder) -> None:
    network = PerceptualNetwork(copy.deepcopy(trunk).double()).double()
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2048, dtype=torch.float64)
    (network(images)[0] @ weights).backward()
    assert images.grad is not None
    direction = torch.randn_like(images)
    step = 1e-6
    with torch.no_grad():
        change = (network(images + step * direction) - network(images - step * direction))[0] @ weights
    assert (images.grad * direction).sum().item() == pytest.approx(change.item() / (2 * step), rel=1e-4)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_masked_pixel_is_black_and_not_mean_grey(trunk: ResNet50Encoder, network: PerceptualNetwork) -> None:
    black = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        expected = trunk(Normalisation()(black)).features.mean(dim=(2, 3))
        grey = trunk(black).features.mean(dim=(2, 3))
    torch.testing.assert_close(network(black), expected, rtol=1e-4, atol=1e-5)
    assert (grey - expected).abs().max() > 0.01


def test_channels_last_stays_so_and_changes_nothing(trunk: ResNet50Encoder) -> None:
    network = PerceptualNetwork(trunk)
    images = torch.rand(2, 3, 64, 64)
    expected = network(images)
    network = network.to(memory_format=torch.channels_last)
    kept = []
    network.trunk.layer3.register_forward_hook(lambda module, args, output: kept.append(output))
    found = network(images.to(memory_format=torch.channels_last))
    assert kept[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# --- programs of torch.export
