"""Names what every command that reads a data set is told about it."""

from pathlib import Path

import click

__all__ = ["LAYOUT_NAMES", "SPLIT_NAMES", "data_option", "layout_option"]

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
