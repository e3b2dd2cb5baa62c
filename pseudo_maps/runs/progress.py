"""Progress of a whole run, from counts that workers anywhere leave in a hidden folder beside the shards.

``OUT/.progress.HOST.PID.TOKEN/`` belongs to the process that submitted the work and holds one file of a few bytes for
each unfinished shard, ``DONE FAILED``; workers and submitter need nothing in common but the file system.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

from pseudo_maps.files import host_name
from pseudo_maps.processes import is_running
from pseudo_maps.shards.layout import split_of_shard

_PREFIX = ".progress."
_WRITE_INTERVAL_S = 0.25
_READ_INTERVAL_S = 0.5
"""A shard at work costs one small read each time."""


class ShardProgress:
    """A worker's counter of the images of one shard; it writes nothing where ``folder`` is ``None``."""

    def __init__(self, folder: Path | None, *, name: str) -> None:
        self._path = None if folder is None else folder / name
        self._done = self._failed = 0
        self._written_s = 0.0

    def add(self, *, failed: bool) -> None:
        """Count an image; the file follows a few times a second. Failing to write it is no error."""
        self._done += 1
        self._failed += failed
        now_s = time.monotonic()
        if self._path is not None and now_s - self._written_s >= _WRITE_INTERVAL_S:
            self._written_s = now_s
            with suppress(OSError):
                self._path.write_text(f"{self._done} {self._failed}\n")


class ProgressWatch:
    """Sum of all workers' files; calls ``on_images(done, failed=...)`` with its growth since the last call.

    With ``earlier=True`` it is called for shards that were there.
    """

    def __init__(self, out: Path, *, on_images: Callable[..., None]) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=out, prefix=f"{_PREFIX}{host_name()}.{os.getpid()}."))
        # Another user may ask for the status of the folder.
        self.folder.chmod(0o755)
        self._on_images = on_images
        self._finished: dict[str, tuple[int, int]] = {}
        self._found: list[tuple[int, int]] = []
        self._reported = (0, 0)
        self._stopped = Event()
        self._thread = Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._report()
        shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self, shard: str, *, done: int, failed: int, made: bool = True) -> None:
        """Take the final numbers of a shard in place of its file; not ``made``: another run was faster."""
        self._finished[shard] = (done, failed) if made else (0, 0)
        if not made:
            self._found.append((done, failed))
        (self.folder / shard).unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self._stopped.wait(_READ_INTERVAL_S):
            self._report()

    def _report(self) -> None:
        while self._found:
            done, failed = self._found.pop()
            self._on_images(done, failed=failed, earlier=True)
        # The finished ones first: a shard that ends meanwhile is counted later rather than twice.
        counts = list(self._finished.values())
        with suppress(OSError):
            counts += [_read(path) for path in self.folder.iterdir() if path.name not in self._finished]
        # The shard of a lost worker starts again a little lower, which is not reported.
        before = self._reported
        done = max(before[0], sum(done for done, _ in counts))
        failed = max(before[1], sum(failed for _, failed in counts))
        if (done, failed) != before:
            self._reported = (done, failed)
            self._on_images(done - before[0], failed=failed - before[1])


def _read(path: Path) -> tuple[int, int]:
    try:
        done, failed = path.read_text().split()
        return int(done), int(failed)
    except (OSError, ValueError):
        # Just being written, or gone with the end of its shard.
        return 0, 0


def counts_at_work(folder: Path, split: str) -> dict[tuple[str, int], tuple[int, int, float]]:
    """Images done and failed in unfinished shards of a split, and when that was last written, by host and process id.

    Those of runs that were killed too, until another run on their host removes them.
    """
    counts: dict[tuple[str, int], tuple[int, int, float]] = {}
    for place in folder.glob(f"{_PREFIX}*.*.*"):
        host, process_id, _ = place.name.removeprefix(_PREFIX).rsplit(".", 2)
        with suppress(OSError, ValueError):
            done, failed, written_s = 0, 0, place.stat().st_mtime
            for path in place.iterdir():
                # A shard is committed a moment before its file goes.
                if split_of_shard(path.name) == split and not (folder / path.name).exists():
                    more = _read(path)
                    done, failed = done + more[0], failed + more[1]
                    written_s = max(written_s, path.stat().st_mtime)
            counts[host, int(process_id)] = (done, failed, written_s)
    return counts


def remove_stale_progress(folder: Path) -> None:
    """Remove the progress folders of runs of this host that were killed."""
    for path in folder.glob(f"{_PREFIX}*.*.*"):
        host, process_id, _ = path.name.removeprefix(_PREFIX).rsplit(".", 2)
        if host == host_name() and process_id.isdecimal():
            with suppress(OSError):
                # The last change: a process that began later only has the same id.
                if not is_running(int(process_id), since_s=path.stat().st_mtime):
                    shutil.rmtree(path, ignore_errors=True)
