"""Folders that many tests read, each made once in a run of all tests, by the first process that needs it."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import pytest


class World:
    """Read-only folders by their names; ``copy_of`` gives what may be changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        self._used: set[str] = set()

    def part(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder ``name`` that ``make`` has written, which is given a path where nothing is."""
        folder, finished = self._folder / name, self._folder / f"{name}.json"
        with (self._folder / f"{name}.lock").open("w") as lock:
            # Other processes wait here while the first one makes it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                _allow_writing(folder, False)
                finished.write_text(json.dumps(_state(folder)))
        self._used.add(name)
        return folder

    def changed(self) -> list[str]:
        """Files of the parts used here that are no longer as they were made."""
        found = []
        for name in sorted(self._used):
            made, now = json.loads((self._folder / f"{name}.json").read_text()), _state(self._folder / name)
            found += [f"{name}/{file}" for file in sorted(made | now) if made.get(file) != now.get(file)]
        return found

    @cached_property
    def data(self) -> Path:
        """A CLS-LOC tree of 4 train and 10 val images of two classes."""
        from pipelines.datasets.generated import make_clsloc_dataset

        return self.part(
            "data",
            lambda folder: make_clsloc_dataset(folder, classes=2, train_per_class=2, val_per_class=5, size_px=(64, 96)),
        )

    @cached_property
    def maps(self) -> Path:
        """Maps of its val images in four shards of three."""
        from tests.integration.prep_command import propose

        def make(folder: Path) -> None:
            result = propose(self.data, folder, "--shard-size", "3")
            assert result.exit_code == 0, result.output

        return self.part("maps", make)

    @cached_property
    def network(self) -> Path:
        """The folder of a run with one checkpoint, ``checkpoint-00000003.pt``: two classes, with decoder, untrained."""
        from tests.integration.eval_command import make_checkpoint

        def make(folder: Path) -> None:
            folder.mkdir()
            make_checkpoint(folder / "checkpoint-00000003.pt", classes=2)

        return self.part("network", make)

    @cached_property
    def evaluation(self) -> Path:
        """The results of the network on the val images, as ``EVALUATION_OPTIONS`` say."""
        from tests.integration.eval_command import evaluated

        def make(folder: Path) -> None:
            evaluated(folder, "run", self.network, "--data", self.data, "--name", "run", *EVALUATION_OPTIONS)

        return self.part("evaluation", make)


# One job: by default there is one for each core, whose processes take two seconds to start.
QUIET_RUN = tuple("--device cpu --workers 0 --jobs 1 --batch-size 1 --panels 0".split())
EVALUATION_OPTIONS = (*QUIET_RUN, *"--protocol cam --protocol psol-crop".split())


def copy_of(folder: Path, to: Path) -> Path:
    """A copy of a folder of the world that may be changed."""
    shutil.copytree(folder, to)
    _allow_writing(to, True)
    return to


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Where the folders of all workers are.
        folder = folder.parent
    world = World(folder / "world")
    yield world
    assert not world.changed(), "a test has changed what others read: let it use copy_of"


def _everything(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]


def _allow_writing(folder: Path, allowed: bool) -> None:
    """Let files come into the folder or not; files keep their modes, which some tests look at."""
    for path in _everything(folder):
        if path.is_dir():
            path.chmod(0o755 if allowed else 0o555)


def _state(folder: Path) -> dict[str, list[int]]:
    """Size and time of every file; a folder changes with what it lists."""
    states = {path: path.stat() for path in _everything(folder)}
    return {
        path.relative_to(folder).as_posix(): [state.st_size if path.is_file() else 0, state.st_mtime_ns]
        for path, state in states.items()
    }
