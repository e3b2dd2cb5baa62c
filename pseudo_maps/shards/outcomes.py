"""Outcome of making one map: the map, its row and a message."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from pseudo_maps.records import ImageRecord
from pseudo_maps.shards.layout import MapRow


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeMap:
    """Row and map of one image; the map is all zero unless the status is ok."""

    map_uint8: npt.NDArray[np.uint8]
    """(map_size, map_size) uint8, peak 255."""
    row: MapRow
    message: str
    """What went wrong, empty when nothing did."""


def row_of(record: ImageRecord, *, height: int, width: int, peak: float, proposals: int, status: str) -> MapRow:
    """Row of an image from its record and the outcome; SHARD_FORMAT.md lists the statuses."""
    return MapRow(**asdict(record), height=height, width=width, peak=peak, proposals=proposals, status=status)
