"""Turns two JSON values into the lines that say where they differ, with both values: for results of other settings."""

import json
from typing import Any

__all__ = ["value_differences"]

_DIGEST = "sha256"
"""Key of a digest, which tells nobody anything where a number beside it differs too."""
_SHOWN_CHARACTERS = 100
"""More than the names of all protocols take."""


def value_differences(there: Any, now: Any) -> list[str]:
    """Every place where two JSON values differ, nested keys with dots, in alphabetical order.

    Parameters
    ----------
    there
        The value that was stored; a key that is missing is as good as one that is null.
    now
        The value that is wanted.

    Returns
    -------
    list of str
        Empty when they are equal. A digest stands there only where nothing else of its object differs.

    Examples
    --------
    >>> before = {"data": {"images": 100, "sha256": "1f"}, "seed": 1}
    >>> value_differences(before, {"data": {"images": 90, "sha256": "2e"}})
    ['data.images: 100 there, 90 now', 'seed: 1 there, nothing now']
    """
    return _differences(there, now, key="")


def _differences(there: Any, now: Any, *, key: str) -> list[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        by_name = {
            name: _differences(there.get(name), now.get(name), key=f"{key}.{name}" if key else name)
            for name in sorted(there.keys() | now.keys())
        }
        if any(lines for name, lines in by_name.items() if name != _DIGEST):
            by_name.pop(_DIGEST, None)
        return [line for lines in by_name.values() for line in lines]
    # As text, because 1, 1.0 and True are equal but not the same setting.
    before, after = (json.dumps(value, sort_keys=True) for value in (there, now))
    return [] if before == after else [f"{key or 'all'}: {_shown(before)} there, {_shown(after)} now"]


def _shown(text: str) -> str:
    if text == "null":
        return "nothing"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
