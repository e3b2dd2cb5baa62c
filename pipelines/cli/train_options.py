"""Options of ``wsol-train``, made from the fields of its configurations; pipeline files and tables pass them on."""

from collections.abc import Mapping
from typing import Any, get_args

import click

from pipelines.cli.options import (
    DATA_OPTION,
    EXISTING_FOLDER,
    LAYOUT_OPTION,
    NEW_FOLDER,
    FileOrName,
    Option,
    field_options,
)
from training.config import NAMED_WEIGHTS, RECIPES, OnMissing, Precision, TrainConfig, TrainRunConfig

_OF_RECIPE: Mapping[str, Any] = {"default": None, "default_text": "the recipe's"}
_CHANGES: Mapping[str, Mapping[str, Any] | None] = {
    "seed": {"min": 0},
    "init": {"type": FileOrName(NAMED_WEIGHTS)},
    "output_stride": {"min": 8, "max": 32, "default_text": "the network's own"},
    "epochs": {"min": 1, **_OF_RECIPE},
    "batch_size": {"min": 1, **_OF_RECIPE},
    "accumulation": {"min": 1},
    "clip_norm": {"help": "Maximum gradient norm; 0 for no clipping.", **_OF_RECIPE},
    "precision": {
        "type": click.Choice(("auto", *get_args(Precision))),
        "default": "auto",
        "help": "Precision of the forward passes: float32, or bfloat16 autocast; auto: bf16 on CUDA.",
    },
    "loss.map_kind": {"name": "map-loss"},
    "loss.map_weight": {"min": 0},
    "loss.map_ignore": {"multiple": False, "nargs": 2, "type": click.FloatRange(0, 1), "metavar": "LOW HIGH"},
    "loss.triplet_weight": {"min": 0},
    "loss.triplet_margin": {"default_text": "none"},
    "loss.area_weight": {"min": 0},
    "loss.cam_map_weight": {"min": 0, **_OF_RECIPE},
    "crop.kind": {
        "name": "crop",
        "type": click.Choice(("crop", "resized-crop")),
        "help": "Training crop: a random square, or a random area and aspect ratio.",
        **_OF_RECIPE,
    },
    "crop.input_size": {"min": 64},
    "crop.scale": {
        "name": "crop-scale",
        "type": click.FloatRange(0, 1, min_open=True),
        "multiple": False,
        "help": "Smallest area of a resized-crop, as a fraction of the image.",
        **_OF_RECIPE,
    },
    "optimiser.name": {"name": "optimiser", **_OF_RECIPE},
    "optimiser.lr": _OF_RECIPE,
    "optimiser.weight_decay": _OF_RECIPE,
    "schedule.kind": {
        "name": "schedule",
        "help": "Learning-rate schedule after the warm-up; step: times 0.1 after each third of the run.",
        **_OF_RECIPE,
    },
    "schedule.warmup_epochs": {"help": "Epochs of linear warm-up of the learning rate.", **_OF_RECIPE},
    **dict.fromkeys(("classes", "perceptual", "maps")),
    **dict.fromkeys(("loss.classification_weight", "loss.use_map", "loss.use_triplet")),
    **dict.fromkeys(("crop.resize", "crop.ratio", "crop.flip_probability", "optimiser.momentum", "optimiser.betas")),
    **dict.fromkeys(f"schedule.{name}" for name in ("warmup_steps", "milestones", "gamma", "final_fraction")),
}
CONFIG_OPTIONS = field_options(TrainConfig, _CHANGES)
RUN_OPTIONS = field_options(
    TrainRunConfig,
    {
        "workers": {"min": 0},
        "checkpoint_minutes": {"min": 0},
        "keep_last": {"min": 1},
        "log_every": {"min": 1},
        "compile": {"is_flag": False, "flag_value": "on"},
    },
    decides=False,
)
TRAIN_OPTIONS = (
    DATA_OPTION,
    LAYOUT_OPTION,
    Option(
        "--maps",
        type=EXISTING_FOLDER,
        help="Folder of the saliency maps; without a map loss they only determine which images are left out.",
    ),
    Option("--out", required=True, type=NEW_FOLDER, help="Folder of the run."),
    Option(
        "--recipe",
        type=click.Choice(tuple(RECIPES)),
        default="default",
        help=f"Defaults of the other options. {'; '.join(f'{name}: {one.meaning}' for name, one in RECIPES.items())}.",
    ),
    Option(
        "--no-map-loss",
        is_flag=True,
        help="No map losses (ablation), except that on the CAM if --cam-map-weight is given.",
    ),
    Option("--no-triplet-loss", is_flag=True, help="No perceptual triplet loss (ablation)."),
    *CONFIG_OPTIONS,
    Option(
        "--perceptual-weights",
        field="perceptual",
        type=FileOrName(NAMED_WEIGHTS),
        default=NAMED_WEIGHTS[0],
        help="Weights of the frozen network F: imagenet (torchvision's ResNet-50), random, a file of torchvision's, a "
        "checkpoint of wsol-train, or timm:NAME[@FILE].",
    ),
    Option(
        "--on-missing",
        type=click.Choice(get_args(OnMissing)),
        default="refuse",
        help="If training images have no usable saliency map: refuse to train, or skip these images.",
    ),
    Option("--limit", type=click.IntRange(min=1), help="Only the first images of each split, for a quick try."),
    Option("--device", default="auto", decides=False, help="auto, cpu, cuda or cuda:N."),
    *RUN_OPTIONS,
    Option("--resume", is_flag=True, decides=False, help="Resume from the newest checkpoint in --out."),
)
