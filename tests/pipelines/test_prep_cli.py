"""The contract of ``wsol-prep``: commands, options, defaults, choices, help, and what bad usage does."""

import os
import re
from pathlib import Path

import click
import pytest

import pipelines.prep_cli as prep_cli
from evaluation.drawing.overlays import PICTURE_SUFFIXES
from pipelines.cli.inspection import SUFFIX_NAMES
from pipelines.cli.options import LAYOUT_NAMES, SPLIT_NAMES
from pipelines.datasets import LAYOUTS, SPLITS
from pipelines.datasets.synthetic import make_clsloc_dataset
from pipelines.prep_cli import main
from pseudo_maps import __version__
from pseudo_maps.config import DEFAULT_PRESET, METHODS, MapConfig
from pseudo_maps.images import MAX_PIXELS
from pseudo_maps.proposals import PRESETS
from pseudo_maps.proposals.detectors import DETECTORS
from pseudo_maps.proposals.selective_search import SELECTIVE_SEARCH_MODES
from pseudo_maps.proposals.weighting import WEIGHTINGS
from pseudo_maps.runs.child import ImageLimits
from pseudo_maps.runs.engines import BACKENDS
from tests.integration.prep_command import prep, propose, subprocess_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLS-LOC tree of one train and one val image."""
    root = tmp_path_factory.mktemp("contract") / "data"
    return make_clsloc_dataset(root, classes=1, train_per_class=1, val_per_class=1, size_px=(64, 64))


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# --- the contract: names, defaults, choices

COMMON = {"--debug": (False, "flag"), "--version": (False, "flag"), "-h --help": (False, "flag")}
PRESET_CHOICES = ("b650", "b1100", "b2200", "b4400")
LAYOUT_CHOICES = ("auto", "clsloc", "imagenet", "imagefolder", "wsoleval")
SPLIT_CHOICES = ("train", "val", "test")
OPTIONS = {
    "proposals": {
        "--data": ("required", "folder"),
        "--layout": ("auto", LAYOUT_CHOICES),
        "--split": ("required", SPLIT_CHOICES),
        "--out": ("required", "folder"),
        "--method": ("geodesic", ("geodesic", "selective-search")),
        "--preset": ("b1100", PRESET_CHOICES),
        "--boundaries": ("directed-sobel", ("directed-sobel", "spectral-contrast", "structured-forest")),
        "--boundary-model": (None, "file"),
        "--search-mode": ("fast", ("fast", "quality", "single")),
        "--weighting": ("objectness", ("uniform", "objectness")),
        "--working-size": (500, "integer from 1"),
        "--map-size": (224, "integer from 1"),
        "--by-name/--no-by-name": (True, "flag"),
        "--max-pixels": (178_956_970, "integer from 1"),
        "--shard-size": (None, "integer from 1"),
        "--jobs": (1, "integer"),
        "--backend": ("loky", ("loky", "sequential", "dask", "ray", "spark")),
        "--scheduler": (None, "text"),
        "--image-timeout": (300.0, "number above 0"),
        "--image-memory": (4096, "integer from 1"),
        "--task-index": (None, "integer"),
        "--task-count": (None, "integer"),
        "--limit": (None, "integer from 1"),
        "--max-failed": (0, "integer from 0"),
        "--retry-failed": (False, "flag"),
        "--dry-run": (False, "flag"),
        **COMMON,
    },
    "verify": {
        "folder": ("required", "folder"),
        "--split": ("several", SPLIT_CHOICES),
        "--data": (None, "folder"),
        "--layout": ("auto", LAYOUT_CHOICES),
        "--repair": (False, "flag"),
        **COMMON,
    },
    "preview": {
        "folder": ("required", "folder"),
        "--data": ("required", "folder"),
        "--layout": ("auto", LAYOUT_CHOICES),
        "--split": ("val", SPLIT_CHOICES),
        "--out": (None, "file"),
        "--html": (None, "file"),
        "--ids": ("several", "text"),
        "--ids-file": (None, "file"),
        "--worst": (None, "integer from 0"),
        "--count": (12, "integer from 1"),
        "--columns": (2, "integer from 1"),
        "--threshold": (0.5, "number from 0 below 1"),
        "--seed": (0, "integer from 0"),
        **COMMON,
    },
}
"""Every option: its default and what it takes. Other people's scripts call these; changing one breaks them."""


def described(parameter: click.Parameter) -> tuple[object, object]:
    kind = parameter.type
    if isinstance(kind, click.Choice):
        takes: object = tuple(kind.choices)
    elif isinstance(kind, click.Path):
        takes = "file" if kind.file_okay else "folder"
    elif isinstance(kind, click.IntRange):
        takes = f"integer from {kind.min}" if kind.max is None else f"integer {kind.min}-{kind.max}"
    elif isinstance(kind, click.FloatRange) and kind.max is None:
        takes = f"number {'above' if kind.min_open else 'from'} {kind.min}"
    elif isinstance(kind, click.FloatRange):
        takes = f"number from {kind.min} {'below' if kind.max_open else 'to'} {kind.max}"
    else:
        takes = "flag" if getattr(parameter, "is_flag", False) else kind.name
    if parameter.required:
        return "required", takes
    if getattr(parameter, "multiple", False):
        return "several", takes
    default = parameter.to_info_dict()["default"]
    return (bool(default) if takes == "flag" else default), takes


@pytest.mark.parametrize("command", OPTIONS)
def test_the_options_are_frozen(command: str) -> None:
    found = {}
    context = click.Context(main.commands[command], info_name=command, **prep_cli.CONTEXT_SETTINGS)
    for parameter in main.commands[command].get_params(context):
        name = " ".join(parameter.opts) + "".join(f"/{other}" for other in parameter.secondary_opts)
        found[name] = described(parameter)
    assert found == OPTIONS[command]


def test_the_commands_are_frozen() -> None:
    assert set(main.commands) == set(OPTIONS)


@pytest.mark.parametrize(
    ("names", "definition"),
    [
        (SPLIT_NAMES, SPLITS),
        (LAYOUT_NAMES, LAYOUTS),
        (SUFFIX_NAMES, PICTURE_SUFFIXES),
        (prep_cli.METHOD_NAMES, METHODS),
        (prep_cli.MODE_NAMES, SELECTIVE_SEARCH_MODES),
        (prep_cli.PRESET_NAMES, PRESETS),
        (prep_cli.DETECTOR_NAMES, DETECTORS),
        (prep_cli.WEIGHTING_NAMES, WEIGHTINGS),
        (prep_cli.BACKEND_NAMES, BACKENDS),
    ],
    ids=["splits", "layouts", "suffixes", "methods", "modes", "presets", "detectors", "weightings", "backends"],
)
def test_the_choices_are_what_is_defined(names: tuple[str, ...], definition: object) -> None:
    assert names == tuple(definition)


def test_the_defaults_are_those_of_the_configuration() -> None:
    defaults = {option.name: option.default for option in main.commands["proposals"].params}
    config = MapConfig()
    assert defaults["max_pixels"] == config.max_pixels == MAX_PIXELS
    assert defaults["map_size"] == config.map_size
    # The configuration's default suits every method, the command's is the best for its own default method.
    assert (defaults["weighting"], config.weighting) == ("objectness", "uniform")
    assert ImageLimits(time_s=defaults["image_timeout"], memory_mb=defaults["image_memory"]) == ImageLimits()
    assert defaults["by_name"] == config.by_name
    assert defaults["method"] == config.method
    assert defaults["preset"] == DEFAULT_PRESET
    assert defaults["working_size"] == config.proposals.working_size
    assert defaults["boundaries"] == config.proposals.boundaries


@pytest.mark.parametrize("command", [[], ["proposals"], ["verify"], ["preview"]])
def test_help_and_version_of_every_command(command: list[str]) -> None:
    short, long = prep(*command, "-h"), prep(*command, "--help")
    assert (short.exit_code, short.output) == (0, long.output)
    assert short.output.startswith("Usage: wsol-prep")
    for name in OPTIONS[command[0]] if command else OPTIONS:
        assert all(part in short.output.replace("FOLDER", "folder") for part in re.split("[ /]", name))
    version = prep(*command, "--version")
    assert (version.exit_code, version.output) == (0, f"{__version__}\n")


def test_help_shows_every_default_that_there_is() -> None:
    shown = plain(prep("proposals", "-h").output)
    for name, (default, takes) in OPTIONS["proposals"].items():
        if default not in ("required", None) and takes != "flag":
            assert re.search(rf"{name} .*?\[default: {default}[];]", shown), name


# --- bad usage is exit 2


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["proposal"],
        ["proposals"],
        ["proposals", "--split", "valid"],
        ["proposals", "--jobs", "0"],
        ["proposals", "--jobs", "-2"],
        ["proposals", "--jobs", "many"],
        ["proposals", "--limit", "0"],
        ["proposals", "--shard-size", "0"],
        ["proposals", "--map-size", "0"],
        ["proposals", "--working-size", "0"],
        ["proposals", "--max-failed", "-1"],
        ["proposals", "--search-mode", "single"],
        ["proposals", "--method", "selective-search", "--preset", "b650"],
        ["proposals", "--method", "selective-search", "--boundaries", "directed-sobel"],
        ["proposals", "--method", "selective-search", "--weighting", "uniform"],
        ["proposals", "--boundaries", "structured-forest"],
        ["proposals", "--boundary-model", __file__],
        ["proposals", "--task-index", "0"],
        ["proposals", "--task-count", "2"],
        ["proposals", "--task-index", "2", "--task-count", "2"],
        ["proposals", "--task-index", "-1", "--task-count", "2"],
        ["proposals", "--task-index", "0", "--task-count", "0"],
        ["proposals", "extra"],
        ["verify"],
        ["verify", "no such folder"],
        ["preview", ".", "--threshold", "1"],
        ["preview", ".", "--ids", "a", "--worst"],
        ["preview", ".", "--ids", "a", "--worst", "3"],
        ["preview", ".", "--worst", "-1"],
        ["preview", ".", "--seed", "-1"],
        ["preview", ".", "--ids-file", "no such file"],
        ["preview", ".", "--ids-file", os.devnull],
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_2_and_writes_nothing(data: Path, tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "out"
    if words[:1] == ["proposals"] and len(words) > 1:
        words = ["proposals", "--data", str(data), "--out", str(out), "--split", "val", *words[1:]]
    elif words[:1] == ["preview"]:
        words = [*words, "--data", str(data), "--out", f"{out}.png"]
    result = prep(*words)
    assert result.exit_code == 2, result.output
    assert "Usage: wsol-prep" in result.output and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.gif", "a", ".png", "a.png.tif"])
def test_a_picture_of_another_format_is_bad_usage_that_lists_the_formats(data: Path, tmp_path: Path, name: str) -> None:
    result = prep("preview", tmp_path, "--data", data, "--out", tmp_path / name)
    assert result.exit_code == 2 and "ends in none of .png, .jpg, .jpeg" in plain(result.output)
    assert list(tmp_path.iterdir()) == []


def test_a_preview_of_nothing_is_bad_usage(data: Path, tmp_path: Path) -> None:
    result = prep("preview", tmp_path, "--data", data)
    assert result.exit_code == 2 and "--out for a contact sheet, --html for a page" in plain(result.output)


def test_a_file_in_place_of_the_output_folder_is_bad_usage(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    result = propose(data, tmp_path / "file")
    assert result.exit_code == 2 and "is a file" in result.output
    assert (tmp_path / "file").read_bytes() == b"mine"


# --- a warning


def test_clashing_opencv_packages_are_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prep_cli, "opencv_clash", lambda: "two of them")
    result = propose(data, tmp_path / "m", "--dry-run")
    assert result.exit_code == 0 and "wsol-prep: warning: two of them\n" in result.output


def test_torch_is_not_imported_by_a_run(data: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pipelines.prep_cli import main\n"
        "main(sys.argv[1:], standalone_mode=False); print('torch' in sys.modules)"
    )
    words = ["proposals", "--data", data, "--split", "val", "--out", tmp_path / "m", "--dry-run"]
    done = subprocess_run(program, *words)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
