"""Turns the folder of a run into one that a single process writes to: an exclusive lock on a file in it.

The kernel holds the lock (flock) and lets go of it when the process ends, however it dies. The file only tells who
holds it; one that a killed process left behind is not locked and is taken over.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["LOCK_FILE", "WAIT_S", "RunFolderBusy", "alone_in"]

LOCK_FILE = ".training.lock"
"""Name of the file inside the folder. It is hidden, there only while a run is at work, and part of no result."""
WAIT_S = 10.0
"""Seconds in which a run that was told to stop a moment ago may save its checkpoint and let go."""

_POLL_S = 0.05
_HELD = (errno.EAGAIN, errno.EACCES)
"""Somebody else has the lock; the second where flock is made of POSIX locks (NFS)."""
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)
"""The file system knows no locks; ENOSYS is what Lustre says when mounted without its option flock."""
_HOLDER_BYTES = 512
"""More than the file holds: host names have at most 255 bytes."""

_held: set[int] = set()


def _let_go_in_child() -> None:
    """Close the locks that a forked process inherits: a loader's worker that outlives a killed run would keep them."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


class RunFolderBusy(RuntimeError):
    """Another process trains in the folder; the message names it and says what to do."""


@contextlib.contextmanager
def alone_in(folder: Path, *, say: Callable[[str], None], wait_s: float | None = None) -> Iterator[None]:
    """Be the only one that holds ``folder`` until the end of the block.

    Parameters
    ----------
    folder
        Made when it is missing, with its parents; what was made is removed at the end if nothing lies in it.
    say
        Told, in one line, that the file system knows no locks. Then the block runs without one.
    wait_s
        Seconds to wait for another holder to let go, 0 or more; ``WAIT_S`` by default.

    Raises
    ------
    RunFolderBusy
        Another process, or this one, still holds it after ``wait_s``.
    OSError
        The folder cannot be made or written to.

    Notes
    -----
    The lock is advisory, holds between hosts where the file system's flock does, and is not inherited by processes
    that are forked meanwhile.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = folder / LOCK_FILE
    try:
        descriptor = _take(lock, give_up_s=time.monotonic() + (WAIT_S if wait_s is None else wait_s))
        if descriptor is None:
            say(f"warning: {folder}: its file system knows no locks; see to it that no second run writes to it")
            yield
            return
        _held.add(descriptor)
        try:
            _write_holder(lock, descriptor)
            yield
        finally:
            # Removed before it is let go: afterwards it may be another run's.
            with contextlib.suppress(OSError):
                if _lies_at(lock, descriptor):
                    lock.unlink()
            _held.discard(descriptor)
            os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def _take(lock: Path, *, give_up_s: float) -> int | None:
    """Descriptor of the locked file at ``lock``; None where the file system knows no locks."""
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            # Writable, because NFS gives an exclusive lock on nothing else.
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            # A run that failed has just removed the folder that it had made.
            if time.monotonic() >= give_up_s:
                raise
            continue
        taken = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have removed it since it was opened: then the lock is on a file that nobody else finds.
            taken = _lies_at(lock, descriptor)
            if taken:
                return descriptor
        except OSError as error:
            if error.errno in _NO_LOCKS:
                lock.unlink(missing_ok=True)
                return None
            if error.errno not in _HELD:
                raise OSError(error.errno, f"cannot be locked: {error.strerror}", str(lock)) from error
            if time.monotonic() >= give_up_s:
                raise RunFolderBusy(_busy(lock)) from None
            time.sleep(_POLL_S)
        finally:
            if not taken:
                os.close(descriptor)


def _lies_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that others find at ``path``."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_holder(lock: Path, descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(lock)) from error


def _busy(lock: Path) -> str:
    """What to say to the one who comes second."""
    try:
        with lock.open(encoding="utf-8", errors="replace") as file:
            words = file.read(_HOLDER_BYTES).split()
    except OSError:
        words = []
    who, stop = "another process", "stop it"
    if len(words) == 2 and words[1].isdecimal():
        host, process = words
        who = f"process {process} on host {host}"
        stop = f"stop it (kill {process} on {host}: it saves a checkpoint)"
    return f"{lock.parent}: {who} is training in this folder; wait for its end, {stop}, or use another --out"
