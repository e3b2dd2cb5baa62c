import subprocess
import sys

import pytest


@pytest.fixture
def path(tmp_path):
    """Where a shard of its own goes."""
    return tmp_path / "val-00000-of-00001.h5"


@pytest.fixture(scope="session")
def dead_pid() -> int:
    """Number of a process that has ended and been waited for."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid
