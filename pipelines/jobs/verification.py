"""Verification of a folder of maps: problems, repair, and the command that makes missing maps."""

import json
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.datasets import Dataset, open_dataset
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.generation import LOG_FOLDER
from pseudo_maps.shards import STATUS_OK, MapIndex, ShardError
from pseudo_maps.shards.leftovers import partials_of_use
from pseudo_maps.shards.manifest import ManifestError, found_splits, read_manifest
from pseudo_maps.shards.repair import repair_folder
from pseudo_maps.shards.sources import check_sources, compare_sources
from pseudo_maps.shards.verify import Problem, file_state, verify_folder
from pseudo_maps.wording import counted

LEFTOVERS = ("temporary", "stray")
"""Kinds of problem that are over when the file is gone."""
COMPARED_FILES = 50_000
"""Image files whose header is read: 5 s, a minute on a busy file server; of larger splits, evenly spaced ones."""
SCORE_MAPS = "score_maps"
"""Key in the configuration of maps that ``wsol-eval run`` stored."""


def verify_maps(
    folder: Path,
    *,
    splits: Sequence[str],
    data: Path | None,
    layout: str,
    repair: bool,
    progress: Callable[[int, int], None],
) -> tuple[list[str], str]:
    """Check every shard of the splits (all without any), and remove bad shards and leftovers if wanted.

    Every image of ``data`` must have a row, and the size that it states. ``progress`` is called with the numbers of
    shards read and in all. Returns lines that say what was found and done, and the error in one sentence, empty when
    all is well now.
    """
    chosen = splits or tuple(found_splits(folder))
    expected: dict[str, list[str]] = {}
    notes: list[str] = []
    datasets: dict[str, Dataset] = {}
    if data is not None:
        datasets = {split: open_dataset(data, split=split, layout=layout) for split in chosen}
        expected = {split: [record.image_id for record in found.records] for split, found in datasets.items()}
        notes = [f"note: {note}" for found in datasets.values() for note in found.notes]
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    problems = verify_folder(
        folder,
        splits=chosen or None,
        expected_ids=expected if data is not None else None,
        progress=progress,
        on_rows=lambda split, statuses: rows[split].update(statuses),
    )
    if data is not None:
        for dataset in datasets.values():
            more, lines = _compare_images(folder, dataset)
            problems += more
            notes += lines
    lines = [*notes, *_limits(folder, expected), *map(str, problems)]
    removed: set[Path] = set()
    if repair:
        done = repair_folder(problems)
        removed.update(done.removed)
        lines += [f"removed {path}" for path in done.removed]
        lines += [f"left {path}: {reason}" for path, reason in (*done.left, *partials_of_use(folder, chosen))]
    # A leftover that is gone leaves nothing to do, a shard that is gone has to be made again.
    remaining = [one for one in problems if one.kind not in LEFTOVERS or one.path not in removed]
    if not remaining:
        complete = f"{folder}: {', '.join(chosen)} complete and undamaged"
        return [*lines, complete, *(_rows_line(split, rows[split]) for split in chosen)], ""
    lines += _commands(remaining, folder=folder, data=data, removed=removed)
    advice = ""
    if not repair and any(problem.judged is not None for problem in problems):
        advice = "; --repair removes what is bad, then give the command of the folder again"
    elif removed:
        advice = f"; removed {counted(len(removed), 'file')}"
    return lines, f"{counted(len(problems), 'problem')} in {folder}{advice}"


def replaced_images(records: Sequence[ImageRecord], *, split: str, out: Path, root: Path) -> list[str]:
    """Warnings of images that were replaced since their maps were made; ShardError where chance does not explain it."""
    index = _open_maps(out, split)
    return [] if index is None else check_sources(index, records, root=root)


def _open_maps(folder: Path, split: str) -> MapIndex | None:
    """The maps that are there; None where there are none, or what is wrong with them is said elsewhere."""
    try:
        return MapIndex(folder, split, allow_incomplete=True)
    except (ShardError, ManifestError, OSError):
        return None


def _compare_images(folder: Path, dataset: Dataset) -> tuple[list[Problem], list[str]]:
    """Shards with maps of images of another size or class, and a note of newer ones."""
    index = _open_maps(folder, dataset.split)
    if index is None:
        return [], []
    found = compare_sources(index, dataset.records, root=dataset.root, most=COMPARED_FILES)
    by_shard: defaultdict[Path, dict[str, str]] = defaultdict(dict)
    for image_id, sizes in found.changed.items():
        by_shard[index.shard_path(image_id)][image_id] = sizes
    problems = []
    for path, changed in by_shard.items():
        (image_id, sizes), *others = changed.items()
        more = f" (and {counted(len(others), 'image')} more)" if others else ""
        message = f"{image_id!r} was replaced: {sizes}{more}; make the shard again"
        problems.append(
            Problem(path=path, kind="images", message=message, split=dataset.split, judged=file_state(path))
        )
    newer = ", ".join(map(repr, found.newer[:3]))
    note = f"note: {dataset.split}: {counted(len(found.newer), 'image')} written after the map, such as {newer}"
    return problems, [f"{note}: replaced by one of the same size, or copied"] if found.newer else []


def _limits(folder: Path, expected: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Which splits hold only the first images of the data."""
    for split, image_ids in expected.items():
        try:
            manifest = read_manifest(folder, split)
        except (OSError, ManifestError):
            # A problem of its own.
            continue
        if manifest.images < len(image_ids) and manifest.is_of_first(image_ids):
            first = "the first image" if manifest.images == 1 else f"the first {manifest.images} images"
            yield f"note: {split}: {first} of {len(image_ids)}, as --limit {manifest.images} makes them"


def _rows_line(split: str, statuses: Mapping[str, int]) -> str:
    """How many images there are, and how many have no map for which reason."""
    ok, total = statuses.get(STATUS_OK, 0), sum(statuses.values())
    parts = [f"{ok} {STATUS_OK}"]
    parts += [f"{count} {status}" for status, count in sorted(statuses.items()) if status != STATUS_OK]
    advice = "" if ok == total else "; for those that failed repair the files, then --retry-failed"
    return f"{split}: {counted(total, 'image')}, {', '.join(parts)}{advice}"


def _commands(
    problems: Collection[Problem], *, folder: Path, data: Path | None, removed: Collection[Path]
) -> Iterator[str]:
    """The command that makes what is missing now, for every split whose manifest is as it should be."""
    unclear = {problem.split for problem in problems if problem.kind in ("manifest", "data")}
    wanted = {found.split for found in problems if found.kind == "missing" or found.path in removed}
    for split in sorted(wanted - unclear - {""}):
        try:
            is_of_network = SCORE_MAPS in read_manifest(folder, split).configuration
        except (OSError, ManifestError):
            continue
        if is_of_network:
            again = "the wsol-eval run with --save-maps that made the maps"
        else:
            again = _logged_command(folder, split, data=data) or "the command that made the other shards"
        yield f"next: {again}"


def _logged_command(folder: Path, split: str, *, data: Path | None) -> str | None:
    """The last ``wsol-prep`` command that made shards of a split, from its run log, for this folder."""
    for log in sorted((folder / LOG_FOLDER).glob(f"{split}-*.jsonl"), reverse=True):
        try:
            started = json.loads(log.read_text(encoding="utf-8").partition("\n")[0])
            command, place, (_, tasks) = started["command"], started["working_folder"], started["task"]
            for option, path in (("--out", folder), ("--data", data)):
                if path is not None:
                    command[command.index(option) + 1] = str(path)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        notes = [f"in {place}"] if place != os.getcwd() else []
        notes += [f"one of {tasks} array tasks"] if tasks > 1 else []
        return shlex.join(command) + (f"  ({', '.join(notes)})" if notes else "")
    return None
