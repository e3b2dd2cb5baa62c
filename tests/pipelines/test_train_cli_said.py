"""What wsol-train says about options that do less than they seem to, and how a finished run is continued."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from pipelines.train_cli import main
from pseudo_maps.files import folder_lock
from tests.command_calls import invoke
from tests.training.training_runs import make_colour_folders
from training.run_folder.checkpoints import CheckpointFolder, load_checkpoint
from training.run_folder.files import FINISHED_FILE, LOCK_FILE

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_colour_folders(tmp_path_factory.mktemp("colours"), train=2, val=1)


def train(data: Path, out: Path, *words: object, epochs: int = 1) -> Result:
    small = ("--method", "gap", "--input-size", 64, "--batch-size", 4, "--device", "cpu", "--workers", 0)
    return invoke(main, "--data", data, "--out", out, "--epochs", epochs, *small, *words, prog_name="wsol-train")


def test_a_finished_run_of_a_constant_rate_is_continued_to_more_epochs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = ("--schedule", "constant", "--warmup-epochs", 0, "--lr", 0.001)
    first = train(data, tmp_path / "run", *constant)
    assert first.exit_code == 0 and "2 of 6 training images" in first.stderr
    assert "--crop-scale" not in first.stderr
    marker = tmp_path / "run" / FINISHED_FILE
    content = marker.read_bytes()
    with monkeypatch.context() as patch, folder_lock(marker.parent, LOCK_FILE, wait_s=0, warn=pytest.fail):
        # One that continues it is at work.
        patch.setattr("pseudo_maps.files.LOCK_WAIT_S", 0.0)
        refused = train(data, tmp_path / "run", *constant, epochs=2)
        assert refused.exit_code == 1 and "is at work in this folder" in refused.stderr
        assert marker.read_bytes() == content

    @contextlib.contextmanager
    def wait_for_another(*_folder: object, **_options: object) -> Iterator[None]:
        marker.unlink()
        yield

    with monkeypatch.context() as patch:
        patch.setattr("pseudo_maps.files.folder_lock", wait_for_another)
        late = train(data, tmp_path / "run", *constant, epochs=2)
        assert late.exit_code == 1 and "another process has continued this run" in late.stderr
    marker.write_bytes(content)
    longer = train(data, tmp_path / "run", *constant, epochs=2)
    assert longer.exit_code == 0 and "resumed" in longer.stderr and "finished: 2 epochs" in longer.stdout
    assert "this run is finished" in train(data, tmp_path / "run", *constant, epochs=2).stdout
    assert train(data, tmp_path / "whole", *constant, epochs=2).exit_code == 0
    newest = [CheckpointFolder(tmp_path / name).latest() for name in ("run", "whole")]
    states = [load_checkpoint(found.path) for found in newest if found]
    assert states[0]["step"] == states[1]["step"] == 2
    assert all(bool((states[0]["model"][name] == weights).all()) for name, weights in states[1]["model"].items())
    fewer = train(data, tmp_path / "run", *constant, epochs=1)
    assert fewer.exit_code == 1 and "epochs: 2 stored, 1 now" in fewer.stderr


def test_a_schedule_that_has_ended_is_named(data: Path, tmp_path: Path) -> None:
    scale = ("--crop-scale", 0.5)
    first = train(data, tmp_path / "run", *scale)
    assert first.exit_code == 0 and "--crop-scale has no effect" in first.stderr
    longer = train(data, tmp_path / "run", *scale, epochs=2)
    assert longer.exit_code == 1 and "epochs: 1 stored, 2 now" in longer.stderr and "cosine" in longer.stderr


def test_fewer_images_than_a_batch_are_told_what_to_lower(data: Path, tmp_path: Path) -> None:
    few = train(data, tmp_path / "run", "--batch-size", 8)
    assert few.exit_code == 1 and "batch size of at most 6" in few.stderr and "6 of 6" not in few.stderr


def test_images_without_folders_are_told_what_works(data: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(data / "train" / "red" / "0.png", flat)
    found = train(flat, tmp_path / "run")
    assert found.exit_code == 1 and "1 training image has a class" in found.stderr
    assert "one folder per class" in found.stderr
