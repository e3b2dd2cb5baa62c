"""Turns commands that have ended well, what they read and what they made into a record of what is finished.

The record says that nothing has to be asked: a step is finished while its line is the same and no file that it read
or made has changed since, by name, size and time. In any doubt it is not, and its command finds out itself.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudo_maps import __version__
from pseudo_maps.files import write_atomically

__all__ = ["FileSet", "FinishedSteps", "files_state", "named_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSet:
    """A file, or those of a folder that fit a pattern."""

    path: Path
    """The file or folder."""
    patterns: tuple[str, ...] = ("**/*",)
    """Which files of the folder are meant, as ``Path.glob`` takes them."""

    def files(self) -> list[Path]:
        """All that are there, in order of name."""
        if self.path.is_dir():
            return sorted({path for one in self.patterns for path in self.path.glob(one) if path.is_file()})
        return [self.path] if self.path.exists() else []


class FinishedSteps:
    """The record of one folder of results; a missing or damaged one, or one of another version, is empty.

    Parameters
    ----------
    path
        File of the record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps = _read(path)

    def line(self, name: str) -> str | None:
        """The command line that the results of a step were begun with; None where it is not known."""
        return self._steps.get(name, {}).get("line")

    def is_finished(self, name: str, *, line: str, reads: str, makes: str) -> bool:
        """Whether this very step has ended well and nothing has changed since.

        Parameters
        ----------
        name
            What the step is called.
        line
            Its command line.
        reads, makes
            What its input and its results are like now, as ``files_state`` says.
        """
        return self._steps.get(name) == {"line": line, "reads": reads, "makes": makes}

    def begin(self, name: str, *, line: str, is_new: bool) -> None:
        """Note the line of a step before it runs; results that are there keep what is known of their beginning.

        Raises
        ------
        OSError
            The record cannot be written.
        """
        if is_new:
            self._write(name, {"line": line})

    def finish(self, name: str, *, line: str, reads: str, makes: str) -> None:
        """Note that a step has ended well; ``reads`` is from before it ran, ``makes`` from after.

        Raises
        ------
        OSError
            The record cannot be written.
        """
        self._write(name, {"line": line, "reads": reads, "makes": makes})

    def _write(self, name: str, step: dict[str, str]) -> None:
        self._steps[name] = step
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"version": __version__, "steps": self._steps}, indent=1)
        write_atomically(self._path, f"{text}\n".encode())


def files_state(sets: Iterable[FileSet], *, further: str = "") -> str:
    """Digest of the names, sizes and times of all files; of ``further`` too, for what is no file."""
    digest = hashlib.sha256(further.encode(errors="surrogateescape"))
    for one in sets:
        digest.update(f"\0{one.path}\0".encode(errors="surrogateescape"))
        for path in one.files():
            state = path.stat()
            digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def named_files(words: Sequence[str]) -> list[FileSet]:
    """The files that are named in the words of a command line; folders are not among them."""
    return [FileSet(path=Path(word)) for word in words if Path(word).is_file()]


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != __version__:
            return {}
        return {name: {key: str(value) for key, value in step.items()} for name, step in found["steps"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
