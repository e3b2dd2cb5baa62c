"""Turns the words of ``wsol-prep`` into calls: proposals, verify and preview. Never imports torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.inspection import preview, verify
from pipelines.cli.options import (
    DATA_OPTION,
    EXISTING_FILE,
    LAYOUT_OPTION,
    TASK_OPTIONS,
    field_options,
    given_names,
    task_share,
)
from pipelines.cli.terminal import (
    CONTEXT_SETTINGS,
    CommandGroup,
    Progress,
    common_options,
    ending_on_signals,
    opencv_clash,
)
from pipelines.datasets import SPLITS
from pseudo_maps.config import MapConfig
from pseudo_maps.proposals.detectors import DETECTORS
from pseudo_maps.proposals.geodesic_config import DEFAULT_PRESET, PRESETS, ProposalConfig
from pseudo_maps.proposals.methods import METHODS, MethodConfig
from pseudo_maps.proposals.selective_search import SelectiveSearchConfig
from pseudo_maps.wording import counted

if TYPE_CHECKING:
    from pseudo_maps.runs.generation import Plan, Summary

__all__ = ["main"]

BACKEND_NAMES = ("loky", "sequential", "dask", "ray", "spark")

GEODESIC_FIELDS = ("boundaries", "working_size")
"""Fields of ``ProposalConfig`` with an option; a preset gives the others."""
MAP_OPTIONS = (
    *field_options(
        ProposalConfig,
        {field.name: None for field in dataclasses.fields(ProposalConfig) if field.name not in GEODESIC_FIELDS},
    ),
    *field_options(SelectiveSearchConfig, {"mode": {"name": "search-mode"}, "working_size": None}),
    *field_options(MapConfig, {"proposals": None, "weighting": {"default": "objectness"}}),
)
METHOD_OF_OPTION = {
    "preset": "geodesic",
    "boundaries": "geodesic",
    "boundary_model": "geodesic",
    "search_mode": "selective-search",
}
"""Options that only one method has."""


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@common_options
def main() -> None:
    """Make, check and look at the saliency maps that weakly-supervised localization is trained on."""


@main.command(context_settings=CONTEXT_SETTINGS, params=[DATA_OPTION, LAYOUT_OPTION, *MAP_OPTIONS, *TASK_OPTIONS])
@click.option("--split", type=click.Choice(SPLITS), required=True, help="Split of the data set.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the shards.")
@click.option("--method", type=click.Choice(tuple(METHODS)), default="geodesic", help="How objects are proposed.")
@click.option("--preset", type=click.Choice(tuple(PRESETS)), default=DEFAULT_PRESET, help="Size of the proposal set.")
@click.option(
    "--boundary-model",
    type=EXISTING_FILE,
    help="Trained model file of the structured-forest detector (.yml or .yml.gz).",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=None,
    help="Maps in a shard.  [default: from the number of images, 16 to 1000]",
)
@click.option("--jobs", type=int, default=1, help="Worker processes; -1 is one for each core. dask decides itself.")
@click.option("--backend", type=click.Choice(BACKEND_NAMES), default="loky", help="What runs the workers.")
@click.option("--scheduler", metavar="ADDRESS", help="Running dask scheduler, such as tcp://10.0.0.1:8786.")
@click.option(
    "--image-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    help="Seconds after which an image is given up.",
)
@click.option(
    "--image-memory",
    type=click.IntRange(min=1),
    default=4096,
    help="Megabytes of the process that does an image, libraries (200) included, above which the image is given up.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images of the split.")
@click.option("--max-failed", type=click.IntRange(min=0), default=0, help="Exit 1 when more images than this failed.")
@click.option("--retry-failed", is_flag=True, help="Make committed shards again that hold failed images.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and stop.")
@common_options
def proposals(
    data: Path,
    layout: str,
    split: str,
    out: Path,
    jobs: int,
    backend: str,
    scheduler: str | None,
    image_timeout: float,
    image_memory: int,
    task_index: int | None,
    task_count: int | None,
    boundary_model: Path | None,
    shard_size: int | None,
    limit: int | None,
    max_failed: int,
    retry_failed: bool,
    dry_run: bool,
    **settings: Any,
) -> None:
    """Make saliency maps: object proposals of every image, averaged, in HDF5 shards.

    Stop and start it as you like: finished shards and images are kept and skipped. Another run with other settings
    into the same folder is refused. An image that is broken, crashes, hangs or fills the memory costs only itself.
    """
    if jobs == 0 or jobs < -1:
        raise click.UsageError(f"--jobs {jobs}: expected a number of at least 1, or -1 for all cores")
    if (backend == "dask") != (scheduler is not None):
        raise click.UsageError("--backend dask and --scheduler ADDRESS belong together")
    config = _map_config(boundary_model, settings)
    warning = opencv_clash()
    if warning:
        click.echo(f"wsol-prep: warning: {warning}", err=True)
    from pipelines.datasets import open_dataset
    from pseudo_maps.runs.child import ImageLimits
    from pseudo_maps.runs.engines import need_engine
    from pseudo_maps.runs.generation import LOG_FOLDER, RunConfig, generate_maps, plan_run, warm_up

    index, count = task_share(task_index=task_index, task_count=task_count)
    need_engine(backend)
    dataset = open_dataset(data, split=split, layout=layout)
    records = dataset.records if limit is None else dataset.records[:limit]
    run = RunConfig(
        root=dataset.root,
        out=out,
        jobs=jobs,
        backend=backend,
        scheduler=scheduler,
        limits=ImageLimits(time_s=image_timeout, memory_mb=image_memory),
        task_index=index,
        task_count=count,
        boundary_model=None if boundary_model is None else str(boundary_model),
        retry_failed=retry_failed,
    )
    if dataset.layout == "imagefolder" and not (dataset.root / split).is_dir():
        click.echo(f"wsol-prep: {data} has no folder {split!r}, so all its images make up this split", err=True)
    plan = plan_run(records, split=split, config=config, run=run, shard_size=shard_size)
    _echo_plan(plan, config=config, run_share=(index, count), layout=dataset.layout)
    if dry_run:
        return
    if plan.to_do:
        warm_up(config, boundary_model=run.boundary_model, on_compile=_say_compiling)
    with ending_on_signals(), Progress(plan.images_to_do, label=split) as progress:

        def on_images(done: int, failed: int) -> None:
            progress.advance(done, failed=failed)

        summary = generate_maps(records, plan=plan, config=config, run=run, on_images=on_images)
    _echo_summary(summary, out=out)
    if summary.failed > max_failed:
        raise RuntimeError(
            f"{counted(summary.failed, 'image')} failed, more than --max-failed {max_failed} allows; the map of a "
            f"failed image is zero and its status says why; details in {summary.log_path or out / LOG_FOLDER}"
        )


def _say_compiling() -> None:
    click.echo("wsol-prep: compiling, once for this installation, about half a minute", err=True)


def _map_config(boundary_model: Path | None, settings: dict[str, Any]) -> MapConfig:
    """The configuration that the options mean; options of the method not chosen are refused, not ignored."""
    from pseudo_maps.files import file_sha256

    given, name = given_names(click.get_current_context()), settings["method"]
    method = METHODS[name]
    foreign = {option for option, owner in METHOD_OF_OPTION.items() if owner != name}
    if len(method.weightings) == 1:
        foreign.add("weighting")
    for option in sorted(given & foreign):
        raise click.UsageError(f"--{option.replace('_', '-')} has no meaning with --method {name}")
    if name == "geodesic":
        needs_model = DETECTORS[settings["boundaries"]].needs_model
        if needs_model != (boundary_model is not None):
            raise click.UsageError("--boundaries structured-forest and --boundary-model FILE belong together")
        proposals: MethodConfig = dataclasses.replace(
            PRESETS[settings["preset"]],
            boundaries=settings["boundaries"],
            boundary_model="" if boundary_model is None else file_sha256(boundary_model),
            working_size=settings["working_size"],
        )
    else:
        values = {**settings, "mode": settings["search_mode"]}
        proposals = method.config(
            **{field.name: values[field.name] for field in dataclasses.fields(method.config) if field.name in values}
        )
    return MapConfig(
        proposals=proposals,
        weighting=method.weightings[0] if "weighting" in foreign else settings["weighting"],
        map_size=settings["map_size"],
        max_pixels=settings["max_pixels"],
        by_name=settings["by_name"],
    )


def _echo_plan(plan: Plan, *, config: MapConfig, run_share: tuple[int, int], layout: str) -> None:
    manifest = plan.manifest
    share = "" if run_share == (0, 1) else f", task {run_share[0]} of {run_share[1]} has {len(plan.shards)}"
    click.echo(
        f"{plan.split} ({layout}): {counted(manifest.images, 'image')}, up to {manifest.shard_size} a shard: "
        f"{counted(manifest.shards, 'shard')}{share}; {len(plan.shards) - len(plan.to_do)} finished, "
        f"{counted(plan.images_to_do, 'image')} to do",
        err=True,
    )
    settings = ", ".join(f"{key} {value}" for key, value in config.as_json()["proposals"].items() if value != "")
    click.echo(f"{config.method}: {settings}; weighting {config.weighting}, maps {config.map_size}px", err=True)


def _echo_summary(summary: Summary, *, out: Path) -> None:
    total = summary.counts.total()
    failures = ", ".join(f"{count} {name}" for name, count in sorted(summary.counts.items()) if name != "ok")
    click.echo(f"maps:     {summary.counts['ok']} ok of {total} in {out}")
    click.echo(f"failed:   {summary.failed}" + (f" ({failures})" if failures else ""))
    if summary.images_made or summary.images_resumed:
        rate = summary.images_made / max(summary.elapsed_s, 1e-9)
        resumed = f"; {summary.images_resumed} from earlier or other runs" if summary.images_resumed else ""
        made = counted(summary.images_made, "image")
        click.echo(f"this run: {made} in {summary.elapsed_s:.1f} s, {rate:.1f} images/s{resumed}")
    click.echo(f"size:     {summary.size_bytes / max(total, 1) / 1000:.1f} KB a map")


main.add_command(verify)
main.add_command(preview)


if __name__ == "__main__":
    main(prog_name="wsol-prep")
