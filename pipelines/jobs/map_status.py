"""Progress of a folder of maps, and the estimated cost of a run, in a few lines."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.cli.terminal import duration
from pipelines.datasets import open_dataset
from pseudo_maps.config import MapConfig
from pseudo_maps.processes import worker_count
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.estimate import estimate_run
from pseudo_maps.runs.generation import Plan, RunConfig
from pseudo_maps.runs.status import SplitStatus, split_status
from pseudo_maps.shards import STATUS_OK
from pseudo_maps.shards.manifest import found_splits
from pseudo_maps.wording import counted

_SHOWN = 20
"""Hosts, tasks and runs that are named."""


def status_lines(folder: Path, *, splits: Sequence[str], data: Path | None, layout: str) -> list[str]:
    """State of the splits (all without any), compared with the images of ``data`` if given.

    ValueError where there are no maps yet; ManifestError and OSError as ``split_status``.
    """
    chosen = splits or found_splits(folder)
    if not chosen:
        raise ValueError(f"{folder}: no maps yet; expected the --out folder of wsol-prep")
    lines: list[str] = []
    for split in chosen:
        status = split_status(folder, split)
        lines += [f"{split}: {line}" for line in _described(status)]
        if data is not None:
            images = len(open_dataset(data, split=split, layout=layout).records)
            if images != status.images:
                lines.append(
                    f"{split}: the maps are those of {status.images} images, {data} has {images}; "
                    "wsol-prep verify --data compares them"
                )
    return lines


def estimate_lines(records: Sequence[ImageRecord], *, plan: Plan, config: MapConfig, run: RunConfig) -> list[str]:
    """Hours and gigabytes of a run that has shards to make, and whether the disk has them, as ``estimate_run``."""
    found = estimate_run(records, plan=plan, config=config, run=run)
    jobs = worker_count(run.jobs) if run.scheduler is None else 1
    shared = f", at best {duration(found.core_s / jobs)} with {jobs} jobs" if jobs > 1 else ""
    needed, free = found.size_bytes / 1e9, found.free_bytes / 1e9
    line = (
        f"estimate from {counted(found.sample, 'image')}: {duration(found.core_s)} on one core of this machine"
        f"{shared}; {needed:.2f} GB of maps, the disk of {run.out} has {free:.2f} GB free"
    )
    return [line, f"the disk lacks {needed - free:.2f} GB"] if needed > free else [line]


def _described(status: SplitStatus) -> Iterator[str]:
    failures = {name: number for name, number in sorted(status.counts.items()) if name != STATUS_OK}
    if status.failed_at_work:
        failures["in unfinished shards"] = status.failed_at_work
    causes = f" ({', '.join(f'{number} {name}' for name, number in failures.items())})" if failures else ""
    yield (
        f"{status.done} of {status.images} images ({100 * status.done / status.images:.1f} %) in "
        f"{status.finished_shards} of {counted(status.shards, 'shard')}; {status.failed} failed{causes}"
    )
    if status.damaged:
        yield f"{counted(len(status.damaged), 'shard')} cannot be read: {_named(status.damaged)}; see wsol-prep verify"
    at_work, left = status.at_work, status.images - status.done
    hosts = sorted({run.host for run in at_work})
    if at_work and left > 0:
        rate = status.images_per_s
        time_left = f", {duration(left / rate)} left at this rate" if rate else ""
        yield (
            f"{rate:.1f} images/s by {counted(len(at_work), 'run')} at work on {counted(len(hosts), 'host')} "
            f"({_named(hosts)}){time_left}"
        )
    elif left > 0:
        known = "known to be " if any(run.state == "unknown" for run in status.runs) else ""
        yield f"no run {known}at work: the command that began them resumes"
    seen = {run.host for run in status.runs}
    tasks = status.runs[-1].tasks if status.runs else 1
    if status.runs:
        yield f"{counted(len(status.runs), 'run')} seen on {counted(len(seen), 'host')}: {_named(sorted(seen))}"
    if left > 0 and tasks > 1 and status.missing_tasks:
        lacking = f"{len(status.missing_tasks)} of {counted(tasks, 'task')}"
        yield f"{lacking} without a run at work or finished: {_named(status.missing_tasks)}"
    if left > 0:
        for run in status.unended[:_SHOWN]:
            yield f"task {run.task} of {run.tasks} on {run.host} (process {run.process}): {run.state}, {run.note}"


def _named(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_SHOWN])) + (", ..." if len(items) > _SHOWN else "")
