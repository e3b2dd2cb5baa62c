"""Turns the manifest of a folder of maps into the ``wsol-prep proposals`` command that goes on with it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.experiments.steps import command_line
from pseudo_maps import __version__
from pseudo_maps.config import MapConfig
from pseudo_maps.proposals.geodesic_config import DEFAULT_PRESET, PRESETS
from pseudo_maps.proposals.selective_search import SelectiveSearchConfig
from pseudo_maps.runs.generation import default_shard_size
from pseudo_maps.shards.manifest import Manifest

__all__ = ["rerun_command"]

_DEFAULT_WEIGHTING = "objectness"
"""Of the command, unlike that of the configuration, which suits every method."""


def rerun_command(
    manifest: Manifest, *, out: Path, data: Path | None = None, layout: str = "auto", images: int | None = None
) -> tuple[str, str]:
    """The command line that makes the missing shards of a folder as the others were made.

    Parameters
    ----------
    manifest
        Manifest of the split.
    out
        Folder of the shards.
    data, layout
        Data root, ``DATA`` when it is not known, and its layout.
    images
        Number of images of the data where it is known: a manifest with fewer was made with ``--limit``. Where it is
        not, ``--limit`` is always among the words, because it changes nothing when it is the number of all images.

    Returns
    -------
    line
        One line that a shell takes.
    note
        What else it needs: settings that no option says, another version of the package; else empty.
    """
    words: list[object] = ["proposals", "--data", "DATA" if data is None else data, "--split", manifest.split]
    words += ["--out", out]
    if layout != "auto":
        words += ["--layout", layout]
    if manifest.shard_size != default_shard_size(manifest.images):
        words += ["--shard-size", manifest.shard_size]
    if images is None or images > manifest.images:
        words += ["--limit", manifest.images]
    settings = _settings(manifest.configuration)
    notes = []
    if settings is None:
        notes.append("add the options of the first run")
    if manifest.package_version != __version__:
        notes.append(f"use version {manifest.package_version} of the package, this is {__version__}")
    return command_line("wsol-prep", [*words, *(settings or [])]), "; ".join(notes)


def _settings(configuration: Mapping[str, Any]) -> list[object] | None:
    """Options that give this configuration; None when none do."""
    try:
        return _options(configuration)
    except (KeyError, TypeError, ValueError):
        # A configuration of another version, which the classes of this one refuse.
        return None


def _options(configuration: Mapping[str, Any]) -> list[object] | None:
    standard = MapConfig().as_json()
    if set(configuration) != set(standard):
        return None
    wanted = dict(configuration["proposals"])
    words: list[object] = []
    if configuration["method"] == "geodesic":
        changed = {key: wanted[key] for key in ("boundaries", "boundary_model", "working_size")}
        made = {
            name: MapConfig(proposals=replace(preset, **changed)).as_json()["proposals"]
            for name, preset in PRESETS.items()
        }
        preset = next((name for name, settings in made.items() if settings == wanted), None)
        if preset is None:
            return None
        if preset != DEFAULT_PRESET:
            words += ["--preset", preset]
        if wanted["boundaries"] != standard["proposals"]["boundaries"]:
            words += ["--boundaries", wanted["boundaries"]]
        if wanted["boundary_model"]:
            words += ["--boundary-model", "MODEL"]
        if configuration["weighting"] != _DEFAULT_WEIGHTING:
            words += ["--weighting", configuration["weighting"]]
    elif set(wanted) == {"mode", "working_size"}:
        words += ["--method", configuration["method"]]
        if wanted["mode"] != SelectiveSearchConfig().mode:
            words += ["--search-mode", wanted["mode"]]
    else:
        return None
    if wanted["working_size"] != standard["proposals"]["working_size"]:
        words += ["--working-size", wanted["working_size"]]
    for key, option in (("map_size", "--map-size"), ("max_pixels", "--max-pixels")):
        if configuration[key] != standard[key]:
            words += [option, configuration[key]]
    if configuration["by_name"] != standard["by_name"]:
        words += ["--no-by-name"]
    return words
