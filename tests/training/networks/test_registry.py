import functools
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.command_calls import start_python
from training.networks.model import LocalizationModel
from training.networks.parts import ConvUnit, Encoder, EncoderFeatures, UndrawnWeights, conv_units
from training.networks.registry import ARCHITECTURES, build_encoder

torch.set_num_threads(1)

ALEXNET_CONVOLUTIONS = [(3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3), (256, 1024, 3)]
PLUS_CONVOLUTIONS = [*ALEXNET_CONVOLUTIONS[:4], (256, 384, 3), (384, 512, 3), (512, 512, 3)]
INCEPTIONS = [  # in, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool: table 1 of the GoogLeNet paper
    (192, 64, 96, 128, 16, 32, 32),
    (256, 128, 128, 192, 32, 96, 64),
    (480, 192, 96, 208, 16, 48, 64),
    (512, 160, 112, 224, 24, 64, 64),
    (512, 128, 128, 256, 24, 64, 64),
    (512, 112, 144, 288, 32, 64, 64),
    (528, 256, 160, 320, 32, 128, 128),
]
GOOGLENET_CONVOLUTIONS = [(3, 64, 7), (64, 64, 1), (64, 192, 3), (832, 1024, 3)]
for c, one, three_reduce, three, five_reduce, five, pool in INCEPTIONS:
    GOOGLENET_CONVOLUTIONS += [(c, one, 1), (c, three_reduce, 1), (three_reduce, three, 3)]
    GOOGLENET_CONVOLUTIONS += [(c, five_reduce, 1), (five_reduce, five, 5), (c, pool, 1)]
VGG16_WIDTHS = (64, 64, 128, 128, *[256] * 3, *[512] * 6)
VGG16_CONVOLUTIONS = [(before, after, 3) for before, after in pairwise((3, *VGG16_WIDTHS, 1024))]
CONVOLUTIONS = {
    "alexnet-gap": ALEXNET_CONVOLUTIONS,
    "alexnet-gap-plus": PLUS_CONVOLUTIONS,
    "googlenet-gap": GOOGLENET_CONVOLUTIONS,
    "vgg16-gap": VGG16_CONVOLUTIONS,
}
AT_224 = {
    "alexnet-gap": ((1024, 13), [(256, 13), (256, 13), (384, 13), (192, 27), (64, 55)]),
    "alexnet-gap-plus": ((512, 11), [(384, 13), (256, 13), (384, 13), (192, 27), (64, 55)]),
    "googlenet-gap": ((1024, 14), [(832, 14), (512, 14), (480, 28), (192, 56), (64, 112)]),
    "vgg16-gap": ((1024, 14), [(512, 14), (512, 28), (256, 56), (128, 112), (64, 224)]),
    "resnet50-gap": ((2048, 7), [(2048, 7), (1024, 14), (512, 28), (256, 56), (64, 112)]),
}


@functools.cache
def without_numbers(arch: str, *, batch_norm: bool = True) -> Encoder:
    """Shapes and names alone."""
    with torch.device("meta"):
        return build_encoder(arch, batch_norm=batch_norm).eval()


def run(arch: str, height: int, width: int, *, batch_norm: bool = True) -> tuple[Encoder, EncoderFeatures]:
    encoder = without_numbers(arch, batch_norm=batch_norm)
    return encoder, encoder(torch.empty(2, 3, height, width, device="meta"))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_shapes_at_224(arch: str, batch_norm: bool) -> None:
    encoder, encoded = run(arch, 224, 224, batch_norm=batch_norm)
    (channels, side), skips = AT_224[arch]
    assert encoded.features.shape == (2, channels, side, side)
    assert [tuple(skip.shape) for skip in encoded.skips] == [(2, c, s, s) for c, s in skips]
    assert encoder.feature_channels == channels
    assert encoder.skip_channels == tuple(c for c, _ in skips)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (321, 67)])
def test_channels_at_other_sizes(arch: str, height: int, width: int) -> None:
    encoder, encoded = run(arch, height, width)
    assert encoded.features.shape[1] == encoder.feature_channels
    assert tuple(skip.shape[1] for skip in encoded.skips) == encoder.skip_channels
    assert min(encoded.features.shape) >= 1


@pytest.mark.parametrize("arch", CONVOLUTIONS)
def test_parameter_counts(arch: str) -> None:
    weights = sum(c_in * c_out * kernel**2 for c_in, c_out, kernel in CONVOLUTIONS[arch])
    channels = sum(c_out for _, c_out, _ in CONVOLUTIONS[arch])
    for batch_norm, per_channel in ((True, 2), (False, 1)):
        encoder = without_numbers(arch, batch_norm=batch_norm)
        assert sum(p.numel() for p in encoder.parameters()) == weights + per_channel * channels


def test_resnet50_has_torchvisions_number_of_parameters() -> None:
    # 25,557,032 are published for ResNet-50; the last layer has 2048 * 1000 + 1000 of them.
    assert sum(p.numel() for p in without_numbers("resnet50-gap").parameters()) == 25_557_032 - 2_049_000


def test_vgg16_has_torchvisions_number_of_parameters() -> None:
    # 138,357,544 are published; the rest is its three fully connected layers.
    connected = 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    encoder = without_numbers("vgg16-gap", batch_norm=False)
    assert sum(p.numel() for p in encoder.stages.parameters()) == 138_357_544 - connected


@pytest.mark.parametrize(("stride", "sides"), [(16, (14, 14, 28, 56, 112)), (8, (28, 28, 28, 56, 112))])
def test_resnet50_with_another_output_stride(stride: int, sides: tuple[int, ...]) -> None:
    with torch.device("meta"):
        encoder = build_encoder("resnet50-gap", output_stride=stride)
        encoded = encoder(torch.empty(2, 3, 224, 224))
    assert encoded.features.shape[2:] == (sides[0], sides[0])
    assert tuple(skip.shape[-1] for skip in encoded.skips) == sides
    assert [one.stride for one in encoder.upsampling] == [1, *(b // a for a, b in pairwise(sides))]
    assert encoder.state_dict().keys() == without_numbers("resnet50-gap").state_dict().keys()


def test_an_output_stride_that_an_architecture_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"output_stride: alexnet-gap allows none, .*; found 8"):
        build_encoder("alexnet-gap", output_stride=8)
    with pytest.raises(ValueError, match="resnet50-gap allows 8, 16, 32; found 4"):
        build_encoder("resnet50-gap", output_stride=4)


def test_the_trunk_of_alexnet_has_torchvisions_number_of_parameters() -> None:
    # 61,100,840 are published; the rest is its three fully connected layers.
    connected = 9216 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    encoder = without_numbers("alexnet-gap", batch_norm=False)
    trunk = [encoder.conv1, encoder.conv2, encoder.conv3, encoder.conv4, encoder.conv5]
    assert sum(p.numel() for unit in trunk for p in unit.parameters()) == 61_100_840 - connected


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_outputs_are_after_relu_and_the_gradient_reaches_every_parameter(arch: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(arch).train()
    encoded = encoder(torch.randn(2, 3, 96, 96))
    for maps in (encoded.features, *encoded.skips):
        assert maps.min() == 0 and maps.max() > 0
    encoded.features.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


def test_googlenet_pools_into_an_incomplete_last_window() -> None:
    # 68 px make 34 after conv1; rounded up 17, 8, 5 (4 when rounded down).
    _, encoded = run("googlenet-gap", 68, 68)
    sides = [34]
    for _ in range(3):
        sides.append(math.ceil((sides[-1] - 3) / 2) + 1)
    assert [skip.shape[-1] for skip in encoded.skips] == [sides[3], sides[3], sides[2], sides[1], sides[0]]
    assert sides[3] != (((34 - 3) // 2 + 1 - 3) // 2 + 1 - 3) // 2 + 1


@pytest.mark.parametrize("arch", CONVOLUTIONS)
def test_without_batch_norm_the_random_weights_keep_the_scale(arch: str) -> None:
    torch.manual_seed(1)
    encoder = build_encoder(arch, batch_norm=False)
    with torch.no_grad():
        encoded = encoder(torch.randn(2, 3, 96, 96))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    root_mean_square = encoded.features.square().mean().sqrt().item()
    assert 0.1 < root_mean_square < 10


def test_kaiming_initialisation_has_fan_in() -> None:
    torch.manual_seed(0)
    unit = ConvUnit(64, 128, kernel=3, batch_norm=False)
    assert unit.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert unit.conv.bias.abs().max() == 0
    linear = ConvUnit(64, 128, kernel=3, batch_norm=True, relu=False)
    assert linear.conv.bias is None
    assert linear.conv.weight.std().item() == pytest.approx(math.sqrt(1 / (64 * 9)), rel=0.02)


def test_a_unit_without_relu_keeps_negative_values() -> None:
    torch.manual_seed(0)
    unit = ConvUnit(2, 4, kernel=3, batch_norm=False, relu=False)
    with_relu = ConvUnit(2, 4, kernel=3, batch_norm=False)
    with_relu.load_state_dict(unit.state_dict())
    maps = torch.randn(1, 2, 5, 5)
    assert unit(maps).min() < 0
    torch.testing.assert_close(with_relu(maps), unit(maps).clamp(min=0))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_imported_layers_name_units(arch: str) -> None:
    encoder = without_numbers(arch)
    assert encoder.imported_layers().keys() <= conv_units(encoder).keys()


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of alexnet-gap, .*, timm:NAME, found 'vgg16'"):
        build_encoder("vgg16")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weights_about_to_be_loaded_are_not_drawn(arch: str) -> None:
    before = torch.get_rng_state()
    with UndrawnWeights():
        network = LocalizationModel(arch, 3)
    assert torch.equal(torch.get_rng_state(), before)
    if arch == "googlenet-gap":
        other = LocalizationModel(arch, 3)
        network.load_state_dict(other.state_dict(), assign=True)
        images = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(network.eval()(images).saliency, other.eval()(images).saliency)


@pytest.mark.full
def test_a_network_is_built_without_the_compiler_of_torch() -> None:
    program = (
        "import sys\n"
        "from training.networks.model import LocalizationModel\n"
        "from training.networks.parts import UndrawnWeights\n"
        "with UndrawnWeights():\n"
        "    network = LocalizationModel('googlenet-gap', 3)\n"
        "print([name for name in ('torch', 'torch._dynamo') if name in sys.modules])\n"
    )
    process = start_python("-c", program)
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, "['torch']\n")
