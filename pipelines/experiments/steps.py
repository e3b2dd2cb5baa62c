"""Steps of an experiment: commands of this project, the files that they read and make, and the record of each."""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pseudo_maps import __version__
from pseudo_maps.files import spaced_files, write_atomically

if TYPE_CHECKING:
    from pipelines.datasets import Dataset


STAGES = ("proposals", "training", "evaluation", "report")


def command_line(program: str, arguments: Sequence[object]) -> str:
    """A command as a shell takes it, quoted where needed."""
    return shlex.join([program, *map(str, arguments)])


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSet:
    """A file, or those of a folder that fit a pattern."""

    path: Path
    patterns: tuple[str, ...] = ("**/*",)
    """As ``Path.glob`` takes them."""

    def files(self) -> list[Path]:
        """All that exist, sorted by path."""
        if self.path.is_dir():
            return sorted({path for one in self.patterns for path in self.path.glob(one) if path.is_file()})
        return [self.path] if self.path.exists() else []


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of an experiment."""

    name: str
    """Its heading, and its key in the record."""
    stage: str
    program: str
    arguments: tuple[str, ...]
    free: tuple[str, ...] = ()
    """Further arguments, on which the results do not depend."""
    on_device: bool = False
    """Whether the command takes ``--device`` from whatever runs the step."""
    makes: FileSet
    reads: tuple[FileSet, ...] = ()
    """Results of other steps that it reads; files that its arguments name are added."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the results depend on, as JSON values; by default the arguments."""
    log: Path | None = None
    """File for its output; by default that goes where this program's goes."""
    prepare: Callable[[], None] | None = None
    """Called right before the command."""

    @property
    def line(self) -> str:
        """The command as it can be typed."""
        return command_line(self.program, (*self.arguments, *self.free))

    @property
    def decisive(self) -> dict[str, Any]:
        """``settings``, or the command without its free arguments, as the record gives them back."""
        values = self.settings or {"arguments": command_line(self.program, self.arguments)}
        return {**json.loads(json.dumps(values))}

    def on(self, device: str | None) -> Self:
        """The step on a device, if it uses one."""
        return replace(self, free=(*self.free, "--device", device)) if self.on_device and device else self

    def input_state(self, data: "DataIdentity") -> str:
        """Digest of everything that the step reads now."""
        # What it makes is named too, but not read.
        named = [Path(one) for one in self.arguments if one != str(self.makes.path)]
        files = [FileSet(path=path) for path in named if path.is_file()]
        return files_state([*self.reads, *files], further=data.read_by(self))


def files_state(sets: Iterable[FileSet], *, further: str = "") -> str:
    """Digest of the names, sizes and times of all files, and of ``further``."""
    digest = hashlib.sha256(further.encode(errors="surrogateescape"))
    for one in sets:
        digest.update(f"\0{one.path}\0".encode(errors="surrogateescape"))
        for path in one.files():
            state = path.stat()
            digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


class DataIdentity:
    """Digests of the lists of a data set and of its files' sizes and times: whether it is what a step has read."""

    def __init__(self, train: "Dataset", val: "Dataset") -> None:
        self._train, self._val = train, val

    def read_by(self, step: Step) -> str:
        """Digest of images (names, classes; of a thousand, bytes and times), for evaluations of val's boxes too."""
        return f"{self._images} {self._boxes}" if step.stage == "evaluation" else self._images

    @cached_property
    def _images(self) -> str:
        digest = hashlib.sha256()
        for dataset in (self._train, self._val):
            digest.update(f"{dataset.layout}\0{dataset.class_wnids}\0".encode(errors="surrogateescape"))
            for record in dataset.records:
                text = f"{record.image_id}\0{record.path}\0{record.label}\0"
                digest.update(text.encode(errors="surrogateescape"))
            for state in spaced_files([dataset.root / record.path for record in dataset.records]):
                digest.update(f"{state.st_size}\0{state.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    @cached_property
    def _boxes(self) -> str:
        # Imported here: it takes half a second, which a mistake in the file need not wait for.
        from pipelines.datasets import DatasetError
        from pipelines.jobs.evaluation_set import load_evaluation_set

        try:
            boxes = str(load_evaluation_set(self._val, need_boxes=False).config())
        except (DatasetError, OSError) as error:
            # The evaluation reports it.
            boxes = str(error)
        return hashlib.sha256(boxes.encode(errors="surrogateescape")).hexdigest()


class StepRecord:
    """Which steps are finished: a JSON file beside the results.

    A step is finished while its settings are the same and no file that it read or made has changed since, by name,
    size and time. In any doubt it is not, and the command finds out itself. A damaged file is an empty record; after
    an update of this package it holds settings alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._steps = _read(path)

    def settings(self, name: str) -> dict[str, Any] | None:
        """Settings that the results of a step were begun with; None where they are not known."""
        return self._steps.get(name, {}).get("settings")

    def failure(self, name: str) -> str | None:
        """Why the step failed when it ran last; None when it did not fail."""
        return self._steps.get(name, {}).get("failure")

    def is_finished(self, step: Step, *, input_state: str) -> bool:
        """Whether this very step has ended well and nothing has changed since."""
        return self._steps.get(step.name) == {
            "settings": step.decisive,
            "input": input_state,
            "output": files_state([step.makes]),
        }

    def begin(self, step: Step) -> None:
        """Note the settings of a step before it runs; results that exist keep what is known of theirs."""
        if not step.makes.files():
            self._write(step.name, {"settings": step.decisive})
        elif self.failure(step.name):
            self._write(step.name, {"settings": self.settings(step.name)})

    def fail(self, step: Step, reason: str) -> None:
        """Note why a step failed, unless it was refused because its results are of other settings."""
        if self.settings(step.name) == step.decisive:
            self._write(step.name, {"settings": step.decisive, "failure": reason})

    def finish(self, step: Step, *, input_state: str) -> None:
        """Note that a step has ended well; ``input_state`` is from before it ran."""
        self._write(step.name, {"settings": step.decisive, "input": input_state, "output": files_state([step.makes])})

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        self._steps[name] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"version": __version__, "steps": self._steps}, indent=1)
        write_atomically(self.path, f"{text}\n".encode())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        steps = {str(name): dict(step) for name, step in found["steps"].items()}
        if found["version"] != __version__:
            steps = {name: {"settings": step.get("settings")} for name, step in steps.items()}
        return steps
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Steps that run one after the other, with their record."""

    name: str
    steps: tuple[Step, ...]
    record: StepRecord

    def is_finished(self, data: DataIdentity) -> bool:
        """Whether every step is finished."""
        return all(self.record.is_finished(step, input_state=step.input_state(data)) for step in self.steps)
