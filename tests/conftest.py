"""Settings of every test run: one thread, and the folder of real images from WSOL_REAL_DATA.

Unset: every test marked ``real_data`` is skipped, with the reason. Set to a folder that is not there: the run
stops, so that a typing error cannot pass for a run with real data.

Tests marked ``full`` run with WSOL_FULL_TESTS=1 alone: longer ways to faults that others find too.

Every test, and every program that one starts, computes with one thread unless OMP_NUM_THREADS says otherwise.
"""

import atexit
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.counts import FULL_TESTS, full
from tests.slow_tests import SlowTests, mark_slow
from tests.world import world  # noqa: F401 - a fixture

# Before anything imports NumPy or PyTorch: tests share the cores, and threads waiting for each other take them away.
os.environ.setdefault("OMP_NUM_THREADS", "1")

VARIABLE = "WSOL_REAL_DATA"
REASON = f"needs real images: set {VARIABLE} to a folder with ilsvrc10, woof_dev, coco_dev, ilsvrc_val_meta"


def _real_data_folder() -> Path | None:
    value = os.environ.get(VARIABLE, "")
    return Path(value) if value else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-slow", type=float, metavar="SECONDS", help="list tests that take longer as slow")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        # Last of all: taking PyTorch, numba and a gigabyte of modules apart takes up to ten seconds of a core.
        atexit.register(os._exit, 0)
    elif config.getoption("--record-slow") is not None:
        # This process alone hears of all tests.
        config.pluginmanager.register(SlowTests(config.getoption("--record-slow")))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts its background jobs with Ctrl-C ignored, and so would every command that a test interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = _real_data_folder()
    if folder is not None and not folder.is_dir():
        raise pytest.UsageError(f"{VARIABLE}={folder} is not a folder: correct it, or unset it to skip its tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _spread_integration(items)
    mark_slow(items)
    reasons = {}
    if _real_data_folder() is None:
        reasons["real_data"] = REASON
    if not full(0, 1):
        reasons["full"] = f"only with {FULL_TESTS}=1"
    for item in items:
        for name, reason in reasons.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def _spread_integration(items: list[pytest.Item]) -> None:
    """Spread the files of tests/integration evenly: they wait for programs while those between them compute."""
    is_integration = [item.path.parent.name == "integration" for item in items]
    files: dict[bool, dict[Path, None]] = {True: {}, False: {}}
    for item, waits in zip(items, is_integration, strict=True):
        files[waits][item.path] = None
    place = {path: (rank + 0.5) / len(group) for group in files.values() for rank, path in enumerate(group)}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(scope="session", autouse=True)
def outside_of_jobs() -> Iterator[None]:
    """The tests may themselves run in a SLURM array or under torchrun, whose variables our commands obey."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", *(name for name in os.environ if name.startswith("SLURM_"))):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder that WSOL_REAL_DATA names, to be read only."""
    folder = _real_data_folder()
    if folder is None:
        pytest.skip(REASON)
    return folder


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Compute with one thread: the tests share the machine, and sums are the same on machines of any size."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
