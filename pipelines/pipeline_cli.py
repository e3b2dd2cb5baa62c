"""Turns the words of ``wsol-pipeline`` into calls: the demo, the table, a pipeline from one file. Imports late."""

from pathlib import Path

import click

from pipelines.cli.terminal import CONTEXT_SETTINGS, CommandGroup, common_options, ending_on_signals, wants_debug
from pipelines.experiments.paper_table.cli import table

__all__ = ["main"]

# Spelled out because its module loads all other command lines; a test compares.
STAGE_NAMES = ("proposals", "training", "evaluation", "report")


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@common_options
def main() -> None:
    """Run several steps of the system, one after the other."""


main.add_command(table)


@main.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    help="Folder for everything that is made.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=2, help="Processes that make maps.")
@common_options
def demo(out: Path, jobs: int) -> None:
    """Show the whole way on generated images: maps, two trained networks, their scores, one report page.

    No download, no GPU, about four minutes on two cores. The same command goes on where it was stopped.
    """
    from pipelines.experiments.demo import run_demo

    with ending_on_signals():
        run_demo(out, jobs=jobs, debug=wants_debug())


@main.command(context_settings=CONTEXT_SETTINGS)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--until", type=click.Choice(STAGE_NAMES), help="Stop after this stage.")
@click.option("--only", type=click.Choice(STAGE_NAMES), help="Only this stage, from what the others have made.")
@click.option("--dry-run", is_flag=True, help="Check the file, print the commands and stop.")
@common_options
def run(file: Path, until: str | None, only: str | None, dry_run: bool) -> None:
    """Run the pipeline of a TOML FILE: maps, trainings, evaluations, report.

    What is finished is kept, and a pipeline that was stopped goes on when the same command is given again. A stage
    that was made with other settings is refused, and the settings that differ are named.
    """
    from pipelines.experiments.pipeline_file import check_inputs, read_pipeline_file
    from pipelines.experiments.pipeline_stages import DataIdentity, pipeline_steps, run_steps, wanted_steps

    if until and only:
        raise click.UsageError("--until and --only exclude each other")
    pipeline = read_pipeline_file(file)
    train, val = check_inputs(pipeline)
    steps = wanted_steps(pipeline_steps(pipeline), until=until, only=only)
    if dry_run:
        for step in steps:
            click.echo(step.line)
        return
    with ending_on_signals():
        run_steps(steps, file=file, out=pipeline.out, data=DataIdentity(train, val), debug=wants_debug())


@main.command(context_settings=CONTEXT_SETTINGS)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@common_options
def init(file: Path) -> None:
    """Write an example of a pipeline FILE: every key with its meaning and its default."""
    from pipelines.experiments.pipeline_example import example_file

    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(example_file())
    except FileExistsError:
        raise FileExistsError(f"{file}: exists already, and is left as it is; name another file") from None
    click.echo(f"{file}: set root and out, then: wsol-pipeline run {file}")
