"""Reads of files that end: a file server that does not answer keeps a reader in the kernel, where nothing ends it."""

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from pseudo_maps.files import file_sha256, open_regular_file

_Item = TypeVar("_Item")

LIMIT_VARIABLE = "WSOL_READ_TIMEOUT"
"""Environment variable of the seconds that a file may take to read; ``inf`` waits without limit."""
DEFAULT_LIMIT_S = 300.0
"""As an image in ``wsol-prep proposals``; a file server may take three minutes to start again."""
_OF_ONE_FILE = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EIO, errno.EINVAL),
        *(errno.ELOOP, errno.ENAMETOOLONG),
    }
)
"""System errors of a file. Others, such as too many open files, are not about the file."""
_HANGING_AT_MOST = 4
"""Reads of one process that hang at the same time: so many are not the fault of single files."""


class ReadTimeout(ValueError):
    """A file that is not read within the limit; the message names it."""


class _Reader(threading.Thread):
    """A thread that reads for others until it is given None; a daemon, which the end of a program does not wait for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.work = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]()
        self.start()

    def run(self) -> None:
        while (work := self.work.get()) is not None:
            future, read = work
            try:
                future.set_result(read())
            except BaseException as error:
                future.set_exception(error)
            # What was read is not kept until the next read.
            del work, future, read


_IDLE: list[_Reader] = []
"""A thread is kept for the next read: 30 us each, a new one takes 150."""
_HANGING: dict[str, _Reader] = {}
"""By file the threads that were left behind."""


def _end_idle() -> None:
    while _IDLE:
        reader = _IDLE.pop()
        reader.work.put(None)
        reader.join()


# A fork would have copies of them that do not run.
os.register_at_fork(before=_end_idle)


def read_limit_s() -> float:
    """Seconds that a file may take to read; ValueError for an environment variable that is no number above 0."""
    text = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_S)
    with suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise ValueError(f"{LIMIT_VARIABLE}={text}: expected seconds above 0, or inf")


def within_limit(read: Callable[[], _Item], path: str | os.PathLike[str]) -> _Item:
    """What ``read``, which reads the file ``path``, returns or raises within ``read_limit_s``.

    A read that hangs is left behind in its thread, and a line on stderr names the file. It is not begun again while it
    hangs.

    Raises
    ------
    ReadTimeout
        The read hangs.
    OSError
        ``ETIMEDOUT``: reads of four files hang, so that the file server is at fault.
    """
    limit_s, name = read_limit_s(), os.fspath(path)
    if limit_s > threading.TIMEOUT_MAX:
        return read()
    for ended in [file for file, reader in _HANGING.items() if not reader.is_alive()]:
        del _HANGING[ended]
    text = f"{name}: not read within {limit_s:g} s"
    if name not in _HANGING and len(_HANGING) < _HANGING_AT_MOST:
        reader = _IDLE.pop() if _IDLE else _Reader()
        future: Future[_Item] = Future()
        reader.work.put((future, read))
        try:
            return future.result(limit_s)
        except TimeoutError:
            if future.done():
                # It has ended just in time, perhaps with such an error of its own.
                return future.result()
            _HANGING[name] = reader
        finally:
            if future.done():
                _IDLE.append(reader)
            else:
                reader.work.put(None)
        with suppress(OSError):
            print(f"warning: {text}", file=sys.stderr, flush=True)
    if len(_HANGING) >= _HANGING_AT_MOST:
        problem = f"reads of {len(_HANGING)} files hang: the file server does not answer; give the command again later"
        raise OSError(errno.ETIMEDOUT, problem, name)
    raise ReadTimeout(text)


def raise_system_error(errors: Iterable[Exception]) -> None:
    """OSError where not a file was at fault, but the machine: too many open files, a file server that is gone."""
    for error in errors:
        # Pillow's own have no number.
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_ONE_FILE:
            raise error


def read_sha256(path: Path) -> str:
    """``file_sha256`` within the limit; errors of both."""
    return within_limit(lambda: file_sha256(path), path)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file; ValueError where it cannot be read, OSError as ``raise_system_error``."""

    def read() -> bytes:
        with open(open_regular_file(path), "rb") as file:
            return file.read()

    try:
        return within_limit(read, path)
    except OSError as error:
        raise_system_error([error])
        raise ValueError(f"cannot be read: {error.strerror}") from error
