import dataclasses
import shlex
from pathlib import Path

import pytest

from pipelines.cli.rerun_command import rerun_command
from pipelines.datasets.generated import make_clsloc_dataset
from pseudo_maps import __version__
from pseudo_maps.config import MapConfig
from pseudo_maps.shards.manifest import Manifest, read_manifest
from tests.integration.prep_command import prep


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLS-LOC tree of one train and three val images, in a folder whose name needs quotes."""
    root = tmp_path_factory.mktemp("rerun") / "the data"
    return make_clsloc_dataset(root, classes=1, train_per_class=1, val_per_class=3, size_px=(64, 64))


SMALL = ["--working-size", "48", "--map-size", "16"]


@pytest.mark.parametrize(
    "words",
    [
        SMALL,
        [*SMALL, "--shard-size", "2", "--limit", "2", "--no-by-name", "--max-pixels", "9999"],
        [*SMALL, "--preset", "b650", "--boundaries", "spectral-contrast", "--weighting", "uniform"],
        [*SMALL, "--method", "selective-search", "--search-mode", "single", "--layout", "clsloc"],
    ],
    ids=lambda words: " ".join(words[4:]) or "defaults",
)
def test_the_command_goes_on_with_the_folder(data: Path, tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "m"
    assert prep("proposals", "--data", data, "--split", "val", "--out", out, *words).exit_code == 0
    layout = words[words.index("--layout") + 1] if "--layout" in words else "auto"
    line, note = rerun_command(read_manifest(out, "val"), out=out, data=data, layout=layout, images=3)
    assert note == ""
    program, *rest = shlex.split(line)
    result = prep(*rest)
    assert (program, result.exit_code) == ("wsol-prep", 0), result.output
    assert "0 images to do" in result.output
    assert {word for word in rest if word.startswith("--")} == {"--data", "--split", "--out"} | {
        word for word in words if word.startswith("--")
    }, "nothing but what is not a default"


def manifest(**changes: object) -> Manifest:
    values = {"split": "val", "images": 3, "shards": 1, "shard_size": 16, "ids_sha256": "0" * 64}
    return Manifest(**(values | {"configuration": MapConfig().as_json()} | changes))


def test_data_that_are_not_known_are_named_so() -> None:
    line, _ = rerun_command(manifest(), out=Path("maps"))
    assert line.startswith("wsol-prep proposals --data DATA --split val --out maps --limit 3")


@pytest.mark.parametrize("limit", [[], ["--limit", "2"]], ids=["all", "limited"])
def test_the_command_for_unknown_data_suits_all_images_and_some(data: Path, tmp_path: Path, limit: list[str]) -> None:
    out = tmp_path / "m"
    assert prep("proposals", "--data", data, "--split", "val", "--out", out, *SMALL, *limit).exit_code == 0
    line, _ = rerun_command(read_manifest(out, "val"), out=out)
    result = prep(*(str(data) if word == "DATA" else word for word in shlex.split(line)[1:]))
    assert result.exit_code == 0 and "0 images to do" in result.output


@pytest.mark.parametrize(
    "configuration",
    [
        {"method": "other"},
        {**MapConfig().as_json(), "proposals": {"seeds": 7}},
        {**MapConfig().as_json(), "proposals": 3},
        {**MapConfig().as_json(), "more": 1},
        {**MapConfig().as_json(), "proposals": {**dataclasses.asdict(MapConfig().proposals), "max_iou": 0.123}},
    ],
)
def test_settings_that_no_option_says_are_left_to_the_reader(configuration: dict) -> None:
    line, note = rerun_command(manifest(configuration=configuration), out=Path("maps"))
    assert line.endswith("--out maps --limit 3") and note == "add the options of the first run"


def test_maps_of_another_version_of_the_package_need_that_version() -> None:
    _, note = rerun_command(manifest(package_version="0.0.1"), out=Path("maps"))
    assert note == f"use version 0.0.1 of the package, this is {__version__}"


def test_the_model_of_a_detector_is_for_the_reader_to_name() -> None:
    settings = MapConfig().as_json()
    settings["proposals"] |= {"boundaries": "structured-forest", "boundary_model": "0" * 64}
    line, note = rerun_command(manifest(configuration=settings), out=Path("maps"))
    assert "--boundaries structured-forest --boundary-model MODEL" in line and note == ""
