import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pseudo_maps._shard_layout import temporary_path
from pseudo_maps.stale_files import remove_stale_temporaries

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """Number of a process that has ended and been waited for."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def touch(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"half a shard")
    return path


@pytest.mark.parametrize("target", ["val-00000-of-00003.h5", "val-00000-of-00003.h5.sha256", "val.manifest.json"])
def test_what_a_dead_process_left_is_removed_and_named(tmp_path: Path, dead_pid: int, target: str) -> None:
    left = touch(tmp_path, f".{target}.{HOST}.{dead_pid}.tmp")
    assert remove_stale_temporaries(tmp_path) == [left]
    assert list(tmp_path.iterdir()) == []


def test_files_of_living_processes_stay(tmp_path: Path) -> None:
    own = touch(tmp_path, f".val-00000-of-00003.h5.{HOST}.{os.getpid()}.tmp")
    # Process 1 belongs to root: asked as another user, the answer is "not permitted", which means alive.
    first = touch(tmp_path, f".val-00001-of-00003.h5.{HOST}.1.tmp")
    assert remove_stale_temporaries(tmp_path) == []
    assert own.exists() and first.exists()


def test_nothing_else_is_touched(tmp_path: Path, dead_pid: int) -> None:
    names = [
        "val-00000-of-00003.h5",
        "val-00000-of-00003.h5.sha256",
        "val.manifest.json",
        f"val-00000-of-00003.h5.{HOST}.{dead_pid}.tmp",
        f".val-00000-of-00003.h5.{HOST}.{dead_pid}",
        f".val-00000-of-00003.h5.{HOST}.{dead_pid}.tmp.keep",
        f".val-00000-of-00003.h5.{HOST}.x{dead_pid}.tmp",
        f".val-00000-of-00003.h5.other-host.{dead_pid}.tmp",
        f".val-00000-of-00003.h5.{HOST}x.{dead_pid}.tmp",
    ]
    for name in names:
        touch(tmp_path, name)
    assert remove_stale_temporaries(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_host_whose_name_ends_like_ours_is_another_host(tmp_path: Path, dead_pid: int) -> None:
    other = touch(tmp_path, f".val-00000-of-00003.h5.rack2.{HOST}.{dead_pid}.tmp")
    assert remove_stale_temporaries(tmp_path) == []
    assert other.exists()


def test_a_dot_in_the_host_name_is_just_a_dot(tmp_path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node.1")
    other = touch(tmp_path, f".val-00000-of-00003.h5.nodeX1.{dead_pid}.tmp")
    own = touch(tmp_path, f".val-00001-of-00003.h5.node.1.{dead_pid}.tmp")
    assert remove_stale_temporaries(tmp_path) == [own]
    assert other.exists()


@pytest.mark.parametrize("host", ["node-17.cluster.example", "a+b(c)[d]", "a/b", ""])
def test_the_names_are_those_that_the_shard_writer_gives(
    tmp_path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(os, "getpid", lambda: dead_pid)
    left = temporary_path(tmp_path / "val-00000-of-00003.h5")
    left.write_bytes(b"half a shard")
    assert remove_stale_temporaries(tmp_path) == [left]


def test_a_number_that_can_be_no_process_is_no_crash(tmp_path: Path) -> None:
    left = touch(tmp_path, f".val-00000-of-00003.h5.{HOST}.{10**30}.tmp")
    assert remove_stale_temporaries(tmp_path) == [left]
    assert not left.exists()
