"""Turns the words of ``wsol-pipeline`` into calls: the demo, the tables. Imports what a command needs when it runs."""

from pathlib import Path

import click

from pipelines.ablation_cli import table
from pipelines.command_line import CONTEXT_SETTINGS, CommandGroup, common_options, wants_debug

__all__ = ["main"]


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
    help="Folder for the data set, the maps and the picture.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=2, help="Worker processes.")
@common_options
def demo(out: Path, jobs: int) -> None:
    """Show the main job on generated images: no download, a minute on two cores."""
    from pipelines.demo import run_demo

    run_demo(out, jobs=jobs, debug=wants_debug())
