"""Pipelines: data sets and command lines, and what they wire together. ``Localizer`` is the door for Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.jobs.localizer import Localizer

__all__ = ["Localizer"]


def __getattr__(name: str) -> Any:
    """Import ``Localizer`` when it is asked for: PyTorch takes seconds, and ``wsol-prep`` needs none."""
    if name == "Localizer":
        from pipelines.jobs.localizer import Localizer

        return Localizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
