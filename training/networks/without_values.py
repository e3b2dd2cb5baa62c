"""Turns a block of code that builds networks into one that draws nothing: their values are about to be loaded."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["without_values"]


_DRAWING = (Tensor.normal_, nn.init.normal_, nn.init.kaiming_normal_)


class _Undrawn(TorchFunctionMode):
    """Leaves out ``normal_``, for which torch imports its whole compiler when a tensor has no values: two seconds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in _DRAWING:
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Parameters that are made here are on the device ``meta``; no random number is drawn.

    Random values would take 0.3 s and move the global generator.

    Examples
    --------
    >>> with without_values():
    ...     weight = torch.nn.Linear(2, 2).weight
    >>> weight.device.type
    'meta'
    """
    with torch.device("meta"), _Undrawn():
        yield
