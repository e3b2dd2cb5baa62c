"""Turns content into a file that appears whole or not at all."""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["TEMPORARY_SUFFIX", "file_sha256", "replacing", "write_atomically"]

_READ_BYTES = 1 << 20
"""Bytes read at once for the SHA-256."""

TEMPORARY_SUFFIX = r"(\.[^/]+)?\.[0-9]+\.tmp"
"""Pattern of what a killed process leaves behind, after a dot and the file's name: host and process id.

The host may be missing, as it did in the first files of this package.
"""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to, which takes its place at the end unless an error comes first.

    The name holds host and process id, so that no two processes write to the same one, also on two nodes of a
    cluster that share the folder.

    Raises
    ------
    OSError
        The file cannot take the place of ``path``, a folder for instance.
    """
    host = socket.gethostname().replace("/", "_") or "localhost"
    temporary = path.with_name(f".{path.name}.{host}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, in place of one that exists.

    Raises
    ------
    OSError
        The file, which is named, cannot be written; one that existed is as it was.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        # A full disk shows when writing, and that error names no file; other errors name the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
