"""The steps of a pipeline file, in order.

Every command finds out itself what of its work is done: nothing is made twice, a stage that was interrupted is
resumed, and one that was made with other settings is refused with the settings that differ.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from pipelines.cli.eval_options import MAPS_OPTIONS
from pipelines.experiments.pipeline_file import EVALUATION, MAPS_NAME, PROPOSALS, TRAINING, PipelineFile
from pipelines.experiments.pipeline_options import OptionKeys
from pipelines.experiments.steps import STAGES, FileSet, Step

RECORD_FILE = "finished-steps.json"
"""Record of what is finished; without it every command is asked."""
_MAP_EVALUATION = OptionKeys(MAPS_OPTIONS, program="wsol-eval maps", reserved=EVALUATION.reserved)
"""What of [evaluation] also means something for maps without a network."""


def pipeline_steps(pipeline: PipelineFile) -> list[Step]:
    """All steps of a pipeline, in order.

    The maps are scored before any training, and each run is evaluated when it is trained: boxes that do not fit, or an
    evaluation of other settings than the existing one, end the pipeline before days of training, not after. Data
    without boxes end in a report of accuracy, curves and pictures with predicted boxes.
    """
    maps, folder = pipeline.out / "maps", pipeline.folder
    data = ("--data", str(pipeline.data), *(("--layout", pipeline.layout) if pipeline.layout else ()))
    steps = []
    for split in ("train", "val"):
        # Inside an array of SLURM tasks the command would take a share of the shards by itself.
        task = ("--task-index", "0", "--task-count", "1")
        more = (*task, *PROPOSALS.arguments(pipeline.proposals, folder=folder))
        steps.append(proposals_step(split=split, maps=maps, data=data, more=more))
    # wsol-eval run uses all cores by default, wsol-eval maps one; in a file they are one setting.
    of_maps = {"jobs": EVALUATION.default("jobs"), **pipeline.evaluation}
    of_maps = {key: value for key, value in of_maps.items() if key in _MAP_EVALUATION.options}
    results = {name: pipeline.out / "evaluation" / name for name in (*pipeline.runs, MAPS_NAME)}
    steps.append(
        evaluation_step(
            name="evaluation of the maps",
            command=("maps", str(maps), *data),
            out=results[MAPS_NAME],
            more=tuple(_MAP_EVALUATION.arguments(of_maps, folder=folder)),
            reads=shards_of(maps, "val"),
        )
    )
    runs = {name: pipeline.out / "runs" / name for name in pipeline.runs}
    for name, run in runs.items():
        own = TRAINING.arguments(pipeline.runs[name], folder=folder)
        steps += [
            Step(
                name=f"training of {name}",
                stage="training",
                program="wsol-train",
                arguments=(*data, "--maps", str(maps), "--out", str(run), "--resume", *own),
                makes=FileSet(path=run),
                reads=(shards_of(maps, "train"),),
            ),
            evaluation_step(
                name=f"evaluation of {name}",
                command=("run", str(run), *data),
                out=results[name],
                more=tuple(EVALUATION.arguments(pipeline.evaluation, folder=folder)),
                reads=FileSet(path=run),
            ),
        ]
    return [*steps, report_step(results.values(), runs.values(), report=pipeline.out / "report.html")]


def proposals_step(*, split: str, maps: Path, data: tuple[str, ...], more: tuple[str, ...]) -> Step:
    """Make the maps of a split; ``data`` and ``more`` are arguments."""
    return Step(
        name=f"maps of {split}",
        stage="proposals",
        program="wsol-prep",
        arguments=("proposals", *data, "--split", split, "--out", str(maps), *more),
        makes=shards_of(maps, split),
    )


def evaluation_step(
    *, name: str, command: tuple[str, ...], out: Path, more: tuple[str, ...], reads: FileSet | None
) -> Step:
    """Score a network, maps or the baselines; ``command`` and ``more`` are arguments."""
    return Step(
        name=name,
        stage="evaluation",
        program="wsol-eval",
        arguments=(*command, "--out", str(out), *more),
        makes=FileSet(path=out),
        reads=() if reads is None else (reads,),
    )


def report_step(
    results: Iterable[Path],
    runs: Iterable[Path],
    *,
    report: Path,
    more: tuple[str, ...] = (),
    prepare: Callable[[], None] | None = None,
) -> Step:
    """Write the report of evaluations, with the training curves of runs."""
    results, runs = [*results], [*runs]
    training = [argument for run in runs for argument in ("--training", str(run))]
    return Step(
        name="report",
        stage="report",
        program="wsol-eval",
        arguments=("report", *map(str, results), "--out", str(report), *training, *more),
        makes=FileSet(path=report),
        reads=tuple(FileSet(path=path) for path in (*results, *runs)),
        prepare=prepare,
    )


def shards_of(maps: Path, split: str) -> FileSet:
    """The shards of a split and what belongs to them, without the logs, of which each run writes one."""
    return FileSet(path=maps, patterns=(f"{split}-*", f"{split}.*"))


def wanted_steps(steps: Iterable[Step], *, until: str | None = None, only: str | None = None) -> list[Step]:
    """The steps up to the end of stage ``until``, or those of stage ``only``; all without either."""
    last = STAGES.index(until) if until else len(STAGES) - 1
    return [step for step in steps if (step.stage == only if only else STAGES.index(step.stage) <= last)]
