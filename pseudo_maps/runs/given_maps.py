"""Shards of maps that one process makes or brings together, without supervision; resumable at any moment."""

from collections.abc import Callable, Iterable

from pseudo_maps.runs.generation import Plan, RunConfig, RunLog, Summary, begin_run, failures_in
from pseudo_maps.runs.shard_task import write_shard
from pseudo_maps.shards import shard_name
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
    log, manifest = RunLog(run, plan), plan.manifest
    with log.until_end(summary):
        for shard, maps in made:
            report = write_shard(
                run.out / shard_name(manifest.split, shard, manifest.shards),
                enumerate(maps),
                rows=manifest.shard_rows(shard),
                map_size=map_size,
                configuration=manifest.configuration,
            )
            log.add(report, summary)
            on_images(sum(report.counts.values()), failed=failures_in(report.counts))
    return summary
