"""Turns a folder of maps and its data set into a contact sheet: image, map, overlay and box side by side."""

import heapq
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from evaluation.drawing.overlays import Picture, save_picture
from pipelines.reports.map_pictures import MapGallery, MapPictures
from pseudo_maps.shards import STATUS_OK

__all__ = ["contact_sheet"]


CELL_PX = 224
GAP_PX = 6
CAPTION_PX = 20
_BACKGROUND = 255
_MISSING = 200
_TEXT = (40, 40, 40)
_STATUS_PX = 200
"""Width in pixels that a status fills at most, in a cell of ``CELL_PX``."""


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
    threshold: float = 0.5,
) -> int:
    """Draw a contact sheet of a split's maps.

    Parameters
    ----------
    folder
        Folder of the shards; it may be incomplete.
    data
        Data root of the images; boxes, where it has any, are drawn in green.
    out
        Picture to write, in the format that its name's end says (``PICTURE_SUFFIXES``).
    image_ids
        Images to show, several in one word with commas between them if need be; by default ``count`` of them
        spread evenly over the split.
    worst_first
        Show failed images and then the lowest peaks.
    threshold
        The red box surrounds the largest contour above this fraction of the peak.

    Returns
    -------
    int
        How many images the sheet shows.

    Raises
    ------
    DatasetError
        An id that the data set or the maps do not have.
    ValueError
        ``out`` ends in another suffix.
    """
    gallery = MapGallery(folder, data=data, split=split, layout=layout, threshold=threshold)
    chosen = gallery.wanted(image_ids) or _choose(gallery, worst_first=worst_first, count=count)
    boxes = gallery.boxes(chosen)
    cells = [
        _cell(gallery.pictures(image_id, truth=boxes.get(image_id), square=True, longest_px=CELL_PX))
        for image_id in chosen
    ]
    save_picture(out, _grid(cells, columns=min(columns, len(cells))))
    return len(cells)


def _choose(gallery: MapGallery, *, worst_first: bool, count: int) -> list[str]:
    ids, index = gallery.ids, gallery.index
    if worst_first:
        return heapq.nsmallest(
            count, ids, key=lambda image_id: (index.status(image_id) == STATUS_OK, index.peak(image_id), image_id)
        )
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return [ids[place] for place in places]


def _cell(shown: MapPictures) -> Picture:
    """One row of pictures (image, map, overlay, boxes) with a caption; grey stands for what there is not."""
    grey = np.full((CELL_PX, CELL_PX, 3), _MISSING, dtype=np.uint8)
    heat = _with_text(grey, shown.row.status) if shown.heat is None else shown.heat
    pictures = [
        grey if shown.image is None else shown.image,
        heat,
        grey if shown.overlay is None else shown.overlay,
        grey if shown.boxed is None else shown.boxed,
    ]
    gap = np.full((CELL_PX, GAP_PX, 3), _BACKGROUND, dtype=np.uint8)
    strip = np.hstack([part for picture in pictures for part in (picture, gap)])
    caption = np.full((CAPTION_PX, strip.shape[1], 3), _BACKGROUND, dtype=np.uint8)
    row = shown.row
    text = f"{row.image_id}  {row.status}  {row.proposals} proposals  peak {row.peak:.2f}"
    cv2.putText(caption, text, (2, CAPTION_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _TEXT, 1, cv2.LINE_AA)
    return np.vstack([strip, caption])


def _with_text(picture: Picture, text: str) -> Picture:
    """A copy with a word in its middle, as large as fits."""
    drawn = picture.copy()
    (width_px, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    scale = min(1.0, _STATUS_PX / max(width_px, 1))
    (width_px, height_px), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    place = ((picture.shape[1] - width_px) // 2, (picture.shape[0] + height_px) // 2)
    cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, _TEXT, 2, cv2.LINE_AA)
    return drawn


def _grid(cells: list[Picture], *, columns: int) -> Picture:
    blank = np.full_like(cells[0], _BACKGROUND)
    padded = cells + [blank] * (-len(cells) % columns)
    return np.vstack([np.hstack(padded[start : start + columns]) for start in range(0, len(padded), columns)])
