"""Files appear whole or not at all; names, digests and differences. The folder lock: test_files_lock."""

import errno
import hashlib
import os
import socket
from pathlib import Path

import pytest

from pseudo_maps.files import (
    differences,
    file_sha256,
    host_name,
    replacing,
    sync,
    temporary_name_pattern,
    temporary_path,
    write_atomically,
)

A_TXT = temporary_name_pattern(r"a\.txt")


def test_content_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content in (b"one", memoryview(b"another")):
        write_atomically(path, content)
        assert path.read_bytes() == content
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"another"
        assert A_TXT.fullmatch(temporary.name)
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError("stopped"), OSError("another file"), KeyboardInterrupt()])
def test_an_error_on_the_way_changes_nothing_and_is_raised_as_it_is(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)) as caught, replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise failure
    assert caught.value is failure
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "a.txt"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source")


def test_errors_name_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "taken", tmp_path / "missing" / "a.txt"):
        with pytest.raises(OSError) as caught:
            write_atomically(path, b"content")
        assert caught.value.filename == str(path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomically(tmp_path / "a.txt", b"content")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def only_files(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_atomically(tmp_path / "a.txt", b"content")
    assert (tmp_path / "a.txt").read_bytes() == b"content"


def test_a_file_that_cannot_be_synced_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    (tmp_path / "a.txt").touch()
    monkeypatch.setattr(os, "fsync", refuse)
    sync(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        sync(tmp_path / "a.txt")


def test_two_writers_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with the same host name and process id, as two containers may have."""
    path = tmp_path / "a.txt"
    with replacing(path) as here:
        here.write_bytes(b"here")
        write_atomically(path, b"there")
        assert path.read_bytes() == b"there" and here.read_bytes() == b"here"
    assert path.read_bytes() == b"here" and list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(socket, "gethostname", lambda: "node/7.cluster")
    found = A_TXT.fullmatch(temporary_path(path).name)
    assert found is not None
    assert (found["host"], int(found["process"])) == (host_name(), os.getpid())
    assert host_name().startswith("node_7.cluster")


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "s" * 200 + "-00000-of-00001.h5"])
def test_long_names_stay_within_the_limit_and_keep_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 64)
    write_atomically(tmp_path / name, b"content")
    assert os.listdir(tmp_path) == [name]
    temporary = temporary_path(tmp_path / name).name
    assert len(os.fsencode(temporary)) <= 255
    found = temporary_name_pattern(".+" + name[-8:].replace(".", r"\.")).fullmatch(temporary)
    assert found is not None and found["host"] == host_name()


@pytest.mark.parametrize(
    ("rest", "host"),
    [
        (".node7.12.x01234567.tmp", "node7"),
        (".node-7.a.org.12.x0123abcd.tmp", "node-7.a.org"),
        (".node7.12.tmp", "node7"),
        (".node-7.a.org.12.tmp", "node-7.a.org"),
        (".12.tmp", None),
    ],
)
def test_what_a_killed_process_leaves_is_known_by_its_name(rest: str, host: str | None) -> None:
    found = A_TXT.fullmatch(f".a.txt{rest}")
    assert found is not None
    assert found.groupdict() == {"target": "a.txt", "host": host, "process": "12"}


@pytest.mark.parametrize("name", [".a.txt.tmp", ".a.txt.node7.12", "a.txt.node7.12.tmp", ".b.txt.node7.12.tmp"])
def test_other_names_are_left_alone(name: str) -> None:
    assert A_TXT.fullmatch(name) is None


def test_the_digest_is_the_one_of_sha256sum(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


# --- differences


def test_equal_values_have_no_differences() -> None:
    value = {"a": [1, {"b": None}], "c": "d", "f": 1, "g": (1, 2)}
    assert differences(value, {"c": "d", "a": [1, {"b": None}], "e": None, "f": 1.0, "g": [1, 2]}) == []


@pytest.mark.parametrize(
    ("stored", "own", "lines"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, ["a.b: 1 stored, 3 now"]),
        ({"a": 1}, {"b": "x"}, ['b: nothing stored, "x" now', "a: 1 stored, nothing now"]),
        ({"a": 1}, {"a": True}, ["a: 1 stored, true now"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: [1, 2] stored, [2, 1] now"]),
        ({"a": None}, {"a": {"b": 1}}, ['a: nothing stored, {"b": 1} now']),
        (1, 2, ["all: 1 stored, 2 now"]),
    ],
)
def test_each_difference_is_a_line(stored: object, own: object, lines: list[str]) -> None:
    assert differences(stored, own) == lines
    renamed = [line.replace("stored", "there").replace("now", "here") for line in lines]
    assert differences(stored, own, names=("there", "here")) == renamed


def test_a_digest_is_shown_where_nothing_else_of_its_object_differs() -> None:
    before = {"data": {"images": 2, "sha256": "1f"}, "maps": {"sha256": "aa", "format": "npy"}}
    assert differences(before, {**before, "data": {"images": 3, "sha256": "2e"}}) == ["data.images: 2 stored, 3 now"]
    assert differences(before, {**before, "maps": {"sha256": "bb", "format": "npy"}}) == [
        'maps.sha256: "aa" stored, "bb" now'
    ]


def test_long_values_are_cut() -> None:
    (line,) = differences("x" * 1000, "y")
    assert line.startswith('all: "xxx') and line.endswith('... stored, "y" now') and len(line) < 150
