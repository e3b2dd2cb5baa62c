import pytest


@pytest.fixture
def path(tmp_path):
    """Where a shard of its own goes."""
    return tmp_path / "val-00000-of-00001.h5"
