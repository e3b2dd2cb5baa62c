"""Turns the temporary files that killed runs left in a shard folder into free disk space."""

import os
import re
import socket
from pathlib import Path

__all__ = ["remove_stale_temporaries"]


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove ``.NAME.HOST.PID.tmp`` files of this host whose process is gone; returns what was removed.

    Files of other hosts stay, since their processes cannot be looked up from here: ``wsol-prep verify --repair``
    removes those when no run is going on.
    """
    removed = []
    host = re.escape(socket.gethostname())
    own = re.compile(rf"\..+\.{host}\.(?P<pid>\d+)\.tmp")
    for path in folder.iterdir():
        found = own.fullmatch(path.name)
        if found is not None and not _is_alive(int(found["pid"])):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
