"""The one way numba kernels are compiled here: cached on disk, without the GIL, without fast-math.

Fast-math stays off because it lets the compiler reorder sums, and the same input must give the same bytes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
from numba.core import event

__all__ = ["Bytes", "Doubles", "Floats", "Ints", "Longs", "Words", "kernel", "telling_of_compilation"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` to machine code at its first call, or load it from numba's cache."""
    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled


class _FirstCompilation:
    """Calls ``tell`` when numba begins to compile, once. A kernel that is loaded from the cache is no such event."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._told = False

    def notify(self, found: Any) -> None:
        """Take an event of numba."""
        if found.is_start and not self._told:
            self._told = True
            self._tell()


# numba takes no listener that is not of this class, which is known at run time only.
event.Listener.register(_FirstCompilation)


@contextmanager
def telling_of_compilation(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` once, before the first kernel that is not in numba's cache is compiled."""
    with event.install_listener("numba:compile", _FirstCompilation(tell)):
        yield
