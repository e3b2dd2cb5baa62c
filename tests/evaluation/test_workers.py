"""Order, bounds and ends of the worker processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from evaluation.workers import map_in_order
from pseudo_maps.processes import StopWatch, is_running
from tests.command_calls import REPOSITORY
from tests.counts import full

DEADLINE_S = 300.0


def square_after(work: tuple[int, float]) -> tuple[int, int]:
    number, seconds = work
    time.sleep(seconds)
    return number * number, os.getpid()


def refuse_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def name_process_and_stop(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    os.kill(os.getpid(), signal.SIGSTOP)


def name_process_and_wait(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(DEADLINE_S)


def test_one_job_is_this_process() -> None:
    found = list(map_in_order(square_after, [(number, 0.0) for number in range(5)], jobs=1))
    assert found == [(number * number, os.getpid()) for number in range(5)]


def test_one_job_leaves_the_threads_of_its_process_alone() -> None:
    cv2.setNumThreads(3)
    assert list(map_in_order(abs, [-1], jobs=1)) == [1]
    assert cv2.getNumThreads() == 3


def test_results_of_two_jobs_come_in_order_and_work_is_drawn_a_little_ahead() -> None:
    drawn: list[int] = []

    def work() -> Iterator[tuple[int, float]]:
        for number in range(40):
            drawn.append(number)
            # The first is done last.
            yield number, 0.2 if number == 0 else 0.0

    results = map_in_order(square_after, work(), jobs=2)
    ahead, found = [], []
    for result in results:
        found.append(result)
        ahead.append(len(drawn) - len(found))
    assert [value for value, _ in found] == [number * number for number in range(40)]
    assert os.getpid() not in {process for _, process in found}
    # Three pieces wait for each worker, so neither is ever idle and memory does not grow with the work.
    assert max(ahead) == 6


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_function_is_raised_in_its_place(jobs: int) -> None:
    found = []
    with pytest.raises(ValueError, match="seven"):
        for result in map_in_order(refuse_seven, range(30), jobs=jobs):
            found.append(result)
    assert found == list(range(7))


def test_an_error_never_leaves_the_pool_waiting() -> None:
    """Python 3.11.2 has a race there; workers of a running fork server start fast enough to meet it."""
    for _ in range(full(5, 150)):
        with pytest.raises(ValueError, match="seven"):
            list(map_in_order(refuse_seven, range(30), jobs=2))


def test_a_worker_that_dies_is_an_error_that_says_how_to_go_on() -> None:
    found = []
    with pytest.raises(RuntimeError, match=r"a worker process died: killed, or out of memory"):
        for result in map_in_order(die_at_three, range(1000), jobs=2):
            found.append(result)
    assert found == list(range(len(found))) and len(found) <= 3


def test_a_reader_that_stops_early_ends_the_workers() -> None:
    results = map_in_order(square_after, ((number, 0.0) for number in range(10**9)), jobs=2)
    _, process = next(results)
    results.close()  # type: ignore[attr-defined]
    assert not is_running(process)


def kill_itself(_piece: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def keep_waiting(_piece: bytes) -> None:
    time.sleep(DEADLINE_S)


@pytest.mark.parametrize("is_killed", [True, False])
def test_work_that_no_worker_reads_keeps_nobody_waiting(is_killed: bool) -> None:
    """Pieces larger than a pipe: the pool's thread is in the middle of sending one when its workers end."""

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            if number == 5 and not is_killed:
                raise KeyboardInterrupt
            yield bytes(10_000_000)

    with pytest.raises(RuntimeError if is_killed else KeyboardInterrupt):
        list(map_in_order(kill_itself if is_killed else keep_waiting, pieces(), jobs=2))


def test_a_folder_where_the_command_runs_and_ctrl_c_do_not_reach_the_workers(tmp_path: Path) -> None:
    """The module interrupts whoever imports or calls it: the server of the workers, and each of them."""
    user, library = tmp_path / "user", tmp_path / "library"
    (user / "pseudo_maps").mkdir(parents=True)
    (user / "pseudo_maps" / "__init__.py").write_text("raise AssertionError('the folder of the user')")
    library.mkdir()
    (library / "work.py").write_text(
        "import os, signal\n"
        "def interrupted(number):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return number\n"
        "if os.environ['COMMAND'] != str(os.getpid()):\n"
        "    interrupted(0)\n"
        "import pseudo_maps.processes\n"
    )
    (library / "command.py").write_text(
        "import os\n"
        "from evaluation.workers import map_in_order\n"
        "if __name__ == '__main__':\n"
        "    os.environ['COMMAND'] = str(os.getpid())\n"
        "    from work import interrupted\n"
        "    print(*map_in_order(interrupted, range(3), jobs=2))\n"
    )
    done = subprocess.run(
        [sys.executable, library / "command.py"],
        cwd=user,
        env={**os.environ, "PYTHONPATH": f"{library}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 1 2\n", "")


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from evaluation.workers import map_in_order\n"
        "from tests.evaluation.test_workers import name_process_and_wait\n"
        "list(map_in_order(name_process_and_wait, sys.argv[1:] * 2, jobs=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY)
    give_up = time.monotonic() + DEADLINE_S
    while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        assert parent.poll() is None and time.monotonic() < give_up
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    while any(map(is_running, workers)):
        assert time.monotonic() < give_up, "a worker outlived its parent"
        time.sleep(0.01)


def wait_for_the_end(folder: Path) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while any(is_running(int(path.name)) for path in folder.iterdir()):
        assert time.monotonic() < give_up, "a worker is left"
        time.sleep(0.01)


def test_a_worker_that_is_stopped_is_an_error_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.workers._POLL_S", 0.01)
    monkeypatch.setattr(StopWatch.__init__, "__kwdefaults__", {"patience_s": 0})
    with pytest.raises(RuntimeError, match=r"worker process \d+ is stopped"):
        list(map_in_order(name_process_and_stop, [str(tmp_path)], jobs=2))
    wait_for_the_end(tmp_path)


def test_an_interruption_ends_the_wait_for_a_worker_that_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.workers._POLL_S", 0.01)

    def interrupt(_watch: StopWatch, _processes: object) -> None:
        if list(tmp_path.iterdir()):
            raise KeyboardInterrupt

    monkeypatch.setattr(StopWatch, "look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(map_in_order(name_process_and_stop, [str(tmp_path)], jobs=2))
    wait_for_the_end(tmp_path)


def test_shared_memory_without_room_for_semaphores_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evaluation.workers.ProcessPoolExecutor", refuse)
    with pytest.raises(RuntimeError, match=r"No space left.*/dev/shm has .*--jobs 1"):
        list(map_in_order(abs, [1], jobs=2))
