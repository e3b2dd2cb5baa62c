"""A small data set and a run on it, shared by the tests of the trainer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.training_runs import (
    make_colour_folders,
    make_trainer,
    tiny_networks,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training images, five for validation, of three colours."""
    return make_colour_folders(tmp_path_factory.mktemp("colours"), last_val=1)


@pytest.fixture(scope="module")
def small_networks() -> Iterator[None]:
    """AlexNet's names mean networks that any step takes milliseconds with."""
    with tiny_networks():
        yield


@pytest.fixture(scope="module")
def gap_run(small_networks: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of SMALL."""
    out = tmp_path_factory.mktemp("gap")
    make_trainer(data, out).fit()
    return out
