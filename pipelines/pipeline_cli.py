"""The command ``wsol-pipeline``: the demo, the paper's tables, a pipeline from one file. Imports late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evaluation.names import PROTOCOL_NAMES
from pipelines.cli.options import (
    DATA_OPTION,
    EXISTING_FILE,
    EXISTING_FOLDER,
    LAYOUT_OPTION,
    NEW_FOLDER,
    TASK_OPTIONS,
    ChoiceOrPrefixed,
    NewFile,
    Option,
    as_usage_error,
    given_names,
    task_share,
)
from pipelines.cli.terminal import CONTEXT_SETTINGS, CommandGroup, common_options, ending_on_signals, wants_debug
from pipelines.experiments.paper_table.options import EVALUATION_OPTIONS, TRAINING_OPTIONS
from pipelines.experiments.paper_table.rows import ROWS
from pipelines.experiments.steps import STAGES
from training.networks.registry import ARCHITECTURES, TIMM_PREFIX

if TYPE_CHECKING:
    from pipelines.experiments.paper_table.plan import TablePlan


PAPER_ARCHS = ("alexnet-gap", "googlenet-gap")
DEFAULT_SEEDS = (0, 1, 2)
DEFAULT_PROTOCOLS = ("cam", "wsoleval-v1")


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@common_options
def main() -> None:
    """Run all steps with one command: of the demo, of a pipeline file, or of the paper's tables."""


@main.command(context_settings=CONTEXT_SETTINGS)
@click.option("--out", type=NEW_FOLDER, default=Path("demo"), help="Folder for all files.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, help="Processes that make maps.")
@common_options
def demo(out: Path, jobs: int) -> None:
    """Run all steps on generated images: maps, two trained networks, their scores, one report page.

    No download, no GPU, about four minutes on two cores. After an interruption the same command resumes.
    """
    from pipelines.experiments.demo import run_demo

    with ending_on_signals():
        run_demo(out, jobs=jobs, debug=wants_debug())


@main.command(context_settings=CONTEXT_SETTINGS)
@click.argument("file", type=EXISTING_FILE)
@click.option("--until", type=click.Choice(STAGES), help="Stop after this stage.")
@click.option("--only", type=click.Choice(STAGES), help="Only this stage, on the results of the others.")
@click.option("--dry-run", is_flag=True, help="Check the file, print the commands and stop.")
@common_options
def run(file: Path, until: str | None, only: str | None, dry_run: bool) -> None:
    """Run the pipeline in a TOML FILE: maps, trainings, evaluations, report.

    Finished stages are kept, and the same command resumes an interrupted pipeline. Results of other settings are
    refused, with the settings that differ.
    """
    from pipelines.experiments.pipeline_file import check_inputs, read_pipeline_file
    from pipelines.experiments.pipeline_plan import RECORD_FILE, pipeline_steps, wanted_steps
    from pipelines.experiments.runner import StepRunner, run_chain
    from pipelines.experiments.steps import Chain, DataIdentity, StepRecord

    if until and only:
        raise click.UsageError("--until and --only cannot be combined")
    pipeline = read_pipeline_file(file)
    data = DataIdentity(*check_inputs(pipeline))
    steps = tuple(wanted_steps(pipeline_steps(pipeline), until=until, only=only))
    if dry_run:
        for step in steps:
            click.echo(step.line)
        return
    chain = Chain(name=str(file), steps=steps, record=StepRecord(pipeline.out / RECORD_FILE))
    with ending_on_signals(), StepRunner(debug=wants_debug()) as runner:
        run_chain(chain, runner=runner, data=data)
    click.secho("\nDone. What was made:", bold=True)
    for path in dict.fromkeys(step.makes.path for step in steps):
        click.echo(f"  {path}")


@main.command(context_settings=CONTEXT_SETTINGS)
@click.argument("file", type=NewFile())
@common_options
def init(file: Path) -> None:
    """Write an example of a pipeline FILE, with every key, its meaning and its default."""
    from pipelines.experiments.pipeline_example import example_file

    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(example_file())
    except FileExistsError:
        raise FileExistsError(f"{file}: exists already and was left unchanged; name another file") from None
    click.echo(f"{file}: set root and out, then: wsol-pipeline run {file}")


def _list_option(name: str, convert: Callable[..., Any], *, default: Sequence[object], text: str) -> Option:
    """An option of values joined by commas, that may be given several times; its value has each of them once."""

    def separate(context: click.Context, option: click.Parameter, uses: tuple[str, ...]) -> tuple[Any, ...]:
        values = [value.strip() for use in uses for value in use.split(",") if value.strip()]
        if not values:
            raise click.BadParameter("expected at least one, found none", ctx=context, param=option)
        return tuple(dict.fromkeys(convert(value, option, context) for value in values))

    return Option(
        name,
        multiple=True,
        default=(",".join(map(str, default)),),
        metavar="LIST",
        callback=separate,
        help=f"{text}, joined by commas or one at a time.",
    )


_TABLE_OPTIONS = [
    DATA_OPTION,
    LAYOUT_OPTION,
    Option(
        "--maps",
        required=True,
        type=EXISTING_FOLDER,
        help="Folder of the saliency maps: of train, and of val for the row of the pseudo maps.",
    ),
    Option(
        "--out",
        required=True,
        type=NEW_FOLDER,
        help="Folder of all runs (ARCH/ROW/seed-N) and of table.md, table.csv and table.html.",
    ),
    _list_option(
        "--archs", ChoiceOrPrefixed(ARCHITECTURES, TIMM_PREFIX).convert, default=PAPER_ARCHS, text="Architectures"
    ),
    _list_option("--rows", click.Choice(tuple(ROWS)).convert, default=tuple(ROWS), text="Rows of the tables"),
    _list_option("--seeds", click.IntRange(min=0).convert, default=DEFAULT_SEEDS, text="Random seeds of every row"),
    _list_option(
        "--protocol",
        click.Choice(PROTOCOL_NAMES).convert,
        default=DEFAULT_PROTOCOLS,
        text="Evaluation protocols, the main table's first",
    ),
    Option(
        "--device",
        default="auto",
        help="auto (all GPUs, else the CPU), cpu, cuda:N, or several joined by commas: one run at a time on each.",
    ),
    *TASK_OPTIONS,
    Option(
        "--only-report",
        is_flag=True,
        help="Only write the tables of the finished runs. Options that are not given are those of the runs.",
    ),
    Option("--dry-run", is_flag=True, help="Print the commands that would be run and stop."),
    *TRAINING_OPTIONS.values(),
    *(option for key, option in EVALUATION_OPTIONS.items() if key not in TRAINING_OPTIONS),
]


@main.command(context_settings=CONTEXT_SETTINGS, params=_TABLE_OPTIONS)
@common_options
def table(device: str, task_index: int | None, task_count: int | None, **options: Any) -> None:
    """Train and evaluate the rows of the paper's Tables 1 and 2, beside the paper's numbers.

    Rows: GAP, HaS, the method without either of its losses, and the method, with the same recipe and budget; and, not
    in the paper, the method with the map loss on the CAM, and that loss alone; for comparison, baselines that ignore
    the image, and the pseudo maps themselves. Options of wsol-train and wsol-eval are passed on. The same command
    resumes: finished runs are kept, others continue from their checkpoints. Settings that differ from those of the
    runs in --out are refused before anything is run or written.
    """
    only_report, dry_run = options["only_report"], options["dry_run"]
    if only_report and dry_run:
        raise click.UsageError("--only-report and --dry-run cannot be combined")
    index, count = task_share(task_index=task_index, task_count=task_count)
    given = given_names(click.get_current_context())
    from pipelines.experiments.paper_table.plan import find_runs, planned_runs
    from pipelines.experiments.paper_table.table import (
        check_folders,
        make_table,
        report_table,
        show_commands,
        table_files,
    )

    if only_report:
        found = find_runs(options["out"])
        options |= {name: value for name, value in found.items() if name not in given}
    plan = _table_plan(options, given=given)
    runs = planned_runs(plan)
    if only_report:
        report_table(plan, runs, given=[*(f"--{key}" for key in sorted(plan.given)), *({"protocol"} & given)])
        click.echo(table_files(plan.out))
        return
    from pipelines.jobs.network_maps import usable_devices

    with as_usage_error():
        devices = usable_devices(device)
    check_folders(runs)
    share = runs[index::count]
    if dry_run:
        show_commands(plan, share, devices=devices)
        return
    with ending_on_signals():
        make_table(plan, runs, share=share, devices=devices, debug=wants_debug())


def _table_plan(options: dict[str, Any], *, given: set[str]) -> TablePlan:
    from pipelines.datasets import open_dataset
    from pipelines.experiments.paper_table.plan import TablePlan

    passed_on = {**EVALUATION_OPTIONS, **TRAINING_OPTIONS}
    return TablePlan(
        data=options["data"],
        layout=options["layout"],
        train=open_dataset(options["data"], split="train", layout=options["layout"]),
        val=open_dataset(options["data"], split="val", layout=options["layout"]),
        maps=options["maps"],
        out=options["out"],
        archs=options["archs"],
        # In the paper's order, however they were given.
        rows=tuple(row for row in ROWS if row in options["rows"]),
        seeds=options["seeds"],
        protocols=options["protocol"],
        values={key: options[str(option.name)] for key, option in passed_on.items()},
        given=frozenset(key for key, option in passed_on.items() if option.name in given),
    )


if __name__ == "__main__":
    main(prog_name="wsol-pipeline")
