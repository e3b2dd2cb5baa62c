import os
import re
import socket
from pathlib import Path

import pytest

from pseudo_maps.files import TEMPORARY_SUFFIX, replacing, write_atomically


def test_content_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content in (b"one", b"another"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_until_the_end_the_old_content_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert re.fullmatch(re.escape(f".{path.name}") + TEMPORARY_SUFFIX, temporary.name)
    assert path.read_bytes() == b"new"


def test_an_error_on_the_way_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stopped"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("stopped")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_named_and_nothing_stays_beside(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_processes_with_the_same_id_on_two_hosts_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as here:
        here.write_bytes(b"here")
        assert here.name == f".a.txt.{socket.gethostname()}.{os.getpid()}.tmp"
        monkeypatch.setattr(socket, "gethostname", lambda: "node/7.cluster")
        write_atomically(path, b"there")
        assert path.read_bytes() == b"there" and here.read_bytes() == b"here"
    assert path.read_bytes() == b"here" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("rest", "left_behind"),
    [(".node7.12.tmp", True), (".node-7.a.org.12.tmp", True), (".12.tmp", True), (".tmp", False), (".node7.12", False)],
)
def test_what_a_killed_process_leaves_is_known_by_its_name(rest: str, left_behind: bool) -> None:
    assert bool(re.fullmatch(r"\.a\.txt" + TEMPORARY_SUFFIX, f".a.txt{rest}")) == left_behind
