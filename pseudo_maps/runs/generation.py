"""Maps of a whole split: plan its shards, make the missing ones in parallel, log the run; resumable at any moment."""

import json
import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_maps.config import MapConfig
from pseudo_maps.files import host_name
from pseudo_maps.kernels import telling_of_compilation
from pseudo_maps.map_making import saliency_map
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import CHILD_MODULE, ImageLimits
from pseudo_maps.runs.engines import run_tasks
from pseudo_maps.runs.progress import ProgressWatch, remove_stale_progress
from pseudo_maps.runs.shard_task import ShardReport, ShardTask, committed_report, make_shard, worker_children
from pseudo_maps.shards import STATUS_OK, shard_name
from pseudo_maps.shards.layout import list_shards
from pseudo_maps.shards.leftovers import remove_stale_temporaries
from pseudo_maps.shards.manifest import Manifest, ManifestMismatch, agree_on_manifest, check_manifest, ids_digest
from pseudo_maps.shards.reader import open_hdf5, read_head

LOG_FOLDER = "logs"
LOG_STAMP = "%Y%m%dT%H%M%S"
"""Begin of a run in the name of its log, ``SPLIT-STAMP-HOST-PID.jsonl``."""
SMALLEST_SHARD, LARGEST_SHARD, WANTED_SHARDS = 16, 1000, 256
"""Enough shards to share among jobs, of at most 1,000 maps: about 10 MB, and 35 s of one core that a kill repeats."""
_LOGGED_PACKAGES = {"numpy", "opencv-contrib-python-headless", "numba", "h5py", "pillow", "joblib", "torch", "timm"}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What does not decide the result: where, and with how many processes."""

    root: Path
    """Data root that the records' paths are relative to."""
    out: Path
    """Folder of the shards."""
    jobs: int = 1
    """Worker processes; -1 is one for each core. With dask its workers decide."""
    backend: str = "loky"
    """A key of ``engines.BACKENDS``."""
    scheduler: str | None = None
    """Address of the dask scheduler."""
    limits: ImageLimits = field(default_factory=ImageLimits)
    child_module: str = CHILD_MODULE
    task_index: int = 0
    """This task of an array of tasks makes the shards with ``shard % task_count == task_index``."""
    task_count: int = 1
    boundary_model: str | None = None
    """Model file of the boundary detector."""
    retry_failed: bool = False
    """Make committed shards again when they hold images that failed."""
    command: tuple[str, ...] = ()
    """Command line of the run, for the log."""

    def child_settings(self, config: MapConfig) -> dict[str, Any]:
        """The settings of ``child_program``, with absolute paths."""
        return {
            "map_config": config.as_json(),
            "root": os.path.abspath(self.root),
            "boundary_model": self.boundary_model and os.path.abspath(self.boundary_model),
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is going to do."""

    split: str
    manifest: Manifest
    shards: tuple[int, ...]
    """Shards that belong to this task."""
    to_do: tuple[int, ...]
    """Those of them that are not committed yet."""
    images_to_do: int


def failures_in(counts: Mapping[str, int]) -> int:
    """Number of images without a map among counts by status."""
    return sum(counts.values()) - counts.get(STATUS_OK, 0)


@dataclass(kw_only=True)
class Summary:
    """What a run did and what its share of the folder holds now."""

    counts: Counter[str] = field(default_factory=Counter)
    """Images of this task's shards for each status, earlier runs included."""
    images_made: int = 0
    """Images of the shards that this run made."""
    elapsed_s: float = 0.0
    size_bytes: int = 0
    """Size of this task's shards."""
    log_path: Path | None = None
    """Run log, when there was anything to do."""

    @property
    def failed(self) -> int:
        """Number of images without a map."""
        return failures_in(self.counts)

    def add(self, report: ShardReport) -> None:
        """Count a shard."""
        self.counts.update(report.counts)
        self.size_bytes += report.size_bytes
        if report.made:
            self.images_made += sum(report.counts.values())


def default_shard_size(images: int) -> int:
    """Maps in a shard: depends on the number of images alone, so that the jobs cannot change the files."""
    return min(max(-(-images // WANTED_SHARDS), SMALLEST_SHARD), LARGEST_SHARD)


def plan_run(
    records: Sequence[ImageRecord],
    *,
    split: str,
    configuration: Mapping[str, Any],
    run: RunConfig,
    shard_size: int | None = None,
) -> Plan:
    """Divide the records into shards and find out which are still to be made; writes nothing.

    ``configuration`` is what decides the maps, such as ``MapConfig.as_json()``: JSON values that every shard stores.
    ValueError without records or for a shard size below 1; ManifestMismatch for a folder of other settings or images.
    """
    if not records:
        raise ValueError(f"split {split} of {run.root} has no images")
    size = default_shard_size(len(records)) if shard_size is None else shard_size
    if size < 1:
        raise ValueError(f"shard size: expected at least 1, found {size}")
    count = -(-len(records) // size)
    manifest = Manifest(
        split=split,
        images=len(records),
        shards=count,
        shard_size=size,
        ids_sha256=ids_digest(record.image_id for record in records),
        configuration=configuration,
    )
    try:
        check_manifest(run.out, manifest)
    except ManifestMismatch as error:
        raise ManifestMismatch(f"{error}{_other_image(run.out, records, split=split)}") from None
    shards = tuple(range(run.task_index, count, run.task_count))
    to_do = tuple(shard for shard in shards if not _is_committed(run.out, shard, manifest=manifest, run=run))
    images_to_do = sum(len(records[shard * size : (shard + 1) * size]) for shard in to_do)
    return Plan(split=split, manifest=manifest, shards=shards, to_do=to_do, images_to_do=images_to_do)


def _other_image(folder: Path, records: Sequence[ImageRecord], *, split: str) -> str:
    """A sentence on the first image of the first shard that is another one here, if any."""
    for (shard, _), path in list_shards(folder, split).items():
        if shard == 0:
            with open_hdf5(path) as file:
                ids = read_head(file, path=path).table["image_id"].tolist()
            for row, (there, record) in enumerate(zip(ids, records, strict=False)):
                if there.decode() != record.image_id:
                    return (
                        f" Image {row} is {there.decode()!r} there and {record.image_id!r} here: ids change with the "
                        "files, the lists and the --layout of the data set."
                    )
    return ""


def _is_committed(folder: Path, shard: int, *, manifest: Manifest, run: RunConfig) -> bool:
    if not (folder / shard_name(manifest.split, shard, manifest.shards)).exists():
        return False
    return not (run.retry_failed and set(_report(folder, shard, manifest=manifest).counts) != {STATUS_OK})


def _report(folder: Path, shard: int, *, manifest: Manifest) -> ShardReport:
    """What a finished shard holds; ManifestMismatch when it was made with other settings (its manifest was lost)."""
    path = folder / shard_name(manifest.split, shard, manifest.shards)
    return committed_report(path, configuration=manifest.configuration)


def warm_up(
    config: MapConfig, *, boundary_model: str | None = None, on_compile: Callable[[], None] = lambda: None
) -> None:
    """Compile the kernels into numba's cache, so that workers load them.

    The first call of an installation takes 20 s or more, and then calls ``on_compile`` before; later ones take a few
    tenths of a second. A missing package or an unreadable boundary model shows here, before any worker starts.
    """
    # Not square and not uniform, so that no branch is left out.
    picture = np.random.default_rng(0).integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
    with telling_of_compilation(on_compile):
        saliency_map(picture, config=config, boundary_model=boundary_model)


def begin_run(plan: Plan, *, run: RunConfig) -> Summary:
    """Make the folder ready for the shards of a plan: manifest, no leftovers; what its finished shards hold.

    ManifestMismatch when the folder holds shards of other settings or images.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    summary = Summary()
    # Before the manifest is written: shards of other settings must not get a manifest that contradicts them.
    for shard in sorted(set(plan.shards) - set(plan.to_do)):
        summary.add(_report(run.out, shard, manifest=plan.manifest))
    agree_on_manifest(run.out, plan.manifest)
    remove_stale_temporaries(run.out)
    return summary


def generate_maps(
    records: Sequence[ImageRecord],
    *,
    plan: Plan,
    config: MapConfig,
    run: RunConfig,
    on_images: Callable[..., None] = lambda _count, **_notes: None,
    say: Callable[[str], None] = lambda _text: None,
) -> Summary:
    """Make the shards that a plan says are still to be made.

    Safe to kill at any moment and to start again: a shard appears under its name only when it is complete, so a kill
    costs the shards at work, one for each worker. The same records and configuration give the same bytes whatever
    the jobs, backend, order or number of tries. ``on_images(done, failed=...)`` is called now
    and then, from a thread of this process, with the images since the last call, wherever the workers are, and with
    ``earlier=True`` for those of shards that another run made meanwhile; ``say`` with what a person should know while
    it goes on.

    ManifestMismatch when the folder holds shards of other settings or images; RuntimeError, which leaves what was
    committed, when a shard cannot be written, no process for the images starts, or the workers die again and again.
    """
    size, count = plan.manifest.shard_size, plan.manifest.shards
    summary = begin_run(plan, run=run)
    remove_stale_progress(run.out)
    if not plan.to_do:
        return summary
    log = RunLog(run, plan, say=say)

    def on_event(**event: Any) -> None:
        log.write(**event)
        if "message" in event:
            say(event["message"])

    with log.until_end(summary), ProgressWatch(run.out, on_images=on_images) as watch:
        tasks = [
            ShardTask(
                path=run.out.absolute() / shard_name(plan.split, shard, count),
                records=tuple(records[shard * size : (shard + 1) * size]),
                settings=run.child_settings(config),
                limits=run.limits,
                child_module=run.child_module,
                replace=run.retry_failed,
                progress_folder=watch.folder.absolute(),
            )
            for shard in plan.to_do
        ]
        reports = run_tasks(
            make_shard, tasks, jobs=run.jobs, backend=run.backend, scheduler=run.scheduler, on_event=on_event
        )
        try:
            for report in reports:
                if report.error:
                    raise RuntimeError(report.error)
                log.add(report, summary)
                watch.finish(
                    report.name,
                    done=sum(report.counts.values()),
                    failed=failures_in(report.counts),
                    made=report.made,
                )
        finally:
            reports.close()
            worker_children(run.child_module).close()
            # Workers that were ended in the middle of writing cannot do it themselves.
            remove_stale_temporaries(run.out)
    return summary


class RunLog:
    """JSON lines beside the shards: what a run was, and every image that failed. Never part of a shard.

    No run ends for its log: ``say`` is told once that it cannot be written.
    """

    def __init__(self, run: RunConfig, plan: Plan, *, say: Callable[[str], None] = warnings.warn) -> None:
        self._say: Callable[[str], None] | None = say
        self._line_end = ""
        self._started_s = time.perf_counter()
        started = datetime.now(UTC)
        stamp = started.strftime(LOG_STAMP)
        self.path = run.out / LOG_FOLDER / f"{plan.split}-{stamp}-{host_name()}-{os.getpid()}.jsonl"
        self.write(
            event="started",
            time=started.isoformat(timespec="seconds"),
            command=run.command,
            working_folder=os.getcwd(),
            root=str(run.root),
            jobs=run.jobs,
            backend=run.backend,
            image_timeout_s=run.limits.time_s,
            image_memory_mb=run.limits.memory_mb,
            task=[run.task_index, run.task_count],
            shards=len(plan.to_do),
            images=plan.images_to_do,
            python=sys.version.split()[0],
            machine=platform.machine(),
            versions={dist.name: dist.version for dist in metadata.distributions() if dist.name in _LOGGED_PACKAGES},
        )

    @contextmanager
    def until_end(self, summary: Summary) -> Iterator[None]:
        """Note how the run ends: finished, or stopped by an error or a signal, unless it is killed."""
        summary.log_path = self.path
        event: dict[str, Any] = {"event": "finished", "counts": summary.counts}
        try:
            yield
        except BaseException as error:
            signals = {KeyboardInterrupt: "SIGINT", SystemExit: "SIGTERM"}
            event = {"event": "stopped", "error": signals.get(type(error)) or f"{type(error).__name__}: {error}"}
            raise
        finally:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.write(**event, time=now, images_made=summary.images_made, elapsed_s=round(summary.elapsed_s, 3))

    def add(self, report: ShardReport, summary: Summary) -> None:
        """Note the images of a shard that failed, and count it."""
        for image_id, status, message in report.failures:
            self.write(event="failed-image", image_id=image_id, status=status, message=message)
        summary.add(report)
        summary.elapsed_s = time.perf_counter() - self._started_s

    def write(self, **entry: Any) -> None:
        """Append one line."""
        try:
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{self._line_end}{json.dumps(entry)}\n")
        except OSError as error:
            # Half a line may be there.
            self._line_end = "\n"
            if self._say is not None:
                self._say(f"{self.path}: {error.strerror}; this run has no log, or not all of it")
            self._say = None
