"""Tests that ``make test-fast`` leaves out because they were slow when ``make slow-tests`` timed all of them.

``slow_tests.txt`` beside this file names the test functions, one a line, whose cases took more than
``--record-slow SECONDS`` together, setup and teardown included. It is measured, not written by hand.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

_SHARED = 10
"""A setup that takes so many times as long as a slow test makes its file slow: whichever test is first pays for it."""
LIST = Path(__file__).with_suffix(".txt")


def listed() -> frozenset[str]:
    """Names such as ``tests/a/test_b.py::test_c``."""
    return frozenset(LIST.read_text().splitlines())


def function_name(node_id: str) -> str:
    """Name of the test function of one of its cases."""
    return node_id.partition("[")[0]


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Mark the cases of the listed functions ``slow``."""
    names = listed()
    for item in items:
        if function_name(item.nodeid) in names:
            item.add_marker("slow")


class SlowTests:
    """Plugin that adds the functions of this run which took more than ``seconds`` to the list."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._taken_s: Counter[str] = Counter()
        self._files: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up setup, call and teardown."""
        self._taken_s[function_name(report.nodeid)] += report.duration  # type: ignore[assignment]
        if report.when == "setup" and report.duration > _SHARED * self._seconds:
            self._files.add(report.nodeid.partition("::")[0])

    def pytest_sessionfinish(self) -> None:
        """Write the list."""
        slow = {
            name
            for name, taken_s in self._taken_s.items()
            if taken_s > self._seconds or name.partition("::")[0] in self._files
        }
        LIST.write_text("".join(f"{name}\n" for name in sorted(slow | listed())))
