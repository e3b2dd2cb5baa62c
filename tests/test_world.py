"""The folders that tests share: made once, made again after a failure, watched for changes."""

from pathlib import Path

import pytest

from tests.world import World, copy_of


def fill(folder: Path) -> None:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("a")


def refuse(_folder: Path) -> None:
    raise AssertionError("made twice")


def test_what_one_process_has_made_others_find(tmp_path: Path) -> None:
    first, second = World(tmp_path / "world"), World(tmp_path / "world")
    folder = first.part("letters", fill)
    assert second.part("letters", refuse) == folder
    assert (folder / "sub" / "a").read_text() == "a" and not (folder / "sub").stat().st_mode & 0o222


def test_what_failed_is_made_again(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    with pytest.raises(AssertionError):
        world.part("letters", lambda folder: (fill(folder), refuse(folder)))
    assert (world.part("letters", fill) / "sub" / "a").exists()


@pytest.mark.parametrize(
    ("change", "files"),
    [
        (lambda folder: (folder / "sub" / "a").write_text("b"), ["letters/sub/a"]),
        (lambda folder: (folder / "sub" / "a").unlink(), ["letters/sub", "letters/sub/a"]),
        (lambda folder: (folder / "sub" / "b").touch(), ["letters/sub", "letters/sub/b"]),
    ],
    ids=["written", "gone", "new"],
)
def test_changes_are_seen_but_in_copies(tmp_path: Path, change, files: list[str]) -> None:
    world = World(tmp_path / "world")
    folder = world.part("letters", fill)
    change(copy_of(folder, tmp_path / "copy"))
    assert world.changed() == []
    (folder / "sub").chmod(0o755)
    change(folder)
    assert world.changed() == files
