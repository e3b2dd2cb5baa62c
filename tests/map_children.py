"""A process for the images that stays from one run of this process to the next one."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from pseudo_maps.runs.child import CHILD_MODULE
from pseudo_maps.runs.shard_task import worker_children


@contextmanager
def keeping_the_map_child() -> Iterator[None]:
    """Have runs in this process leave the child that makes their maps to the next one: its start takes a second.

    Only the one that makes maps: tests of what becomes of a child give another module.
    """

    def children(module: str) -> object:
        pool = worker_children(module)
        return SimpleNamespace(make_images=pool.make_images, close=lambda: None) if module == CHILD_MODULE else pool

    with pytest.MonkeyPatch.context() as patch:
        # What a run and an estimate close at their ends.
        patch.setattr("pseudo_maps.runs.generation.worker_children", children)
        patch.setattr("pseudo_maps.runs.estimate.worker_children", children)
        yield
    worker_children(CHILD_MODULE).close()


@pytest.fixture(scope="session", autouse=True)
def kept_map_child() -> Iterator[None]:
    with keeping_the_map_child():
        yield
