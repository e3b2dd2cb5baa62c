"""The same images and settings give the same bytes, however the work is cut, interrupted or moved."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.datasets.generated import make_clsloc_dataset
from pseudo_maps.shards.verify import verify_folder

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = "from pipelines.prep_cli import main; main(prog_name='wsol-prep')"
IMAGES = 32
SETTINGS = ("--split", "val", "--shard-size", "2", "--working-size", "64")
SHARDS = IMAGES // 2
KILL_DELAYS_S = {"1": (0.0, 0.013, 0.041), "2": (0.029,)}
"""Seconds between the first new shard of a run and its end by SIGKILL, for each number of jobs."""
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLS-LOC tree of 32 val images with two that fail."""
    root = tmp_path_factory.mktemp("determinism") / "data"
    make_clsloc_dataset(root, classes=2, train_per_class=1, val_per_class=IMAGES // 2, size_px=(64, 96))
    images = sorted((root / "Data/CLS-LOC/val").iterdir())
    images[3].write_bytes(b"not an image")
    images[17].unlink()
    return root


def command(data: Path, out: Path, *words: str) -> list[str]:
    fixed = ["proposals", "--data", str(data), "--out", str(out), *SETTINGS, "--max-failed", "2"]
    return [sys.executable, "-c", PROGRAM, *fixed, *words]


def propose(data: Path, out: Path, *words: str) -> None:
    done = subprocess.run(command(data, out, *words), cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{IMAGES - 2} ok of {IMAGES}" in done.stdout


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones included, but for the run logs."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
        if path.parent != folder / "logs"
    }


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of what one uninterrupted process makes."""
    out = tmp_path_factory.mktemp("expected") / "maps"
    propose(data, out, "--jobs", "1")
    found = digests(out)
    assert len(found) == 2 * SHARDS + 1, "a shard and a checksum each, and the manifest"
    assert verify_folder(out) == []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--jobs", "2"], ["--backend", "sequential", "--jobs", "2"]], ids=" ".join)
def test_jobs_backend_and_folder_do_not_matter(
    data: Path, tmp_path: Path, expected: dict[str, str], words: list[str]
) -> None:
    out = tmp_path / "another folder" / "maps"
    propose(data, out, *words)
    assert digests(out) == expected


@pytest.mark.slow
def test_the_place_and_the_age_of_the_data_do_not_matter(data: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    moved = tmp_path / "somewhere else" / "ILSVRC"
    shutil.copytree(data, moved, copy_function=shutil.copyfile)
    propose(moved, tmp_path / "maps")
    assert digests(tmp_path / "maps") == expected


@pytest.mark.slow
def test_concurrent_array_tasks_make_the_same_folder(data: Path, tmp_path: Path, expected: dict[str, str]) -> None:
    tasks = [start_run(data, tmp_path / "maps", "--task-index", str(task), "--task-count", "2") for task in range(2)]
    for task in tasks:
        _, stderr = task.communicate(timeout=DEADLINE_S)
        assert task.returncode == 0, stderr
    assert digests(tmp_path / "maps") == expected


@pytest.mark.slow
@pytest.mark.parametrize("jobs", KILL_DELAYS_S)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    data: Path, tmp_path: Path, expected: dict[str, str], jobs: str
) -> None:
    out = tmp_path / "maps"
    kept: dict[str, int] = {}
    # Each try is killed a moment after it has committed something, at another point of its work each time.
    for delay_s in KILL_DELAYS_S[jobs]:
        with start_run(data, out, "--jobs", jobs) as run:
            wait_for_a_shard(run, out, more_than=len(kept))
            time.sleep(delay_s)
            kill_group(run)
        inodes = {path.name: path.stat().st_ino for path in out.glob("*.h5")}
        assert all(inodes[name] == inode for name, inode in kept.items()), "a committed shard was replaced"
        for name in inodes:
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == expected[name]
        kept = inodes
    assert 0 < len(kept) < SHARDS, "the kills came before the first or after the last shard"
    propose(data, out, "--jobs", jobs)
    assert digests(out) == expected
    assert verify_folder(out) == []


def start_run(data: Path, out: Path, *words: str) -> subprocess.Popen:
    """Begin a run in a process group of its own, which its workers share."""
    return subprocess.Popen(
        command(data, out, *words),
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_a_shard(run: subprocess.Popen, out: Path, *, more_than: int) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while len(list(out.glob("*.h5"))) <= more_than:
        assert run.poll() is None and time.monotonic() < give_up, "the run ended without a shard"
        time.sleep(0.002)


def kill_group(run: subprocess.Popen) -> None:
    """Kill a run with all its workers and wait until none of them is left."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    wait_until_gone(run)


def wait_until_gone(run: subprocess.Popen) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up:
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.005)
    raise AssertionError("a worker outlived its run")


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_run_says_so_and_can_go_on(
    data: Path, tmp_path: Path, expected: dict[str, str], jobs: str
) -> None:
    out = tmp_path / "maps"
    with start_run(data, out, "--jobs", jobs) as run:
        wait_for_a_shard(run, out, more_than=0)
        # What Ctrl-C on a terminal does: every process of the group gets it.
        os.killpg(run.pid, signal.SIGINT)
        _, stderr = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 130, stderr
    # Workers get the signal too, and where it meets a finalizer of a library, Python prints that it ignored it.
    assert "\nwsol-prep: stopped by SIGINT; the same command resumes\n" in stderr
    assert [path.name for path in out.iterdir() if path.name.endswith(".tmp")] == []
    propose(data, out, "--jobs", "2")
    assert digests(out) == expected


@pytest.mark.slow
def test_sigterm_ends_the_workers_too_and_a_rerun_goes_on(data: Path, expected: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "maps"
    with start_run(data, out, "--jobs", "2") as run:
        wait_for_a_shard(run, out, more_than=0)
        run.send_signal(signal.SIGTERM)
        _, stderr = run.communicate(timeout=DEADLINE_S)
    wait_until_gone(run)
    assert run.returncode == 143, stderr
    assert "\nwsol-prep: stopped by SIGTERM; the same command resumes\n" in stderr
    propose(data, out, "--jobs", "2")
    assert digests(out) == expected
