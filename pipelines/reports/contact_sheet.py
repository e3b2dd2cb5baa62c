"""Contact sheet of saliency maps: one picture with image, map, overlay and boxes of every chosen image."""

import heapq
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from evaluation.boxes.fixed_thresholds import CAM_FRACTION
from evaluation.drawing.overlays import Picture, save_picture
from evaluation.drawing.picture_grid import picture_grid
from pipelines.reports.map_pictures import MapGallery
from pseudo_maps.shards import STATUS_OK, MapRow

CELL_PX = 224
"""Side of each picture: the usual size of a map."""
_MISSING_GREY = 200
_HEADINGS = ("image", "map", "overlay", "box red, truth green")


def contact_sheet(
    folder: Path,
    *,
    data: Path,
    split: str,
    out: Path,
    layout: str = "auto",
    image_ids: Sequence[str] = (),
    worst_first: bool = False,
    count: int = 12,
    columns: int = 2,
    threshold: float = CAM_FRACTION,
) -> int:
    """Draw a contact sheet of a split's maps to a picture of one of ``PICTURE_SUFFIXES``, and count its images.

    It shows ``image_ids`` (as ``MapGallery.listed`` reads them), else ``count`` images: with ``worst_first`` those that
    failed and then the lowest peaks, otherwise spread evenly over the split. ``columns`` images stand beside one
    another. DatasetError for an id without map or image, ValueError for another suffix.
    """
    gallery = MapGallery(folder, data=data, split=split, layout=layout, threshold=threshold)
    chosen = gallery.listed(image_ids) or _choose(gallery, worst_first=worst_first, count=count)
    pictures = gallery.pictures(chosen, square=True, longest_px=CELL_PX)
    shown = [_captioned(of_image.values(), gallery.index.row(image_id), iou) for image_id, of_image, iou in pictures]
    columns = min(columns, len(shown))
    blank = [(np.full((CELL_PX, CELL_PX, 3), 255, dtype=np.uint8), "")] * len(_HEADINGS)
    padded = [*shown, *[blank] * (-len(shown) % columns)]
    rows = [list(chain.from_iterable(padded[start : start + columns])) for start in range(0, len(padded), columns)]
    save_picture(out, picture_grid(_HEADINGS * columns, rows))
    return len(shown)


def _choose(gallery: MapGallery, *, worst_first: bool, count: int) -> list[str]:
    ids, index = gallery.ids, gallery.index
    if worst_first:
        return heapq.nsmallest(
            count, ids, key=lambda image_id: (index.status(image_id) == STATUS_OK, index.peak(image_id), image_id)
        )
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return [ids[place] for place in places]


def _captioned(pictures: Iterable[Picture | None], row: MapRow, iou: float | None) -> list[tuple[Picture, str]]:
    """The four pictures of an image, each with its caption; grey stands for what is missing."""
    overlap = "" if iou is None else f"IoU {iou:.2f}"
    captions = (row.image_id, f"peak {row.peak:.2f}", f"{row.proposals} proposals", overlap)
    if row.status != STATUS_OK:
        captions = (row.image_id, row.status, "", "")
    grey = np.full((CELL_PX, CELL_PX, 3), _MISSING_GREY, dtype=np.uint8)
    return [
        (grey if picture is None else picture, caption) for picture, caption in zip(pictures, captions, strict=True)
    ]
