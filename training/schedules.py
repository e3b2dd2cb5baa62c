"""Learning-rate schedules, and the optimiser of a model's parameters."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from training.config import OptimiserConfig, ScheduleConfig

_NORMALISATIONS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
)


def learning_rate(
    step: int, *, config: ScheduleConfig, total_steps: int, base_lr: float, steps_per_epoch: int | None = None
) -> float:
    """Learning rate of a step, ``0 <= step <= total_steps`` steps being done before it.

    ``base_lr * (step + 1) / warm-up`` in the warm-up, afterwards as ``config.kind`` says. Cosine runs from the end of
    the warm-up, where it has the full rate, to ``step == total_steps``, so the last step still moves the weights.
    Milestones count from the start of the run, the warm-up included. A function of the step alone, so a resumed run has
    the rates of an uninterrupted one.
    ValueError for a step outside the run, or a warm-up in epochs without ``steps_per_epoch``.
    """
    if not 0 <= step <= total_steps or total_steps < 1:
        raise ValueError(f"step {step} of {total_steps}: expected 0 <= step <= total_steps and a step at least")
    warmup = _warmup_steps(config, steps_per_epoch=steps_per_epoch)
    if step < warmup:
        return base_lr * (step + 1) / warmup
    if config.kind == "step":
        passed = sum(step >= part * total_steps for part in config.milestones)
        return float(base_lr * config.gamma**passed)
    if config.kind == "cosine" and warmup < total_steps:
        progress = (step - warmup) / (total_steps - warmup)
        wave = 0.5 * (1.0 + math.cos(math.pi * progress))
        return base_lr * (config.final_fraction + (1.0 - config.final_fraction) * wave)
    return base_lr


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give all parameter groups of an optimiser the learning rate ``lr``."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def build_optimiser(model: nn.Module, *, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Optimiser of the parameters of a model that require a gradient; the model is on the device where it is trained.

    Two parameter groups: weights, with ``config.weight_decay``, then biases and the parameters of normalisation layers
    without; an empty group is left out. Fused where every parameter is on a CUDA device. ValueError when no parameter
    requires a gradient.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter, decays in _trainable_parameters(model):
        (decayed if decays else kept).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in ((decayed, config.weight_decay), (kept, 0.0))
        if parameters
    ]
    if not groups:
        raise ValueError("no parameter of the model requires a gradient, expected at least one to train")
    # None lets torch choose: foreach on CUDA where fused cannot be used, the plain loop on the CPU.
    fused = True if all(parameter.is_cuda for parameter in decayed + kept) else None
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=config.betas, fused=fused)


def _trainable_parameters(model: nn.Module) -> Iterator[tuple[nn.Parameter, bool]]:
    """Parameters that require a gradient, each once, with whether weight decay applies."""
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                # Biases and the scales of normalisations have one dimension; a layer norm's may have more.
                yield parameter, parameter.ndim > 1 and not isinstance(module, _NORMALISATIONS)


def _warmup_steps(config: ScheduleConfig, *, steps_per_epoch: int | None) -> int:
    if config.warmup_epochs == 0:
        return config.warmup_steps
    if steps_per_epoch is None or steps_per_epoch < 1:
        raise ValueError(
            f"a warm-up of {config.warmup_epochs} epochs needs steps_per_epoch of at least 1, found {steps_per_epoch}"
        )
    return round(config.warmup_epochs * steps_per_epoch)
