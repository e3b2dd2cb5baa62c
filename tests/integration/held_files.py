"""Files that whoever opens waits for, as on a file server that does not answer."""

import fcntl
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest


class HeldFiles:
    """Whole files that nobody else can open until they are released, or at most 45 s: write leases (fcntl(2)).

    SIGIO, by which the kernel asks for a lease back, is ignored meanwhile.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._descriptors = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in paths]
        for descriptor in self._descriptors:
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError as error:
                pytest.skip(f"the file system has no leases: {error.strerror}")

    def release(self) -> None:
        """Let everybody open them."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
