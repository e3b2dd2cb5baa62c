"""The problems that verification found to fewer files: what is bad goes, so that a rerun makes it again."""

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pseudo_maps.shards.layout import checksum_path, parse_shard_name
from pseudo_maps.shards.leftovers import is_abandoned, parse_partial_name
from pseudo_maps.shards.verify import Problem, file_state

__all__ = ["Repair", "repair_folder"]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What became of the files that were to be removed."""

    removed: list[Path] = field(default_factory=list)
    """Files that are gone, each once, in the order in which they went."""
    left: list[tuple[Path, str]] = field(default_factory=list)
    """Files that were left, and why."""


def repair_folder(problems: Iterable[Problem]) -> Repair:
    """Remove every file that a problem judged bad, a shard together with its checksum file.

    Parameters
    ----------
    problems
        From ``verify_folder``. Only those with a ``judged`` state lead to a removal.

    Returns
    -------
    Repair
        Files removed, and files left with the reason.

    Notes
    -----
    A file is left when it is no longer the one that was checked, when it belongs to another user, when a running
    process is about to replace it, or when the system refuses. Manifests and files of other names are never removed.
    """
    repair = Repair()
    done: set[Path] = set()
    for problem in problems:
        if problem.judged is None or problem.path in done:
            continue
        done.add(problem.path)
        reason = _reason_to_leave(problem)
        if reason is not None:
            repair.left.append((problem.path, reason))
            continue
        targets = [problem.path]
        if _is_shard(problem.path.name):
            # The checksum goes last: a shard is never without one, should this be interrupted.
            targets.append(checksum_path(problem.path))
        for target in targets:
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
    summed = name.removesuffix(".sha256")
    if not _is_shard(summed) and parse_partial_name(name) is None:
        return "it is neither a shard nor a checksum nor a temporary file"
    if file_state(path) != problem.judged:
        return "it has changed since it was checked; verify again"
    if summed != name and path.with_name(summed).exists():
        return "its shard is there by now; verify again"
    owner = path.lstat().st_uid
    if owner != os.geteuid():
        return f"it belongs to {_user_name(owner)}, who alone should remove it"
    if _is_shard(summed) and _is_being_made(path.with_name(summed)):
        return "a running process is making the shard; verify again when that has ended"
    return None


def _is_being_made(shard: Path) -> bool:
    names = {shard.name, checksum_path(shard).name}
    for path in shard.parent.iterdir():
        partial = parse_partial_name(path.name)
        if partial is not None and partial.target in names and path.exists() and not is_abandoned(path):
            return True
    return False


def _is_shard(name: str) -> bool:
    try:
        parse_shard_name(name)
    except ValueError:
        return False
    return True


def _user_name(user: int) -> str:
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user with the number {user}"
