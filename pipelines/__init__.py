"""Data sets, command lines and jobs, built on the three other packages. ``Localizer`` is the entry point in Python."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.jobs.localizer import Localizer

__all__ = ["Localizer"]


def _check_packages() -> None:
    """Refuse a folder or file that hides another package of ours, such as ``training`` in the current directory."""
    ours = Path(__file__).parents[1]
    for name in ("pseudo_maps", "training", "evaluation"):
        spec = find_spec(name)
        found = Path(spec.origin or "") if spec else Path()
        if found == ours / name / "__init__.py":
            continue
        text = (
            f"the package {name!r} is {found}, expected {ours / name}: what is called {name!r} in the current folder "
            "or in PYTHONPATH hides it; start in another folder, or with the program in place of python -m: "
            'torchrun ... "$(command -v wsol-train)"'
        )
        program = Path(sys.argv[0]).name
        if program.startswith("wsol-") or program == "-m":
            # A command: one line, and under torchrun not one of each process.
            sys.exit(f"wsol: error: {text}" if os.environ.get("RANK", "0") == "0" else 1)
        raise ImportError(text)


_check_packages()


def __getattr__(name: str) -> Any:
    """Import ``Localizer`` when it is asked for: PyTorch takes seconds, and ``wsol-prep`` needs none."""
    if name == "Localizer":
        from pipelines.jobs.localizer import Localizer

        return Localizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
