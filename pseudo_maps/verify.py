"""A folder of shards to the list of everything that is wrong in it, and that list to files to remove.

Every byte of every shard is read: the file's SHA-256 first, because HDF5's own checksums cover the maps and
the table only, and a damaged file is not to be handed to HDF5 at all.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pseudo_maps._shard_layout import (
    PROVENANCE_KEYS,
    ShardError,
    checksum_path,
    differences,
    field_problem,
    host_name,
    list_shards,
    parse_shard_name,
    parse_temporary_name,
    row_problem,
    shard_name,
)
from pseudo_maps.manifest import (
    Manifest,
    ManifestError,
    found_splits,
    ids_digest,
    manifest_path,
    read_manifest,
)
from pseudo_maps.shards import ShardReader, file_sha256
from pseudo_maps.stale_files import is_running

__all__ = ["REPAIRABLE_KINDS", "Problem", "repair_folder", "verify_folder"]

REPAIRABLE_KINDS = frozenset(
    {"checksum", "unreadable", "map", "table", "rows", "ids", "configuration", "stray", "temporary"}
)
"""Kinds of problem whose file ``repair_folder`` removes."""

_CHECKSUM_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^\n]+)\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a folder of shards."""

    path: Path
    """The file concerned, which need not exist; the folder where no file is."""
    kind: str
    """``checksum`` (SHA-256 differs, is missing or cannot be read), ``unreadable`` (schema, layout, HDF5),
    ``map`` (a chunk's checksum, or a map that contradicts its row), ``table``, ``rows`` (number of rows),
    ``ids``, ``configuration``, ``missing`` (shard), ``stray`` (file of no shard of the manifest),
    ``temporary`` (left by a killed task) or ``manifest``."""
    message: str
    """What was found, what was expected, and what to do."""

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.message}"


def verify_folder(
    folder: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    expected_ids: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Read every shard whole and compare it with its checksum, itself, the manifest and the data.

    Parameters
    ----------
    folder
        Folder of the shards.
    splits
        Splits to look at; all that have a shard or a manifest there, or are in ``expected_ids``, by default.
    expected_ids
        Image ids of the data by split, in the order in which they were given to the shards.
    progress
        Called with (shards done, shards in all) after every shard.

    Returns
    -------
    list of Problem
        Empty when all is well; by split, shards in order.

    Raises
    ------
    OSError
        The folder is missing, or a file in it cannot be read at all.

    Notes
    -----
    Temporary files of a process that is still running on this machine are no problem. Those of other machines
    are reported, because nothing tells whether their task still runs.
    """
    root = Path(folder)
    expected = expected_ids or {}
    names = sorted(os.listdir(root))
    chosen = sorted({*found_splits(root), *expected}) if splits is None else list(splits)
    if not chosen:
        return [Problem(path=root, kind="missing", message="no shard and no manifest of any split")]
    shards = {split: list_shards(root, split) for split in chosen}
    total = sum(len(found) for found in shards.values())
    done = 0
    problems: list[Problem] = []
    for split in chosen:
        checker = _SplitChecker(root, split, expected_ids=expected.get(split))
        for (index, count), path in shards[split].items():
            checker.check_shard(path, index=index, count=count)
            done += 1
            if progress is not None:
                progress(done, total)
        problems += checker.finish(shards[split])
        problems += _leftovers(root, names, split)
    return problems


def repair_folder(problems: Iterable[Problem]) -> list[Path]:
    """Remove what a rerun has to make again, with its checksum file, and temporary files of killed tasks.

    Only files that have a shard's name, a shard's checksum's name or a temporary name are removed; manifests
    and other files never. Not to be called while tasks write into the folder.

    Returns
    -------
    list of Path
        The files removed, each once.
    """
    removed: list[Path] = []
    for problem in problems:
        if problem.kind not in REPAIRABLE_KINDS:
            continue
        targets = [problem.path]
        if _is_shard(problem.path.name):
            # The checksum goes last: a shard is never without one, should this be interrupted.
            targets.append(checksum_path(problem.path))
        elif not _is_checksum(problem.path.name) and parse_temporary_name(problem.path.name) is None:
            continue
        for target in targets:
            if target.is_file() or target.is_symlink():
                target.unlink()
                removed.append(target)
    return removed


class _SplitChecker:
    """Collects the problems of one split."""

    def __init__(self, folder: Path, split: str, *, expected_ids: Sequence[str] | None) -> None:
        self._folder = folder
        self._split = split
        self._expected_ids = expected_ids
        self._problems: list[Problem] = []
        self._ids: dict[int, list[str]] = {}
        self._row_of_id: dict[str, tuple[Path, int]] = {}
        self._manifest: Manifest | None = None
        path = manifest_path(folder, split)
        try:
            self._manifest = read_manifest(folder, split)
        except FileNotFoundError:
            self._add(
                path,
                "manifest",
                "is missing, so nothing tells which shards belong here; run again to make it",
            )
        except ManifestError as error:
            self._add(path, "manifest", str(error))
        if self._manifest is not None and expected_ids is not None:
            self._compare_data(self._manifest, path, expected_ids)

    def _add(self, path: Path, kind: str, message: str) -> None:
        self._problems.append(Problem(path=path, kind=kind, message=message))

    def _compare_data(self, manifest: Manifest, path: Path, expected_ids: Sequence[str]) -> None:
        if manifest.images != len(expected_ids):
            self._add(path, "manifest", f"states {manifest.images} images, the data have {len(expected_ids)}")
        elif manifest.ids_sha256 != ids_digest(expected_ids):
            self._add(path, "manifest", "states another digest of the image ids than the data give, in their order")

    def check_shard(self, path: Path, *, index: int, count: int) -> None:
        """Check one shard against its checksum, itself and the manifest."""
        manifest = self._manifest
        if manifest is not None and count != manifest.shards:
            self._add(path, "stray", f"is numbered of {count}, the manifest states {manifest.shards} shards")
            return
        problem = _checksum_problem(path)
        if problem is not None:
            self._add(path, "checksum", problem)
            return
        try:
            with ShardReader(path) as reader:
                ids = self._check_content(reader, path)
        except ShardError as error:
            self._add(path, "unreadable", str(error))
            return
        if manifest is None:
            return
        if len(ids) != manifest.shard_rows(index):
            self._add(path, "rows", f"has {len(ids)} rows, expected {manifest.shard_rows(index)} by the manifest")
            return
        start = index * manifest.shard_size
        if self._expected_ids is not None and len(self._expected_ids) == manifest.images:
            for row, (found, wanted) in enumerate(zip(ids, self._expected_ids[start : start + len(ids)], strict=True)):
                if found != wanted:
                    self._add(path, "ids", f"row {row} is the image {found!r}, the data have {wanted!r} there")
                    return
        self._ids[index] = ids

    def _check_content(self, reader: ShardReader, path: Path) -> list[str]:
        """Every row and map of a shard; its image ids."""
        if self._manifest is not None:
            stated = {key: getattr(self._manifest, key) for key in PROVENANCE_KEYS}
            lines = differences({key: reader.provenance.get(key) for key in stated}, stated)
            if lines:
                self._add(path, "configuration", "differs from the manifest: " + "; ".join(lines))
        table: list[str] = []
        maps: list[str] = []
        for row_index, (number, row) in enumerate(zip(reader.table["row"].tolist(), reader.rows, strict=True)):
            problem = field_problem(row)
            if number != row_index:
                problem = f"its number is {number}"
            if row.image_id in self._row_of_id:
                other, other_row = self._row_of_id[row.image_id]
                problem = f"image id {row.image_id!r} is also row {other_row} of {other.name}"
            else:
                self._row_of_id[row.image_id] = (path, row_index)
            if problem is not None:
                table.append(f"row {row_index}: {problem}")
            try:
                contradiction = row_problem(reader.read_uint8(row_index), row)
            except ShardError as error:
                contradiction = str(error)
            if contradiction is not None:
                maps.append(f"row {row_index} ({row.image_id}): {contradiction}")
        for kind, lines in (("table", table), ("map", maps)):
            if lines:
                more = f" (and {len(lines) - 1} rows more)" if len(lines) > 1 else ""
                self._add(path, kind, lines[0] + more)
        return [row.image_id for row in reader.rows]

    def finish(self, shards: Mapping[tuple[int, int], Path]) -> list[Problem]:
        """Check what concerns all shards together and return every problem of the split."""
        counts = sorted({count for _, count in shards})
        if self._manifest is not None:
            counts = [self._manifest.shards]
        elif len(counts) > 1:
            self._add(
                self._folder,
                "manifest",
                f"shards of {self._split} are numbered of {counts}, expected one run's",
            )
        if len(counts) == 1:
            for index in range(counts[0]):
                if (index, counts[0]) not in shards:
                    path = self._folder / shard_name(self._split, index, counts[0])
                    self._add(path, "missing", "the shard is missing; run again to make it")
        manifest = self._manifest
        if manifest is not None and len(self._ids) == manifest.shards:
            digest = ids_digest(image_id for index in sorted(self._ids) for image_id in self._ids[index])
            if digest != manifest.ids_sha256:
                self._add(
                    manifest_path(self._folder, self._split),
                    "manifest",
                    f"states the digest {manifest.ids_sha256} of all image ids, the shards give {digest}; "
                    "compare with the data to see which shard is wrong",
                )
        return self._problems


def _is_shard(name: str) -> bool:
    return _split_of_shard(name) is not None


def _split_of_shard(name: str) -> str | None:
    try:
        return parse_shard_name(name)[0]
    except ValueError:
        return None


def _is_checksum(name: str) -> bool:
    return name.endswith(".sha256") and _is_shard(name.removesuffix(".sha256"))


def _checksum_problem(path: Path) -> str | None:
    """What the shard's SHA-256 tells against it, or None."""
    line_path = checksum_path(path)
    try:
        line = _CHECKSUM_LINE.fullmatch(line_path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return f"{line_path.name} is missing, so nothing tells whether the shard is whole; make the shard again"
    if line is None or line["name"] != path.name:
        return f"{line_path.name} is no line of sha256sum for {path.name}; make the shard again"
    digest = file_sha256(path)
    if digest != line["digest"]:
        return f"SHA-256 is {digest}, expected {line['digest']}; the file is damaged, make the shard again"
    return None


def _leftovers(folder: Path, names: Sequence[str], split: str) -> list[Problem]:
    """Checksum files without a shard, and temporary files that no process of this machine is writing."""
    present = set(names)
    problems = []
    for name in names:
        temporary = parse_temporary_name(name)
        if temporary is not None:
            target, host, process = temporary
            own = target == f"{split}.manifest.json" or _split_of_shard(target.removesuffix(".sha256")) == split
            if own and (host != host_name() or not is_running(process)):
                message = f"left by process {process} on {host}; remove it unless that still runs"
                problems.append(Problem(path=folder / name, kind="temporary", message=message))
        elif _is_checksum(name):
            shard = name.removesuffix(".sha256")
            if _split_of_shard(shard) == split and shard not in present:
                message = "is the checksum of a shard that is not there"
                problems.append(Problem(path=folder / name, kind="stray", message=message))
    return problems
