"""Checkpoints: the state of a training run in files that are complete or absent.

A checkpoint is what ``torch.save`` writes, with a marker and a version inside; it can be read with
``torch.load(path, weights_only=True)`` alone. The state consists of dicts, lists, tuples, tensors, numbers, strings,
booleans and None, because nothing else passes ``weights_only``.
"""

import io
import json
import os
import re
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pseudo_maps.files import temporary_name_pattern, write_atomically
from training.run_folder.files import FINISHED_FILE, checkpoint_name, read_finished

CHECKPOINT_FORMAT = "saliency-aware-wsol checkpoint"
"""Marker in every checkpoint, by which a file of another program is told."""
CHECKPOINT_VERSION = 1
"""Version of the envelope around the state; a reader refuses a newer one."""

_PLAIN_TYPES = (bool, int, float, str, type(None), Tensor, torch.nn.Parameter)
"""Compared exactly: a numpy.float64 is a float, and weights_only does not read it."""
_NAME = re.compile(r"checkpoint-(\d{8,})\.pt")
_LEFTOVER = temporary_name_pattern(r"checkpoint-\d{8,}\.pt|finished\.json|metrics\.jsonl")
"""Names of what killed processes leave: of this module's files, and of the run's log."""


class CheckpointError(ValueError):
    """A file that is no checkpoint of this program, or a damaged one, or a state that cannot be one."""


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint could not be read and an older one is used."""


class FoundCheckpoint(NamedTuple):
    """The newest checkpoint that could be read."""

    path: Path
    step: int
    state: dict[str, Any]


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step: afterwards the file is the new one, or, after any failure, the old one.

    The folder has to exist. CheckpointError names the place of a value that is no dict, list, tuple, tensor, int,
    float, str, bool or None; OSError when the file cannot be written.
    """
    envelope = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, "state": _plain(state, place="state")}
    # Built in memory, because torch's writer hides the error number of a full disk behind an error of its own.
    buffer = io.BytesIO()
    torch.save(envelope, buffer)
    write_atomically(Path(path), buffer.getbuffer())


def read_tensors(encoded: bytes) -> Any:
    """Content of a file of ``torch.save``, tensors on the CPU, every record's checksum compared, nothing executed.

    ValueError, in one line, for a file that is damaged or truncated, or holds anything but plain data.
    """
    try:
        if zipfile.is_zipfile(io.BytesIO(encoded)):
            # torch itself takes changed bytes without a word.
            with zipfile.ZipFile(io.BytesIO(encoded)) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"record {damaged} has a wrong checksum")
        with warnings.catch_warnings():
            # torch warns of what it then refuses, such as a TorchScript archive.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(encoded), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        # All bytes are in memory, so any error is about them: BadZipFile, RuntimeError, UnpicklingError, EOFError,
        # NotImplementedError, KeyError and others have been seen.
        raise ValueError((str(error).strip().splitlines() or [type(error).__name__])[0]) from error


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """State of a checkpoint, its tensors on the CPU; nothing in the file is executed.

    CheckpointError for a file that is no checkpoint, is damaged or truncated (see ``read_tensors``), or of a newer
    version; OSError when it is missing or cannot be read.
    """
    encoded = Path(path).read_bytes()
    try:
        envelope = read_tensors(encoded)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: not a checkpoint, or damaged ({len(encoded)} bytes): {error}; use another checkpoint"
        ) from error
    if not isinstance(envelope, dict) or envelope.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path}: a torch file of another program: the marker {CHECKPOINT_FORMAT!r} is missing")
    if envelope.get("version") != CHECKPOINT_VERSION or not isinstance(envelope.get("state"), dict):
        raise CheckpointError(
            f"{path}: checkpoint of version {envelope.get('version')!r}, expected {CHECKPOINT_VERSION}; "
            "use the version of the program that wrote it"
        )
    state: dict[str, Any] = envelope["state"]
    return state


class CheckpointFolder:
    """Checkpoints of one run: ``checkpoint-<step, 8 digits>.pt`` and ``finished.json``, made at the first save.

    One process writes (rank 0 of several; a lock keeps other runs out); any number may read at the same time. The
    newest ``keep_last`` checkpoints stay, at least 1.
    """

    def __init__(self, run_dir: str | os.PathLike[str], *, keep_last: int = 3) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}, expected at least 1")
        self._run_dir = Path(run_dir)
        self._keep_last = keep_last

    def path(self, step: int) -> Path:
        """Path of the checkpoint after ``step`` steps, whether or not it exists; ValueError below 0."""
        if step < 0:
            raise ValueError(f"step is {step}, expected at least 0")
        return self._run_dir / checkpoint_name(step)

    def steps(self) -> list[int]:
        """Steps of the checkpoints that exist, rising; empty where the folder is missing."""
        if not self._run_dir.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self._run_dir.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of a step, then delete those beyond the ``keep_last`` newest.

        Removes the completion marker first: a run that continues is not finished. Damaged checkpoints of later steps
        are deleted afterwards, because the run has gone back behind them. The file written is never deleted by its own
        call, so one good checkpoint always remains. Errors are those of ``save_checkpoint``, before anything is
        deleted, and CheckpointError for a good checkpoint of a later step, from which this run did not continue.
        """
        target = self.path(step)
        later = [other for other in self.steps() if other > step]
        for other in later:
            if self._load(other) is not None:
                raise CheckpointError(
                    f"{target}: the folder holds a good checkpoint of the later step {other}; resume from it, or "
                    "use another folder"
                )
        self._run_dir.mkdir(parents=True, exist_ok=True)
        (self._run_dir / FINISHED_FILE).unlink(missing_ok=True)
        save_checkpoint(target, state)
        earlier = [other for other in self.steps() if other < step]
        for other in later + earlier[: max(0, len(earlier) - (self._keep_last - 1))]:
            self.path(other).unlink(missing_ok=True)
        for path in self._run_dir.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)
        return target

    def latest(self) -> FoundCheckpoint | None:
        """The newest checkpoint that can be read; DamagedCheckpointWarning names each newer one that cannot.

        None where there is no checkpoint; CheckpointError where all are damaged, as starting over would be a surprise.
        """
        steps = self.steps()
        for step in reversed(steps):
            state = self._load(step, warn=True)
            if state is not None:
                return FoundCheckpoint(path=self.path(step), step=step, state=state)
        if steps:
            raise CheckpointError(
                f"{self._run_dir}: none of its {len(steps)} checkpoints can be read; delete them to start over"
            )
        return None

    def mark_finished(self, summary: Mapping[str, Any]) -> None:
        """Write ``finished.json`` with a summary of the run; ValueError for NaN and infinity, which JSON lacks."""
        text = json.dumps(dict(summary), indent=2, sort_keys=True, allow_nan=False)
        write_atomically(self._run_dir / FINISHED_FILE, f"{text}\n".encode())

    def finished(self) -> dict[str, Any] | None:
        """The summary in the completion marker; None when it is not there or not whole."""
        return read_finished(self._run_dir)

    def is_finished(self) -> bool:
        """Whether the completion marker is there and whole."""
        return self.finished() is not None

    def _load(self, step: int, *, warn: bool = False) -> dict[str, Any] | None:
        try:
            return load_checkpoint(self.path(step))
        except FileNotFoundError:
            # Pruned by the writer since the folder was listed.
            return None
        except CheckpointError as error:
            if warn:
                warnings.warn(f"{error}; the checkpoint before it is tried", DamagedCheckpointWarning, stacklevel=3)
            return None


def _plain(value: Any, *, place: str) -> Any:
    """Copy of nested plain data, without shared objects, so that equal states give equal files.

    CheckpointError where loading with ``weights_only`` would refuse what saving accepts.
    """
    if type(value) is str:
        return sys.intern(value)
    if type(value) in _PLAIN_TYPES:
        return value
    if isinstance(value, Mapping) and (type(value) in (dict, OrderedDict) or place == "state"):
        return {
            _plain(key, place=f"a key of {place}"): _plain(item, place=f"{place}[{key!r}]")
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)([_plain(item, place=f"{place}[{index}]") for index, item in enumerate(value)])
    raise CheckpointError(
        f"{place} is a {type(value).__module__}.{type(value).__qualname__}, expected a dict, list, tuple, tensor, "
        "int, float, str, bool or None"
    )
