"""Copies convolutions from one network to another, and turns batch norm into biases or the other way round.

Whatever the two sides have, batch norm or a bias, the copy computes in evaluation mode what its source did.

Shapes: C_out, C_in channels, r rows and columns of a kernel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.networks.parts import ConvUnit, conv_units

__all__ = ["ConvSource", "NormSource", "copy_into", "copy_units", "fold_batch_norm"]


@dataclass(frozen=True, kw_only=True)
class NormSource:
    """Batch norm as it is in evaluation mode."""

    weight: Tensor
    """(C_out,) factor after normalising."""
    bias: Tensor
    """(C_out,) added last."""
    mean: Tensor
    """(C_out,) running mean."""
    variance: Tensor
    """(C_out,) running variance."""
    eps: float
    """Added to the variance."""


@dataclass(frozen=True, kw_only=True)
class ConvSource:
    """A convolution with what follows it, before the ReLU."""

    weight: Tensor
    """(C_out, C_in, r, r)."""
    bias: Tensor | None = None
    """(C_out,), or None."""
    norm: NormSource | None = None
    """Batch norm after the convolution, or None."""


def fold_batch_norm(source: ConvSource) -> tuple[Tensor, Tensor]:
    """Weight ``[C_out, C_in, r, r]`` and bias ``[C_out]``, float64, of the plain convolution that computes the same.

    Zero padding stays exact, because batch norm comes after the padded convolution.
    """
    weight = source.weight.double()
    bias = weight.new_zeros(len(weight)) if source.bias is None else source.bias.double()
    if source.norm is None:
        return weight, bias
    norm = source.norm
    factor = norm.weight.double() / torch.sqrt(norm.variance.double() + norm.eps)
    return weight * factor[:, None, None, None], (bias - norm.mean.double()) * factor + norm.bias.double()


@torch.no_grad()
def copy_into(unit: ConvUnit, source: ConvSource) -> None:
    """Make a unit compute, in evaluation mode, what ``source`` does.

    A unit with batch norm whose source has none gets the identity norm that adds the bias (in training mode
    the batch's own statistics take over from the first step). A unit without batch norm gets it folded in. A
    source kernel smaller than the unit's goes into its middle, with zeros around.

    Raises
    ------
    ValueError
        Another number of channels, or a kernel that does not fit; the message has both shapes.
    """
    weight = _centred(source.weight, target=unit.conv.weight)
    if unit.norm is None:
        weight, bias = fold_batch_norm(ConvSource(weight=weight, bias=source.bias, norm=source.norm))
        unit.conv.weight.copy_(weight)
        _bias_of(unit.conv).copy_(bias)
        return
    unit.conv.weight.copy_(weight)
    norm = source.norm
    if norm is None:
        channels = len(weight)
        norm = NormSource(
            weight=torch.ones(channels),
            bias=torch.zeros(channels) if source.bias is None else source.bias,
            mean=torch.zeros(channels),
            # Variance and epsilon add up to 1, so this is the identity and not 1 / sqrt(1 + eps).
            variance=torch.full((channels,), 1 - unit.norm_eps),
            eps=unit.norm_eps,
        )
    if norm.eps != unit.norm.eps:
        raise ValueError(f"batch norm with epsilon {norm.eps} for a unit with {unit.norm.eps}, expected the same")
    mean, variance = unit.norm.running_mean, unit.norm.running_var
    assert mean is not None and variance is not None
    for target, value in (
        (unit.norm.weight, norm.weight),
        (unit.norm.bias, norm.bias),
        (mean, norm.mean),
        (variance, norm.variance),
    ):
        target.copy_(value)


@torch.no_grad()
def copy_units(source: nn.Module, target: nn.Module) -> None:
    """Copy every ``ConvUnit`` of one module into the unit of the same name of another, and the module's own buffers.

    Raises
    ------
    ValueError
        The two have not the same units, or units of other shapes.
    """
    sources, targets = conv_units(source), conv_units(target)
    if sources.keys() != targets.keys():
        raise ValueError(f"units differ: {sorted(sources.keys() ^ targets.keys())}")
    for name, unit in sources.items():
        copy_into(targets[name], _source_of(unit))
    for name, buffer in target.named_buffers(recurse=False):
        buffer.copy_(source.get_buffer(name))


def _source_of(unit: ConvUnit) -> ConvSource:
    norm = unit.norm
    if norm is None:
        return ConvSource(weight=unit.conv.weight.detach(), bias=_bias_of(unit.conv).detach())
    assert norm.running_mean is not None and norm.running_var is not None
    return ConvSource(
        weight=unit.conv.weight.detach(),
        norm=NormSource(
            weight=norm.weight.detach(),
            bias=norm.bias.detach(),
            mean=norm.running_mean,
            variance=norm.running_var,
            eps=norm.eps,
        ),
    )


def _bias_of(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _centred(weight: Tensor, *, target: Tensor) -> Tensor:
    """The weight with zeros around it up to the target's kernel size."""
    margin, odd = divmod(target.shape[-1] - weight.shape[-1], 2)
    if weight.dim() == target.dim() and margin > 0 and not odd:
        weight = functional.pad(weight, (margin,) * 4)
    if weight.shape != target.shape:
        raise ValueError(f"weight of shape {tuple(weight.shape)}, expected {tuple(target.shape)}")
    return weight
