"""``wsol-train`` as a user runs it: killed, interrupted, on a full disk, diverging, finished; and resumed."""

import errno
import itertools
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from pseudo_maps.files import folder_lock, host_name
from pseudo_maps.processes import is_running
from tests.command_calls import StartedProgram
from tests.counts import full
from tests.integration.fault_runs import status_fields
from tests.integration.prep_command import prep
from tests.training.train_program import start, train
from tests.training.training_runs import assert_same, events, final_state, make_colour_folders, timeless
from training.run_folder.checkpoints import CheckpointFolder
from training.run_folder.files import LOCK_FILE

SHORT = "--device cpu --input-size 64 --batch-size 4 --epochs 2 --workers 0 --log-every 1 --lr 0.001 --warmup-epochs 1"
GAP = (*SHORT.split(), "--method", "gap")
"""Twelve images: three steps in each of two epochs."""
ENDLESS = ("--epochs", "1000")
"""More than any test waits for."""
OFTEN = ("--checkpoint-minutes", "0", "--keep-last", "1")


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_colour_folders(tmp_path_factory.mktemp("colours") / "data", last_val=1)


@pytest.fixture(scope="module")
def whole(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    result = train("--data", colours, "--out", out, *GAP, *OFTEN)
    assert result.exit_code == 0, result.output
    return out


def wait_for_step(out: Path, step: int, process: StartedProgram) -> None:
    path = out / "metrics.jsonl"
    while not path.exists() or path.read_text().count('"train"') < step:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)


def steps_logged(out: Path) -> list[int]:
    return [line["step"] for line in events(out, "train")]


def assert_equal_runs(first: Path, second: Path) -> None:
    assert_same(final_state(first), final_state(second))
    assert timeless(events(first)) == timeless(events(second))
    assert (first / "finished.json").read_text() == (second / "finished.json").read_text()


# --- interrupted and resumed


def test_a_killed_run_resumes_to_the_bit(colours: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL before something is done to the files of the run: checkpoints, lines, the marker of a finished run."""
    words = ("--data", colours, *GAP, *OFTEN)
    for moment in itertools.count(7, full(12, 3)):
        out = tmp_path / str(moment)
        process = start(*words, "--out", out, kill_at=moment, folder=out)
        text, _ = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, text
        result = train(*words, "--out", out, "--resume")
        assert result.exit_code == 0, (moment, result.output)
        assert steps_logged(out) == [1, 2, 3, 4, 5, 6], moment
        assert_equal_runs(out, whole)
    # Six checkpoints and a marker have five moments each.
    assert moment > 7 * 5


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_an_interrupted_run_says_so_and_saves_a_checkpoint(
    colours: Path, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    out = tmp_path / "run"
    process = start("--data", colours, "--out", out, *GAP, *ENDLESS, "--workers", "1", "--keep-last", "1")
    wait_for_step(out, 1, process)
    # SLURM and a terminal signal every process of a job, the loader's workers too.
    os.killpg(process.pid, number)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == exit_code, text
    (line,) = [line for line in text.splitlines() if "stopped" in line]
    assert line == f"wsol-train: stopped by {number.name} with a checkpoint in {out}; --resume continues"
    assert "Traceback" not in text and "Error" not in text
    (saved,) = CheckpointFolder(out).steps()
    assert saved == max(steps_logged(out))


# --- two at once


def test_a_second_run_in_the_folder_is_refused_and_the_first_continues(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    words = ("--data", colours, "--out", out, *GAP, *OFTEN, "--workers", "1")
    process = start(*words, *ENDLESS)
    wait_for_step(out, 1, process)
    # While it is refused the first one stands still, so that it is sure to be at work.
    os.kill(process.pid, signal.SIGSTOP)
    while status_fields(process.pid)[0] != "T":
        time.sleep(0.005)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr("pseudo_maps.files.LOCK_WAIT_S", 0.0)
    for more in ((), ("--resume",)):
        second = train(*words, *more)
        assert (second.exit_code, second.output) == (
            1,
            f"wsol-train: error: {out}: process {process.pid} on host {host_name()} is at work in this "
            f"folder; wait for its end, terminate it (kill {process.pid} on {host_name()}), or use another "
            "folder\n",
        )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    seen = max(steps_logged(out))
    os.kill(process.pid, signal.SIGCONT)
    wait_for_step(out, seen + 1, process)
    process.terminate()
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 143, text
    assert LOCK_FILE not in {path.name for path in out.iterdir()}


def test_without_locks_a_run_warns_in_one_line_and_trains(
    colours: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    result = train("--data", colours, "--out", tmp_path / "run", *GAP, *OFTEN)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if "warning" in line]
    assert line.startswith(f"wsol-train: warning: {tmp_path / 'run'}: its file system has no locks")
    assert_equal_runs(tmp_path / "run", whole)


def test_workers_end_with_a_run_that_was_killed_alone_and_its_folder_is_free(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start("--data", colours, "--out", out, *GAP, *ENDLESS, "--workers", "2")
    wait_for_step(out, 1, process)
    workers = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    process.kill()
    process.wait()
    assert len(workers) >= 2
    with folder_lock(out, LOCK_FILE, wait_s=60, warn=pytest.fail):
        pass
    while any(map(is_running, workers)):
        time.sleep(0.005)
    process.communicate(timeout=60)


def test_a_finished_run_is_left_alone(colours: Path, whole: Path) -> None:
    # The folder's own time too: nothing is written beside, and a read-only folder will do.
    before = {path.name: path.stat().st_mtime_ns for path in (whole, *whole.iterdir())}
    for words in ((), ("--resume",)):
        result = train("--data", colours, "--out", whole, *GAP, *words)
        assert (result.exit_code, result.output) == (
            0,
            f"{whole}: this run is finished; use another --out for a new one\n",
        )
    assert {path.name: path.stat().st_mtime_ns for path in (whole, *whole.iterdir())} == before


def test_a_finished_run_of_other_settings_is_not_called_finished(colours: Path, whole: Path) -> None:
    result = train("--data", colours, "--out", whole, *GAP, "--seed", "7", "--resume")
    assert result.exit_code == 1
    assert (
        f"{whole}: holds a finished run of other settings (seed: 0 stored, 7 now); use another --out" in result.output
    )


def test_what_a_finished_run_says_and_leaves(colours: Path, whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {"checkpoint-00000006.pt", "finished.json", "metrics.jsonl"}
    assert [(line["event"], line["step"]) for line in events(whole)] == [
        *(("train", step) for step in (1, 2, 3)),
        ("epoch", 3),
        ("val", 3),
        *(("train", step) for step in (4, 5, 6)),
        ("epoch", 6),
        ("val", 6),
    ]
    assert [line["images"] for line in events(whole, "val")] == [5, 5]


@pytest.fixture
def stopped(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted after its second step."""
    from training.trainer import Trainer

    real, done = Trainer.train_step, []

    def step(self: Trainer, batches: list) -> None:
        real(self, batches)
        done.append(1)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        assert train("--data", colours, "--out", out, *GAP, *OFTEN).exit_code == 143
    assert CheckpointFolder(out).steps() == [2]
    return out


def test_starting_anew_over_checkpoints_is_refused(colours: Path, stopped: Path) -> None:
    before = final_state(stopped)
    result = train("--data", colours, "--out", stopped, *GAP)
    assert result.exit_code == 2
    assert "has checkpoints already: add --resume" in result.output
    assert_same(final_state(stopped), before)


def test_going_on_with_another_configuration_is_refused(colours: Path, stopped: Path) -> None:
    result = train("--data", colours, "--out", stopped, *GAP, "--resume", "--lr", "0.5", "--seed", "9")
    assert result.exit_code == 1
    assert "optimiser.lr: 0.001 stored, 0.5 now" in result.output
    assert "seed: 0 stored, 9 now" in result.output
    assert "batch_size" not in result.output and "Traceback" not in result.output
    assert CheckpointFolder(stopped).steps() == [2]


def test_what_does_not_decide_the_result_may_change_on_resume(colours: Path, whole: Path, stopped: Path) -> None:
    result = train("--data", colours, "--out", stopped, *GAP, *OFTEN, "--resume", "--keep-last", "5")
    assert result.exit_code == 0, result.output
    assert CheckpointFolder(stopped).steps() == [2, 3, 4, 5, 6]
    assert_equal_runs(stopped, whole)


def test_resume_of_a_run_that_has_not_begun_begins_it(colours: Path, whole: Path, tmp_path: Path) -> None:
    """A job that is queued again gives --resume always."""
    result = train("--data", colours, "--out", tmp_path / "run", *GAP, *OFTEN, "--resume")
    assert result.exit_code == 0, result.output
    assert "finished: 2 epochs, 6 steps, val top-1" in result.output
    assert_equal_runs(tmp_path / "run", whole)


# --- what goes wrong


def test_a_full_disk_is_one_line_and_costs_nothing(colours: Path, whole: Path, stopped: Path) -> None:
    words = ("--data", colours, "--out", stopped, *GAP, *OFTEN, "--resume")
    before = final_state(stopped)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Lines of numbers fit, a checkpoint does not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (CheckpointFolder(stopped).path(2).stat().st_size // 2, hard))
    try:
        failed = train(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failed.exit_code == 1
    (line,) = [line for line in failed.output.splitlines() if "error" in line]
    assert line.startswith("wsol-train: error: [Errno 27] File too large")
    assert line.endswith(f"'{stopped}/checkpoint-00000003.pt'")
    assert "Traceback" not in failed.output
    assert {path.name for path in stopped.iterdir()} == {"checkpoint-00000002.pt", "metrics.jsonl"}
    assert_same(final_state(stopped), before)
    assert train(*words).exit_code == 0
    assert_equal_runs(stopped, whole)


def test_divergence_is_one_line_with_advice(colours: Path, tmp_path: Path) -> None:
    huge = ("--no-batch-norm", "--lr", "1e20", "--optimiser", "sgd", "--clip-norm", "0", "--warmup-epochs", "0")
    result = train("--data", colours, "--out", tmp_path / "run", *GAP, *huge)
    assert result.exit_code == 1
    *_, last = result.output.strip().splitlines()
    assert re.fullmatch(r"wsol-train: error: step \d: training diverged, not finite: .*Lower --lr.*", last)
    assert "Traceback" not in result.output
    assert not (tmp_path / "run" / "finished.json").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_names_its_file(tmp_path: Path, workers: int) -> None:
    root = make_colour_folders(tmp_path / "data", train=2, val=1)
    broken = root / "train" / "green" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    result = train("--data", root, "--out", tmp_path / "run", *GAP, "--batch-size", "6", "--workers", workers)
    assert result.exit_code == 1
    _found, error = result.output.strip().splitlines()
    assert error.startswith(f"wsol-train: error: {broken}: ") and "--on-missing skip" in error


# --- from images to a trained network


def test_a_run_with_every_loss_and_weighted_pooling_resumes_to_the_bit(
    colours: Path, whole: Path, tmp_path: Path
) -> None:
    maps = prep("proposals", "--data", colours, "--split", "train", "--out", tmp_path / "maps", "--working-size", 48)
    assert maps.exit_code == 0, maps.output
    words = ("--data", colours, "--maps", tmp_path / "maps", *SHORT.split(), *OFTEN, "--keep-last", 9)
    words = (*words, "--perceptual-weights", max(whole.glob("checkpoint-*.pt")), "--pooling", "saliency")
    words = (*words, *"--triplet-scale image --area-weight 1 --map-ignore 0.3 0.6 --map-loss bce".split())
    result = train(*words, "--out", tmp_path / "one")
    assert result.exit_code == 0, result.output
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for left in ("checkpoint-0000000[3-6].pt", "finished.json"):
        for path in (tmp_path / "two").glob(left):
            path.unlink()
    result = train(*words, "--out", tmp_path / "two", "--resume")
    assert result.exit_code == 0 and "at step 2" in result.output, result.output
    assert_equal_runs(tmp_path / "two", tmp_path / "one")
    assert {"classification", "map", "triplet", "cam_map"} < set(events(tmp_path / "two", "train")[0])
    stored = final_state(tmp_path / "two")["config"]
    assert (stored["method"], stored["maps"]["method"]) == ("saliency", "geodesic")
    assert stored["loss"]["map_ignore"] == [0.3, 0.6]
