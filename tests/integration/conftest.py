"""A small data set and its maps, shared by the tests of ``wsol-prep``."""

import shutil
from pathlib import Path

import pytest

from pipelines.datasets.generated import make_clsloc_dataset
from tests.integration.prep_command import propose


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLS-LOC tree of 4 train and 10 val images."""
    root = tmp_path_factory.mktemp("clsloc") / "data"
    return make_clsloc_dataset(root, classes=2, train_per_class=2, val_per_class=5, size_px=(64, 96))


@pytest.fixture(scope="session")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps of val in four shards of three; copy before changing anything."""
    out = tmp_path_factory.mktemp("made") / "maps"
    result = propose(data, out, "--shard-size", "3")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def maps(made: Path, tmp_path: Path) -> Path:
    """A copy of the maps that may be changed."""
    return Path(shutil.copytree(made, tmp_path / "maps"))
