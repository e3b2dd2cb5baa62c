"""ResNet-50: an encoder, and the trunk of the perceptual network F.

Computes what torchvision's ``resnet50`` does up to ``layer4`` (He et al., CVPR 2016, with the stride in the
3x3 convolution of a block), so weights go either way.

Shapes: B batch, C channels, H W pixels of the input, h w rows and columns of a feature map.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.networks.parts import ConvUnit, Encoder, EncoderFeatures, ImportedLayer, conv_units, enlarging

RESNET50_CHANNELS = 2048
"""Channels of layer4: n in equations (6) and (7)."""

EXPANSION = 4
"""Channels that leave a block over the channels of its 3x3 convolution."""

_TORCHVISION_UNIT = {
    "reduce": ("conv1", "bn1"),
    "spatial": ("conv2", "bn2"),
    "expand": ("conv3", "bn3"),
    "shortcut": ("downsample.0", "downsample.1"),
}
"""Our name of each convolution of a block, and torchvision's names of it and of its batch norm."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, added to the input or to a 1x1 projection of it."""

    def __init__(self, channels_in: int, width: int, *, stride: int, dilation: int = 1, batch_norm: bool) -> None:
        super().__init__()
        channels_out = width * EXPANSION
        self.reduce = ConvUnit(channels_in, width, kernel=1, batch_norm=batch_norm)
        self.spatial = ConvUnit(
            width, width, kernel=3, stride=stride, padding=dilation, dilation=dilation, batch_norm=batch_norm
        )
        self.expand = ConvUnit(width, channels_out, kernel=1, batch_norm=batch_norm, relu=False)
        self.shortcut = (
            ConvUnit(channels_in, channels_out, kernel=1, stride=stride, batch_norm=batch_norm, relu=False)
            if stride != 1 or channels_in != channels_out
            else None
        )

    def forward(self, maps_bchw: Tensor) -> Tensor:
        """``maps[B, C, H, W]`` to ``[B, 4 width, h, w]``."""
        kept: Tensor = maps_bchw if self.shortcut is None else self.shortcut(maps_bchw)
        changed: Tensor = self.expand(self.spatial(self.reduce(maps_bchw)))
        return torch.relu_(changed.add_(kept))


class ResNet50Encoder(Encoder):
    """ResNet-50 through layer4; (B, 2048, 7, 7) at 224 px. layer4's output is what the CAM is made from.

    With ``output_stride`` 16 or 8 the last one or two layers have dilation in place of their stride, as torchvision's
    ``replace_stride_with_dilation`` does: 14x14 or 28x28, from the same weights. Without batch norm its sixteen
    additions do not train from random weights: that is for weights with batch norm folded in.
    """

    output_strides = (8, 16, 32)
    published_weights = "ResNet50_Weights.IMAGENET1K_V2"

    def __init__(self, *, batch_norm: bool, output_stride: int = 32) -> None:
        super().__init__(batch_norm=batch_norm)
        second, third, fourth = _geometries(output_stride)
        self.conv1 = ConvUnit(3, 64, kernel=7, stride=2, padding=3, batch_norm=batch_norm)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _layer(64, 64, _Geometry(1, 1, 1), blocks=3, batch_norm=batch_norm)
        self.layer2 = _layer(256, 128, second, blocks=4, batch_norm=batch_norm)
        self.layer3 = _layer(512, 256, third, blocks=6, batch_norm=batch_norm)
        self.layer4 = _layer(1024, 512, fourth, blocks=3, batch_norm=batch_norm)
        self.feature_channels = RESNET50_CHANNELS
        self.skip_channels = (RESNET50_CHANNELS, 1024, 512, 256, 64)
        self.upsampling = tuple(map(enlarging, (1, fourth.stride, third.stride, second.stride, 2)))

    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``normalised[B, 3, H, W]`` to features ``[B, 2048, h, w]`` and skips layer4 to layer1, conv1."""
        conv1 = self.conv1(normalised_bchw)
        layer1 = self.layer1(self.pool(conv1))
        layer2 = self.layer2(layer1)
        layer3 = self.layer3(layer2)
        layer4 = self.layer4(layer3)
        return EncoderFeatures(layer4, (layer4, layer3, layer2, layer1, conv1))

    def imported_layers(self) -> dict[str, ImportedLayer]:
        """Every convolution."""
        found = {"conv1": ImportedLayer("conv1", "bn1")}
        for name in conv_units(self):
            block, _, unit = name.rpartition(".")
            if block:
                conv, norm = _TORCHVISION_UNIT[unit]
                found[name] = ImportedLayer(f"{block}.{conv}", f"{block}.{norm}")
        return found


class _Geometry(NamedTuple):
    """Stride of a layer, and dilation of its first block and of the others."""

    stride: int
    first: int
    others: int


def _geometries(output_stride: int) -> Iterator[_Geometry]:
    """Those of layer2, layer3 and layer4."""
    reached, dilation = 4, 1
    for _ in range(3):
        if reached < output_stride:
            reached *= 2
            yield _Geometry(2, dilation, dilation)
        else:
            yield _Geometry(1, dilation, 2 * dilation)
            dilation *= 2


def _layer(channels_in: int, width: int, geometry: _Geometry, *, blocks: int, batch_norm: bool) -> nn.Sequential:
    stride, first, others = geometry
    layers = [Bottleneck(channels_in, width, stride=stride, dilation=first, batch_norm=batch_norm)]
    for _ in range(blocks - 1):
        layers.append(Bottleneck(width * EXPANSION, width, stride=1, dilation=others, batch_norm=batch_norm))
    return nn.Sequential(*layers)
