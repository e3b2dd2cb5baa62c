"""The same images and settings give the same bytes, however the work is cut, interrupted or moved.

By the command, whose process for images takes two seconds of a core to start; ``test_faults`` kills runs with a
smaller one.
"""

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.datasets.generated import make_clsloc_dataset
from pseudo_maps.shards.verify import verify_folder
from tests.command_calls import StartedProgram, sigterm_when
from tests.integration.fault_runs import DEADLINE_S, contents, kill_run, wait_until_alone
from tests.integration.held_files import HeldFiles
from tests.integration.prep_command import prep, start_prep

IMAGES = 16
SETTINGS = ("--split", "val", "--shard-size", "2", "--working-size", "64", "--map-size", "32", "--max-failed", "2")
SHARDS = IMAGES // 2
WAITED_FOR = {"1": [(5,), (8,), (13,)], "2": [(5, 12)]}
"""For each number of jobs the images at which a run waits to be killed, again and again."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLS-LOC tree of val images with two that fail."""
    root = tmp_path_factory.mktemp("determinism") / "data"
    make_clsloc_dataset(root, classes=2, train_per_class=1, val_per_class=IMAGES // 2, size_px=(64, 96))
    images = sorted((root / "Data/CLS-LOC/val").iterdir())
    images[3].write_bytes(b"not an image")
    images[11].unlink()
    return root


def propose(data: Path, out: Path, *words: str) -> None:
    """Make the maps in this process, and with two jobs in workers."""
    done = prep("proposals", "--data", data, "--out", out, *SETTINGS, *words)
    assert done.exit_code == 0, done.stderr
    assert f"{IMAGES - 2} ok of {IMAGES}" in done.stdout


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of what one uninterrupted process makes."""
    out = tmp_path_factory.mktemp("expected") / "maps"
    propose(data, out, "--jobs", "1")
    found = contents(out)
    assert len(found) == 2 * SHARDS + 1, "a shard and a checksum each, and the manifest"
    assert verify_folder(out) == []
    return found


class WaitingData:
    """A copy of the data in which some images are held: reading one waits."""

    def __init__(self, data: Path, root: Path, images: Sequence[int]) -> None:
        self.root = Path(shutil.copytree(data, root))
        self._held = HeldFiles([])
        self.wait_at(images)

    def wait_at(self, images: Sequence[int]) -> None:
        """Have other images wait."""
        self._held.release()
        paths = sorted((self.root / "Data/CLS-LOC/val").iterdir())
        assert len(paths) == IMAGES - 1, "the last ones of so many have other numbers"
        self._held = HeldFiles(paths[image] for image in images)

    def start_run(self, out: Path, *, jobs: str, more_than: int = 0) -> StartedProgram:
        """A run that has committed more shards than so many, and waits or will wait for an image."""
        run = start_run(self.root, out, "--jobs", jobs)
        give_up = time.monotonic() + DEADLINE_S
        while len(list(out.glob("*.h5"))) <= more_than:
            assert run.poll() is None and time.monotonic() < give_up, f"no shard: {run.output(2)}"
            time.sleep(0.002)
        return run


def start_run(data: Path, out: Path, *words: str) -> StartedProgram:
    return start_prep("proposals", "--data", data, "--out", out, *SETTINGS, *words)


@pytest.mark.parametrize(
    "words",
    [
        ["--backend", "sequential", "--jobs", "2"],
        # As those of interrupted runs, below.
        pytest.param(["--jobs", "2"], marks=pytest.mark.full),
    ],
    ids=" ".join,
)
def test_jobs_backend_and_folder_do_not_matter(
    data: Path, tmp_path: Path, expected: dict[str, str], words: list[str]
) -> None:
    out = tmp_path / "another folder" / "maps"
    propose(data, out, *words)
    assert contents(out) == expected


def test_the_place_and_the_age_of_the_data_do_not_matter(data: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    moved = tmp_path / "somewhere else" / "ILSVRC"
    shutil.copytree(data, moved, copy_function=shutil.copyfile)
    propose(moved, tmp_path / "maps")
    assert contents(tmp_path / "maps") == expected


@pytest.mark.full
def test_concurrent_array_tasks_make_the_same_folder(data: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    tasks = [start_run(data, tmp_path / "maps", "--task-index", str(task), "--task-count", "2") for task in range(2)]
    for task in tasks:
        _, stderr = task.communicate(timeout=DEADLINE_S)
        assert task.returncode == 0, stderr
    assert contents(tmp_path / "maps") == expected


@pytest.mark.full
@pytest.mark.parametrize("jobs", WAITED_FOR)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    data: Path, tmp_path: Path, expected: dict[str, str], jobs: str
) -> None:
    out, waiting = tmp_path / "maps", WaitingData(data, tmp_path / "data", [])
    kept: dict[str, int] = {}
    for images in WAITED_FOR[jobs]:
        waiting.wait_at(images)
        kill_run(waiting.start_run(out, jobs=jobs, more_than=len(kept)))
        inodes = {path.name: path.stat().st_ino for path in out.glob("*.h5")}
        assert all(inodes[name] == inode for name, inode in kept.items()), "a committed shard was replaced"
        found = contents(out)
        assert all(found[name] == expected[name] for name in inodes)
        kept = inodes
    assert 0 < len(kept) < SHARDS, "the kills came before the first or after the last shard"
    propose(data, out, "--jobs", jobs)
    assert contents(out) == expected
    assert verify_folder(out) == []


def check_stopped(out: Path, code: int, stderr: str, *, by: str) -> None:
    assert code == {"SIGINT": 130, "SIGTERM": 143}[by], stderr
    # Workers get the signal too, and where it meets a finalizer of a library, Python prints that it ignored it.
    assert f"\nwsol-prep: stopped by {by}; the same command resumes\n" in stderr
    assert [path.name for path in out.iterdir() if path.name.endswith(".tmp")] == []
    assert 0 < len(list(out.glob("*.h5"))) < SHARDS


def test_an_interrupted_run_says_so_and_can_go_on(data: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    out, waiting = tmp_path / "maps", WaitingData(data, tmp_path / "data", [5])
    with sigterm_when(lambda: len(list(out.glob("*.h5"))) == 2):
        done = prep("proposals", "--data", waiting.root, "--out", out, *SETTINGS)
    check_stopped(out, done.exit_code, done.stderr, by="SIGTERM")
    propose(data, out)
    assert contents(out) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_run_ends_its_workers_too(
    data: Path, expected: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "maps"
    run = WaitingData(data, tmp_path / "data", [5, 12]).start_run(out, jobs="2")
    if number == signal.SIGINT:
        # What Ctrl-C on a terminal does: every process of the group gets it.
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    _, stderr = run.communicate(timeout=DEADLINE_S)
    wait_until_alone(run)
    assert run.returncode is not None
    check_stopped(out, run.returncode, stderr, by=number.name)
    propose(data, out)
    assert contents(out) == expected
