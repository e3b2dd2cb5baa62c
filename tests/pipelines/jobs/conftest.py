"""Small networks for the tests of jobs, most of which any network will do for."""

from collections.abc import Iterator

import pytest

from tests.training.training_runs import tiny_networks


@pytest.fixture(scope="module")
def small_networks() -> Iterator[None]:
    with tiny_networks():
        yield
