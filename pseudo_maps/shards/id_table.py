"""Sorted table that finds the position of an image id among more than a million."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["IdTable"]


class IdTable:
    """Finds the position of an id among N, in about 5 microseconds.

    A dict of 1.3 million ids takes 0.3 GB, which every forked loader worker would copy, because reading an object
    changes its reference count. These arrays take 8 bytes + id length an id and stay shared.

    Parameters
    ----------
    columns
        Arrays of byte strings that together are the N ids, in order; their string lengths may differ.
    """

    def __init__(self, columns: Sequence[npt.NDArray[np.bytes_]]) -> None:
        self._ids: npt.NDArray[np.bytes_] = np.concatenate(columns) if columns else np.zeros(0, dtype="S1")
        self._order = np.argsort(self._ids, kind="stable")

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, image_id: str) -> int:
        """Position of ``image_id``, the first one when it is there twice; -1 when it is not there."""
        encoded = image_id.encode(errors="surrogatepass")
        slot = bisect_left(self._order, encoded, key=self._ids.item)
        if slot < len(self._order) and self._ids.item(self._order[slot]) == encoded:
            return int(self._order[slot])
        return -1

    def id_at(self, position: int) -> str:
        """The id at ``position``."""
        return bytes(self._ids[position]).decode()

    def duplicate(self) -> tuple[int, int] | None:
        """Two positions that hold the same id, lower first, or None."""
        ids = self._ids[self._order]
        same = np.flatnonzero(ids[1:] == ids[:-1])
        return (int(self._order[same[0]]), int(self._order[same[0] + 1])) if len(same) else None
