"""What every encoder shares: its output, its building block, and how it names torchvision's layers.

Shapes: B batch, C channels, H W pixels of the input, h w rows and columns of a feature map.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ConvUnit", "Encoder", "EncoderFeatures", "ImportedLayer", "Upsampling", "conv_units"]

BATCH_NORM_EPS = 1e-5
"""Added to the variance in batch norm; PyTorch's default and torchvision's in ResNet."""


class EncoderFeatures(NamedTuple):
    """What an encoder makes of a batch."""

    features: Tensor
    """(B, C, h, w) after the ReLU of the last convolution: f in section 2.2, from which the CAM is made."""
    skips: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    """Five feature maps after their ReLU, deepest first, for the decoder's skip connections (section 2.5)."""


class Upsampling(NamedTuple):
    """Geometry of the transposed convolution that leads from one feature map to the next larger one.

    A map of n pixels becomes ``stride * (n - 1) + kernel - 2 * padding``.
    """

    kernel: int
    stride: int
    padding: int


class ImportedLayer(NamedTuple):
    """Where a convolution of ours is found in a torchvision state dict."""

    conv: str
    """Prefix of the convolution's weight (and bias)."""
    norm: str | None
    """Prefix of its batch norm, None where torchvision has none."""
    centred: bool = False
    """The kernel there is smaller and goes into the middle of ours, with zeros around it."""


class ConvUnit(nn.Module):
    """Convolution, batch norm (or a bias in its place) and, unless switched off, ReLU.

    Parameters
    ----------
    channels_in, channels_out
        Channels of input and output.
    kernel, stride, padding
        Geometry in pixels, the same for rows and columns.
    batch_norm
        True: batch norm and no bias. False: a bias and no batch norm.
    norm_eps
        Added to the variance; also used when batch norm is folded into the unit.
    relu
        False leaves the result as it is, for the end of a residual branch.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        batch_norm: bool,
        norm_eps: float = BATCH_NORM_EPS,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=padding, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(channels_out, eps=norm_eps) if batch_norm else None
        self.norm_eps = norm_eps
        self.relu = relu
        # Fan-in keeps the variance of the activations from layer to layer (He et al. 2015, eq. 10), which
        # nothing else does when there is no batch norm.
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="relu" if relu else "linear")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, maps_bchw: Tensor) -> Tensor:
        """``maps[B, C_in, H, W]`` to ``[B, C_out, h, w]``."""
        result: Tensor = self.conv(maps_bchw)
        if self.norm is not None:
            result = self.norm(result)
        return torch.relu_(result) if self.relu else result


class Encoder(nn.Module, ABC):
    """Encoder E (section 2.2): normalised images to features and five skip connections."""

    feature_channels: int
    """Channels C of ``EncoderFeatures.features``."""
    skip_channels: tuple[int, int, int, int, int]
    """Channels of each skip, deepest first."""
    upsampling: tuple[Upsampling, Upsampling, Upsampling, Upsampling, Upsampling]
    """How the decoder gets from the features to the first skip, and from each skip to the next."""
    dropout: float
    """Probability with which the classifier drops a pooled feature in training."""

    @abstractmethod
    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``normalised[B, 3, H, W]`` (see ``normalisation``), H and W at least 64, to features and skips."""

    @abstractmethod
    def imported_layers(self) -> dict[str, ImportedLayer]:
        """Names of the ``ConvUnit``s that torchvision has weights for, and where; all others stay random."""


def conv_units(module: nn.Module) -> dict[str, ConvUnit]:
    """All ``ConvUnit``s below a module by dotted name, in the order in which they were made."""
    return {name: unit for name, unit in module.named_modules() if isinstance(unit, ConvUnit)}
