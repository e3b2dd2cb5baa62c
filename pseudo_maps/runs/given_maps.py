"""Shards of maps that one process makes or brings together, without supervision; resumable at any moment."""

import time
from collections import Counter
from collections.abc import Callable, Iterable

from pseudo_maps.runs.generation import Plan, RunConfig, RunLog, Summary, begin_run, failures_in
from pseudo_maps.runs.shard_task import ShardReport
from pseudo_maps.shards import STATUS_OK, ShardWriter, make_provenance, shard_name
from pseudo_maps.shards.outcomes import MadeMap


def write_shards(
    plan: Plan,
    made: Iterable[tuple[int, Iterable[MadeMap]]],
    *,
    run: RunConfig,
    map_size: int,
    on_images: Callable[..., None] = lambda _count, **_notes: None,
) -> Summary:
    """Write the shards that a plan says are still to be made, from ``made``: each with its maps, row by row.

    Safe to kill at any moment and to start again: a shard appears under its name only when it is complete, and
    ``made`` is drawn shard by shard. ``on_images(done, failed=...)`` is called after every shard. ManifestMismatch when
    the folder holds shards of other settings or images, OSError when a shard cannot be written; what is finished stays.
    """
    summary = begin_run(plan, run=run)
    if not plan.to_do:
        return summary
    start = time.perf_counter()
    log = RunLog(run, plan)
    summary.log_path = log.path
    with log.until_end(summary):
        for shard, maps in made:
            report = _write_shard(plan, shard, maps, run=run, map_size=map_size)
            for image_id, status, message in report.failures:
                log.write(event="failed-image", image_id=image_id, status=status, message=message)
            summary.add(report)
            summary.elapsed_s = time.perf_counter() - start
            on_images(sum(report.counts.values()), failed=failures_in(report.counts))
    return summary


def _write_shard(plan: Plan, shard: int, maps: Iterable[MadeMap], *, run: RunConfig, map_size: int) -> ShardReport:
    manifest = plan.manifest
    path = run.out / shard_name(manifest.split, shard, manifest.shards)
    counts: Counter[str] = Counter()
    failures = []
    provenance = make_provenance(manifest.configuration)
    with ShardWriter(path, rows=manifest.shard_rows(shard), map_size=map_size, provenance=provenance) as writer:
        for number, made in enumerate(maps):
            writer.write(number, made.map_uint8, made.row)
            counts[made.row.status] += 1
            if made.row.status != STATUS_OK:
                failures.append((made.row.image_id, made.row.status, made.message))
        writer.commit()
    return ShardReport(
        name=path.name, counts=counts, failures=tuple(failures), made=True, size_bytes=path.stat().st_size
    )
