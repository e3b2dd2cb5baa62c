"""Atomic writes, temporary names, folder locks, file digests, and what differs between two settings."""

import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_LONGEST_NAME_BYTES = 255
"""Limit of ext4, XFS, Lustre and NFS for one name."""
_SHOWN_CHARACTERS = 100
"""Of a value that differs; the names of all protocols take less."""
_HOSTS_OWN_NAMESPACE = 0xEFFFFFFC
"""Inode of the first process namespace of every Linux (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""
_POLL_S = 0.05
LOCK_WAIT_S = 10.0
"""Seconds in which a process that was terminated a moment ago may save what it has and release its lock."""
_LOCKED = (errno.EAGAIN, errno.EACCES)
"""Another process holds the lock; EACCES where flock is made of POSIX locks (NFS)."""
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)
"""The file system has no locks; Lustre mounted without its option flock says ENOSYS."""
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Answers of ``link`` on file systems without hard links (exFAT, some FUSE and object stores)."""
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""The file system cannot sync a folder, such as CIFS."""


# --- atomic writes


def host_name() -> str:
    """Name of this host as it stands in names of files, at most 73 bytes: where a process id means one process.

    Containers may share a host name and count processes each from 1, so there eight digits of a digest follow: of the
    process namespace, which is another one in every container, and of the start of the host.
    """
    return (socket.gethostname().replace("/", "_")[:64] or "localhost") + _namespace_mark()


@functools.cache
def _namespace_mark() -> str:
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        if namespace == _HOSTS_OWN_NAMESPACE:
            return ""
        started = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        # No /proc.
        return ""
    return f"-{hashlib.sha256(f'{started}{namespace}'.encode()).hexdigest()[:8]}"


def temporary_path(target: Path) -> Path:
    """New hidden path beside ``target`` to write to: ``.NAME.HOST.PID.xTOKEN.tmp``, at most 255 bytes.

    The random token tells apart threads, and containers with the same host name and process id. Of a long ``NAME``
    only the end is taken.
    """
    ending = f".{host_name()}.{os.getpid()}.x{secrets.token_hex(4)}.tmp"
    name = os.fsencode(target.name)[-(_LONGEST_NAME_BYTES - 1 - len(ending.encode())) :]
    return target.with_name(f".{os.fsdecode(name)}{ending}")


def temporary_name_pattern(target: str) -> re.Pattern[str]:
    r"""Pattern of the temporary names of files whose names match the pattern ``target``.

    Groups ``target``, ``host`` and ``process``. Earlier versions wrote names without a token or a host.

    Examples
    --------
    >>> pattern = temporary_name_pattern(r"\w+\.csv")
    >>> pattern.fullmatch(".a.csv.node7.lab.12.x01234567.tmp").groupdict()
    {'target': 'a.csv', 'host': 'node7.lab', 'process': '12'}
    """
    return re.compile(rf"\.(?P<target>{target})(?:\.(?P<host>[^.].*))?\.(?P<process>\d+)(?:\.x[0-9a-f]{{8}})?\.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Temporary path to write a file to; at the end of the block it is synced and takes the place of ``path``.

    After an error in the block, or when the process is killed, ``path`` is as it was. Errors name ``path``.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        # A full disk shows when writing, and that error names no file; other errors name the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file, or replace one that exists; OSError leaves it as it was and names ``path``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def create_exclusively(path: Path, content: bytes) -> bool:
    """Write a file under a name that is free, whole; False when the name is taken, and that file stays as it was.

    Only where the file system has no hard links may the last of two simultaneous writers win. OSError names ``path``.
    """
    temporary = temporary_path(path)
    try:
        temporary.write_bytes(content)
        sync(temporary)
        # Unlike a rename, a link never replaces what another process has put there meanwhile.
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise OSError(error.errno, error.strerror, str(path)) from error
        write_atomically(path, content)
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync(path.parent)
    return True


def sync(path: Path) -> None:
    """Force a file's content, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def evenly_spaced(items: Sequence[_Item], *, most: int) -> Sequence[_Item]:
    """At most ``most`` of the items, with equal steps between them."""
    return items[:: max(1, -(-len(items) // most))]


def spaced_files(paths: Sequence[Path], *, most: int = 1000) -> Iterator[os.stat_result]:
    """State of at most ``most`` files, evenly spaced, less those that are missing: too many take minutes to look at."""
    for path in evenly_spaced(paths, most=most):
        with suppress(OSError):
            yield path.stat()


def open_regular_file(path: str | os.PathLike[str]) -> int:
    """Descriptor of a file, or of what a link leads to, opened for reading.

    OSError with ``EINVAL`` for what is no regular file: a FIFO or a device may be read without end, or waited for.
    """
    # Looked at first: opening alone does something to some devices.
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:
        # Another program, such as a file server, holds a lease on it, which the kernel asks back.
        return os.open(path, flags)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits; OSError as ``open_regular_file``."""
    with open(open_regular_file(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what differs


def differences(stored: Any, own: Any, *, names: tuple[str, str] = ("stored", "now"), key: str = "") -> list[str]:
    """Lines such as ``optimiser.lr: 0.01 stored, 0.001 now``, one for each place where two JSON values differ.

    Lines are in the order of ``own`` and begin with ``key``; a missing key equals null. A key ``sha256`` is named only
    where nothing else of its object differs, because a digest says less than, for instance, the number of images.

    Examples
    --------
    >>> before = {"data": {"images": 100, "sha256": "1f"}, "seed": 1}
    >>> differences(before, {"data": {"images": 90, "sha256": "2e"}})
    ['data.images: 100 stored, 90 now', 'seed: 1 stored, nothing now']
    """
    if isinstance(stored, Mapping) and isinstance(own, Mapping):
        lines = {
            name: differences(stored.get(name), own.get(name), names=names, key=f"{key}.{name}" if key else name)
            for name in dict.fromkeys([*own, *stored])
        }
        if any(lines[name] for name in lines if name != "sha256"):
            lines.pop("sha256", None)
        return [line for nested in lines.values() for line in nested]
    # As text, which takes a tuple for the list that JSON makes of it; numbers by value.
    before, after = json.dumps(stored, sort_keys=True), json.dumps(own, sort_keys=True)
    if before == after or (stored == own and isinstance(stored, bool) == isinstance(own, bool)):
        return []
    return [f"{key or 'all'}: {_shown(before)} {names[0]}, {_shown(after)} {names[1]}"]


def _shown(text: str) -> str:
    if text == "null":
        return "nothing"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


# --- locks


class FolderBusy(RuntimeError):
    """Another process holds the lock of a folder; the message names it and says what to do."""


@contextmanager
def folder_lock(folder: Path, file_name: str, *, wait_s: float, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the exclusive lock (flock) on a file in ``folder`` during the block.

    The kernel releases the lock when the process ends, however it ends; the file, removed at the end of the block,
    only tells who holds it. On network file systems it holds between hosts where their flock does.

    A missing folder is made, and removed at the end when it is empty. FolderBusy when another process still holds the
    lock after ``wait_s`` seconds. Where the file system has no locks, ``warn`` is called with one line and the block
    runs without one.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / file_name
    try:
        descriptor = _take_lock(path, give_up_s=time.monotonic() + wait_s)
        if descriptor is None:
            warn(f"{folder}: its file system has no locks; make sure that no second process writes to it")
            yield
            return
        try:
            yield
        finally:
            # Removed before it is released: afterwards it may be the file of the next holder.
            with suppress(OSError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    path.unlink()
            os.close(descriptor)
    finally:
        with suppress(OSError):
            for empty in made:
                empty.rmdir()


def _take_lock(path: Path, *, give_up_s: float) -> int | None:
    """Descriptor of the locked file, with host and process in it; None where the file system has no locks."""
    while True:
        descriptor, taken = -1, False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Writable, because NFS gives an exclusive lock on nothing else.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            with suppress(OSError):
                # For other users of the folder, should this process be killed; only the file's owner may.
                os.fchmod(descriptor, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the file, or its folder, since it was opened here.
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{host_name()} {os.getpid()}\n".encode(), 0)
                taken = True
                return descriptor
        except OSError as error:
            if error.errno in _NO_LOCKS and descriptor >= 0:
                path.unlink(missing_ok=True)
                return None
            if error.errno in _LOCKED and descriptor >= 0:
                if time.monotonic() >= give_up_s:
                    raise FolderBusy(_busy(path)) from None
                time.sleep(_POLL_S)
            # Both happen when the holder before removes the folder now.
            elif not isinstance(error, FileNotFoundError | FileExistsError) or time.monotonic() >= give_up_s + _POLL_S:
                raise OSError(error.errno, f"cannot be locked: {error.strerror}", str(path)) from error
        finally:
            if descriptor >= 0 and not taken:
                os.close(descriptor)


def _busy(path: Path) -> str:
    text = ""
    with suppress(OSError):
        text = path.read_text(errors="replace")
    found = re.fullmatch(r"(\S+) (\d+)\n", text)
    who, stop = "another process is", ""
    if found is not None:
        who, stop = f"process {found[2]} on host {found[1]} is", f" (kill {found[2]} on {found[1]})"
    return f"{path.parent}: {who} at work in this folder; wait for its end, terminate it{stop}, or use another folder"
