"""Names the ways in which an image can end without a map, and turns records into rows of the shard's table."""

from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import MapRow

__all__ = ["DEATHS", "FAILURES", "row_of"]

DEATHS = {
    "crashed": "the process that worked on the image ended by itself or was killed",
    "out-of-memory": "the image needed more memory than there was or than --image-memory allows",
    "timeout": "the image took longer than --image-timeout allows",
}
"""Status codes of images that cost the process that worked on them its life, and their meaning."""

FAILURES = {
    "missing": "the image file does not exist",
    "unreadable": "the image file cannot be opened or read",
    "decode-error": "the image file is damaged, truncated, too large or of a format that is not read",
    "no-proposals": "the method proposed nothing, so there is no map",
    **DEATHS,
    "error": "an unexpected error; the run log has its traceback",
}
"""Status codes of images without a map, and their meaning."""


def row_of(record: ImageRecord, *, height: int, width: int, peak: float, proposals: int, status: str) -> MapRow:
    """The row of an image: what its record says, and what became of it."""
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
