"""Numba kernels: compiled once and cached on disk, without the GIL, without fast-math.

Fast-math would let the compiler reorder sums, and the same input must give the same bytes.
"""

import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba.core import event, serialize
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher

from pseudo_maps.files import write_atomically

Bools: TypeAlias = npt.NDArray[np.bool_]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

P = ParamSpec("P")
R = TypeVar("R")

FOLDER_VARIABLE = "NUMBA_CACHE_DIR"
"""Environment variable of the folder of compiled kernels, which is numba's own."""
_DIGEST_BYTES = 32
_used: dict[Path, None] = {}
_sources: dict[str, bytes] = {}
"""Sources of modules with kernels, by name, as they were imported."""


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` to machine code at its first call, or load it from a folder of ``kernel_folders``."""
    module = function.__globals__
    # Read now: the file may have changed by the first call, and what is compiled then is the code that was imported.
    _sources[module["__name__"]] = Path(module["__file__"]).read_bytes()
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    compiled._cache = _KernelFiles(function)
    found: Callable[P, R] = compiled
    return found


def kernel_folders() -> list[Path]:
    """Folders in which compiled kernels are looked for; a new one is written to the first that can be written to.

    That of the environment variable ``NUMBA_CACHE_DIR`` alone, where it is set. Otherwise the installation's, which an
    administrator fills for all users, the user's cache folder, and one below the folder of temporary files. Kernels are
    programs: the last two count only where no other user can write.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return [Path(chosen)]
    folders = [Path(__file__).with_name("__pycache__")]
    with suppress(RuntimeError):
        # Raised where the user has no home.
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folders.append(Path(cache) / "saliency-aware-wsol")
    return [*folders, Path(tempfile.gettempdir()) / f"saliency-aware-wsol-{os.getuid()}"]


def used_folders() -> list[Path]:
    """Folders from which kernels were loaded, or into which they were written, by this process."""
    return list(_used)


def _trusted_folders(*, make: bool) -> Iterator[Path]:
    """The folders of ``kernel_folders`` less those that another user could write to; with ``make`` they are made."""
    first, *others = kernel_folders()
    with suppress(OSError):
        if make:
            first.mkdir(parents=True, exist_ok=True)
    yield first
    for folder in others:
        with suppress(OSError):
            if make:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = folder.lstat()
            if state.st_uid == os.getuid() and not state.st_mode & 0o022:
                yield folder


class _KernelFiles(_Cache):  # type: ignore[misc]
    """The compiled variants of one kernel, by types of its arguments, each in a file that begins with its SHA-256.

    Numba's own cache has one folder for each function, which it must be able to write to, trusts damaged files, and
    does not notice changes of the kernels that a kernel calls.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def cache_path(self) -> str:
        return os.pathsep.join(map(str, kernel_folders()))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The variant for arguments of the types ``sig``; None where no folder has a sound file of it."""
        target_context.refresh()
        name = self._file_name(sig, target_context.codegen())
        for folder in _trusted_folders(make=False):
            with suppress(OSError):
                content = (folder / name).read_bytes()
                digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
                if hashlib.sha256(payload).digest() == digest:
                    _used[folder] = None
                    # As safe as the folder, because what is read is a program.
                    return CompileResult._rebuild(target_context, *serialize.loads(payload))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a variant to the first folder that takes it; without any it is compiled again next time."""
        if data.lifted or data.library.has_dynamic_globals:
            return
        name = self._file_name(sig, data.codegen)
        payload = serialize.dumps(data._reduce())
        for folder in _trusted_folders(make=True):
            with suppress(OSError):
                write_atomically(folder / name, hashlib.sha256(payload).digest() + payload)
                _used[folder] = None
                return

    def _file_name(self, sig: Any, codegen: Any) -> str:
        function = self._function
        variant = (sys.version_info, numba.__version__, str(sig), codegen.magic_tuple(), _source_digest(function))
        digest = hashlib.sha256(repr(variant).encode()).hexdigest()[:24]
        return f"{function.__module__}.{function.__qualname__}-{digest}.kernel"

    def enable(self) -> None:
        """Nothing: it always is."""

    def disable(self) -> None:
        """Nothing: as ``enable``."""

    def flush(self) -> None:
        """Nothing: files are replaced one by one."""


@functools.cache
def _source_digest(function: Callable[..., Any]) -> str:
    """Digest of the sources of a kernel and of all that it may call, and of the numbers that they import."""
    waiting, sources = [function.__globals__], dict[str, bytes]()
    while waiting:
        names = waiting.pop()
        if names["__name__"] not in sources:
            kinds = int | float | np.generic
            numbers = [(name, value) for name, value in sorted(names.items()) if isinstance(value, kinds)]
            sources[names["__name__"]] = _sources[names["__name__"]] + repr(numbers).encode()
            waiting += [value.py_func.__globals__ for value in names.values() if isinstance(value, Dispatcher)]
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


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
