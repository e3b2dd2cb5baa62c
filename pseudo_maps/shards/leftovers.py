"""Temporary files that killed runs left in a shard folder."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pseudo_maps.files import host_name, temporary_name_pattern
from pseudo_maps.processes import is_running
from pseudo_maps.shards.layout import split_of_shard

QUIET_S = 3600.0
"""A file of another host is abandoned when nobody wrote to it for an hour: a shard is written within seconds."""

_TEMPORARY_NAME = temporary_name_pattern(r"[\w.-]+-\d{5,}-of-\d{5,}\.h5(?:\.sha256)?|[\w.-]+\.manifest\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialFile:
    """What the name of a temporary file tells."""

    target: str
    """Name of the shard, checksum or manifest that it is made for."""
    host: str
    process: int
    """Id, on that host, of the process that writes it."""

    @property
    def split(self) -> str | None:
        """Split of the target."""
        return split_of_shard(self.target.removesuffix(".sha256")) or self.target.removesuffix(".manifest.json")


def parse_partial_name(name: str) -> PartialFile | None:
    """What a temporary file's name tells; None for every other name.

    Examples
    --------
    >>> parse_partial_name(".val-00000-of-00003.h5.node7.12.x01234567.tmp").process
    12
    >>> parse_partial_name("notes.txt") is None
    True
    """
    found = _TEMPORARY_NAME.fullmatch(name)
    if found is None:
        return None
    return PartialFile(target=found["target"], host=found["host"] or "", process=int(found["process"]))


def is_abandoned(path: Path) -> bool:
    """Whether no process writes to a temporary file any more; False when it is gone, ValueError for another name.

    On this host: its process is gone, or younger than the file and so another one with the same id. Of another host:
    nobody has written to it for ``QUIET_S``.
    """
    partial = parse_partial_name(path.name)
    if partial is None:
        raise ValueError(f"{path}: expected the name of a temporary file")
    try:
        written_s = path.lstat().st_mtime
    except FileNotFoundError:
        return False
    if partial.host != host_name():
        return time.time() - written_s > QUIET_S
    return not is_running(partial.process, since_s=written_s)


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove temporary files of this host whose process is gone; returns what was removed.

    Files of other hosts stay, since their processes cannot be looked up from here: ``wsol-prep verify --repair``
    removes those that nobody has written to for an hour.
    """
    removed = []
    for path in folder.iterdir():
        found = parse_partial_name(path.name)
        if found is not None and found.host == host_name() and is_abandoned(path):
            # Another user's file, or one on a disk that is read-only, stays.
            with suppress(OSError):
                path.unlink(missing_ok=True)
                removed.append(path)
    return removed


def partials_of_use(folder: str | os.PathLike[str], splits: Sequence[str]) -> list[tuple[Path, str]]:
    """Temporary files of ``splits`` that may still be in use, by name, each with the reason why it stays."""
    found = []
    for path in sorted(Path(folder).iterdir()):
        partial = parse_partial_name(path.name)
        if partial is None or partial.split not in splits or is_abandoned(path):
            continue
        if partial.host == host_name():
            reason = f"process {partial.process}, which makes {partial.target}, is running"
        else:
            reason = (
                f"{partial.host} may still be making {partial.target}, which nothing tells from here; verify again "
                f"{QUIET_S / 3600:g} h after its last change"
            )
        found.append((path, reason))
    return found
