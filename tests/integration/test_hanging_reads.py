"""An image whose read does not return costs itself: every command goes on without it, and names it.

Another run in which the same file is damaged tells what all other images have to give.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pseudo_maps.images import ImageTimeoutError, decode_image, read_image_size
from pseudo_maps.reading import LIMIT_VARIABLE, within_limit
from pseudo_maps.shards import MapIndex
from tests.command_calls import run_program
from tests.integration.eval_command import DEADLINE_S, bump, evaluate, make_listed_data, metrics_of
from tests.integration.held_files import HeldFiles
from tests.integration.prep_command import QUICK, VAL, prep, val_id
from tests.training.train_program import start, train
from tests.training.training_runs import assert_same, events, final_state, make_colour_folders, timeless
from tests.world import EVALUATION_OPTIONS, World, copy_of

pytestmark = pytest.mark.usefixtures("one_torch_thread")

LIMIT_S = 1.0
TRAIN = "--device cpu --input-size 64 --batch-size 4 --epochs 1 --lr 0.001 --warmup-epochs 0 --method gap".split()


BOXES = {name: [(4.0, 2.0, 25.0, 17.0)] for name in "abc"}


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make the reads of files hang until the test is over."""
    monkeypatch.setenv(LIMIT_VARIABLE, str(LIMIT_S))
    held: list[HeldFiles] = []
    yield lambda *paths: held.append(HeldFiles(paths))
    for files in held:
        files.release()


def damage(path: Path) -> None:
    path.write_bytes(b"no image".ljust(path.stat().st_size))


@pytest.fixture
def both(world: World, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A data set, the same with the third val image damaged, and that image in the first."""
    data, spoilt = copy_of(world.data, tmp_path / "data"), copy_of(world.data, tmp_path / "spoilt")
    name = f"{VAL}/{val_id(3)}.JPEG"
    damage(spoilt / name)
    return data, spoilt, data / name


# --- one read


def test_a_read_ends_and_is_not_waited_for_twice(
    tmp_path: Path,
    hold: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = make_listed_data(tmp_path / "data", {name: [] for name in "abcdefg"}) / "val"
    files = [data / f"{name}.png" for name in "abcdef"]
    held = HeldFiles(files[:1])
    hold(*files[1:])
    with pytest.raises(ImageTimeoutError, match=f"^{files[0]}: not read within 1 s$"):
        decode_image(files[0])
    assert decode_image(data / "g.png").file_width == 40
    before_s = time.monotonic()
    for _ in range(3):
        assert read_image_size(files[0]) is None
    assert time.monotonic() - before_s < LIMIT_S
    assert capsys.readouterr().err == f"warning: {files[0]}: not read within 1 s\n"
    held.release()
    give_up_s = time.monotonic() + DEADLINE_S
    while read_image_size(files[0]) is None:
        assert time.monotonic() < give_up_s
    monkeypatch.setenv(LIMIT_VARIABLE, "0.1")
    for file in files[1:4]:
        with pytest.raises(ImageTimeoutError):
            decode_image(file)
    # So many are not the fault of files.
    for file in files[4:]:
        with pytest.raises(TimeoutError, match="reads of 4 files hang: the file server does not answer"):
            read_image_size(file)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon"])
def test_a_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    result = prep("status", tmp_path)
    assert result.exit_code == 1
    assert f"{LIMIT_VARIABLE}={text}: expected seconds above 0, or inf" in result.output


def test_without_a_limit_no_thread_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "inf")
    assert within_limit(threading.current_thread, "a") is threading.current_thread()
    monkeypatch.delenv(LIMIT_VARIABLE)
    assert within_limit(threading.current_thread, "a") is not threading.current_thread()


# --- training


def test_training_ends_at_a_training_image_and_says_which(tmp_path: Path, hold: Callable[..., None]) -> None:
    data = make_colour_folders(tmp_path / "data", train=2, val=1)
    image = data / "train" / "red" / "1.png"
    hold(image)
    process = start("--data", data, "--out", tmp_path / "run", *TRAIN, "--workers", 0)
    text, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in text
    assert f"wsol-train: error: {image}: not read within 1 s. Wait until it can be read and continue with" in text


def test_validation_counts_the_image_as_wrong(tmp_path: Path, hold: Callable[..., None]) -> None:
    data = make_colour_folders(tmp_path / "data", train=2, val=2)
    image = data / "val" / "red" / "1.png"
    words = ("--data", data, *TRAIN, "--workers", 1)
    content = image.read_bytes()
    damage(image)
    assert train(*words, "--out", tmp_path / "damaged").exit_code == 0
    image.write_bytes(content)
    hold(image)
    process = start(*words, "--out", tmp_path / "held")
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert f"count as wrong: {image}: not read within 1 s" in text and "(1 of 6 images unreadable)" in text
    assert_same(final_state(tmp_path / "held"), final_state(tmp_path / "damaged"))
    assert timeless(events(tmp_path / "held")) == timeless(events(tmp_path / "damaged"))


# --- evaluation


def test_an_evaluation_scores_all_others(
    world: World, both: tuple[Path, Path, Path], tmp_path: Path, hold: Callable[..., None]
) -> None:
    data, spoilt, image = both
    words = ("run", world.network, *EVALUATION_OPTIONS, "--workers", 1, "--limit", 4, "--name", "run")
    assert evaluate(*words, "--data", spoilt, "--out", tmp_path / "damaged").exit_code == 0
    hold(image)
    done = run_program("pipelines.eval_cli", *words, "--data", data, "--out", tmp_path / "held")
    assert done.returncode == 0, done.stderr
    assert f"warning: {image}: not read within 1 s\n" in done.stderr
    assert "1 of them failed and counted as wrong: 1 timeout" in done.stdout
    found, wanted = ((tmp_path / name / "predictions.csv").read_text() for name in ("held", "damaged"))
    assert ",timeout," in found and found.replace(",timeout,", ",unreadable image,") == wanted
    assert metrics_of(tmp_path / "held")["results"] == metrics_of(tmp_path / "damaged")["results"]


def test_maps_are_scored_without_the_size_of_a_hanging_image(tmp_path: Path, hold: Callable[..., None]) -> None:
    data = make_listed_data(tmp_path / "data", BOXES, sizes=False)
    (tmp_path / "maps").mkdir()
    for name in "abc":
        np.save(tmp_path / "maps" / f"{name}.npy", bump())
    hold(data / "val" / "b.png")
    words = ("--data", data, "--protocol", "cam", "--panels", 0)
    result = evaluate("maps", tmp_path / "maps", *words, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert metrics_of(tmp_path / "out")["counts"]["failed"] == {"timeout": 1}


def test_a_hanging_map_ends_an_evaluation_as_a_damaged_one_does(tmp_path: Path, hold: Callable[..., None]) -> None:
    data = make_listed_data(tmp_path / "data", BOXES)
    (tmp_path / "maps").mkdir()
    for name in "abc":
        np.save(tmp_path / "maps" / f"{name}.npy", bump())
    hold(tmp_path / "maps" / "b.npy")
    result = evaluate("maps", tmp_path / "maps", "--data", data, "--protocol", "cam", "--map-range", "min-max")
    assert result.exit_code == 1
    assert f"{tmp_path / 'maps' / 'b.npy'}: not read within 1 s" in result.output


def test_a_file_server_that_is_gone_ends_an_evaluation(
    world: World, both: tuple[Path, Path, Path], tmp_path: Path, hold: Callable[..., None]
) -> None:
    data, _, _ = both
    hold(*(data / VAL).iterdir())
    done = run_program(
        "pipelines.eval_cli", "run", world.network, "--data", data, *EVALUATION_OPTIONS, "--out", tmp_path / "out"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "reads of 4 files hang: the file server does not answer" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_predict_leaves_one_image_out(
    world: World, both: tuple[Path, Path, Path], tmp_path: Path, hold: Callable[..., None]
) -> None:
    data, spoilt, image = both
    words = ("--device", "cpu", "--jobs", 1, "--no-overlays")
    evaluate("predict", world.network, spoilt / VAL, *words, "--out", tmp_path / "damaged")
    hold(image)
    result = evaluate("predict", world.network, data / VAL, *words, "--out", tmp_path / "held")
    assert result.exit_code == 1 and "1 image without a prediction" in result.output
    found, wanted = (
        json.loads((tmp_path / name / "predictions.json").read_text())["images"] for name in ("held", "damaged")
    )
    assert found[2] == {"image": str(image), "error": f"{image}: not read within 1 s"}
    assert [{**entry, "image": ""} for entry in found[:2] + found[3:]] == [
        {**entry, "image": ""} for entry in wanted[:2] + wanted[3:]
    ]


# --- maps


@pytest.mark.parametrize("command", ["proposals", "preview"])
def test_a_finished_folder_of_maps_is_looked_at(
    world: World, both: tuple[Path, Path, Path], tmp_path: Path, hold: Callable[..., None], command: str
) -> None:
    data, _, image = both
    hold(image)
    words = ("--data", data, "--split", "val", "--out")
    if command == "preview":
        result = prep("preview", world.maps, *words, tmp_path / "sheet.png")
    else:
        maps = copy_of(world.maps, tmp_path / "maps")
        result = prep("proposals", *words, maps, "--shard-size", 3, *QUICK)
    assert result.exit_code == 0 and f"warning: {image}: not read within 1 s\n" in result.output
    assert command == "proposals" or (tmp_path / "sheet.png").exists()


def test_refinement_marks_the_image(
    world: World, both: tuple[Path, Path, Path], tmp_path: Path, hold: Callable[..., None]
) -> None:
    data, spoilt, image = both
    words = ("refine", world.maps, "--split", "val", "--with", world.network, "--device", "cpu", "--max-failed", 10)
    assert prep(*words, "--data", spoilt, "--out", tmp_path / "damaged", "--workers", 0).exit_code == 0
    hold(image)
    result = prep(*words, "--data", data, "--out", tmp_path / "held", "--workers", 0)
    assert result.exit_code == 0 and " timeout" in result.output
    assert_equal_but_one(tmp_path / "held", tmp_path / "damaged")


def test_an_import_marks_the_image(both: tuple[Path, Path, Path], tmp_path: Path, hold: Callable[..., None]) -> None:
    data, spoilt, image = both
    (tmp_path / "files").mkdir()
    for number in range(1, 11):
        np.save(tmp_path / "files" / f"{val_id(number)}.npy", bump())
    words = ("import", tmp_path / "files", "--split", "val", "--map-size", 16, "--max-failed", 10)
    assert prep(*words, "--data", spoilt, "--out", tmp_path / "damaged").exit_code == 0
    hold(image)
    result = prep(*words, "--data", data, "--out", tmp_path / "held")
    assert result.exit_code == 0 and "failed:   1 (1 timeout)" in result.output
    assert_equal_but_one(tmp_path / "held", tmp_path / "damaged")


def assert_equal_but_one(held: Path, damaged: Path) -> None:
    """The same rows and maps, but for the status of the third image."""
    found, wanted = MapIndex(held, "val"), MapIndex(damaged, "val")
    assert (found.status(val_id(3)), wanted.status(val_id(3))) == ("timeout", "unreadable")
    assert list(found) == list(wanted)
    for image_id in found:
        assert (found.read_uint8(image_id) == wanted.read_uint8(image_id)).all()
        assert image_id == val_id(3) or found.row(image_id) == wanted.row(image_id)
