"""The decoder D of section 2.3: encoder features and skips to the logits of a saliency map.

Shapes: B batch, C channels, H W pixels of the input, h w rows and columns of a feature map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks.parts import ConvUnit, Upsampling

DECODER_WIDTHS = (256, 192, 128, 64, 32)
"""Channels that leave each of five blocks (section 2.5), deepest first; further blocks are as wide as the last.

Parameters and multiply-adds at 224 px: 7.0 M and 1.4 G behind alexnet-gap, 6.1 M and 1.2 G behind
alexnet-gap-plus, 9.1 M and 3.4 G behind googlenet-gap, 15.5 M and 3.2 G behind resnet50-gap; one pass of the
perceptual network is 4.1 G.
"""

HEAD_WEIGHT_STD = 0.01
"""Deviation of the head's random weights: the first saliency is near 0.5 everywhere, away from saturation."""


class SaliencyDecoder(nn.Module):
    """Blocks of one transposed and two 3x3 convolutions, each joined by a skip; then a 1x1 convolution.

    One block, at least, for each of ``skip_channels``, deepest first, with the geometry ``upsampling`` of its
    transposed convolution and ``widths`` channels that leave it (None: ``DECODER_WIDTHS``); ValueError when there are
    not as many of each. ``batch_norm``: batch norm after the two convolutions of a block, or biases.
    """

    def __init__(
        self,
        feature_channels: int,
        skip_channels: Sequence[int],
        *,
        upsampling: Sequence[Upsampling],
        widths: Sequence[int] | None = None,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        blocks = len(skip_channels)
        if widths is None:
            widths = [*DECODER_WIDTHS[:blocks], *DECODER_WIDTHS[-1:] * (blocks - len(DECODER_WIDTHS))]
        if not blocks or not blocks == len(upsampling) == len(widths):
            raise ValueError(
                f"{blocks} skips, {len(upsampling)} geometries and {len(widths)} widths, expected as many of each"
            )
        channels_in = (feature_channels, *widths[:-1])
        self.blocks = nn.ModuleList(
            _Block(before, skip, width, geometry, batch_norm=batch_norm)
            for before, skip, width, geometry in zip(channels_in, skip_channels, widths, upsampling, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], 1, kernel_size=1)
        nn.init.normal_(self.head.weight, std=HEAD_WEIGHT_STD)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, features_bchw: Tensor, skips: Sequence[Tensor], *, size: tuple[int, int]) -> Tensor:
        """(B, H, W) logits of the saliency map, (H, W) = ``size``, at least float32; their sigmoid is D(x).

        In bfloat16 sigmoids would have steps of 1/256. Logits, because binary cross entropy is stable on them only.
        ``features[B, C, h, w]`` and ``skips``, deepest first, are the encoder's.
        """
        maps = features_bchw
        for block, skip in zip(self.blocks, skips, strict=True):
            maps = block(maps, skip)
        logits_b1hw: Tensor = self.head(maps)
        logits_b1hw = logits_b1hw.to(torch.promote_types(logits_b1hw.dtype, torch.float32))
        return functional.interpolate(logits_b1hw, size=size, mode="bilinear", align_corners=False).squeeze(1)


class _Block(nn.Module):
    """Transposed convolution to the skip's size, the skip beside it, two 3x3 convolutions."""

    def __init__(
        self, channels_in: int, skip_channels: int, width: int, geometry: Upsampling, *, batch_norm: bool
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(
            channels_in, width, geometry.kernel, stride=geometry.stride, padding=geometry.padding, bias=not batch_norm
        )
        # Each output pixel receives kernel^2 / stride^2 taps of every input channel. No ReLU follows, so the
        # variance is kept by 1 / fan rather than 2 / fan.
        nn.init.normal_(self.up.weight, std=(channels_in * (geometry.kernel / geometry.stride) ** 2) ** -0.5)
        if self.up.bias is not None:
            nn.init.zeros_(self.up.bias)
        self.join = ConvUnit(width + skip_channels, width, kernel=3, padding=1, batch_norm=batch_norm)
        self.refine = ConvUnit(width, width, kernel=3, padding=1, batch_norm=batch_norm)

    def forward(self, maps_bchw: Tensor, skip_bchw: Tensor) -> Tensor:
        """``maps[B, C_in, h, w]`` and ``skip[B, C_skip, h', w']`` to ``[B, width, h', w']``."""
        raised: Tensor = self.up(maps_bchw)
        if raised.shape[2:] != skip_bchw.shape[2:]:
            raised = functional.interpolate(raised, size=skip_bchw.shape[2:], mode="bilinear", align_corners=False)
        joined: Tensor = self.refine(self.join(torch.cat((raised, skip_bchw), dim=1)))
        return joined
