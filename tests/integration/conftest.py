"""A small data set and its maps, shared by the tests of ``wsol-prep``."""

from pathlib import Path

import pytest

from tests.map_children import kept_map_child
from tests.world import World, copy_of

__all__ = ["kept_map_child"]


@pytest.fixture(scope="session")
def data(world: World) -> Path:
    """A CLS-LOC tree of 4 train and 10 val images, to be read only."""
    return world.data


@pytest.fixture(scope="session")
def made(world: World) -> Path:
    """Maps of val in four shards of three, to be read only."""
    return world.maps


@pytest.fixture
def maps(world: World, tmp_path: Path) -> Path:
    """A copy of the maps that may be changed."""
    return copy_of(world.maps, tmp_path / "maps")
