"""Outcomes of making a map: status codes, and the row of an image."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pseudo_maps.records import ImageRecord
from pseudo_maps.shards.layout import MapRow

__all__ = ["DEATHS", "FAILURES", "MadeMap", "row_of"]

DEATHS = {
    "crashed": "the process that worked on the image ended by itself or was killed",
    "out-of-memory": "the image needed more memory than there was or than --image-memory allows",
    "timeout": "the image took longer than --image-timeout allows",
}
"""Status codes of images whose process ended while working on them, and their meaning."""

FAILURES = {
    "missing": "the image file does not exist",
    "unreadable": "the image file cannot be opened or read",
    "decode-error": "the image file is damaged, truncated, too large or of a format that is not read",
    "no-proposals": "the method proposed nothing, so there is no map",
    **DEATHS,
    "error": "an unexpected error; the run log has its traceback",
}
"""Status codes of images without a map, and their meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeMap:
    """Row and map of one image; the map is all zero unless the status is ok."""

    map_uint8: npt.NDArray[np.uint8]
    """(map_size, map_size) uint8, peak 255."""
    row: MapRow
    message: str
    """What went wrong, empty when nothing did."""


def row_of(record: ImageRecord, *, height: int, width: int, peak: float, proposals: int, status: str) -> MapRow:
    """Row of an image from its record and the outcome."""
    return MapRow(
        image_id=record.image_id,
        path=record.path,
        wnid=record.wnid,
        label=record.label,
        height=height,
        width=width,
        peak=peak,
        proposals=proposals,
        status=status,
    )
