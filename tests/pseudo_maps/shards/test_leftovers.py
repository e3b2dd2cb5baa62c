import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pseudo_maps.files import host_name, temporary_path
from pseudo_maps.shards.leftovers import (
    is_abandoned,
    parse_partial_name,
    partials_of_use,
    remove_stale_temporaries,
)
from tests.command_calls import REPOSITORY

HOST = host_name()


def touch(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"half a shard")
    return path


@pytest.mark.parametrize("target", ["val-00000-of-00003.h5", "val-00000-of-00003.h5.sha256", "val.manifest.json"])
@pytest.mark.parametrize("ending", ["tmp", "x0123abcd.tmp"])
def test_what_a_dead_process_left_is_removed_and_named(tmp_path: Path, dead_pid: int, target: str, ending: str) -> None:
    # The second number can be no process.
    for process in (dead_pid, 10**30):
        left = touch(tmp_path, f".{target}.{HOST}.{process}.{ending}")
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
        f".val-00000-of-00003.h5.rack2.{HOST}.{dead_pid}.tmp",
    ]
    for name in names:
        touch(tmp_path, name)
    assert remove_stale_temporaries(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_dot_in_the_host_name_is_just_a_dot(tmp_path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node.1")
    other = touch(tmp_path, f".val-00000-of-00003.h5.{host_name().replace('.', 'X')}.{dead_pid}.tmp")
    own = touch(tmp_path, f".val-00001-of-00003.h5.{host_name()}.{dead_pid}.tmp")
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


def make_older(path: Path, *, days: float) -> Path:
    then = time.time() - 86_400 * days
    os.utime(path, (then, then))
    return path


def test_a_file_older_than_the_process_of_its_number_is_of_another_process(tmp_path: Path) -> None:
    own = touch(tmp_path, f".val-00000-of-00003.h5.{HOST}.{os.getpid()}.tmp")
    assert not is_abandoned(own)
    assert is_abandoned(make_older(own, days=3000)), "this process is younger than that"
    assert remove_stale_temporaries(tmp_path) == [own]


def test_files_of_other_hosts_are_abandoned_when_nobody_wrote_for_an_hour(tmp_path: Path, dead_pid: int) -> None:
    other = touch(tmp_path, f".val-00000-of-00003.h5.other-host.{dead_pid}.tmp")
    assert not is_abandoned(other)
    assert not is_abandoned(make_older(other, days=0.9 / 24))
    assert is_abandoned(make_older(other, days=1.1 / 24))
    assert remove_stale_temporaries(tmp_path) == [], "a run leaves those to verify --repair"
    other.unlink()
    assert not is_abandoned(other)


def test_only_names_of_files_in_the_making_can_be_asked_about(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"notes\.txt: expected the name of a temporary file"):
        is_abandoned(touch(tmp_path, "notes.txt"))


WRITER = """
from pathlib import Path
from pseudo_maps.files import temporary_path
path = temporary_path(Path("val-00000-of-00003.h5"))
path.touch()
print(path, flush=True)
input()
"""


def test_a_file_of_a_container_with_our_host_name_is_not_ours(tmp_path: Path) -> None:
    """Its writer is running, under a process id that means nobody here."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", WRITER]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as container:
        assert container.stdout is not None
        path = tmp_path / container.stdout.readline().strip()
        if path == tmp_path:
            pytest.skip("no process namespace can be made here")
        partial = parse_partial_name(path.name)
        assert partial is not None and partial.host != HOST and partial.host.startswith(f"{HOST}-")
        assert remove_stale_temporaries(tmp_path) == [] and path.exists()
        assert [found for found, _ in partials_of_use(tmp_path, ["val"])] == [path]
        container.communicate("\n")
