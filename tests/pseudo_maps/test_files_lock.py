import errno
import fcntl
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pseudo_maps.files import FolderBusy, folder_lock, host_name
from tests.command_calls import REPOSITORY
from tests.counts import full

HOLDER = """
import sys
from pathlib import Path
from pseudo_maps.files import folder_lock
with folder_lock(Path(sys.argv[1]), ".lock", wait_s=0, warn=print):
    print("holds", flush=True)
    sys.stdin.read()
"""


LOCK_FILE = ".lock"


def silent(line: str) -> None:
    raise AssertionError(f"not expected: {line}")


def take(folder: Path, *, wait_s: float = 0) -> None:
    with folder_lock(folder, LOCK_FILE, wait_s=wait_s, warn=silent):
        pass


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., tuple["subprocess.Popen[str]", str]]]:
    """Start a process that holds a folder until its input ends; gives it and what it printed then."""
    holders = []

    def start(folder: Path, *words: str) -> tuple["subprocess.Popen[str]", str]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), *words],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        holders.append(holder)
        assert holder.stdout is not None
        return holder, holder.stdout.readline().strip()

    yield start
    for holder in holders:
        holder.kill()
        holder.wait()
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdin.close()
        holder.stdout.close()


def test_the_second_is_told_folder_host_process_and_what_to_do(tmp_path: Path, hold: Callable) -> None:
    holder, _ = hold(tmp_path)
    who = f"{holder.pid} on {host_name()}"
    with pytest.raises(FolderBusy) as caught:
        take(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: process {holder.pid} on host {host_name()} is at work in this folder; wait for its "
        f"end, terminate it (kill {who}), or use another folder"
    )


def test_a_killed_holder_lets_go_and_its_file_is_taken_over(tmp_path: Path, hold: Callable) -> None:
    holder, _ = hold(tmp_path)
    holder.kill()
    holder.wait()
    lock = tmp_path / LOCK_FILE
    assert lock.read_text() == f"{host_name()} {holder.pid}\n"
    with folder_lock(tmp_path, LOCK_FILE, wait_s=0, warn=silent):
        assert lock.read_text() == f"{host_name()} {os.getpid()}\n"
        with pytest.raises(FolderBusy, match=f"process {os.getpid()} on host"):
            take(tmp_path)
    assert not lock.exists()


def test_a_holder_that_is_about_to_end_is_waited_for(
    tmp_path: Path, hold: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, _ = hold(tmp_path)

    def end_holder(_seconds: float) -> None:
        holder.stdin.close()
        assert holder.wait() == 0

    # While the second one waits.
    monkeypatch.setattr("pseudo_maps.files.time", SimpleNamespace(sleep=end_holder, monotonic=time.monotonic))
    take(tmp_path, wait_s=60)
    assert holder.returncode == 0


@pytest.mark.parametrize("content", ["", "one two three", "host x1", "\0" * 2000])
def test_a_file_that_does_not_tell_is_no_obstacle_to_the_message(tmp_path: Path, content: str) -> None:
    with folder_lock(tmp_path, LOCK_FILE, wait_s=0, warn=silent):
        (tmp_path / LOCK_FILE).write_text(content)
        with pytest.raises(FolderBusy) as caught:
            take(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: another process is at work in this folder; wait for its end, terminate it, or use another folder"
    )


def test_a_lock_file_that_was_removed_meanwhile_leaves_the_next_one_s_alone(tmp_path: Path) -> None:
    with folder_lock(tmp_path, LOCK_FILE, wait_s=0, warn=silent):
        (tmp_path / LOCK_FILE).unlink()
        with folder_lock(tmp_path, LOCK_FILE, wait_s=0, warn=silent):
            (tmp_path / LOCK_FILE).rename(tmp_path / "away")
            (tmp_path / LOCK_FILE).write_text("of a third run")
        assert (tmp_path / LOCK_FILE).read_text() == "of a third run"
    assert (tmp_path / LOCK_FILE).read_text() == "of a third run"


def enter_often(folder: Path, times: int) -> None:
    """Exit code 1 when somebody else was in the folder at the same time."""
    for _ in range(times):
        while True:
            try:
                # The folder comes and goes as well.
                with folder_lock(folder, LOCK_FILE, wait_s=0, warn=silent):
                    os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
                    (folder / "alone").unlink()
                break
            except (FolderBusy, FileNotFoundError):
                continue


def test_there_is_never_more_than_one(tmp_path: Path) -> None:
    """Three processes come and go; between opening the file and locking it, its holder may have removed it."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=enter_often, args=(tmp_path / "run", full(100, 300))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert list(tmp_path.glob("run/*")) == list(tmp_path.glob("run/.*")) == []


# --- folders


def test_a_folder_is_made_and_stays_when_something_was_left_in_it(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    take(run)
    assert list(tmp_path.iterdir()) == []
    with folder_lock(run, LOCK_FILE, wait_s=0, warn=silent):
        (run / "result").touch()
    assert list(run.iterdir()) == [run / "result"]


def test_an_empty_folder_that_was_there_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(ZeroDivisionError), folder_lock(run, LOCK_FILE, wait_s=0, warn=silent):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [run] and list(run.iterdir()) == []


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        take(tmp_path / "file" / "run")


# --- file systems; none without locks is at hand, so the kernel's answers are given


def answer(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS])
def test_without_locks_there_is_one_line_and_the_work_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    answer(monkeypatch, number)
    said: list[str] = []
    with folder_lock(tmp_path / "run", LOCK_FILE, wait_s=0, warn=said.append):
        assert list((tmp_path / "run").iterdir()) == []
    (line,) = said
    assert line.startswith(f"{tmp_path / 'run'}: its file system has no locks")
    assert list(tmp_path.iterdir()) == []


def test_nfs_s_answer_for_a_lock_that_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, errno.EACCES)
    with pytest.raises(FolderBusy):
        take(tmp_path)


def test_another_failure_of_the_lock_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=rf"cannot be locked.*{re.escape(str(tmp_path / LOCK_FILE))}"):
        take(tmp_path)
