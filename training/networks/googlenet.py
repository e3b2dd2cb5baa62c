"""GoogLeNet encoder up to inception 4e with a CAM convolution behind (Zhou et al., CVPR 2016).

What differs from Inception v1 (Szegedy et al., CVPR 2015): no local response normalisation, no auxiliary
classifiers, batch norm as an option. The 5x5 branches are 5x5, as in the paper. torchvision's GoogLeNet has
3x3 there; its ImageNet weights go into the middle of our kernels with zeros around, which computes the same.

Shapes: B batch, C channels, H W pixels of the input, h w rows and columns of a feature map.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.networks.normalisation import IMAGENET_MEAN, IMAGENET_STD
from training.networks.parts import GAP_CHANNELS, ConvUnit, Encoder, EncoderFeatures, ImportedLayer, enlarging

TORCHVISION_NORM_EPS = 1e-3
"""Batch norm's epsilon in torchvision's GoogLeNet, kept so that its weights compute what they did there."""

TORCHVISION_MEAN = 0.5
TORCHVISION_STD = 0.5
"""Mean and deviation of every channel in the input that torchvision's GoogLeNet weights were trained with."""


class _Widths(NamedTuple):
    """Channels of one inception module (table 1 of the GoogLeNet paper, in its order)."""

    channels_in: int
    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int


_INCEPTIONS = {
    "inception3a": _Widths(192, 64, 96, 128, 16, 32, 32),
    "inception3b": _Widths(256, 128, 128, 192, 32, 96, 64),
    "inception4a": _Widths(480, 192, 96, 208, 16, 48, 64),
    "inception4b": _Widths(512, 160, 112, 224, 24, 64, 64),
    "inception4c": _Widths(512, 128, 128, 256, 24, 64, 64),
    "inception4d": _Widths(512, 112, 144, 288, 32, 64, 64),
    "inception4e": _Widths(528, 256, 160, 320, 32, 128, 128),
}

_POOLED_BEFORE = ("inception3a", "inception4a")

_TORCHVISION_BRANCH = {
    "one": "branch1",
    "three_reduce": "branch2.0",
    "three": "branch2.1",
    "five_reduce": "branch3.0",
    "five": "branch3.1",
    "pool_project": "branch4.1",
}
"""Our name of each convolution of an inception module, and torchvision's."""


class _Inception(nn.Module):
    """Four branches side by side on the same input."""

    def __init__(self, widths: _Widths, *, batch_norm: bool) -> None:
        super().__init__()

        def unit(channels_in: int, channels_out: int, kernel: int) -> ConvUnit:
            return _unit(channels_in, channels_out, kernel=kernel, batch_norm=batch_norm)

        self.one = unit(widths.channels_in, widths.one, 1)
        self.three_reduce = unit(widths.channels_in, widths.three_reduce, 1)
        self.three = unit(widths.three_reduce, widths.three, 3)
        self.five_reduce = unit(widths.channels_in, widths.five_reduce, 1)
        self.five = unit(widths.five_reduce, widths.five, 5)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool_project = unit(widths.channels_in, widths.pool, 1)

    def forward(self, maps_bchw: Tensor) -> Tensor:
        """``maps[B, C, H, W]`` to ``[B, one + three + five + pool, H, W]``."""
        branches = (
            self.one(maps_bchw),
            self.three(self.three_reduce(maps_bchw)),
            self.five(self.five_reduce(maps_bchw)),
            self.pool_project(self.pool(maps_bchw)),
        )
        return torch.cat(branches, dim=1)


class GoogLeNetEncoder(Encoder):
    """GoogLeNet-GAP: Inception v1 through 4e and a 3x3 convolution of 1024; (B, 1024, 14, 14) at 224 px.

    The buffers ``input_scale`` and ``input_shift`` are 1 and 0 until ``adapt_to_imported_weights``, and travel with the
    state dict.
    """

    published_weights = "GoogLeNet_Weights.IMAGENET1K_V1"
    input_scale: Tensor
    input_shift: Tensor

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__(batch_norm=batch_norm)
        self.register_buffer("input_scale", torch.ones(3, 1, 1))
        self.register_buffer("input_shift", torch.zeros(3, 1, 1))
        self.conv1 = _unit(3, 64, kernel=7, stride=2, batch_norm=batch_norm)
        self.conv2 = _unit(64, 64, kernel=1, batch_norm=batch_norm)
        self.conv3 = _unit(64, 192, kernel=3, batch_norm=batch_norm)
        # Rounded up as in Caffe: 112, 56, 28, 14 rather than 111, 55, 27, 13.
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        for name, widths in _INCEPTIONS.items():
            self.add_module(name, _Inception(widths, batch_norm=batch_norm))
        self.cam_conv = _unit(832, GAP_CHANNELS, kernel=3, batch_norm=batch_norm)
        self.feature_channels = GAP_CHANNELS
        self.skip_channels = (832, 512, 480, 192, 64)
        self.upsampling = tuple(map(enlarging, (1, 1, 2, 2, 2)))

    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``normalised[B, 3, H, W]`` to features ``[B, 1024, h, w]`` and skips 4e, 4b, 3b, conv3, conv1."""
        dtype = normalised_bchw.dtype
        conv1 = self.conv1(normalised_bchw * self.input_scale.to(dtype) + self.input_shift.to(dtype))
        conv3 = self.conv3(self.conv2(self.pool(conv1)))
        maps, found = conv3, {}
        for name in _INCEPTIONS:
            maps = self.get_submodule(name)(self.pool(maps) if name in _POOLED_BEFORE else maps)
            found[name] = maps
        skips = (maps, found["inception4b"], found["inception3b"], conv3, conv1)
        return EncoderFeatures(self.cam_conv(maps), skips)

    def imported_layers(self) -> dict[str, ImportedLayer]:
        """Everything through 4e; the CAM convolution is not in torchvision."""
        found = {name: ImportedLayer(f"{name}.conv", f"{name}.bn") for name in ("conv1", "conv2", "conv3")}
        for module in _INCEPTIONS:
            for branch, theirs in _TORCHVISION_BRANCH.items():
                place = f"{module}.{theirs}"
                found[f"{module}.{branch}"] = ImportedLayer(f"{place}.conv", f"{place}.bn", centred=branch == "five")
        return found

    def adapt_to_imported_weights(self) -> tuple[str, ...]:
        """Take the input that torchvision's weights were trained with: (image - 0.5) / 0.5 in every channel.

        The forward pass still takes images normalised by ImageNet's mean and deviation, and applies what
        remains as a scale and a shift. Folded into conv1 the shift would be wrong at the border, where zeros
        are padded after it.
        """
        for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
            self.input_scale[channel] = std / TORCHVISION_STD
            self.input_shift[channel] = (mean - TORCHVISION_MEAN) / TORCHVISION_STD
        return ("images are rescaled to torchvision's GoogLeNet input inside the encoder",)


def _unit(channels_in: int, channels_out: int, *, kernel: int, stride: int = 1, batch_norm: bool) -> ConvUnit:
    return ConvUnit(
        channels_in,
        channels_out,
        kernel=kernel,
        stride=stride,
        padding=kernel // 2,
        batch_norm=batch_norm,
        norm_eps=TORCHVISION_NORM_EPS,
    )
