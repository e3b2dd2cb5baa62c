"""The one way numba kernels of the evaluator are compiled: cached on disk, without the GIL, without fast-math.

Fast-math stays off because it lets the compiler reorder sums, and published figures depend on every rounding.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["Bytes", "Doubles", "Ints", "Longs", "kernel"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Doubles: TypeAlias = npt.NDArray[np.float64]


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` to machine code at its first call, or load it from numba's cache."""
    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled
