"""Turns the folder of a table into what its runs were made with, so that a report asks for the runs that are there."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.experiments.paper_table.plan import RECORD_FILE, TablePlan, TableRun, images_digest
from pipelines.experiments.paper_table.rows import ROWS

__all__ = ["FoundRuns", "contradictions", "find_runs"]

_SEED_PREFIX = "seed-"


@dataclass(frozen=True, kw_only=True)
class FoundRuns:
    """What the runs of a table were asked for with, as their records say."""

    archs: tuple[str, ...]
    """Architectures that have a run."""
    rows: tuple[str, ...]
    """Keys of ``ROWS`` that have a run, in the paper's order."""
    seeds: tuple[int, ...]
    """Seeds that have a run, rising."""
    protocols: tuple[str, ...]
    """Protocols, the main table's first; those of the first run."""
    limit: int | None
    """Value of ``--limit``; that of the first run."""


def find_runs(out: Path, *, archs: Sequence[str], protocols: Sequence[str]) -> FoundRuns | None:
    """Look for the runs of ``wsol-pipeline table``.

    Parameters
    ----------
    out
        Folder of the table.
    archs, protocols
        All that there are, in the order in which they are shown where no record says one.

    Returns
    -------
    FoundRuns or None
        None where no trained run has a record that can be read.
    """
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for arch in archs:
        for row in ROWS:
            for path in (out / arch / row).glob(f"{_SEED_PREFIX}*/{RECORD_FILE}"):
                seed = path.parent.name.removeprefix(_SEED_PREFIX)
                if seed.isdecimal():
                    # A damaged record is told of when its run is read.
                    with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
                        found[arch, row, int(seed)] = _checked(json.loads(path.read_text(encoding="utf-8")))
    if not found:
        return None
    seeds = sorted({seed for _, _, seed in found})
    first = found[min(found, key=lambda key: (key[2], archs.index(key[0]), list(ROWS).index(key[1])))]
    asked = set(first["evaluation"]["protocols"])
    in_order = first.get("protocols", [name for name in protocols if name in asked])
    return FoundRuns(
        archs=tuple(arch for arch in archs if any(key[0] == arch for key in found)),
        rows=tuple(row for row in ROWS if any(key[1] == row for key in found)),
        seeds=tuple(seeds),
        protocols=tuple(in_order),
        limit=first["training"].get("--limit"),
    )


def contradictions(plan: TablePlan, runs: Iterable[TableRun], *, options: Sequence[str]) -> list[str]:
    """By sentences why a report of these runs would say what is not so.

    Parameters
    ----------
    plan
        What the report is asked for.
    runs
        Its runs; those without a readable record contradict nothing.
    options
        Options that were typed, such as ``--epochs``.

    Returns
    -------
    list of str
        One for each run that was made with other options, or of other images than those of ``plan``.
    """
    digests: dict[tuple[str, int | None], str] = {}
    found = []
    for run in runs:
        with contextlib.suppress(ValueError):
            record = run.record() or {}
            differences = run.contradictions(options)
            for part, name, dataset in (
                ("training", "train_images", plan.train),
                ("evaluation", "val_images", plan.val),
            ):
                made = record.get(part, {})
                if name in made and "--limit" not in options:
                    # The number of images is the run's own; which ones they are is the data set's.
                    limit = made.get("--limit")
                    if (part, limit) not in digests:
                        digests[part, limit] = images_digest(dataset, limit=limit)
                    if digests[part, limit] != made[name]:
                        differences.append(f"--data: {made[name]!r} there, {digests[part, limit]!r} now")
            if differences:
                found.append(f"{run.name} was made with other settings ({'; '.join(differences)})")
    return found


def _checked(record: Any) -> Mapping[str, Any]:
    """The record if it has what ``find_runs`` reads; KeyError or TypeError if not."""
    list(record["evaluation"]["protocols"]), dict(record["training"])
    return dict(record)
