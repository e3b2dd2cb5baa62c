"""Workers of a loader: their signals, and what they leave of the caller's process."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import cv2
import pytest
from torch.utils.data import Dataset

from training.data.workers import WorkerLoader, _heed_parent_alone


def wait_until_taken(process: int, number: signal.Signals) -> None:
    """Return when a blocked signal was taken by the thread that waits for it."""
    while int(re.findall(r"ShdPnd:\t(\w+)", Path(f"/proc/{process}/status").read_text())[0], 16) >> (number - 1) & 1:
        assert os.waitpid(process, os.WNOHANG) == (0, 0)
        time.sleep(0.001)


def test_a_worker_ignores_signals_unless_its_parent_sends_them() -> None:
    """A fork stands for the worker: it is signalled by a second child, then by this process."""
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        _heed_parent_alone()
        os.write(writer, b"\x07")
        while True:
            signal.pause()
    assert os.read(reader, 1) == b"\x07"
    # That it takes the second SIGTERM shows that the first has not ended it.
    for name in ("INT", "TERM", "TERM"):
        subprocess.run(["kill", f"-{name}", str(worker)], check=True)
        wait_until_taken(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
    os.close(reader)
    os.close(writer)


class Processes(Dataset[tuple[bool, int]]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, _key: int) -> tuple[bool, int]:
        raise AssertionError("not called")

    def __getitems__(self, _keys: list[int]) -> tuple[bool, int]:
        return signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()), cv2.getNumThreads()


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_have_one_thread_and_sigterm_blocked_and_this_process_is_unchanged(workers: int) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        loader = WorkerLoader(Processes(), [[0]], workers=workers, pin_memory=False)
        assert list(loader) == [(True, 1) if workers else (False, 3)]
        assert cv2.getNumThreads() == 3
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        cv2.setNumThreads(before)


def test_a_forked_copy_of_an_iterator_leaves_the_workers_alone() -> None:
    batches = iter(WorkerLoader(Processes(), [[0]] * 8, workers=1, prefetch_batches=1, pin_memory=False))
    next(batches)
    fork = os.fork()
    if fork == 0:
        batches._shutdown_workers()
        batches.kill_workers()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
    assert len(list(batches)) == 7


def test_an_iterator_that_is_dropped_ends_its_workers_at_once() -> None:
    batches = iter(WorkerLoader(Processes(), [[0]] * 8, workers=2, pin_memory=False, persistent=True))
    next(batches)
    workers = batches._workers
    batches._shutdown_workers()
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 2
