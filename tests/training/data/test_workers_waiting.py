"""Waits for loader workers that end: little shared memory, few files, workers that die, stop or are never done."""

import ctypes
import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch
from torch.utils.data import Dataset

from pseudo_maps import processes
from pseudo_maps.processes import is_running
from training.data.workers import WorkerLoader, explaining_lost_workers

MEGABYTE = 1_000_000
DEADLINE_S = 50
_NEW_MOUNTS, _PRIVATE, _RECURSIVE, _READ_ONLY = 0x20000, 1 << 18, 1 << 14, 1


class Zeros(Dataset[torch.Tensor]):
    """Batches of so many bytes; ``first`` is called in the worker before each."""

    def __init__(self, size: int, *, first: Callable[[], None] = lambda: None) -> None:
        self._size, self._first = size, first

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _key: int) -> torch.Tensor:
        raise AssertionError("not called")

    def __getitems__(self, _keys: list[int]) -> torch.Tensor:
        self._first()
        return torch.zeros(self._size, dtype=torch.uint8)


def batches_through(workers: int, *, size: int, told: bool, batches: int = 12) -> str:
    """How many batches came, or the error."""
    loader = WorkerLoader(
        Zeros(size), [[0]] * batches, workers=workers, pin_memory=False, batch_bytes=size if told else 0
    )
    try:
        with explaining_lost_workers():
            return f"{sum(1 for _ in loader)} batches, {loader.num_workers} workers"
    except RuntimeError as error:
        return str(error)


def in_a_fork(prepare: Callable[[], None], work: Callable[[], str]) -> str:
    """What ``work`` gives in a fork that ``prepare`` has changed; the test is skipped where it may not do that."""
    reading, writing = os.pipe()
    threads = cv2.getNumThreads()
    # A fork would wait for ever for the threads that other tests have had OpenCV start.
    cv2.setNumThreads(1)
    child = os.fork()
    if child == 0:
        # Whatever happens here, the fork must not run the other tests.
        try:
            # A handler in Python would not be reached from a wait in C.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(DEADLINE_S)
            prepare()
            found = work()
        except PermissionError as error:
            found = f"not permitted: {error}"
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        os.write(writing, found.encode())
        os._exit(0)
    cv2.setNumThreads(threads)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        found = file.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "it waits for ever"
    if found.startswith("not permitted"):
        pytest.skip(f"needs a mount namespace of its own, as root has it: {found}")
    return found


def small_memory(size: int, *, read_only: bool = False) -> Callable[[], None]:
    """Give the process a /dev/shm of its own."""

    def prepare() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        calls = [
            lambda: libc.unshare(_NEW_MOUNTS),
            lambda: libc.mount(b"none", b"/", None, _PRIVATE | _RECURSIVE, None),
            lambda: libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", _READ_ONLY if read_only else 0, b"size=%d" % size),
        ]
        for call in calls:
            if call():
                number = ctypes.get_errno()
                raise PermissionError(number, f"{errno.errorcode[number]} of a mount")

    return prepare


def few_files(number: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


# --- shared memory and files


@pytest.mark.parametrize("size", [9 * MEGABYTE, 3 * MEGABYTE], ids=["one batch", "all on their way"])
def test_batches_that_do_not_fit_into_shared_memory_are_one_line(size: int) -> None:
    found = in_a_fork(small_memory(8 * MEGABYTE), lambda: batches_through(2, size=size, told=False))
    assert "/dev/shm" in found and "of 8 MB" in found and "--workers" in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("megabytes", "workers"), [(0.2, 2), (1.5, 2), (2, 1), (9, 0)], ids=["all", "fewer ahead", "one", "none"]
)
def test_workers_are_as_many_as_shared_memory_has_room_for(
    megabytes: float, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    size = int(megabytes * MEGABYTE)
    found = in_a_fork(small_memory(8 * MEGABYTE), lambda: batches_through(2, size=size, told=True, batches=40))
    assert found == f"40 batches, {workers} workers"
    said = capfd.readouterr().err
    assert (f"{workers} instead of 2" in said and "/dev/shm" in said) if workers < 2 else said == ""


def test_read_only_shared_memory_is_a_line_or_no_workers() -> None:
    prepare = small_memory(8 * MEGABYTE, read_only=True)
    assert in_a_fork(prepare, lambda: batches_through(2, size=10, told=True)) == "12 batches, 0 workers"
    found = in_a_fork(prepare, lambda: batches_through(2, size=10, told=False))
    assert "read-only" in found and "--workers" in found


def test_too_few_files_are_one_line() -> None:
    opened = len(os.listdir("/proc/self/fd"))
    found = in_a_fork(few_files(opened + 12), lambda: batches_through(2, size=10, told=True))
    assert "ulimit -n" in found and "--workers" in found


# --- workers that are not there any more


def gone(process: int) -> bool:
    give_up = time.monotonic() + DEADLINE_S
    while is_running(process):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.001)
    return True


def pids(folder: Path) -> Iterator[int]:
    return (int(path.name) for path in folder.iterdir())


def acting(folder: Path, number: signal.Signals) -> Zeros:
    """Batches whose worker signals itself."""

    def act() -> None:
        (folder / str(os.getpid())).touch()
        os.kill(os.getpid(), number)

    return Zeros(10, first=act)


def test_a_worker_that_dies_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^a loader worker was lost .*--workers"), explaining_lost_workers():
        list(WorkerLoader(acting(tmp_path, signal.SIGKILL), [[0]], workers=1, pin_memory=False))


def test_a_worker_that_is_stopped_is_an_error_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.StopWatch.__init__, "__kwdefaults__", {"patience_s": 0})
    with pytest.raises(RuntimeError, match=r"worker process \d+ is stopped"):
        list(WorkerLoader(acting(tmp_path, signal.SIGSTOP), [[0]], workers=1, pin_memory=False))
    assert all(gone(process) for process in pids(tmp_path))


class Enough(Exception):
    pass


def test_a_wait_ends_when_the_caller_wants_and_leaves_no_worker(tmp_path: Path) -> None:
    waits: list[float] = []

    def on_wait(waited_s: float) -> None:
        waits.append(waited_s)
        if len(waits) == 2:
            raise Enough

    loader = WorkerLoader(
        acting(tmp_path, signal.SIGSTOP), [[0]], workers=1, pin_memory=False, persistent=True, on_wait=on_wait
    )
    with pytest.raises(Enough):
        list(loader)
    assert waits[0] < waits[1]
    assert all(gone(process) for process in pids(tmp_path))


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), explaining_lost_workers():
        raise RuntimeError("something else")
