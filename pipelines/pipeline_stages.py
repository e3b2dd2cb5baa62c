"""Turns the settings of a pipeline file into commands, in order, and runs those that are wanted.

Every command finds out itself what of its work is done: nothing is made twice, a stage that was stopped goes on, and
one that was made with other settings is refused with the settings that differ. Nothing but the folders of the
results says how far a pipeline is, so nothing can disagree with them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pipelines.eval_cli import main as wsol_eval
from pipelines.pipeline_file import EVALUATION, MAPS_NAME, PROPOSALS, TRAINING, PipelineFile
from pipelines.pipeline_options import OptionKeys
from pipelines.steps import StepFailed, StepRunner, command_line

__all__ = ["STAGES", "Step", "pipeline_steps", "run_steps", "wanted_steps"]

STAGES = ("proposals", "training", "evaluation", "report")
"""Names of the stages; ``--until`` and ``--only`` take them."""
REPORT_FILE = "report.html"
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
    results = [str(_results(pipeline, name)) for name in (*pipeline.runs, MAPS_NAME)]
    makes = pipeline.out / REPORT_FILE
    words = ("report", *results, "--out", str(makes))
    return [*steps, Step(stage="report", what="report", program="wsol-eval", words=words, makes=makes)]


def _proposals(pipeline: PipelineFile, *, split: str) -> Step:
    makes = _maps(pipeline)
    # The task is said: inside an array of SLURM tasks the command would take a share of the shards by itself.
    fixed = ["proposals", *_data(pipeline), "--split", split, "--out", str(makes), "--task-index", "0", "--task-count"]
    words = (*fixed, "1", *PROPOSALS.words(pipeline.proposals, folder=pipeline.folder))
    return Step(stage="proposals", what=f"maps of {split}", program="wsol-prep", words=words, makes=makes)


def _map_evaluation(pipeline: PipelineFile) -> Step:
    # wsol-eval run uses all cores by default, wsol-eval maps one; in a file they are one setting.
    settings = {"jobs": EVALUATION.default("jobs"), **pipeline.evaluation}
    about_maps = {key: value for key, value in settings.items() if key in _MAP_EVALUATION.options}
    makes = _results(pipeline, MAPS_NAME)
    fixed = ["maps", str(_maps(pipeline)), *_data(pipeline), "--out", str(makes)]
    words = (*fixed, *_MAP_EVALUATION.words(about_maps, folder=pipeline.folder))
    return Step(stage="evaluation", what="evaluation of the maps", program="wsol-eval", words=words, makes=makes)


def _training(pipeline: PipelineFile, *, name: str) -> Step:
    makes = _run(pipeline, name)
    fixed = [*_data(pipeline), "--maps", str(_maps(pipeline)), "--out", str(makes), "--resume"]
    words = (*fixed, *TRAINING.words(pipeline.runs[name], folder=pipeline.folder))
    return Step(stage="training", what=f"training of {name}", program="wsol-train", words=words, makes=makes)


def _evaluation(pipeline: PipelineFile, *, name: str) -> Step:
    makes = _results(pipeline, name)
    fixed = ["run", str(_run(pipeline, name)), *_data(pipeline), "--out", str(makes)]
    words = (*fixed, *EVALUATION.words(pipeline.evaluation, folder=pipeline.folder))
    return Step(stage="evaluation", what=f"evaluation of {name}", program="wsol-eval", words=words, makes=makes)


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


def run_steps(steps: Sequence[Step], *, file: Path, debug: bool = False) -> None:
    """Run the steps one after the other, in the main thread, and say what is where.

    Parameters
    ----------
    steps
        Those of ``wanted_steps``.
    file
        The pipeline file, for messages.
    debug
        Give every command ``--debug``.

    Raises
    ------
    StepFailed
        A step failed; those after it are not begun.
    """
    with StepRunner(debug=debug) as runner:
        for number, step in enumerate(steps, start=1):
            click.secho(f"\n[{number}/{len(steps)}] {step.what}", bold=True)
            click.echo(f"$ {step.line}")
            try:
                runner.run(step.program, step.words)
            except StepFailed as error:
                raise StepFailed(
                    f"{file}: {step.what}: {error}. The same command goes on from here; for results of other settings, "
                    f"choose another out in the file, or remove {step.makes}",
                    exit_code=error.exit_code,
                ) from None
    click.secho("\nDone. What was made:", bold=True)
    for path in dict.fromkeys(step.makes for step in steps):
        click.echo(f"  {path}")
