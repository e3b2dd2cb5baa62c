"""Number, set-up and end of worker processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pseudo_maps.processes import end_with_parent, is_running, worker_count

PROGRAM = """
import resource
import cv2
import numpy as np
from pseudo_maps.processes import prepare_worker_process

def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(1 << 20, dtype=np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

cv2.setNumThreads(2)
prepare_worker_process()
faults()
print(cv2.getNumThreads(), faults())
"""


def test_one_thread_and_memory_that_stays() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    threads, faults = map(int, done.stdout.split())
    assert threads == 1
    # Each of the 50 arrays of 4 MB has 1,024 pages, which are fetched anew when the memory was given back.
    assert faults < 1024


def test_jobs_are_counted() -> None:
    assert [worker_count(jobs) for jobs in (1, 5, -1)] == [1, 5, len(os.sched_getaffinity(0))]


@pytest.mark.parametrize("jobs", [0, -2])
def test_no_jobs_are_refused(jobs: int) -> None:
    with pytest.raises(ValueError, match=f"--jobs {jobs}: expected a number of at least 1, or -1"):
        worker_count(jobs)


# --- the end of the parent

CHILD = """
import os, signal, sys
from pseudo_maps.processes import end_with_parent
def say(number, frame):
    os.write(1, f"{signal.Signals(number).name}\\n".encode())
    os._exit(0)
signal.signal(signal.SIGTERM, say)
end_with_parent(int(sys.argv[1]), by=signal.Signals(int(sys.argv[2])))
print("ready", flush=True)
while True:
    pass
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_programs_end_when_the_other_end_of_the_pipe_is_closed(stopped: bool) -> None:
    """Two programs share the pipe; each gets the signal of its own choice."""
    lifeline, held = os.pipe()
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(lifeline), str(int(by))],
            pass_fds=(lifeline,),
            stdout=subprocess.PIPE,
            text=True,
        )
        for by in (signal.SIGKILL, signal.SIGTERM)
    ]
    os.close(lifeline)
    assert [program.stdout.readline() for program in programs if program.stdout] == ["ready\n"] * 2
    if stopped:
        programs[0].send_signal(signal.SIGSTOP)
    assert [program.poll() for program in programs] == [None, None]
    os.close(held)
    assert [program.communicate(timeout=60)[0] for program in programs] == ["", "SIGTERM\n"]
    assert [program.returncode for program in programs] == [-signal.SIGKILL, 0]


def test_a_program_that_starts_after_the_end_of_its_parent_ends_too() -> None:
    lifeline, held = os.pipe()
    os.close(held)
    command = [sys.executable, "-c", CHILD, str(lifeline), str(int(signal.SIGKILL))]
    done = subprocess.run(command, pass_fds=(lifeline,), capture_output=True, text=True, timeout=60)
    os.close(lifeline)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


PARENT = """
import multiprocessing, os, sys, time
from pseudo_maps.processes import end_with_parent
def work(pipe):
    end_with_parent()
    pipe.send(os.getpid())
    time.sleep(600)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    reader, writer = context.Pipe(duplex=False)
    workers = [context.Process(target=work, args=(writer,), daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    print(*[reader.recv() for _ in workers], flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_multiprocessing_end_with_their_parent(tmp_path: Path, method: str) -> None:
    # From a file, because spawn imports the main module.
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), method]
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 3 and all(map(is_running, workers))
    parent.kill()
    # The workers hold the other end of this pipe.
    assert parent.communicate(timeout=60)[0] == ""
    give_up_s = time.monotonic() + 60
    while any(map(is_running, workers)):
        assert time.monotonic() < give_up_s, "a worker outlived its parent"
        time.sleep(0.01)


def test_without_a_pipe_nothing_happens() -> None:
    end_with_parent()


# --- what is running


def test_a_zombie_is_not_running() -> None:
    process = subprocess.Popen(["true"])
    # WNOWAIT leaves it a zombie.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}").exists() and not is_running(process.pid)
    process.wait()
    assert not is_running(process.pid)


def test_a_process_is_running_since_its_start() -> None:
    now_s = time.time()
    assert is_running(os.getpid()) and is_running(os.getpid(), since_s=now_s)
    assert not is_running(os.getpid(), since_s=now_s - 10 * 365 * 86400)
    assert not is_running(10**30)
    # Of another user, where the tests run as one.
    assert is_running(1)
