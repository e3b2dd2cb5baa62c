"""The contract of ``wsol-prep``: choices, defaults, and what bad usage does."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import pipelines.prep_cli as prep_cli
from evaluation.drawing.overlays import PICTURE_SUFFIXES
from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.prep_cli import main
from pseudo_maps.config import MapConfig
from pseudo_maps.images import MAX_PIXELS
from pseudo_maps.proposals.geodesic_config import DEFAULT_PRESET
from pseudo_maps.runs.child import ImageLimits
from tests.integration.prep_command import prep, propose, subprocess_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLS-LOC tree of one train and one val image."""
    root = tmp_path_factory.mktemp("contract") / "data"
    return make_clsloc_dataset(root, classes=1, train_per_class=1, val_per_class=1, size_px=(64, 64))


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# --- choices and defaults


def test_the_suffixes_are_those_that_can_be_written() -> None:
    assert prep_cli.SUFFIX_NAMES == tuple(PICTURE_SUFFIXES)


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
    assert result.exit_code == 2 and "expected a name that ends in .png or .jpg or .jpeg" in plain(result.output)
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
    monkeypatch.setattr("pipelines.jobs.map_status.estimate_lines", lambda *_plan, **_settings: [])
    result = propose(data, tmp_path / "m", "--dry-run")
    assert result.exit_code == 0 and "wsol-prep: warning: two of them\n" in result.output


def test_a_dry_run_measures_time_and_disk_and_makes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("shutil.disk_usage", lambda place: asked.append(place) or SimpleNamespace(free=0))
    result = propose(data, tmp_path / "m" / "n", "--dry-run", "--jobs", 3)
    assert result.exit_code == 0 and list(tmp_path.iterdir()) == [] and asked == [tmp_path]
    estimate = r"estimate from 1 image: 0m\d\ds on one core of this machine, at best 0m\d\ds with 3 jobs; "
    assert re.search(
        estimate + r"0\.00 GB of maps, the disk of .*/m/n has 0\.00 GB free\nthe disk lacks 0\.00 GB\n$", result.stderr
    )


def test_torch_is_not_imported_by_a_run(data: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pipelines.prep_cli import main\n"
        "main(sys.argv[1:], standalone_mode=False); print('torch' in sys.modules)"
    )
    words = ["proposals", "--data", data, "--split", "val", "--out", tmp_path / "m", "--dry-run"]
    done = subprocess_run(program, *words)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
