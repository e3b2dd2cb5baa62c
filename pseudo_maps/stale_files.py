"""Turns the temporary files that killed runs left in a shard folder into free disk space."""

import os
from pathlib import Path

from pseudo_maps._shard_layout import host_name, parse_temporary_name

__all__ = ["is_running", "remove_stale_temporaries"]


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove ``.NAME.HOST.PID.tmp`` files of this host whose process is gone; returns what was removed.

    Files of other hosts stay, since their processes cannot be looked up from here: ``wsol-prep verify --repair``
    removes those when no run is going on.
    """
    removed = []
    for path in folder.iterdir():
        found = parse_temporary_name(path.name)
        if found is not None and found[1] == host_name() and not is_running(found[2]):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def is_running(process: int) -> bool:
    """Whether this host has a process of that id."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
