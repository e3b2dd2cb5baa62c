"""What the system refuses: large files, a full disk, and to root what permissions deny."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CAPABILITY_VERSION = 0x20080522
OVERRIDING = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REMOUNT, MS_REC, MS_PRIVATE = 32, 16384, 1 << 18
LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def files_of_at_most(limit_bytes: int) -> Iterator[None]:
    """A disk on which no file can grow beyond a number of bytes: writing fails as on a full one.

    Also for the processes that this one starts. Python ignores the signal that would end it (SIGXFSZ).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Let permissions bind this thread, and those that it starts, also where it is root's."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    # Effective, permitted and inheritable; then the same for numbers from 32.
    sets = (ctypes.c_uint32 * 6)()
    _check(LIBC.capget(header, sets))
    effective = sets[0]
    for number in OVERRIDING:
        sets[0] &= ~(1 << number)
    _check(LIBC.capset(header, sets))
    try:
        yield
    finally:
        sets[0] = effective
        _check(LIBC.capset(header, sets))


class NotPermitted(Exception):
    """This process may not mount anything."""


def own_mounts() -> None:
    """Let this process, which has one thread, mount disks that no other one sees; NotPermitted."""
    user, group = os.getuid(), os.getgid()
    if LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        raise NotPermitted(os.strerror(ctypes.get_errno()))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


def mount_disk(folder: Path, size: str, *, again: bool) -> None:
    """Mount an empty disk in memory, or ``again`` with another size."""
    _check(LIBC.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", MS_REMOUNT if again else 0, f"size={size}".encode()))


def _check(code: int) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
