import pytest
import torch
from torch import nn

from training.networks.decoder import DECODER_WIDTHS, SaliencyDecoder
from training.networks.parts import Upsampling
from training.networks.registry import build_encoder

torch.set_num_threads(1)

SAME = Upsampling(kernel=3, stride=1, padding=1)
DOUBLE = Upsampling(kernel=4, stride=2, padding=1)
TINY = {"skip_channels": (3, 3, 2, 2, 1), "upsampling": (SAME, SAME, DOUBLE, DOUBLE, DOUBLE), "widths": (4, 4, 3, 2, 2)}


def tiny_inputs(sides: tuple[int, ...] = (2, 2, 4, 8, 16), dtype: torch.dtype = torch.float32):
    skips = [torch.randn(2, c, s, s, dtype=dtype) for c, s in zip(TINY["skip_channels"], sides, strict=True)]
    return torch.randn(2, 5, 2, 2, dtype=dtype), skips


def test_a_block_is_one_transposed_and_two_plain_convolutions() -> None:
    decoder = SaliencyDecoder(5, **TINY)
    assert len(decoder.blocks) == 5
    for block in decoder.blocks:
        kinds = [type(m) for m in block.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert sorted(kind.__name__ for kind in kinds) == ["Conv2d", "Conv2d", "ConvTranspose2d"]


@pytest.mark.parametrize(("arch", "millions"), [("alexnet-gap", 7.0), ("googlenet-gap", 9.1), ("resnet50-gap", 15.5)])
def test_parameter_counts(arch: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = build_encoder(arch)
        decoder = SaliencyDecoder(encoder.feature_channels, encoder.skip_channels, upsampling=encoder.upsampling)
    expected, channels_in = 32 + 1, encoder.feature_channels
    for width, skip, geometry in zip(DECODER_WIDTHS, encoder.skip_channels, encoder.upsampling, strict=True):
        expected += channels_in * width * geometry.kernel**2
        expected += (width + skip) * width * 9 + width * width * 9 + 4 * width
        channels_in = width
    found = sum(p.numel() for p in decoder.parameters())
    assert found == expected
    assert round(found / 1e6, 1) == millions


@pytest.mark.parametrize("sides", [(3, 2, 5, 9, 17), (2, 2, 3, 7, 15), (1, 1, 1, 1, 1)])
def test_skips_a_pixel_off_are_met(sides: tuple[int, ...]) -> None:
    features, skips = tiny_inputs(sides)
    assert SaliencyDecoder(5, **TINY)(features, skips, size=(33, 31)).shape == (2, 33, 31)


def test_every_input_matters_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    features, skips = tiny_inputs()
    inputs = [features.requires_grad_(), *(skip.requires_grad_() for skip in skips)]
    decoder = SaliencyDecoder(5, **TINY)
    (decoder(features, skips, size=(32, 32)) * torch.randn(2, 32, 32)).sum().backward()
    for tensor in (*inputs, *decoder.parameters()):
        assert tensor.grad is not None and tensor.grad.abs().max() > 0


def test_gradients_in_float64() -> None:
    torch.manual_seed(0)
    decoder = SaliencyDecoder(5, **TINY, batch_norm=False).double()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    features, skips = tiny_inputs((2, 2, 3, 4, 5), torch.float64)
    inputs = [features[:1].clone().requires_grad_(), *(skip[:1].clone().requires_grad_() for skip in skips)]
    result = decoder(inputs[0], inputs[1:], size=(4, 4))
    assert result.dtype == torch.float64
    assert torch.autograd.gradcheck(lambda f, *s: decoder(f, s, size=(4, 4)), inputs)


def test_the_first_saliency_is_one_half() -> None:
    torch.manual_seed(0)
    features, skips = tiny_inputs()
    saliency = torch.sigmoid(SaliencyDecoder(5, **TINY)(features, skips, size=(32, 32)))
    assert saliency.min() > 0.4 and saliency.max() < 0.6
    assert saliency.std() > 0


def test_logits_are_at_least_float32() -> None:
    features, skips = tiny_inputs(dtype=torch.bfloat16)
    decoder = SaliencyDecoder(5, **TINY).bfloat16()
    assert decoder(features, skips, size=(32, 32)).dtype == torch.float32


def test_with_and_without_batch_norm() -> None:
    with_norm, without = SaliencyDecoder(5, **TINY), SaliencyDecoder(5, **TINY, batch_norm=False)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in with_norm.modules()) == 10
    assert not any(isinstance(m, nn.BatchNorm2d) for m in without.modules())
    assert all(block.up.bias is None for block in with_norm.blocks)
    assert all(block.up.bias is not None for block in without.blocks)


@pytest.mark.parametrize(("blocks", "last_width"), [(1, 256), (4, 64), (5, 32), (7, 32)])
def test_a_trunk_may_have_any_number_of_skips(blocks: int, last_width: int) -> None:
    sides = [2 ** (block + 1) for block in range(blocks)]
    decoder = SaliencyDecoder(3, [2] * blocks, upsampling=[SAME, *[DOUBLE] * (blocks - 1)])
    assert (len(decoder.blocks), decoder.head.in_channels) == (blocks, last_width)
    skips = [torch.randn(1, 2, side, side) for side in sides]
    assert decoder(torch.randn(1, 3, 2, 2), skips, size=(9, 8)).shape == (1, 9, 8)


def test_numbers_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="4 skips, 5 geometries and 5 widths, expected as many of each"):
        SaliencyDecoder(5, (3, 3, 2, 2), upsampling=TINY["upsampling"], widths=TINY["widths"])
    with pytest.raises(ValueError, match="0 skips"):
        SaliencyDecoder(5, (), upsampling=())
