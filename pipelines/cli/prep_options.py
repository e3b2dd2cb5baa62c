"""Options of ``wsol-prep proposals``, which pipeline files pass on, and of ``refine`` and ``import``."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import click

from pipelines.cli.eval_options import MAP_RANGE_OPTION
from pipelines.cli.options import (
    DATA_OPTION,
    EXISTING_FILE,
    LAYOUT_OPTION,
    NEW_FOLDER,
    TASK_OPTIONS,
    Network,
    Option,
    field_options,
    given_names,
    options_by_key,
)
from pipelines.datasets import SPLITS
from pseudo_maps.config import MapConfig
from pseudo_maps.files import file_sha256
from pseudo_maps.proposals.detectors import DETECTORS
from pseudo_maps.proposals.geodesic_config import DEFAULT_PRESET, PRESETS, ProposalConfig
from pseudo_maps.proposals.methods import METHODS, MethodConfig
from pseudo_maps.runs.engines import BACKENDS

_PRESET_OPTION = Option(
    "--preset",
    type=click.Choice(tuple(PRESETS)),
    default=DEFAULT_PRESET,
    help="Preset of the geodesic method, named by its approximate number of proposals.",
)
_MODEL_OPTION = Option(
    "--boundary-model",
    type=EXISTING_FILE,
    help="Trained model file of the structured-forest detector (.yml or .yml.gz).",
)
_CHANGES: Mapping[str, Mapping[str, Mapping[str, Any] | None]] = {
    # The preset gives the other fields.
    "geodesic": {
        field.name: None
        for field in dataclasses.fields(ProposalConfig)
        if field.name not in ("boundaries", "working_size")
    },
    "selective-search": {"mode": {"name": "search-mode"}},
}
METHOD_OPTIONS: Mapping[str, list[Option]] = {
    name: field_options(method.config, _CHANGES.get(name, {})) for name, method in METHODS.items()
}
"""By proposal method the options that set a field of its configuration; methods may share one, as --working-size."""
METHOD_OPTIONS["geodesic"].extend((_PRESET_OPTION, _MODEL_OPTION))

PROPOSAL_OPTIONS = (
    DATA_OPTION,
    LAYOUT_OPTION,
    Option("--split", type=click.Choice(SPLITS), required=True, help="Split of the data set."),
    Option("--out", required=True, type=NEW_FOLDER, help="Folder of the shards."),
    Option("--method", type=click.Choice(tuple(METHODS)), default="geodesic", help="Proposal method."),
    *options_by_key(option for options in METHOD_OPTIONS.values() for option in options).values(),
    *field_options(MapConfig, {"proposals": None, "weighting": {"default": "objectness"}}),
    Option(
        "--shard-size",
        type=click.IntRange(min=1),
        default=None,
        help="Maps per shard.  [default: from the number of images, 16 to 1000]",
    ),
    Option("--jobs", type=int, default=1, help="Worker processes; -1 for one per core. Not used with dask."),
    Option("--backend", type=click.Choice(tuple(BACKENDS)), default="loky", help="Backend of the workers."),
    Option("--scheduler", metavar="ADDRESS", help="Address of a running dask scheduler, such as tcp://10.0.0.1:8786."),
    Option(
        "--image-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=300.0,
        help="Time limit per image in seconds.",
    ),
    Option(
        "--image-memory",
        type=click.IntRange(min=1),
        default=4096,
        help="Memory limit in megabytes of the process that makes a map, including its libraries (200).",
    ),
    *TASK_OPTIONS,
    Option("--limit", type=click.IntRange(min=1), help="Only the first images of the split."),
    Option("--max-failed", type=click.IntRange(min=0), default=0, help="Exit with 1 if more images than this failed."),
    Option("--retry-failed", is_flag=True, help="Make finished shards with failed images again."),
    Option(
        "--dry-run",
        is_flag=True,
        help="Print what would be done, with time and disk, and stop.",
    ),
)
_OF_BOTH = options_by_key(PROPOSAL_OPTIONS)
REFINE_OPTIONS = (
    DATA_OPTION,
    LAYOUT_OPTION,
    _OF_BOTH["split"],
    Option(
        "--with",
        "network",
        required=True,
        type=Network(),
        metavar="NETWORK",
        help="Folder of a run, a checkpoint, or timm:NAME[@FILE] with ImageNet weights.",
    ),
    _OF_BOTH["out"],
    Option(
        "--input-size",
        type=click.IntRange(min=64),
        help="Side in pixels of the network's square input.  [default: the network's]",
    ),
    Option("--sharpen", is_flag=True, help="Adapt the contrast of each map to fixed thresholds, for better boxes."),
    Option("--device", default="auto", help="auto (the first GPU, else the CPU), cpu, or cuda:N."),
    Option("--workers", type=click.IntRange(min=0), default=2, help="Processes that decode images."),
    *TASK_OPTIONS,
    _OF_BOTH["max-failed"],
    _OF_BOTH["retry-failed"],
)
IMPORT_OPTIONS = (
    DATA_OPTION,
    LAYOUT_OPTION,
    *(_OF_BOTH[key] for key in ("split", "out", "map-size")),
    MAP_RANGE_OPTION,
    Option("--jobs", type=int, default=1, help="Processes that read maps; -1 for one per core."),
    *TASK_OPTIONS,
    *(_OF_BOTH[key] for key in ("limit", "max-failed", "retry-failed")),
)


def map_config(options: Mapping[str, Any]) -> MapConfig:
    """The configuration that the options of the running command mean.

    UsageError for options of a method that is not chosen, and for a boundary detector with the wrong need of a model.
    """
    given, name, model = given_names(click.get_current_context()), options["method"], options["boundary_model"]
    method = METHODS[name]
    names = {method: {str(option.name) for option in own} for method, own in METHOD_OPTIONS.items()}
    foreign = set().union(*names.values()) - names[name]
    if len(method.weightings) == 1:
        foreign.add("weighting")
    for option in sorted(given & foreign):
        raise click.UsageError(f"--{option.replace('_', '-')} cannot be used with --method {name}")
    values = {option.field: options[str(option.name)] for option in METHOD_OPTIONS[name] if option.field}
    if name == "geodesic":
        if DETECTORS[options["boundaries"]].needs_model != (model is not None):
            raise click.UsageError("--boundaries structured-forest needs --boundary-model FILE; others have no model")
        values["boundary_model"] = "" if model is None else file_sha256(model)
        proposals: MethodConfig = dataclasses.replace(PRESETS[options["preset"]], **values)
    else:
        proposals = method.config(**values)
    return MapConfig(
        proposals=proposals,
        weighting=method.weightings[0] if "weighting" in foreign else options["weighting"],
        map_size=options["map_size"],
        max_pixels=options["max_pixels"],
        by_name=options["by_name"],
    )
