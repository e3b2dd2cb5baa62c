"""Numba kernels: compiled once and cached on disk, without the GIL, without fast-math.

Fast-math would let the compiler reorder sums, and the same input must give the same bytes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba.core import event

Bools: TypeAlias = npt.NDArray[np.bool_]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` to machine code at its first call, or load it from numba's cache."""
    compiled: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled


class _FirstCompilation(event.Listener):  # type: ignore[misc]
    """Calls ``tell`` once, when numba begins to compile; loading a kernel from the cache is no such event."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._waiting = [tell]

    def on_start(self, event: Any) -> None:
        while self._waiting:
            self._waiting.pop()()

    def on_end(self, event: Any) -> None:
        pass


@contextmanager
def telling_of_compilation(tell: Callable[[], None]) -> Iterator[None]:
    """Call ``tell`` once, before the first kernel that is not in numba's cache is compiled."""
    with event.install_listener("numba:compile", _FirstCompilation(tell)):
        yield
