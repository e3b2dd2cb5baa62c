"""The one way numba kernels are compiled here: cached on disk, without the GIL, without fast-math.

Fast-math stays off because it lets the compiler reorder sums, and the same input must give the same bytes.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["kernel"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile ``function`` to machine code at its first call, or load it from numba's cache."""
    compiled: _Function = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled
