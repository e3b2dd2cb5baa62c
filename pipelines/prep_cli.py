"""The command ``wsol-prep``: make, check and view saliency maps. Imports torch for ``refine`` alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import (
    DATA_OPTION,
    EXISTING_FILE,
    EXISTING_FOLDER,
    LAYOUT_OPTION,
    NewFile,
    Option,
    arguments,
    as_usage_error,
    given_names,
    options_by_key,
    task_share,
)
from pipelines.cli.prep_options import IMPORT_OPTIONS, PROPOSAL_OPTIONS, REFINE_OPTIONS, map_config
from pipelines.cli.terminal import (
    CONTEXT_SETTINGS,
    CommandGroup,
    Progress,
    common_options,
    ending_on_signals,
    opencv_clash,
    say_notes,
)
from pipelines.datasets import SPLITS
from pseudo_maps.wording import counted

if TYPE_CHECKING:
    from pipelines.datasets import Dataset
    from pseudo_maps.runs.generation import Plan, RunConfig, Summary


SUFFIX_NAMES = (".png", ".jpg", ".jpeg")


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@common_options
def main() -> None:
    """Make, check and view saliency maps for weakly-supervised localization."""


@main.command(context_settings=CONTEXT_SETTINGS, params=[*PROPOSAL_OPTIONS])
@common_options
def proposals(
    data: Path, layout: str, split: str, out: Path, jobs: int, backend: str, scheduler: str | None, **options: Any
) -> None:
    """Make saliency maps: the average of each image's object proposals, in HDF5 shards.

    After an interruption the same command resumes: finished shards are kept. Other settings into the same folder are
    refused. An image that is damaged, crashes the decoder, hangs or fills the memory gets a status and a zero map.
    """
    from pseudo_maps.processes import worker_count

    with as_usage_error():
        worker_count(jobs)
    if (backend == "dask") != (scheduler is not None):
        raise click.UsageError("--backend dask needs --scheduler ADDRESS; other backends have none")
    config = map_config(options)
    say_notes(filter(None, [opencv_clash()]))
    from pipelines.jobs.map_status import estimate_lines
    from pipelines.jobs.verification import replaced_images
    from pseudo_maps.runs.child import ImageLimits
    from pseudo_maps.runs.engines import need_engine
    from pseudo_maps.runs.generation import generate_maps, plan_run, warm_up

    need_engine(backend)
    dataset, run = _opened(
        data,
        layout,
        split,
        out,
        options,
        command=("proposals",),
        declared=PROPOSAL_OPTIONS,
        jobs=jobs,
        backend=backend,
        scheduler=scheduler,
        limits=ImageLimits(time_s=options["image_timeout"], memory_mb=options["image_memory"]),
        boundary_model=None if options["boundary_model"] is None else str(options["boundary_model"]),
    )
    records = dataset.records[: options["limit"]]
    if dataset.layout == "imagefolder" and not (dataset.root / split).is_dir():
        click.echo(f"wsol-prep: {data} has no folder {split!r}, so all its images make up this split", err=True)
    plan = plan_run(records, split=split, configuration=config.as_json(), run=run, shard_size=options["shard_size"])
    _echo_plan(plan, run=run, layout=dataset.layout)
    settings = ", ".join(f"{key} {value}" for key, value in config.as_json()["proposals"].items() if value != "")
    click.echo(f"{config.method}: {settings}; weighting {config.weighting}, maps {config.map_size}px", err=True)
    say_notes(replaced_images(records, split=split, out=out, root=dataset.root))
    if plan.to_do:
        warm_up(config, boundary_model=run.boundary_model, on_compile=_say_compiling)
    if options["dry_run"]:
        if plan.to_do:
            click.echo("\n".join(estimate_lines(records, plan=plan, config=config, run=run)), err=True)
        return
    with ending_on_signals(), Progress(plan.images_to_do, label=split) as progress:
        summary = generate_maps(
            records, plan=plan, config=config, run=run, on_images=progress.advance, say=progress.say
        )
    _echo_summary(summary, out=out, max_failed=options["max_failed"])


@main.command(context_settings=CONTEXT_SETTINGS, params=[*REFINE_OPTIONS])
@click.argument("maps", type=EXISTING_FOLDER)
@common_options
def refine(maps: Path, data: Path, layout: str, split: str, network: Path, out: Path, **options: Any) -> None:
    """Refine the maps in folder MAPS with a network: sqrt(map x class activation map of the image's label).

    Uses class labels, but no boxes. After an interruption the same command resumes. An image without a usable map or
    activation map gets a status and a zero map.
    """
    from pipelines.jobs.network_maps import usable_devices
    from pipelines.jobs.refinement import Refinement

    dataset, run = _opened(data, layout, split, out, options, command=("refine", maps), declared=REFINE_OPTIONS)
    refinement = Refinement(
        dataset,
        maps=maps,
        network=network,
        input_size_px=options["input_size"],
        sharpen=options["sharpen"],
        device=usable_devices(options["device"])[0],
        run=run,
    )
    _echo_plan(refinement.plan, run=run, layout=dataset.layout)
    say_notes((*filter(None, [refinement.note]), *refinement.warnings()))
    with ending_on_signals(), Progress(refinement.plan.images_to_do, label=split) as progress:
        summary = refinement.make(workers=options["workers"], on_images=progress.advance)
    _echo_summary(summary, out=out, max_failed=options["max_failed"])


@main.command("import", context_settings=CONTEXT_SETTINGS, params=[*IMPORT_OPTIONS])
@click.argument("folder", type=EXISTING_FOLDER)
@common_options
def import_maps(folder: Path, data: Path, layout: str, split: str, out: Path, **options: Any) -> None:
    """Store the maps, masks or proposals of another tool, in FOLDER, as shards for all commands.

    One file or folder of masks per image, named by its id, path or file name: .npy, .npz, .png, .tif, .mat. After an
    interruption the same command resumes. An image without a map gets a status and a zero map.
    """
    from pipelines.jobs.map_import import MapImport
    from pseudo_maps.processes import worker_count

    with as_usage_error():
        jobs = worker_count(options["jobs"])
    dataset, run = _opened(
        data, layout, split, out, options, command=("import", folder), declared=IMPORT_OPTIONS, jobs=jobs
    )
    given = MapImport(
        dataset,
        folder=folder,
        map_size=options["map_size"],
        min_max=options["map_range"] == "min-max",
        limit=options["limit"],
        run=run,
    )
    _echo_plan(given.plan, run=run, layout=dataset.layout)
    say_notes(given.notes)
    with ending_on_signals(), Progress(given.plan.images_to_do, label=split) as progress:
        summary = given.make(on_images=progress.advance)
    _echo_summary(summary, out=out, max_failed=options["max_failed"])


def _opened(
    data: Path,
    layout: str,
    split: str,
    out: Path,
    options: dict[str, Any],
    *,
    command: tuple[object, ...],
    declared: Iterable[Option],
    **of_run: Any,
) -> tuple[Dataset, RunConfig]:
    """The data set, and the run that the options of the running command mean."""
    from pipelines.datasets import open_dataset
    from pseudo_maps.runs.generation import RunConfig

    index, count = task_share(task_index=options["task_index"], task_count=options["task_count"])
    dataset = open_dataset(data, split=split, layout=layout)
    say_notes(dataset.notes)
    run = RunConfig(
        root=dataset.root,
        out=out,
        task_index=index,
        task_count=count,
        command=("wsol-prep", *map(str, command), *_given_arguments(declared)),
        retry_failed=options["retry_failed"],
        **of_run,
    )
    return dataset, run


@main.command("compile", context_settings=CONTEXT_SETTINGS)
@common_options
def compile_() -> None:
    """Compile the kernels ahead of time, for all users and nodes of this installation.

    They are stored in the installation if it is writable, else in a folder of the user. Damaged files are compiled
    again.
    """
    from pipelines.compilation import compile_kernels
    from pseudo_maps.kernels import kernel_folders, used_folders

    compile_kernels(on_compile=_say_compiling)
    if not used_folders():
        raise RuntimeError(
            f"kernels can be written to none of {', '.join(map(str, kernel_folders()))}; set NUMBA_CACHE_DIR"
        )
    click.echo(f"kernels: {', '.join(map(str, used_folders()))}")


def _given_arguments(declared: Iterable[Option]) -> Iterator[str]:
    """The options of the running command as they were given."""
    context = click.get_current_context()
    given, options = given_names(context), options_by_key(declared)
    values = {key: context.params[str(one.name)] for key, one in options.items() if one.name in given}
    return arguments(options, values)


def _say_compiling() -> None:
    click.echo("wsol-prep: compiling, once for this installation, about half a minute", err=True)


def _echo_plan(plan: Plan, *, run: RunConfig, layout: str) -> None:
    manifest = plan.manifest
    share = "" if run.task_count == 1 else f", task {run.task_index} of {run.task_count} has {len(plan.shards)}"
    click.echo(
        f"{plan.split} ({layout}): {counted(manifest.images, 'image')}, up to {manifest.shard_size} a shard: "
        f"{counted(manifest.shards, 'shard')}{share}; {len(plan.shards) - len(plan.to_do)} finished, "
        f"{counted(plan.images_to_do, 'image')} to do",
        err=True,
    )


def _echo_summary(summary: Summary, *, out: Path, max_failed: int) -> None:
    """What there is now; RuntimeError when more images have no map than may."""
    total = summary.counts.total()
    failures = ", ".join(f"{count} {name}" for name, count in sorted(summary.counts.items()) if name != "ok")
    click.echo(f"maps:     {summary.counts['ok']} ok of {total} in {out}")
    click.echo(f"failed:   {summary.failed}" + (f" ({failures})" if failures else ""))
    if summary.images_made:
        rate = summary.images_made / max(summary.elapsed_s, 1e-9)
        made = counted(summary.images_made, "image")
        click.echo(f"this run: {made} in {summary.elapsed_s:.1f} s, {rate:.1f} images/s")
    click.echo(f"size:     {summary.size_bytes / max(total, 1) / 1000:.1f} KB a map")
    if summary.failed > max_failed:
        from pseudo_maps.runs.generation import LOG_FOLDER

        raise RuntimeError(
            f"{counted(summary.failed, 'image')} failed, more than --max-failed {max_failed}; their maps are zero and "
            f"their rows have a status; for the reasons see {summary.log_path or out / LOG_FOLDER}"
        )


@main.command(context_settings=CONTEXT_SETTINGS, params=[LAYOUT_OPTION])
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Only these splits.")
@click.option("--data", type=EXISTING_FOLDER, help="Root of the data set: also check that every image has a row.")
@click.option("--repair", is_flag=True, help="Remove bad shards and leftovers, so that a rerun makes them again.")
@common_options
def verify(folder: Path, splits: tuple[str, ...], data: Path | None, layout: str, repair: bool) -> None:
    """Read every shard in FOLDER completely and list damaged, missing and foreign files.

    Exits with 1 if there are any.
    """
    from pipelines.jobs.verification import verify_maps

    with Progress(label="verify", unit="shard") as progress:
        lines, error = verify_maps(
            folder, splits=splits, data=data, layout=layout, repair=repair, progress=progress.reach
        )
    click.echo("\n".join(lines))
    if error:
        raise RuntimeError(error)


@main.command(context_settings=CONTEXT_SETTINGS, params=[LAYOUT_OPTION])
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Only these splits.")
@click.option("--data", type=EXISTING_FOLDER, help="Root of the data set: also compare the number of images.")
@common_options
def status(folder: Path, splits: tuple[str, ...], data: Path | None, layout: str) -> None:
    """Show the progress of the maps in FOLDER over all runs, tasks and hosts: done, failed, rate, time left.

    Only reads the files in FOLDER, on any machine, during the runs or after them.
    """
    from pipelines.jobs.map_status import status_lines

    click.echo("\n".join(status_lines(folder, splits=splits, data=data, layout=layout)))


@main.command(context_settings=CONTEXT_SETTINGS, params=[DATA_OPTION, LAYOUT_OPTION])
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--split", type=click.Choice(SPLITS), default="val", help="Split of the data set.")
@click.option("--out", type=NewFile(*SUFFIX_NAMES), help="Contact sheet to write (.png, .jpg).")
@click.option("--html", type=NewFile(), help="Page to write: pictures, histograms, failed images, settings.")
@click.option("--ids", "ids", multiple=True, help="Image ids to show, joined by commas; may be given several times.")
@click.option("--ids-file", type=EXISTING_FILE, help="Text file of image ids to show, one per line.")
@click.option(
    "--worst",
    type=click.IntRange(min=0),
    is_flag=False,
    flag_value=0,
    metavar="[N]",
    help="Show failed images, then the lowest peaks: N images, by default --count.",
)
@click.option("--count", type=click.IntRange(min=1), default=12, help="Number of images.")
@click.option("--columns", type=click.IntRange(min=1), default=2, help="Images per row of the sheet.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    help="Fraction of the peak above which pixels are object, by default that of the protocol cam.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Random seed of the sample on the page.")
@common_options
def preview(
    folder: Path,
    out: Path | None,
    html: Path | None,
    ids: tuple[str, ...],
    ids_file: Path | None,
    worst: int | None,
    count: int,
    columns: int,
    seed: int,
    **shared: Any,
) -> None:
    """Show the maps in FOLDER: image, map, overlay, box (ground truth in green).

    --out draws a contact sheet, --html writes a page with statistics of all maps of the split.
    """
    if out is None and html is None:
        raise click.UsageError("nothing to write: give --out for a contact sheet, --html for a page")
    if ids_file is not None:
        ids = (*ids, *_lines(ids_file))
    shared["image_ids"] = ids
    if ids and worst is not None and out is not None:
        raise click.UsageError("--ids and --worst cannot be combined on a contact sheet")
    worst_count = worst or count
    if out is not None:
        from pipelines.reports.contact_sheet import contact_sheet

        shown = contact_sheet(
            folder,
            out=out,
            worst_first=worst is not None,
            count=count if worst is None else worst_count,
            columns=columns,
            **shared,
        )
        click.echo(f"{counted(shown, 'image')} on {out}")
    if html is not None:
        from pipelines.reports.preview_page import write_preview_page

        shown = write_preview_page(folder, out=html, count=count, worst=worst_count, seed=seed, **shared)
        click.echo(f"{counted(shown, 'image')} on {html}")


def _lines(path: Path) -> list[str]:
    """The ids in a text file, at least one."""
    from pipelines.datasets.text import read_lines

    lines = [line.strip() for line in read_lines(path)]
    if not lines:
        raise click.UsageError(f"{path}: expected image ids, one per line, found none")
    return lines


if __name__ == "__main__":
    main(prog_name="wsol-prep")
