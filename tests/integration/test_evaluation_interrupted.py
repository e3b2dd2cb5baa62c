"""Evaluations that are ended by signals, and resume to the bytes of those that nothing disturbed."""

import signal
from pathlib import Path

import pytest

from tests.integration.eval_command import (
    DEADLINE_S,
    evaluate,
    evaluated,
    make_listed_data,
    results_in,
    start,
    wait_for_the_end_of_the_group,
    wait_until,
)
from tests.integration.held_files import HeldFiles
from tests.integration.prep_command import VAL, val_id
from tests.world import EVALUATION_OPTIONS, World, copy_of

pytestmark = pytest.mark.usefixtures("one_torch_thread")

IMAGES = 10
FEW = (*EVALUATION_OPTIONS, "--name", "run")


class Obstacles:
    """The last two images of a copied data set can be held: whoever reads one waits, until it is released."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = copy_of(data, folder)
        self._first = self.data / VAL / f"{val_id(1)}.JPEG"
        self._held = HeldFiles([])

    def hold(self) -> None:
        """From now on."""
        self._held = HeldFiles(self.data / VAL / f"{val_id(number)}.JPEG" for number in (IMAGES - 1, IMAGES))

    def remove(self) -> None:
        """Release them, and spoil the first image: whoever reads it again gets another result."""
        self._held.release()
        self._first.write_bytes(b"no image".ljust(self._first.stat().st_size))


def journalled(out: Path) -> int:
    return len(list((out / "journal").glob("*.batch")))


STOPS: list[tuple[int, tuple[object, ...], int]] = [
    # Two jobs have seven batches in hand before the first is stored, and the eighth is the last that can be read.
    (signal.SIGTERM, ("--jobs", 2), 2),
    # Each device waits at one of the held images, and has the image behind it left to do.
    (signal.SIGKILL, ("--device", "cpu,cpu"), 8),
]


@pytest.mark.parametrize(("stop", "words", "stored"), STOPS, ids=["SIGTERM, two jobs", "SIGKILL, two devices"])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    world: World, data: Path, tmp_path: Path, stop: int, words: tuple[object, ...], stored: int
) -> None:
    out = tmp_path / "run"
    obstacles = Obstacles(data, tmp_path / "data")
    command = ("run", world.network, "--data", obstacles.data, *FEW, "--out", out)
    process = start(*command, *words)
    # Headers have been looked at by now, and no image has been read.
    wait_until((out / "journal").exists, process=process)
    obstacles.hold()
    wait_until(lambda: journalled(out) >= stored, process=process)
    process.send_signal(stop)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    wait_for_the_end_of_the_group(process)
    if stop == signal.SIGTERM:
        assert process.returncode == 143
        assert "stopped by SIGTERM; the same command resumes" in stderr and "Traceback" not in stderr
    assert journalled(out) == stored and not (out / "metrics.json").exists()
    obstacles.remove()
    assert evaluate(*command).exit_code == 0
    assert results_in(out) == results_in(world.evaluation)
    assert not (out / "journal").exists()


def test_a_killed_baseline_resumes_too(tmp_path: Path) -> None:
    """Without torch, and with images whose files alone tell their size."""
    boxes = {f"{number:03d}": [(number % 20, 2, number % 20 + 15, 17)] for number in range(70)}
    data = make_listed_data(tmp_path / "data", boxes, sizes=False)
    evaluated(tmp_path / "whole", "baseline", "--data", data, "--name", "either")
    command = ("baseline", "--data", data, "--out", tmp_path / "out", "--name", "either")
    process = start(*command)
    wait_until((tmp_path / "out" / "journal").exists, process=process)
    held = HeldFiles([data / "val" / "069.png"])
    wait_until(lambda: journalled(tmp_path / "out") == 1, process=process)
    process.kill()
    process.communicate()
    held.release()
    (data / "val" / "000.png").write_bytes(b"no image")
    assert evaluate(*command).exit_code == 0
    assert results_in(tmp_path / "out") == results_in(tmp_path / "whole")
