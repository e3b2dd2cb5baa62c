"""Turns the words of ``wsol-prep verify`` and ``wsol-prep preview`` into calls. Never imports torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.options import DATA_OPTION, LAYOUT_OPTION
from pipelines.cli.terminal import CONTEXT_SETTINGS, Progress, common_options
from pipelines.datasets import SPLITS
from pseudo_maps.wording import counted

if TYPE_CHECKING:
    from pseudo_maps.shards.verify import Problem

__all__ = ["preview", "verify"]

SUFFIX_NAMES = (".png", ".jpg", ".jpeg")
LEFTOVERS = ("temporary", "stray")
"""Kinds of problem that are over when the file is gone."""
SCORE_MAPS = "score_maps"
"""Key in the configuration of maps that ``wsol-eval run`` stored."""


@click.command(context_settings=CONTEXT_SETTINGS, params=[LAYOUT_OPTION])
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Only these splits.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Root of the data set: also check that every image has its row.",
)
@click.option("--repair", is_flag=True, help="Remove bad shards and leftovers, so that a rerun makes them again.")
@common_options
def verify(folder: Path, splits: tuple[str, ...], data: Path | None, layout: str, repair: bool) -> None:
    """Read every shard in FOLDER whole and list what is wrong: damage, gaps, strangers.

    Exit 1 when there is anything.
    """
    from pseudo_maps.shards.leftovers import partials_of_use
    from pseudo_maps.shards.manifest import found_splits
    from pseudo_maps.shards.repair import repair_folder
    from pseudo_maps.shards.verify import verify_folder

    chosen = splits or tuple(found_splits(folder))
    expected = None
    if data is not None:
        from pipelines.datasets import open_dataset

        datasets = {split: open_dataset(data, split=split, layout=layout) for split in chosen}
        expected = {split: [record.image_id for record in found.records] for split, found in datasets.items()}
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with Progress(label="verify", unit="shard") as progress:
        problems = verify_folder(
            folder,
            splits=chosen or None,
            expected_ids=expected,
            progress=progress.reach,
            on_rows=lambda split, statuses: rows[split].update(statuses),
        )
    _echo_limits(folder, expected or {})
    for problem in problems:
        click.echo(f"{problem.kind}: {problem.path}: {problem.message}")
    removed: set[Path] = set()
    if repair:
        done = repair_folder(problems)
        removed.update(done.removed)
        for path in done.removed:
            click.echo(f"removed {path}")
        for path, reason in done.left:
            click.echo(f"left {path}: {reason}")
        for path, reason in partials_of_use(folder, chosen):
            click.echo(f"left {path}: {reason}")
    # A leftover that is gone leaves nothing to do, a shard that is gone has to be made again.
    remaining = [found for found in problems if found.kind not in LEFTOVERS or found.path not in removed]
    if not remaining:
        click.echo(f"{folder}: {', '.join(chosen)} complete and undamaged")
        for split in chosen:
            click.echo(_rows_line(split, rows[split]))
        return
    _echo_next(remaining, folder=folder, data=data, layout=layout, expected=expected, removed=removed)
    advice = ""
    if not repair and any(problem.judged is not None for problem in problems):
        advice = "; --repair removes what is bad, then run wsol-prep proposals again"
    elif removed:
        advice = f"; removed {counted(len(removed), 'file')}"
    raise RuntimeError(f"{counted(len(problems), 'problem')} in {folder}{advice}")


def _echo_limits(folder: Path, expected: Mapping[str, Sequence[str]]) -> None:
    """Say which splits hold the first images of the data alone."""
    from pseudo_maps.shards.manifest import ManifestError, read_manifest

    for split, image_ids in expected.items():
        try:
            manifest = read_manifest(folder, split)
        except (OSError, ManifestError):
            # Verification says so.
            continue
        if manifest.images < len(image_ids) and manifest.is_of_first(image_ids):
            first = "the first image" if manifest.images == 1 else f"the first {manifest.images} images"
            click.echo(f"note: {split}: {first} of {len(image_ids)}, as --limit {manifest.images} makes them")


def _rows_line(split: str, statuses: Mapping[str, int]) -> str:
    """How many images there are, and how many have no map for which reason."""
    from pseudo_maps.shards import STATUS_OK

    ok, total = statuses.get(STATUS_OK, 0), sum(statuses.values())
    parts = [f"{ok} {STATUS_OK}"]
    parts += [f"{count} {status}" for status, count in sorted(statuses.items()) if status != STATUS_OK]
    advice = "" if ok == total else "; for those that failed mend the files, then proposals --retry-failed"
    return f"{split}: {counted(total, 'image')}, {', '.join(parts)}{advice}"


def _echo_next(
    problems: list[Problem],
    *,
    folder: Path,
    data: Path | None,
    layout: str,
    expected: dict[str, list[str]] | None,
    removed: set[Path],
) -> None:
    """Name the command that makes what is missing by now, for every split whose manifest is as it should be."""
    from pipelines.cli.rerun_command import rerun_command
    from pseudo_maps.shards.manifest import manifest_path, read_manifest

    unclear = {
        problem.split
        for problem in problems
        if problem.kind in ("manifest", "data")
        # Of kind "closed" when the system does not let it be read.
        or (problem.split and problem.path == manifest_path(folder, problem.split))
    }
    wanted = {found.split for found in problems if found.kind == "missing" or found.path in removed}
    for split in sorted(wanted - unclear - {""}):
        images = None if expected is None else len(expected[split])
        manifest = read_manifest(folder, split)
        if SCORE_MAPS in manifest.configuration:
            click.echo(
                f"next: for {split} the wsol-eval run with --save-maps that made the maps, which makes them again"
            )
            continue
        line, note = rerun_command(manifest, out=folder, data=data, layout=layout, images=images)
        click.echo(f"next: {line}" + (f"  ({note})" if note else ""))


def _checked_suffix(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """The path of a picture, unless its name says no format that can be written."""
    if value is not None and value.suffix.lower() not in SUFFIX_NAMES:
        raise click.BadParameter(f"{value} ends in none of {', '.join(SUFFIX_NAMES)}")
    return value


@click.command(context_settings=CONTEXT_SETTINGS, params=[DATA_OPTION, LAYOUT_OPTION])
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", type=click.Choice(SPLITS), default="val", help="Split of the data set.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_checked_suffix,
    help="Contact sheet to write (.png, .jpg).",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Page to write: pictures, histograms, failed images, settings.",
)
@click.option("--ids", "ids", multiple=True, help="Image ids to show, with commas between them, or given again.")
@click.option(
    "--ids-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text file of image ids to show, one a line.",
)
@click.option(
    "--worst",
    type=click.IntRange(min=0),
    is_flag=False,
    flag_value=0,
    metavar="[N]",
    help="Show failed images and then the lowest peaks: N of them, --count without a number.",
)
@click.option("--count", type=click.IntRange(min=1), default=12, help="How many images.")
@click.option("--columns", type=click.IntRange(min=1), default=2, help="Images beside each other on the sheet.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.5,
    help="The box surrounds the largest area above this fraction of the peak.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the random choice of images on the page.")
@common_options
def preview(
    folder: Path,
    data: Path,
    layout: str,
    split: str,
    out: Path | None,
    html: Path | None,
    ids: tuple[str, ...],
    ids_file: Path | None,
    worst: int | None,
    count: int,
    columns: int,
    threshold: float,
    seed: int,
) -> None:
    """Look at the maps in FOLDER: image, map, overlay, box (ground truth in green).

    --out draws a contact sheet, --html writes a page that also tells what all maps of the split are like.
    """
    if out is None and html is None:
        raise click.UsageError("say what to write: --out for a contact sheet, --html for a page")
    if ids_file is not None:
        ids = (*ids, *_lines(ids_file))
    if ids and worst is not None and out is not None:
        raise click.UsageError("--ids and --worst exclude each other on a contact sheet")
    worst_count = worst or count
    if out is not None:
        from pipelines.reports.contact_sheet import contact_sheet

        shown = contact_sheet(
            folder,
            data=data,
            layout=layout,
            split=split,
            out=out,
            image_ids=ids,
            worst_first=worst is not None,
            count=count if worst is None else worst_count,
            columns=columns,
            threshold=threshold,
        )
        click.echo(f"{counted(shown, 'image')} on {out}")
    if html is not None:
        from pipelines.reports.preview_page import write_preview_page

        shown = write_preview_page(
            folder,
            data=data,
            layout=layout,
            split=split,
            out=html,
            image_ids=ids,
            count=count,
            worst=worst_count,
            threshold=threshold,
            seed=seed,
        )
        click.echo(f"{counted(shown, 'image')} on {html}")


def _lines(path: Path) -> list[str]:
    """The ids in a text file, at least one."""
    from pipelines.datasets.text import read_lines

    lines = [line.strip() for line in read_lines(path)]
    if not lines:
        raise click.UsageError(f"{path}: expected image ids, one a line, found none")
    return lines
