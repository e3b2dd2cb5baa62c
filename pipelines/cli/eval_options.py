"""Options of ``wsol-eval run``, ``maps``, ``baseline`` (pipeline files and tables pass them on) and ``predict``."""

import re
from typing import get_args

import click

from evaluation.names import BASELINES, BOX_CHOICES, PROTOCOL_NAMES
from pipelines.cli.options import (
    DATA_OPTION,
    EXISTING,
    EXISTING_FILE,
    EXISTING_FOLDER,
    LAYOUT_OPTION,
    NEW_FOLDER,
    NewFile,
    Option,
)
from pipelines.datasets import SPLITS
from training.config import Precision
from training.inference.config import LOCALIZERS

PRECISION_NAMES = ("auto", *get_args(Precision))

DEVICE_OPTION = Option(
    "--device",
    default="auto",
    decides=False,
    help="auto (all GPUs, else the CPU), cpu, cuda:N, or several joined by commas.",
)


def _localizer_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and (value in BASELINES or not re.fullmatch(r"[A-Za-z0-9]+([-_.+*][A-Za-z0-9]+)*", value)):
        raise click.BadParameter(
            f"{value!r}: expected letters and digits, joined by - _ . + *, and no baseline ({', '.join(BASELINES)})"
        )
    return value


_SHARED = (
    DATA_OPTION,
    LAYOUT_OPTION,
    Option("--split", type=click.Choice(SPLITS), default="val", help="Split of the data set."),
    Option(
        "--protocol",
        "protocols",
        multiple=True,
        type=click.Choice(PROTOCOL_NAMES),
        help="Evaluation protocol; may be given several times.  [default: all]",
    ),
    Option("--boxes", type=click.Choice(BOX_CHOICES), default="all", help="Ground-truth boxes of an image that count."),
    Option(
        "--blacklist",
        type=EXISTING_FILE,
        help="File of images to leave out, by id or number, as in the ILSVRC devkit.",
    ),
    Option("--limit", type=click.IntRange(min=1), help="Only the first images of the split."),
    Option(
        "--threshold-from",
        type=EXISTING,
        metavar="EVALUATION",
        help="Evaluation of another split; wsoleval-* use its best thresholds instead of the best on these images.",
    ),
    Option("--name", help="Name in tables and reports.  [default: the name of --out, else of what is scored]"),
    Option(
        "--bootstrap-samples",
        type=click.IntRange(min=0),
        default=1000,
        help="Bootstrap resamples for the 95 % confidence intervals; 0 for no intervals.",
    ),
    Option("--seed", type=click.IntRange(min=0), default=0, help="Random seed of the bootstrap resamples."),
)
_OUT = Option("--out", type=NEW_FOLDER, help="Folder of the results.  [default: print only]")
_JOBS = Option(
    "--jobs", type=int, default=1, decides=False, help="Processes that compute and score boxes; -1 for one per core."
)
_PANELS = Option("--panels", type=click.IntRange(min=0), default=8, help="Number of example images in panels/.")
_MASKS = Option(
    "--masks",
    type=EXISTING_FOLDER,
    help="Folder of masks, for PxAP: <image id>.png (0 background, 255 object, 128 ignored), or the files listed in "
    "the data's localization.txt.",
)

MAP_RANGE_OPTION = Option(
    "--map-range",
    type=click.Choice(("as-is", "min-max")),
    default="as-is",
    help="Values of a map: as they are, or stretched from minimum and maximum to 0 and 1.",
)
_BATCH_SIZE = Option("--batch-size", type=click.IntRange(min=1), default=64, help="Images per forward pass.")
_WORKERS = Option(
    "--workers", type=click.IntRange(min=0), default=2, decides=False, help="Processes that decode images, per device."
)

BASELINE_OPTIONS = (*_SHARED, _OUT, _JOBS)
MAPS_OPTIONS = (
    *BASELINE_OPTIONS,
    _MASKS,
    MAP_RANGE_OPTION,
    Option(
        "--localizer",
        metavar="NAME",
        callback=_localizer_name,
        help="Name of the maps in tables and files.  [default: that of the shards, else pseudo-map]",
    ),
    Option(
        "--scores",
        type=EXISTING_FILE,
        help="File (.csv, .npy) of class scores or the five best classes, for Top-1 and Top-5 Loc and Class.",
    ),
    _PANELS,
)
RUN_OPTIONS = (
    *_SHARED,
    Option("--out", type=NEW_FOLDER, help="Folder of the results.  [default: evaluation, in the folder of the run]"),
    Option(
        "--jobs",
        type=int,
        default=-1,
        decides=False,
        help="Processes that compute and score boxes, shared among the devices; -1 for one per core.",
    ),
    Option(
        "--localizer",
        "localizers",
        multiple=True,
        type=click.Choice(tuple(LOCALIZERS)),
        help="Map that boxes are taken from; may be given several times.  [default: all but grad-cam]",
    ),
    _MASKS,
    Option(
        "--scale",
        "scales",
        multiple=True,
        type=float,
        help="Scale of the input; may be given several times, and the maps are averaged.  [default: 1]",
    ),
    Option("--flip", is_flag=True, help="Also average over mirror images."),
    Option("--ten-crop", is_flag=True, help="Average over ten crops instead of the whole image, as cam-release does."),
    Option("--precision", type=click.Choice(PRECISION_NAMES), default="auto", help="Precision; auto: bf16 on CUDA."),
    DEVICE_OPTION,
    _BATCH_SIZE,
    _WORKERS,
    Option("--save-maps", is_flag=True, help="Store the score maps as uint8 HDF5 shards."),
    _PANELS,
)
PREDICT_OPTIONS = (
    Option("--out", default="predictions", type=NEW_FOLDER, help="Folder of overlays, maps and predictions.json."),
    Option("--localizer", type=click.Choice(tuple(LOCALIZERS)), default="cam", help="Map that the box is taken from."),
    Option(
        "--protocol",
        type=click.Choice(("cam", "cam-release", "wsoleval-v1", "ts-cam")),
        default="cam",
        help="How the box is cut from the map; wsoleval-v1 needs --threshold.",
    ),
    Option(
        "--threshold",
        type=click.FloatRange(min=0, max=1, max_open=True),
        help="Fraction of the map's maximum above which pixels are object.  [default: the protocol's]",
    ),
    Option("--class", "label", help="Class to localize: its index, wnid or name.  [default: predicted]"),
    Option(
        "--class-names",
        type=EXISTING_FILE,
        help="File with one class name per line, in label order.  [default: the names in the checkpoint]",
    ),
    Option("--overlays/--no-overlays", default=True, help="Draw map, box, class and score on each image."),
    Option(
        "--save-maps",
        type=click.Choice(("npy", "png")),
        help="Store maps: the network's scores (float32), or heat maps at the size of the image (8 bit).",
    ),
    Option("--csv", type=NewFile(".csv"), help="CSV file of boxes to write, one row per image.  [default: none]"),
    DEVICE_OPTION,
    _BATCH_SIZE,
    _WORKERS,
    Option("--jobs", type=int, default=-1, decides=False, help="Processes that draw; -1 for one per core."),
)
