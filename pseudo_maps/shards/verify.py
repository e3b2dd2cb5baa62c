"""Verification of a folder of shards: the list of everything that is wrong in it.

Every byte of every shard is read: the file's SHA-256 first, because HDF5's own checksums cover the maps and
the table only, and a damaged file is not to be handed to HDF5 at all.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from pseudo_maps.files import differences, file_sha256
from pseudo_maps.shards.layout import (
    SCHEMA_VERSION,
    ShardError,
    checksum_path,
    field_problem,
    list_shards,
    row_problem,
    shard_name,
    split_of_shard,
)
from pseudo_maps.shards.leftovers import is_abandoned, parse_partial_name
from pseudo_maps.shards.manifest import (
    Manifest,
    ManifestError,
    found_splits,
    ids_digest,
    manifest_path,
    read_manifest,
)
from pseudo_maps.shards.reader import ShardReader
from pseudo_maps.wording import counted

FileState: TypeAlias = tuple[int, int, int, int]
"""Device, inode, bytes and time of the last change in ns, which tell a file from its successor."""

_NAMED_AT_MOST = 5
"""Images that a message names."""

_CHECKSUM_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^\n]+)\n")

_MAKE_AGAIN = "give the command of the folder again to make it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a folder of shards."""

    path: Path
    """The file concerned, which need not exist; the folder where no file is."""
    kind: str
    """``checksum`` (SHA-256 differs, or its file is missing or invalid), ``unreadable`` (schema, layout, HDF5),
    ``map`` (a chunk's checksum, or a map that contradicts its row), ``table``, ``rows`` (number of rows),
    ``ids``, ``configuration``, ``missing`` (shard), ``stray`` (file of no shard of the manifest),
    ``temporary`` (left by a killed task), ``closed`` (the system refuses to read it), ``data`` (other images than
    the data set's), ``images`` (files replaced since, found by ``wsol-prep verify``) or ``manifest``."""
    message: str
    """What was found, what was expected, and what to do."""
    split: str = ""
    """Split concerned, empty for the folder."""
    judged: FileState | None = None
    """State of the file when it was judged bad, where removing it lets a rerun make it again; otherwise None."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.message}"


def file_state(path: Path) -> FileState | None:
    """State of a file (of what a link leads to), None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def verify_folder(
    folder: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    expected_ids: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_rows: Callable[[str, Mapping[str, int]], None] | None = None,
) -> list[Problem]:
    """Read every shard whole and compare it with its checksum, itself, the manifest and the data.

    Parameters
    ----------
    splits
        Splits to look at; all that have a shard or a manifest there, or are in ``expected_ids``, by default.
    expected_ids
        Image ids of the data by split, in order. A manifest that states the first ones alone, as ``--limit`` takes
        them, is compared with those.
    progress
        Called with (shards done, shards in all) after every shard.
    on_rows
        Called with the split and the number of rows by status of every shard that could be read.

    Notes
    -----
    Problems come by split, shards in order; temporary files that may still be in use and files of other names are none.
    OSError when the folder cannot be listed.

    A shard that contradicts the manifest, or that lost its checksum file, is judged bad only when another shard of the
    split is valid: otherwise the manifest may be the one that is wrong, or all checksum files may have stayed behind
    when the folder was copied.
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
        checker = _SplitChecker(root, split, expected_ids=expected.get(split), on_rows=on_rows)
        for (index, count), path in shards[split].items():
            checker.check_shard(path, index=index, count=count)
            done += 1
            if progress is not None:
                progress(done, total)
        problems += checker.finish(shards[split])
        problems += _leftovers(root, names, split)
    return problems


class _SplitChecker:
    """Collects the problems of one split."""

    def __init__(
        self,
        folder: Path,
        split: str,
        *,
        expected_ids: Sequence[str] | None,
        on_rows: Callable[[str, Mapping[str, int]], None] | None,
    ) -> None:
        self._folder, self._split, self._on_rows = folder, split, on_rows
        self._problems: list[Problem] = []
        self._doubted: list[int] = []
        self._valid = 0
        self._state: FileState | None = None
        self._ids: dict[int, list[str]] = {}
        self._row_of_id: dict[str, tuple[Path, int]] = {}
        self._manifest_path = manifest_path(folder, split)
        self._manifest = manifest = self._read_manifest()
        self._expected_ids = expected_ids
        self._data_agree = expected_ids is not None and manifest is not None and manifest.is_of_first(expected_ids)

    def _read_manifest(self) -> Manifest | None:
        path = self._manifest_path
        try:
            manifest = read_manifest(self._folder, self._split)
        except FileNotFoundError:
            self._add(path, "manifest", f"is missing, so nothing tells which shards belong here; {_MAKE_AGAIN}")
        except ManifestError as error:
            message = str(error).removeprefix(f"{path}: ").partition(";")[0]
            cure = "remove it when no task is running and give its command again with the settings of the shards"
            self._add(path, "manifest", f"{message}; {cure}, which makes it anew")
        except OSError as error:
            self._add(path, "closed", f"cannot be read ({error.strerror}), so nothing tells which shards belong here")
        else:
            if manifest.schema_version == SCHEMA_VERSION:
                return manifest
            self._add(
                path,
                "manifest",
                f"states schema version {manifest.schema_version}, expected {SCHEMA_VERSION}; verify with the package "
                f"version {manifest.package_version} that made the folder",
            )
        return None

    def _add(self, path: Path, kind: str, message: str, *, bad: bool = False) -> None:
        """Note a problem; ``bad``: the file is wrong as it was when its check began."""
        state = self._state if bad else None
        self._problems.append(Problem(path=path, kind=kind, message=message, split=self._split, judged=state))

    def _doubt(self, path: Path, kind: str, message: str) -> None:
        """Note a problem of a file that is bad if another shard shows that the manifest is right."""
        self._doubted.append(len(self._problems))
        self._add(path, kind, message, bad=True)

    def check_shard(self, path: Path, *, index: int, count: int) -> None:
        """Check one shard against its checksum, itself, the manifest and the data."""
        manifest = self._manifest
        self._state = file_state(path)
        before = len(self._problems)
        try:
            if manifest is not None and count != manifest.shards:
                stated = counted(manifest.shards, "shard")
                self._doubt(path, "stray", f"is numbered of {count}, the manifest states {stated}")
            elif self._checksum_agrees(path):
                with ShardReader(path) as reader:
                    ids = self._check_content(reader, path)
                if manifest is not None:
                    self._check_ids(path, ids, index=index, manifest=manifest)
                if len(self._problems) == before:
                    self._valid += 1
                    self._ids[index] = ids
        except ShardError as error:
            self._add(path, "unreadable", str(error).removeprefix(f"{path}: "), bad=manifest is not None)
        except FileNotFoundError:
            self._add(path, "missing", f"the shard is gone, or a link that leads nowhere; {_MAKE_AGAIN}")
        except OSError as error:
            self._add(path, "closed", f"cannot be read ({error.strerror}), so nothing tells whether it is whole")

    def _checksum_agrees(self, path: Path) -> bool:
        line_path = checksum_path(path)
        try:
            line = _CHECKSUM_LINE.fullmatch(line_path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            self._doubt(path, "checksum", f"{line_path.name} is missing, so nothing tells whether the shard is whole")
            return False
        if line is None or line["name"] != path.name:
            self._doubt(path, "checksum", f"{line_path.name} is not a line of sha256sum for {path.name}")
            return False
        digest = file_sha256(path)
        if digest != line["digest"]:
            message = f"SHA-256 is {digest}, expected {line['digest']}; the file is damaged, make the shard again"
            self._add(path, "checksum", message, bad=True)
        return digest == line["digest"]

    def _check_content(self, reader: ShardReader, path: Path) -> list[str]:
        """Check every row and map of a shard; its image ids."""
        if self._manifest is not None:
            expected = reader.provenance | self._manifest.provenance
            lines = differences(reader.provenance, expected, names=("in the shard", "in the manifest"))
            if lines:
                self._doubt(path, "configuration", "differs from the manifest: " + "; ".join(lines))
        if self._on_rows is not None:
            self._on_rows(self._split, Counter(row.status for row in reader.rows))
        found: dict[str, list[str]] = {"table": [], "map": []}
        for row_index, (number, row) in enumerate(zip(reader.table["row"].tolist(), reader.rows, strict=True)):
            other, other_row = self._row_of_id.setdefault(row.image_id, (path, row_index))
            problem = field_problem(row)
            if number != row_index:
                problem = f"its number is {number}"
            if (other, other_row) != (path, row_index):
                problem = f"image id {row.image_id!r} is also row {other_row} of {other.name}"
            if problem is not None:
                found["table"].append(f"row {row_index}: {problem}")
            try:
                problem = row_problem(reader.read_uint8(row_index), row)
            except ShardError as error:
                problem = str(error)
            if problem is not None:
                found["map"].append(f"row {row_index} ({row.image_id}): {problem}")
        for kind, lines in found.items():
            if lines:
                more = f" (and {counted(len(lines) - 1, 'row')} more)" if len(lines) > 1 else ""
                self._add(path, kind, lines[0] + more, bad=True)
        return [row.image_id for row in reader.rows]

    def _check_ids(self, path: Path, ids: Sequence[str], *, index: int, manifest: Manifest) -> None:
        expected_rows = manifest.shard_rows(index)
        if len(ids) != expected_rows:
            self._doubt(path, "rows", f"has {counted(len(ids), 'row')}, expected {expected_rows} by the manifest")
            return
        for row, (found, wanted) in enumerate(zip(ids, self._expected_of(index), strict=False)):
            if found != wanted:
                self._doubt(path, "ids", f"row {row} is the image {found!r}, the data have {wanted!r} there")
                return

    def _expected_of(self, index: int) -> Sequence[str]:
        """Image ids of the data for a shard; none where the manifest is of other images."""
        if self._manifest is None or self._expected_ids is None or not self._data_agree:
            return []
        start = index * self._manifest.shard_size
        return self._expected_ids[start : start + self._manifest.shard_rows(index)]

    def finish(self, shards: Mapping[tuple[int, int], Path]) -> list[Problem]:
        """Check what concerns all shards together and return every problem of the split."""
        self._settle_doubts()
        manifest = self._manifest
        counts = sorted({count for _, count in shards})
        if manifest is not None:
            counts = [manifest.shards]
        elif len(counts) > 1:
            self._add(
                self._folder,
                "manifest",
                f"shards of {self._split} are numbered of {counts}, expected one run's; move those of the other away",
            )
        if len(counts) == 1:
            for index in range(counts[0]):
                if (index, counts[0]) not in shards:
                    path = self._folder / shard_name(self._split, index, counts[0])
                    ids = self._expected_of(index)
                    images = f" of {counted(len(ids), 'image')}, {ids[0]!r} to {ids[-1]!r}," if ids else ""
                    self._add(path, "missing", f"the shard{images} is missing; {_MAKE_AGAIN}")
        if self._expected_ids is not None and not self._data_agree and (shards or manifest is not None):
            self._compare_data(self._expected_ids)
        elif manifest is not None and len(self._ids) == manifest.shards:
            digest = ids_digest(image_id for index in sorted(self._ids) for image_id in self._ids[index])
            if digest != manifest.ids_sha256:
                self._add(
                    self._manifest_path,
                    "manifest",
                    f"states the digest {manifest.ids_sha256} of all image ids, the shards give {digest}; "
                    "compare with the data (--data) to see which shard is wrong",
                )
        return self._problems

    def _settle_doubts(self) -> None:
        """Without one valid shard, nothing tells whether the shards in doubt are what is wrong."""
        if not self._doubted or self._valid:
            return
        for place in self._doubted:
            self._problems[place] = replace(self._problems[place], judged=None)
        self._add(
            self._manifest_path if self._manifest is not None else self._folder,
            "manifest",
            f"no shard of {self._split} is valid, so nothing tells whether the shards listed are wrong or what they "
            "are compared with (the manifest, the checksum files); put back what belongs there, or remove the manifest "
            "or the shards, whichever are wrong, and give the command of the folder again",
        )

    def _compare_data(self, expected_ids: Sequence[str]) -> None:
        """Say how the images of the shards differ from those of the data, naming some."""
        present, wanted = list(self._row_of_id), set(expected_ids)
        lacking = [image_id for image_id in expected_ids if image_id not in self._row_of_id]
        foreign = [image_id for image_id in present if image_id not in wanted]
        stated = "is missing" if self._manifest is None else f"states {counted(self._manifest.images, 'image')}"
        parts = [f"{stated}, the data have {len(expected_ids)}, the shards that can be read {len(present)}"]
        if lacking:
            parts.append(f"{len(lacking)} of the data are in no shard: {_some(lacking)}")
        if foreign:
            parts.append(f"{len(foreign)} of the shards are not in the data: {_some(foreign)}")
        if not lacking and not foreign:
            parts.append("they are the same in another order")
        if any(problem.kind == "missing" for problem in self._problems):
            parts.append("make the missing shards first")
        elif lacking and present == list(expected_ids[: len(present)]):
            parts.append(f"they are the first ones: give --limit {len(present)} when the manifest is made again")
        else:
            parts.append("make maps of these data into another folder, or verify with the data they were made of")
        self._add(self._manifest_path, "data", "; ".join(parts))


def _some(ids: Sequence[str]) -> str:
    named = ", ".join(repr(image_id) for image_id in ids[:_NAMED_AT_MOST])
    return named + (", ..." if len(ids) > _NAMED_AT_MOST else "")


def _leftovers(folder: Path, names: Sequence[str], split: str) -> list[Problem]:
    """Checksum files without a shard, and abandoned temporary files."""
    found: list[tuple[str, str, str]] = []
    for name in names:
        partial, shard = parse_partial_name(name), name.removesuffix(".sha256")
        if partial is not None and partial.split == split and is_abandoned(folder / name):
            found.append((name, "temporary", f"was left by process {partial.process} on {partial.host}"))
        elif shard != name and split_of_shard(shard) == split and shard not in names:
            found.append((name, "stray", "is the checksum of a shard that is not there"))
    return [
        Problem(path=folder / name, kind=kind, message=message, split=split, judged=file_state(folder / name))
        for name, kind, message in found
    ]
