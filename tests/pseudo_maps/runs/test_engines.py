import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudo_maps.processes import is_running
from pseudo_maps.runs.engines import need_engine, run_tasks

REPOSITORY = Path(__file__).resolve().parents[3]
DEADLINE_S = 60.0
LOCAL = ("loky", "sequential")
"""Engines that need neither a cluster nor a further package."""


def square(number: int) -> int:
    return number * number


def where_and_threads(_number: int) -> tuple[int, str | None, str | None]:
    return os.getpid(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("NUMBA_NUM_THREADS")


def end_the_process(_number: int) -> None:
    os._exit(3)


def collect(function, tasks, *, jobs: int = 1, backend: str = "sequential") -> list:
    return list(run_tasks(function, tasks, jobs=jobs, backend=backend))


@pytest.mark.parametrize("backend", LOCAL)
@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_gives_one_result(backend: str, jobs: int) -> None:
    found = collect(square, range(7), jobs=jobs, backend=backend)
    assert sorted(found) == [0, 1, 4, 9, 16, 25, 36]
    assert collect(square, [], jobs=jobs, backend=backend) == []


def test_results_come_while_later_tasks_still_wait() -> None:
    done = []

    def note(number: int) -> int:
        done.append(number)
        return number

    results = run_tasks(note, [10, 20, 30], jobs=1, backend="sequential")
    assert isinstance(results, Iterator) and done == []
    assert next(results) == 10
    assert len(done) < 3, "the first result came after the last task"
    results.close()


def test_two_jobs_are_two_other_processes_with_one_thread_each() -> None:
    found = collect(where_and_threads, range(6), jobs=2, backend="loky")
    assert os.getpid() not in {process for process, _, _ in found}
    assert {threads for _, *both in found for threads in both} == {"1"}


@pytest.mark.parametrize(("backend", "jobs"), [("sequential", 2), ("loky", 1)])
def test_sequential_and_one_job_are_this_process(backend: str, jobs: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    found = collect(where_and_threads, range(2), jobs=jobs, backend=backend)
    assert {process for process, _, _ in found} == {os.getpid()}
    assert signal.getsignal(signal.SIGINT) is before, "Ctrl-C has to end the run"


def test_leaving_early_is_silent() -> None:
    # generate_maps stops at the first shard that cannot be written; whatever joblib says about that would
    # stand between the user and the one line that matters. In a process of its own, as it ends the workers.
    program = (
        "import operator; from pseudo_maps.runs.engines import run_tasks\n"
        "results = run_tasks(operator.neg, range(50), jobs=2, backend='loky')\n"
        "assert next(results) <= 0; results.close()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"expected one of loky, sequential, dask, found 'threads'"):
        collect(square, [1], backend="threads")


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pseudo_maps.runs.engines.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"--backend dask needs the package .*: pip install '"):
        need_engine("dask")
    need_engine("loky")


def die_once(folder_and_number: tuple[Path, int]) -> int:
    """Kills its process the first time that a task is called."""
    folder, number = folder_and_number
    try:
        (folder / str(number)).touch(exist_ok=False)
    except FileExistsError:
        return number
    os.kill(os.getpid(), signal.SIGKILL)
    return -1


def test_tasks_whose_workers_died_are_done_by_new_workers(tmp_path: Path) -> None:
    events = []
    tasks = [(tmp_path, number) for number in range(3)]
    results = run_tasks(die_once, tasks, jobs=2, backend="loky", on_event=lambda **event: events.append(event))
    assert sorted(results) == [0, 1, 2]
    assert 1 <= len(events) <= 3 and {event["event"] for event in events} == {"lost-worker"}


def test_workers_that_always_die_end_the_call_instead_of_repeating_it_for_ever() -> None:
    # RuntimeError is what the command line turns into one line and exit 1.
    with pytest.raises(RuntimeError, match="died 2 times without finishing anything"):
        list(run_tasks(end_the_process, [1, 2], jobs=2, backend="loky", max_losses=2))


def tell_and_wait(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    signal.pause()


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = os.fork()
    if parent == 0:
        try:
            list(run_tasks(tell_and_wait, [str(tmp_path)] * 2, jobs=2, backend="loky"))
        finally:
            os._exit(1)
    give_up = time.monotonic() + DEADLINE_S
    while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        assert time.monotonic() < give_up and os.waitpid(parent, os.WNOHANG) == (0, 0)
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while any(map(is_running, workers)):
        assert time.monotonic() < give_up, "a worker outlived its parent"
        time.sleep(0.01)


def test_shared_memory_without_room_for_semaphores_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    with pytest.raises(RuntimeError, match=r"No space left.*/dev/shm has .*--jobs 1"):
        collect(square, [1], jobs=2, backend="loky")
    assert collect(square, [2], jobs=1, backend="loky") == [4]
