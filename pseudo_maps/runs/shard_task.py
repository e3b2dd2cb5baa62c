"""One shard, made and committed by a worker, whatever its images do to the process that works on them.

Imports neither numba nor OpenCV: the worker's child process does the images.
"""

import os
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_maps.files import differences
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import CHILD_MODULE, ChildDeath, ChildPool, ChildStartError, ImageLimits, MadeImage
from pseudo_maps.runs.progress import ShardProgress
from pseudo_maps.shards import STATUS_OK, ShardReader, ShardWriter, compress_map, make_provenance
from pseudo_maps.shards.manifest import refuse_differences
from pseudo_maps.shards.outcomes import MadeMap, row_of

TRIES = 2
"""An image that ended its process once is tried again, last in its shard and in a process of its own."""
TRIES_KILLED = 4
"""The same for a process killed from outside: the kernel does it again when the image needs too much, a person not."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to make: everything a worker needs."""

    path: Path
    records: tuple[ImageRecord, ...]
    settings: Mapping[str, Any]
    """``RunConfig.child_settings``: as JSON a worker need not import what makes maps."""
    limits: ImageLimits
    child_module: str = CHILD_MODULE
    replace: bool = False
    """Make the shard also when it exists."""
    progress_folder: Path | None = None
    """``ProgressWatch.folder``."""


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What became of one shard."""

    name: str
    counts: Mapping[str, int]
    """Number of images for each status."""
    failures: tuple[tuple[str, str, str], ...] = ()
    """(image id, status, message) of every image without a map."""
    made: bool = False
    """Whether this task made it; otherwise it was there."""
    size_bytes: int = 0
    error: str = ""
    """Why the shard could not be made, empty when it was."""


@cache
def worker_children(module: str) -> ChildPool:
    """The child processes of this worker process, which keeps them from shard to shard."""
    return ChildPool(module)


def make_shard(task: ShardTask) -> ShardReport:
    """Make and commit one shard; never raises for what an image, the disk or the child process does.

    An image whose process ended is put behind all others; it fails when its process ends again although it has it for
    itself.
    """
    doing, configuration = "write", task.settings["map_config"]
    try:
        if task.path.is_file() and not task.replace:
            doing = "read"
            # Another run into the same folder was faster, or a worker that was killed before it could say so.
            return committed_report(task.path, configuration=configuration)
        return write_shard(
            task.path,
            _make_images(task),
            rows=len(task.records),
            map_size=configuration["map_size"],
            configuration=configuration,
            progress_folder=task.progress_folder,
        )
    except OSError as error:
        reason = f"cannot {doing} the shard: {os.strerror(error.errno) if error.errno else error}"
    except ChildStartError as error:
        reason = str(error)
    return ShardReport(name=task.path.name, counts={}, error=f"{task.path}: {reason}")


def write_shard(
    path: Path,
    images: Iterable[tuple[int, MadeImage | MadeMap]],
    *,
    rows: int,
    map_size: int,
    configuration: Mapping[str, Any],
    progress_folder: Path | None = None,
) -> ShardReport:
    """Write and commit a shard from its images, each with the number of its row, in any order; errors of its writer."""
    counts: Counter[str] = Counter()
    failures = []
    progress = ShardProgress(progress_folder, name=path.name)
    with ShardWriter(
        path,
        rows=rows,
        map_size=map_size,
        provenance=make_provenance(configuration),
        by_name=configuration.get("by_name", True),
    ) as writer:
        for index, image in images:
            row = image.row
            if isinstance(image, MadeMap):
                writer.write(index, image.map_uint8, row)
            else:
                writer.write_chunk(index, image.chunk, row)
            counts[row.status] += 1
            if row.status != STATUS_OK:
                failures.append((index, (row.image_id, row.status, image.message)))
            progress.add(failed=row.status != STATUS_OK)
        writer.commit()
    return ShardReport(
        name=path.name,
        counts=counts,
        failures=tuple(failure for _, failure in sorted(failures)),
        made=True,
        size_bytes=path.stat().st_size,
    )


def _make_images(task: ShardTask) -> Generator[tuple[int, MadeImage]]:
    """Every image of the shard once, with its row; those that ended their process come last."""
    children = worker_children(task.child_module)
    died = []
    for index, outcome in children.make_images(task.records, settings=task.settings, limits=task.limits):
        if isinstance(outcome, MadeImage):
            yield index, outcome
        else:
            died.append(index)
    for index in died:
        record, tries = task.records[index], 1
        while True:
            # In a process in which no other image can have broken anything.
            with closing(ChildPool(task.child_module)) as alone:
                ((_, outcome),) = alone.make_images([record], settings=task.settings, limits=task.limits)
            tries += 1
            if isinstance(outcome, MadeImage):
                break
            if tries >= (TRIES_KILLED if outcome.killed else TRIES):
                outcome = _failed_image(record, outcome, map_size=task.settings["map_config"]["map_size"])
                break
        yield index, outcome


def _failed_image(record: ImageRecord, death: ChildDeath, *, map_size: int) -> MadeImage:
    row = row_of(record, height=0, width=0, peak=0.0, proposals=0, status=death.status)
    chunk = compress_map(np.zeros((map_size, map_size), dtype=np.uint8))
    return MadeImage(row=row, chunk=chunk, message=death.message)


def committed_report(path: Path, *, configuration: Mapping[str, Any]) -> ShardReport:
    """What a finished shard holds; ManifestMismatch when made with other settings, ShardError when unreadable."""
    with ShardReader(path) as reader:
        counts = Counter(str(status) for status in reader.table["status"])
        refuse_differences(path, differences(reader.provenance, make_provenance(configuration)))
    return ShardReport(name=path.name, counts=counts, size_bytes=path.stat().st_size)
