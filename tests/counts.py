"""How often tests repeat: a few times by default, as often as continuous integration does with WSOL_FULL_TESTS=1."""

import os

FULL_TESTS = "WSOL_FULL_TESTS"


def full(few: int, many: int) -> int:
    """``many`` in a run that asks for all counts, else ``few``."""
    return many if os.environ.get(FULL_TESTS) == "1" else few
