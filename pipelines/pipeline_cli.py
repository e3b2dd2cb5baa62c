"""Turns the words of ``wsol-pipeline`` into calls: the demo. Imports what a command needs when it runs."""

from pathlib import Path

import click

from pipelines.command_line import CONTEXT_SETTINGS, CommandGroup, common_options, wants_debug

__all__ = ["main"]


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@common_options
def main() -> None:
    """Run several steps of the system, one after the other."""


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
    from pipelines.demo import run_demo

    run_demo(out, jobs=jobs, debug=wants_debug())
