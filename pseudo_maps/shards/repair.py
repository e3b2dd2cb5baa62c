"""Repair of a folder of shards: remove what verification judged bad, so that a rerun makes it again."""

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pseudo_maps.shards.layout import checksum_path, split_of_shard
from pseudo_maps.shards.leftovers import is_abandoned, parse_partial_name
from pseudo_maps.shards.verify import Problem, file_state


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What became of the files that were to be removed."""

    removed: list[Path] = field(default_factory=list)
    """Files that are gone, each once, in the order in which they went."""
    left: list[tuple[Path, str]] = field(default_factory=list)
    """Files that were left, and why."""


def repair_folder(problems: Iterable[Problem]) -> Repair:
    """Remove every file that a problem judged bad, a shard together with its checksum file.

    A file is left when it is no longer the one that was checked, when it belongs to another user, when a running
    process is about to replace it, or when the system refuses. Manifests and files of other names are never removed.
    """
    repair = Repair()
    judged: dict[Path, Problem] = {}
    for problem in problems:
        if problem.judged is not None:
            judged.setdefault(problem.path, problem)
    for path, problem in judged.items():
        reason = _reason_to_leave(problem)
        if reason is not None:
            repair.left.append((path, reason))
            continue
        # The checksum goes last: a shard is never without one, should this be interrupted.
        for target in [path, checksum_path(path)] if split_of_shard(path.name) else [path]:
            try:
                target.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                repair.left.append((target, f"it cannot be removed: {error.strerror}"))
                break
            repair.removed.append(target)
    return repair


def _reason_to_leave(problem: Problem) -> str | None:
    path, name = problem.path, problem.path.name
    shard = path.with_name(name.removesuffix(".sha256"))
    is_of_shard = split_of_shard(shard.name) is not None
    if not is_of_shard and parse_partial_name(name) is None:
        return "it is neither a shard nor a checksum nor a temporary file"
    if file_state(path) != problem.judged:
        return "it has changed since it was checked; verify again"
    if shard != path and shard.exists():
        return "its shard is there by now; verify again"
    owner = path.lstat().st_uid
    if owner != os.geteuid():
        return f"it belongs to {_user_name(owner)}, who alone should remove it"
    if is_of_shard and any(_is_being_made(shard, other) for other in shard.parent.iterdir()):
        return "a running process is making the shard; verify again when that has ended"
    return None


def _is_being_made(shard: Path, other: Path) -> bool:
    partial = parse_partial_name(other.name)
    made = partial is not None and partial.target in (shard.name, checksum_path(shard).name)
    return made and other.exists() and not is_abandoned(other)


def _user_name(user: int) -> str:
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user with the number {user}"
