"""Turns the records of one shard into a committed shard, whatever its images do to the process that works on them.

This is what a worker runs. It imports neither numba nor OpenCV: its child process does the images.
"""

import os
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_maps.files import differences
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import (
    CHILD_MODULE,
    ChildStartError,
    ImageDeath,
    ImageLimits,
    MadeImage,
    make_images,
)
from pseudo_maps.runs.journal import JournalState, ShardJournal, shard_digest
from pseudo_maps.runs.progress import ShardProgress
from pseudo_maps.shards import STATUS_OK, ShardReader, ShardWriter, compress_map, make_provenance
from pseudo_maps.shards.layout import PROVENANCE_KEYS
from pseudo_maps.shards.manifest import ManifestMismatch
from pseudo_maps.shards.outcomes import row_of

__all__ = ["TRIES", "TRIES_KILLED", "ShardReport", "ShardTask", "committed_report", "make_shard"]

TRIES = 2
"""An image that ended its process once is tried again, last in its shard and in a process of its own."""
TRIES_KILLED = 4
"""The same for a process killed from outside: the kernel does it again when the image needs too much, a person not."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to make: everything a worker needs."""

    path: Path
    records: tuple[ImageRecord, ...]
    root: str
    configuration: Mapping[str, Any]
    """``MapConfig.as_json()``: as JSON a worker need not import what makes maps."""
    boundary_model: str | None
    limits: ImageLimits
    child_module: str = CHILD_MODULE
    """Module that is run as the process for the images."""
    replace: bool = False
    """Make the shard also when it exists, its failed images anew."""
    progress_folder: Path | None = None
    """Where to leave the progress."""


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What became of one shard."""

    name: str
    """File name."""
    counts: Mapping[str, int]
    """Number of images for each status."""
    failures: tuple[tuple[str, str, str], ...] = ()
    """(image id, status, message) of every image without a map."""
    made: int = 0
    """Images that this try made; the others were finished before."""
    size_bytes: int = 0
    """Size of the file."""
    error: str = ""
    """Why the shard could not be made, empty when it was."""


def make_shard(task: ShardTask) -> ShardReport:
    """Make and commit one shard; never raises for what an image, the disk or the child process does.

    Finished images of earlier tries are taken from the journals beside the shard. An image whose process ended is put
    behind all others; it fails when its process ends again although it has it for itself.
    """
    try:
        if task.path.is_file() and not task.replace:
            # Another run into the same folder was faster, or a worker that was killed before it could say so.
            return committed_report(task.path, expected=make_provenance(task.configuration))
        return _make_shard(task)
    except OSError as error:
        reason = f"cannot write the shard: {os.strerror(error.errno) if error.errno else error}"
    except ChildStartError as error:
        reason = str(error)
    return ShardReport(name=task.path.name, counts={}, error=f"{task.path}: {reason}")


def _make_shard(task: ShardTask) -> ShardReport:
    provenance = make_provenance(task.configuration)
    counts: Counter[str] = Counter()
    failures = []
    progress = ShardProgress(task.progress_folder, name=task.path.name)
    writer = ShardWriter(
        task.path,
        rows=len(task.records),
        map_size=task.configuration["map_size"],
        provenance=provenance,
        by_name=task.configuration["by_name"],
    )
    journal = ShardJournal(task.path, digest=shard_digest(task.records, provenance=provenance))
    with writer, journal:
        state = journal.read(retry_failed=task.replace)
        with closing(_outcomes(task, journal, state)) as outcomes:
            for image in outcomes:
                writer.write_chunk(image.index, image.chunk, image.row)
                counts[image.row.status] += 1
                if image.message:
                    failures.append((image.index, (image.row.status, image.message)))
                progress.add(failed=image.row.status != STATUS_OK)
        writer.commit()
        journal.remove_all()
    return ShardReport(
        name=task.path.name,
        counts=counts,
        failures=tuple((task.records[index].image_id, *why) for index, why in sorted(failures)),
        made=len(task.records) - len(state.finished),
        size_bytes=task.path.stat().st_size,
    )


def _outcomes(task: ShardTask, journal: ShardJournal, state: JournalState) -> Generator[MadeImage]:
    """Every image of the shard once, each in the journal before it is given out."""
    yield from state.finished.values()
    untried = [
        (index, record)
        for index, record in enumerate(task.records)
        if index not in state.finished and index not in state.deaths
    ]
    for event in _make_images(task, untried):
        journal.add(event)
        if isinstance(event, MadeImage):
            yield event
        else:
            state.deaths[event.index] = [event]
    for index in sorted(state.deaths):
        yield _last_and_alone(task, index, journal=journal, deaths=state.deaths[index])


def _last_and_alone(task: ShardTask, index: int, *, journal: ShardJournal, deaths: list[ImageDeath]) -> MadeImage:
    while True:
        (event,) = _make_images(task, [(index, task.records[index])], alone=True)
        journal.add(event)
        if isinstance(event, MadeImage):
            return event
        deaths.append(event)
        if len(deaths) >= (TRIES_KILLED if event.killed else TRIES):
            break
    size = task.configuration["map_size"]
    failed = MadeImage(
        index=index,
        row=row_of(task.records[index], height=0, width=0, peak=0.0, proposals=0, status=event.status),
        chunk=compress_map(np.zeros((size, size), dtype=np.uint8)),
        message=event.message,
    )
    journal.add(failed)
    return failed


def _make_images(
    task: ShardTask, images: Sequence[tuple[int, ImageRecord]], *, alone: bool = False
) -> Iterator[MadeImage | ImageDeath]:
    settings = {"configure": dict(task.configuration), "root": task.root, "boundary_model": task.boundary_model}
    return make_images(images, settings=settings, limits=task.limits, module=task.child_module, alone=alone)


def committed_report(path: Path, *, expected: Mapping[str, Any]) -> ShardReport:
    """What a finished shard holds.

    Raises
    ------
    ManifestMismatch
        It was made with other settings than ``expected``, the provenance wanted.
    ShardError
        It cannot be read.
    """
    with ShardReader(path) as reader:
        counts = Counter(str(status) for status in reader.table["status"])
    lines = differences(
        {key: reader.provenance.get(key) for key in PROVENANCE_KEYS}, {key: expected[key] for key in PROVENANCE_KEYS}
    )
    if lines:
        raise ManifestMismatch(
            f"{path} was made with other settings:\n  "
            + "\n  ".join(lines)
            + "\nUse the settings found there, or another output folder."
        )
    return ShardReport(name=path.name, counts=counts, size_bytes=path.stat().st_size)
