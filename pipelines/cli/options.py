"""Names what every command that reads a data set, or shares its work in an array of tasks, is told about it."""

import os
from pathlib import Path

import click

__all__ = [
    "LAYOUT_NAMES",
    "SPLIT_NAMES",
    "data_option",
    "layout_option",
    "task_count_option",
    "task_index_option",
    "task_share",
]

# Spelled out because importing what defines them loads OpenCV, which --help and every typing error would cost; a
# test compares them with the definitions.
SPLIT_NAMES = ("train", "val", "test")
LAYOUT_NAMES = ("auto", "clsloc", "imagenet", "imagefolder", "wsoleval")

data_option = click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Root of the data set: Kaggle CLS-LOC tree, ImageNet folder, any image folder, wsolevaluation metadata.",
)
layout_option = click.option(
    "--layout", type=click.Choice(LAYOUT_NAMES), default="auto", help="Layout of the data set."
)
task_index_option = click.option(
    "--task-index", type=int, help="This task of an array of tasks.  [default: SLURM's, else 0]"
)
task_count_option = click.option(
    "--task-count", type=int, help="Number of tasks in the array.  [default: SLURM's, else 1]"
)


def task_share(*, task_index: int | None, task_count: int | None) -> tuple[int, int]:
    """Index and count of this task, by the two options or by SLURM's variables.

    Raises
    ------
    click.UsageError
        The options do not fit each other.
    ValueError
        SLURM's variables do not: nothing that was typed is wrong.
    """
    from pseudo_maps.runs.array_tasks import array_share

    try:
        return array_share(task_index=task_index, task_count=task_count, environment=os.environ)
    except ValueError as error:
        if task_index is None and task_count is None:
            raise
        raise click.UsageError(str(error)) from None
