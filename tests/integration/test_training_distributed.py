"""``wsol-train`` under torchrun: two processes on a CPU train what one does, and stop as one does."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pseudo_maps.files import LOCK_WAIT_S, folder_lock
from tests.command_calls import StartedProgram, start_program
from tests.counts import full
from tests.training.train_program import NEVER, start_two, train
from tests.training.training_runs import assert_same, events, final_state, make_colour_folders
from training.run_folder.checkpoints import CheckpointFolder
from training.run_folder.files import LOCK_FILE

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# Without batch norm, whose statistics gloo does not share; SGD, because Adam makes large steps of rounding errors.
WORDS = (
    "--method has --arch alexnet-gap-plus --no-batch-norm --optimiser sgd --lr 0.005 --schedule constant "
    "--warmup-epochs 0 --device cpu "
    "--input-size 64 --batch-size 4 --accumulation 2 --workers 0 --log-every 1"
).split()
TRAIN = "tests.training.train_program"
TORCHRUN = ("--standalone", "--nproc-per-node", "2", "-m", TRAIN)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images for training, five for validation: the second process has fewer of them."""
    return make_colour_folders(tmp_path_factory.mktemp("colours") / "data", last_val=1)


def test_two_processes_train_what_one_does(colours: Path, tmp_path: Path) -> None:
    """Also with a validation image that the second process finds to be unreadable."""
    data = Path(shutil.copytree(colours, tmp_path / "data"))
    damaged = data / "val" / "green" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    words = ("--data", data, *WORDS, "--epochs", "2")
    with start_two(TRAIN, NEVER, "", *words, "--out", tmp_path / "two") as (processes, _):
        texts = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    text = "".join(texts)
    alone = train(*words, "--out", tmp_path / "one")
    assert alone.exit_code == 0, alone.output

    # Only the first process talks and writes.
    assert text.count("finished: 2 epochs, 6 steps") == 1
    assert text.count("epoch 1/2: loss") == 1
    assert "2 process(es) on cpu" in text
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}

    one, two = events(tmp_path / "one"), events(tmp_path / "two")
    assert [(line["event"], line["step"]) for line in two] == [(line["event"], line["step"]) for line in one]
    for mine, theirs in zip(two, one, strict=True):
        for name in set(theirs) - {"event", "images_per_s"}:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name
    assert [(line["images"], line["unreadable"]) for line in two if line["event"] == "val"] == [(5, 1), (5, 1)]
    assert text.count(f"count as wrong: {damaged}") == 1
    # The losses move, or any two runs would agree.
    losses = [line["total"] for line in one if line["event"] == "train"]
    assert max(losses) - min(losses) > 1e-3

    first, second = final_state(tmp_path / "one"), final_state(tmp_path / "two")
    for name, value in first["model"].items():
        torch.testing.assert_close(second["model"][name], value, rtol=1e-3, atol=1e-6)
    assert first["config"] == second["config"]
    assert_same(first["accuracy"], second["accuracy"])


def wait_for_two_steps(out: Path, process: StartedProgram) -> None:
    while not (out / "metrics.jsonl").exists() or len(events(out, "train")) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def stop_two(out: Path, *words: object) -> str:
    """SIGTERM to both processes, as torchrun passes it on; what they said."""
    with start_two(TRAIN, NEVER, "", *words) as (processes, _):
        wait_for_two_steps(out, processes[0])
        for process in processes:
            process.terminate()
        texts = [process.communicate()[0] for process in processes]
    assert 143 in [process.returncode for process in processes], texts
    return "".join(texts)


def stop_torchrun(out: Path, *words: object) -> str:
    """torchrun itself, whose processes import PyTorch."""
    process = start_program("torch.distributed.run", *TORCHRUN, NEVER, "", *words)
    wait_for_two_steps(out, process)
    process.terminate()
    text, _ = process.communicate()
    assert process.returncode != 0
    return text


@pytest.mark.parametrize("stop_run", [stop_two, stop_torchrun][: full(1, 2)])
def test_sigterm_leaves_a_checkpoint_to_go_on_from(colours: Path, tmp_path: Path, stop_run: Callable[..., str]) -> None:
    out = tmp_path / "run"
    words = ("--data", colours, "--out", out, *WORDS, "--epochs", "1000")
    text = stop_run(out, *words)
    assert text.count(f"stopped by SIGTERM with a checkpoint in {out}; --resume continues") == 1, text
    *_, saved = CheckpointFolder(out).steps()
    assert saved == max(line["step"] for line in events(out))
    # A single process takes over from two: the same images make up its batches.
    taken_over: list[str] = []

    def stop(text: object, **_others: object) -> None:
        taken_over.append(str(text))
        if "resumed" in str(text):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.jobs.training.TerminalProgress.start_epoch", lambda self, epoch, **_: stop("resumed"))
        patch.setattr("pipelines.jobs.training.TerminalProgress.step", lambda self, images, numbers: None)
        patch.setattr("pipelines.jobs.training.TerminalProgress.say", lambda self, text: taken_over.append(text))
        again = train(*words, "--resume")
    assert again.exit_code == 143, again.output
    assert any(re.search(rf"resumed from .* at step {saved}$", text) for text in taken_over)


def test_a_folder_in_which_another_run_is_at_work_is_refused_once(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with folder_lock(out, LOCK_FILE, wait_s=LOCK_WAIT_S, warn=pytest.fail):
        (before,) = out.iterdir()
        words = ("--data", colours, "--out", out, *WORDS, "--epochs", "1")
        with start_two(TRAIN, NEVER, "", *words) as ((first, second), store):
            text, _ = first.communicate()
            assert first.returncode == 1
            # The second one, which torchrun would end now, waits for the first.
            while store.num_keys() == 0:
                assert second.poll() is None
                time.sleep(0.01)
            second.kill()
            assert "is at work" not in second.communicate()[0]
        (line,) = text.splitlines()
        assert line.startswith(f"wsol-train: error: {out}: process {os.getpid()} on host ")
        assert "is at work in this folder" in line
        assert list(out.iterdir()) == [before]
