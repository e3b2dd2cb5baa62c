import functools
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import pipelines.demo as demo_module
from pipelines.pipeline_cli import main
from pipelines.prep_cli import main as wsol_prep
from pipelines.synthetic import make_clsloc_dataset
from pseudo_maps import __version__
from pseudo_maps.shards import MapIndex


@pytest.fixture(scope="module", autouse=True)
def few_images() -> Iterator[None]:
    """The demo draws 500 images of about 280 pixels, a minute's work; here it draws 12 small ones."""
    small = functools.partial(make_clsloc_dataset, classes=3, train_per_class=1, val_per_class=3, size_px=(64, 80))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "make_clsloc_dataset", small)
        yield


def demo(out: Path, *words: str) -> Result:
    result = CliRunner().invoke(main, ["demo", "--out", str(out), "--jobs", "1", *words], prog_name="wsol-pipeline")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def states(folder: Path) -> dict[Path, tuple[int, int]]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "preview.png")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("demo") / "a b"
    return out, demo(out)


def test_the_demo_ends_well_and_says_where_everything_is(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert result.exit_code == 0, result.output
    for path in (out / "data", out / "maps", out / "preview.png"):
        assert path.exists() and f"  {path}  " in result.output.rpartition("Done")[2]
    assert len(MapIndex(out / "maps", "train")) == 3 and len(MapIndex(out / "maps", "val")) == 9
    assert "train, val complete and undamaged" in result.output
    with Image.open(out / "preview.png") as sheet:
        assert sheet.format == "PNG" and min(sheet.size) > 900


def test_the_commands_shown_are_commands_that_work(finished: tuple[Path, Result]) -> None:
    shown = [line[2:] for line in finished[1].output.splitlines() if line.startswith("$ ")]
    assert [command.split()[:2] for command in shown] == [
        ["wsol-prep", "proposals"],
        ["wsol-prep", "proposals"],
        ["wsol-prep", "verify"],
        ["wsol-prep", "preview"],
    ]
    for command in shown:
        assert CliRunner().invoke(wsol_prep, shlex.split(command)[1:]).exit_code == 0


def test_finished_steps_are_kept(finished: tuple[Path, Result]) -> None:
    out, _ = finished
    before = states(out)
    result = demo(out)
    assert result.exit_code == 0 and result.output.count("0 images to do") == 2
    assert states(out) == before


def test_a_folder_that_holds_other_data_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("mine")
    result = demo(tmp_path)
    assert result.exit_code == 1 and "wsol-pipeline: error: " in result.output and "Traceback" not in result.output
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "thesis.txt"]


def test_a_step_that_fails_ends_the_demo_with_its_exit_code(tmp_path: Path) -> None:
    make = demo_module.make_clsloc_dataset
    make(tmp_path / "data")
    next((tmp_path / "data" / "Data/CLS-LOC/train").rglob("*.JPEG")).write_bytes(b"")
    result = demo(tmp_path)
    assert result.exit_code == 1
    assert "1 images failed" in result.output and "1 decode-error" in result.output
    assert "verify" not in result.output and "Done" not in result.output


def test_debug_shows_the_traceback_of_a_step(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "train.manifest.json").write_text("no JSON")
    result = demo(tmp_path, "--debug")
    assert result.exit_code == 1 and "not JSON" in result.output
    assert "Traceback (most recent call last)" in result.output


def test_a_file_in_place_of_the_maps_is_exit_2_or_1_without_traceback(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("in the way")
    result = demo(tmp_path)
    assert result.exit_code in (1, 2) and "Traceback" not in result.output
    assert (tmp_path / "maps").read_text() == "in the way"


@pytest.mark.parametrize("words", [["-h"], ["demo", "-h"], ["--version"], ["demo", "--version"]])
def test_help_and_version(words: list[str]) -> None:
    result = CliRunner().invoke(main, words, prog_name="wsol-pipeline")
    assert result.exit_code == 0
    assert result.output == f"{__version__}\n" if "--version" in words else "Usage: wsol-pipeline" in result.output


@pytest.mark.parametrize("words", [[], ["show"], ["demo", "--jobs", "0"], ["demo", "--out", __file__]])
def test_bad_usage_is_exit_2(words: list[str]) -> None:
    assert CliRunner().invoke(main, words, prog_name="wsol-pipeline").exit_code == 2


def test_the_options_of_the_demo_are_frozen() -> None:
    assert {"demo", "run", "init"} <= set(main.commands)
    found = {option.opts[0]: option.default for option in main.commands["demo"].params if option.expose_value}
    assert found == {"--out": Path("demo"), "--jobs": 2}
