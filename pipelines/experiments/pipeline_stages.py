"""Turns the settings of a pipeline file into commands, in order, and runs those that are wanted.

Every command finds out itself what of its work is done: nothing is made twice, a stage that was stopped goes on, and
one that was made with other settings is refused with the settings that differ. What the folders of the results hold
says how far a pipeline is. A record beside them only spares the question where nothing has changed.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.eval_cli import main as wsol_eval
from pipelines.experiments.finished_steps import FileSet, FinishedSteps, files_state, named_files
from pipelines.experiments.pipeline_file import EVALUATION, MAPS_NAME, PROPOSALS, TRAINING, PipelineFile
from pipelines.experiments.pipeline_options import OptionKeys
from pipelines.experiments.steps import StepFailed, StepRunner, command_line

if TYPE_CHECKING:
    from pipelines.datasets import Dataset

__all__ = ["STAGES", "DataIdentity", "Step", "pipeline_steps", "run_steps", "wanted_steps"]

STAGES = ("proposals", "training", "evaluation", "report")
"""Names of the stages; ``--until`` and ``--only`` take them."""
REPORT_FILE = "report.html"
RECORD_FILE = "finished-steps.json"
"""Record of what is finished; without it every command is asked."""
_LOOKS_AGAIN = "--retry-failed"
"""Option of a command that has something to do when images have changed, which no record knows."""
_MAP_EVALUATION = OptionKeys(wsol_eval.commands["maps"], program="wsol-eval maps", barred=EVALUATION.barred)
"""What of [evaluation] also means something for maps without a network."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a pipeline."""

    stage: str
    """One of ``STAGES``."""
    what: str
    """What is done, in words."""
    program: str
    """``wsol-prep``, ``wsol-train`` or ``wsol-eval``."""
    words: tuple[str, ...]
    """Its words."""
    makes: Path
    """Folder or file of its results."""
    patterns: tuple[str, ...] = ("**/*",)
    """Which files of that folder are its results."""
    reads: tuple[FileSet, ...] = ()
    """Results of other steps that it reads."""

    @property
    def results(self) -> FileSet:
        """The files that it makes."""
        return FileSet(path=self.makes, patterns=self.patterns)

    @property
    def line(self) -> str:
        """The command as it can be typed."""
        return command_line(self.program, self.words)


def pipeline_steps(pipeline: PipelineFile) -> list[Step]:
    """All commands of a pipeline, in order.

    The maps are scored before any training, and each run is evaluated when it is trained: data without boxes, or an
    evaluation of other settings than the one that is there, ends the pipeline before days of training, not after.
    """
    steps = [_proposals(pipeline, split=split) for split in ("train", "val")]
    steps.append(_map_evaluation(pipeline))
    for name in pipeline.runs:
        steps += [_training(pipeline, name=name), _evaluation(pipeline, name=name)]
    return [*steps, _report(pipeline)]


class DataIdentity:
    """Tells by digests whether a data set is still the one that the commands have read; pixels are not looked at.

    Parameters
    ----------
    train, val
        Its splits.
    """

    def __init__(self, train: "Dataset", val: "Dataset") -> None:
        self._train, self._val = train, val

    def read_by(self, step: Step) -> str:
        """Digest of what a step reads of it: names and classes of the images, and for evaluations the boxes of val."""
        return f"{self._images} {self._boxes}" if step.stage == "evaluation" else self._images

    @cached_property
    def _images(self) -> str:
        digest = hashlib.sha256()
        for dataset in (self._train, self._val):
            digest.update(f"{dataset.layout}\0{dataset.class_wnids}\0".encode(errors="surrogateescape"))
            for record in dataset.records:
                text = f"{record.image_id}\0{record.path}\0{record.label}\0"
                digest.update(text.encode(errors="surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def _boxes(self) -> str:
        # Imported here: it takes half a second, which a mistake in the file need not wait for.
        from pipelines.datasets import DatasetError
        from pipelines.jobs.evaluation_set import load_evaluation_set

        try:
            boxes = str(load_evaluation_set(self._val, need_boxes=False).config())
        except (DatasetError, OSError) as error:
            # The evaluation tells of it itself.
            boxes = str(error)
        return hashlib.sha256(boxes.encode(errors="surrogateescape")).hexdigest()


def _proposals(pipeline: PipelineFile, *, split: str) -> Step:
    makes = _maps(pipeline)
    # The task is said: inside an array of SLURM tasks the command would take a share of the shards by itself.
    fixed = ["proposals", *_data(pipeline), "--split", split, "--out", str(makes), "--task-index", "0", "--task-count"]
    words = (*fixed, "1", *PROPOSALS.words(pipeline.proposals, folder=pipeline.folder))
    return Step(
        stage="proposals",
        what=f"maps of {split}",
        program="wsol-prep",
        words=words,
        makes=makes,
        patterns=_patterns_of(split),
    )


def _map_evaluation(pipeline: PipelineFile) -> Step:
    # wsol-eval run uses all cores by default, wsol-eval maps one; in a file they are one setting.
    settings = {"jobs": EVALUATION.default("jobs"), **pipeline.evaluation}
    about_maps = {key: value for key, value in settings.items() if key in _MAP_EVALUATION.options}
    makes = _results(pipeline, MAPS_NAME)
    fixed = ["maps", str(_maps(pipeline)), *_data(pipeline), "--out", str(makes)]
    words = (*fixed, *_MAP_EVALUATION.words(about_maps, folder=pipeline.folder))
    return Step(
        stage="evaluation",
        what="evaluation of the maps",
        program="wsol-eval",
        words=words,
        makes=makes,
        reads=(FileSet(path=_maps(pipeline), patterns=_patterns_of("val")),),
    )


def _training(pipeline: PipelineFile, *, name: str) -> Step:
    makes = _run(pipeline, name)
    fixed = [*_data(pipeline), "--maps", str(_maps(pipeline)), "--out", str(makes), "--resume"]
    words = (*fixed, *TRAINING.words(pipeline.runs[name], folder=pipeline.folder))
    return Step(
        stage="training",
        what=f"training of {name}",
        program="wsol-train",
        words=words,
        makes=makes,
        reads=(FileSet(path=_maps(pipeline), patterns=_patterns_of("train")),),
    )


def _evaluation(pipeline: PipelineFile, *, name: str) -> Step:
    makes = _results(pipeline, name)
    fixed = ["run", str(_run(pipeline, name)), *_data(pipeline), "--out", str(makes)]
    words = (*fixed, *EVALUATION.words(pipeline.evaluation, folder=pipeline.folder))
    return Step(
        stage="evaluation",
        what=f"evaluation of {name}",
        program="wsol-eval",
        words=words,
        makes=makes,
        reads=(FileSet(path=_run(pipeline, name)),),
    )


def _report(pipeline: PipelineFile) -> Step:
    results = [_results(pipeline, name) for name in (*pipeline.runs, MAPS_NAME)]
    runs = [_run(pipeline, name) for name in pipeline.runs]
    makes = pipeline.out / REPORT_FILE
    trained = [word for run in runs for word in ("--training", str(run))]
    return Step(
        stage="report",
        what="report",
        program="wsol-eval",
        words=("report", *map(str, results), "--out", str(makes), *trained),
        makes=makes,
        reads=tuple(FileSet(path=path) for path in (*results, *runs)),
    )


def _patterns_of(split: str) -> tuple[str, ...]:
    """The shards of a split and what belongs to them; the logs, of which each call writes one, are not results."""
    return (f"{split}-*", f"{split}.*")


def _data(pipeline: PipelineFile) -> list[str]:
    return ["--data", str(pipeline.data), *(["--layout", pipeline.layout] if pipeline.layout else [])]


def _maps(pipeline: PipelineFile) -> Path:
    return pipeline.out / "maps"


def _run(pipeline: PipelineFile, name: str) -> Path:
    return pipeline.out / "runs" / name


def _results(pipeline: PipelineFile, name: str) -> Path:
    return pipeline.out / "evaluation" / name


def wanted_steps(steps: Iterable[Step], *, until: str | None = None, only: str | None = None) -> list[Step]:
    """The steps up to the end of stage ``until``, or those of stage ``only``; all without either."""
    last = STAGES.index(until) if until else len(STAGES) - 1
    return [step for step in steps if (step.stage == only if only else STAGES.index(step.stage) <= last)]


def run_steps(steps: Sequence[Step], *, file: Path, out: Path, data: DataIdentity, debug: bool = False) -> None:
    """Run the steps one after the other, in the main thread, and say what is where.

    Parameters
    ----------
    steps
        Those of ``wanted_steps``.
    file
        The pipeline file, for messages.
    out
        Folder of all results, which holds the record of what is finished.
    data
        The data set that the steps read.
    debug
        Give every command ``--debug``.

    Raises
    ------
    StepFailed
        A step failed; those after it are not begun.
    SystemExit
        A step was told to stop.
    """
    record = FinishedSteps(out / RECORD_FILE)
    with StepRunner(debug=debug) as runner:
        for number, step in enumerate(steps, start=1):
            heading = f"[{number}/{len(steps)}] {step.what}"
            # What it makes is named too, but not read.
            named = named_files([word for word in step.words if word != str(step.makes)])
            reads = files_state([*step.reads, *named], further=data.read_by(step))
            is_kept = record.is_finished(step.what, line=step.line, reads=reads, makes=files_state([step.results]))
            if is_kept and _LOOKS_AGAIN not in step.words:
                click.echo(f"{heading}: finished before, kept")
                continue
            click.secho(f"\n{heading}", bold=True)
            click.echo(f"$ {step.line}")
            is_new = not step.results.files()
            record.begin(step.what, line=step.line, is_new=is_new)
            try:
                runner.run(step.program, step.words)
            except StepFailed as error:
                changed = "" if is_new else _about_settings(step, begun_with=record.line(step.what))
                raise StepFailed(
                    f"{file}: {step.what}: {error}. The same command goes on from here{changed}",
                    exit_code=error.exit_code,
                ) from None
            record.finish(step.what, line=step.line, reads=reads, makes=files_state([step.results]))
    click.secho("\nDone. What was made:", bold=True)
    for path in dict.fromkeys(step.makes for step in steps):
        click.echo(f"  {path}")


def _about_settings(step: Step, *, begun_with: str | None) -> str:
    """What to do about results of other settings, where the step was begun with another line than now."""
    if begun_with == step.line:
        return ""
    was = "may have been" if begun_with is None else "was"
    return (
        f". {step.makes} {was} begun with other words than these: if the message above refuses that, choose another "
        "out in the file, or remove that folder"
    )
