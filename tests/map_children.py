"""A process for the images that stays from one run of this process to the next one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from pseudo_maps.runs.child import CHILD_MODULE
from pseudo_maps.runs.shard_task import worker_children


@contextmanager
def keeping_the_map_child() -> Iterator[None]:
    """Have runs in this process leave the child that makes their maps to the next one: its start takes a second.

    Only the one that makes maps: tests of what becomes of a child give another module.
    """

    def children(module: str) -> object:
        return ExitStack() if module == CHILD_MODULE else worker_children(module)

    with pytest.MonkeyPatch.context() as patch:
        # What a run closes at its end.
        patch.setattr("pseudo_maps.runs.generation.worker_children", children)
        yield
    worker_children(CHILD_MODULE).close()


@pytest.fixture(scope="session", autouse=True)
def kept_map_child() -> Iterator[None]:
    with keeping_the_map_child():
        yield
