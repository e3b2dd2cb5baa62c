"""Building blocks of every encoder: output, convolution unit, names of torchvision's layers.

Shapes: B batch, C channels, H W pixels of the input, h w rows and columns of a feature map.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from training.networks.normalisation import IMAGENET_MEAN, IMAGENET_STD

GAP_CHANNELS = 1024
"""Width of the CAM convolution (CAM, Zhou et al., CVPR 2016, section 3.1: 3x3, stride 1, padding 1, 1024 units)."""

BATCH_NORM_EPS = 1e-5
"""Added to the variance in batch norm; PyTorch's default and torchvision's in ResNet."""


class EncoderFeatures(NamedTuple):
    """Output of an encoder."""

    features: Tensor
    """(B, C, h, w) after the last activation (a ReLU in the paper's networks): f in section 2.2, behind the CAM."""
    skips: tuple[Tensor, ...]
    """Feature maps after their ReLU, deepest first, for the decoder's skip connections (section 2.5)."""


class Upsampling(NamedTuple):
    """Geometry of the transposed convolution that leads from one feature map to the next larger one.

    A map of n pixels becomes ``stride * (n - 1) + kernel - 2 * padding``.
    """

    kernel: int
    stride: int
    padding: int


def enlarging(factor: int) -> Upsampling:
    """Geometry that makes a map ``factor`` times larger; a kernel that an even factor divides covers all equally."""
    padding = max(1, factor // 2)
    return Upsampling(kernel=factor + 2 * padding, stride=factor, padding=padding)


class ImportedLayer(NamedTuple):
    """Where a convolution of ours is found in a torchvision state dict."""

    conv: str
    """Prefix of the convolution's weight (and bias)."""
    norm: str | None
    """Prefix of its batch norm, None where torchvision has none."""
    centred: bool = False
    """The kernel there is smaller and goes into the middle of ours, with zeros around it."""


class ConvUnit(nn.Module):
    """Convolution, batch norm (or a bias in its place) and, with ``relu``, ReLU.

    ``kernel``, ``stride``, ``padding`` and ``dilation`` are in pixels, the same for rows and columns. Without ReLU it
    ends a residual branch.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        batch_norm: bool,
        norm_eps: float = BATCH_NORM_EPS,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation, bias=not batch_norm)
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

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight ``[C_out, C_in, r, r]`` and bias ``[C_out]``, float64, with batch norm folded in.

        Zero padding stays exact, because batch norm comes after the padded convolution.
        """
        weight = self.conv.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if self.conv.bias is None else self.conv.bias.detach().double()
        if self.norm is None:
            return weight, bias
        mean, variance = _statistics(self.norm)
        factor = self.norm.weight.detach().double() / torch.sqrt(variance.double() + self.norm.eps)
        return weight * factor[:, None, None, None], (bias - mean.double()) * factor + self.norm.bias.detach().double()

    @torch.no_grad()
    def fold(self) -> None:
        """Replace batch norm by a bias: the unit computes what it did in evaluation mode."""
        weight, bias = self.folded()
        self.conv.weight.copy_(weight)
        self.conv.bias = nn.Parameter(bias.to(self.conv.weight.dtype))
        self.norm = None

    @torch.no_grad()
    def copy_from(self, source: "ConvUnit") -> None:
        """Compute, in evaluation mode, what ``source`` does, whether either has batch norm or a bias.

        Batch norm without a counterpart in the source starts as the identity that adds the source's bias; in training
        mode the batch's own statistics take over from the first step. A kernel smaller than this unit's goes into
        its middle, with zeros around. ValueError for another number of channels, or a kernel that does not fit.
        """
        weight = source.conv.weight
        margin, odd = divmod(self.conv.weight.shape[-1] - weight.shape[-1], 2)
        if weight.shape[:2] != self.conv.weight.shape[:2] or margin < 0 or odd:
            raise ValueError(f"weight of shape {tuple(weight.shape)}, expected {tuple(self.conv.weight.shape)}")
        if self.norm is None:
            weight, bias = source.folded()
            assert self.conv.bias is not None
            self.conv.bias.copy_(bias)
        elif source.norm is not None:
            self.norm.load_state_dict(source.norm.state_dict())
        else:
            mean, variance = _statistics(self.norm)
            nn.init.ones_(self.norm.weight)
            assert source.conv.bias is not None
            self.norm.bias.copy_(source.conv.bias)
            mean.zero_()
            # Variance and epsilon add up to 1, so this is the identity and not 1 / sqrt(1 + eps).
            variance.fill_(1 - self.norm_eps)
        self.conv.weight.copy_(functional.pad(weight, (margin,) * 4))


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


class Encoder(nn.Module, ABC):
    """Encoder E (section 2.2): normalised images to features and skip connections.

    A subclass in its own module and one row of ``training.networks.registry.ARCHITECTURES`` make a new architecture.
    ``batch_norm``: batch norm after every convolution, or biases.
    """

    feature_channels: int
    """Channels C of ``EncoderFeatures.features``."""
    skip_channels: tuple[int, ...]
    """Channels of each skip, deepest first."""
    upsampling: tuple[Upsampling, ...]
    """How the decoder gets from the features to the first skip, and from each skip to the next."""
    dropout: float = 0.0
    """Probability with which the classifier drops a pooled feature in training."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of red, green and blue, on the scale 0..1, that is subtracted from the input."""
    std: tuple[float, ...] = IMAGENET_STD
    """What the input is divided by then, on the same scale."""
    output_strides: tuple[int, ...] = ()
    """Pixels of the input from one position of the features to the next that can be asked for, as an argument."""
    published_weights: str
    """torchvision's name of the ImageNet weights of this trunk."""

    @abstractmethod
    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``normalised[B, 3, H, W]`` (see ``normalisation``), H and W at least 64, to features and skips."""

    @abstractmethod
    def imported_layers(self) -> dict[str, ImportedLayer]:
        """Names of the ``ConvUnit``s that torchvision has weights for, and where; all others stay random."""

    def synchronised(self, model: nn.Module) -> nn.Module:
        """A model that contains this encoder, with batch norm over the batches of all processes."""
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted

    def adapt_to_imported_weights(self) -> tuple[str, ...]:
        """Called after torchvision's weights were loaded; remarks for the log."""
        return ()


def conv_units(module: nn.Module) -> dict[str, ConvUnit]:
    """All ``ConvUnit``s below a module by dotted name, in the order in which they were made."""
    return {name: unit for name, unit in module.named_modules() if isinstance(unit, ConvUnit)}


class UndrawnWeights(TorchFunctionMode):
    """Context in which new layers draw no random weights, because all of them are about to be loaded.

    Drawing takes up to a second and would move the global generator.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leave out every function that draws in place, of ``torch.nn.init`` or of tensors."""
        named = kwargs or {}
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)
