"""Turns a folder of maps and its data set into a contact sheet: image, map, overlay and box side by side."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.overlays import Picture, draw_boxes, heat_colours, overlay_heat, png_bytes
from evaluation.wsoleval import boxes_at_thresholds
from pipelines.datasets import DatasetError, load_boxes, open_dataset, scale_boxes
from pseudo_maps.images import ImageDecodeError, decode_image
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import STATUS_OK, MapIndex, MapRow

__all__ = ["contact_sheet", "draw_boxes", "overlay_heat", "save_png"]

CELL_PX = 224
GAP_PX = 6
CAPTION_PX = 20
_BACKGROUND = 255
_TEXT = (40, 40, 40)
_PREDICTED = (255, 64, 32)
_GROUND_TRUTH = (0, 200, 64)


def save_png(path: Path, image_rgb: Picture) -> None:
    """Write a (H, W, 3) uint8 RGB picture as PNG, making the folder when it is missing."""
    content = png_bytes(image_rgb)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


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
        PNG file to write.
    image_ids
        Images to show; by default ``count`` of them spread evenly over the split.
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
    """
    dataset = open_dataset(data, split=split, layout=layout)
    index = MapIndex(folder, split, allow_incomplete=True)
    by_id = {record.image_id: record for record in dataset.records if record.image_id in index}
    if not by_id:
        raise DatasetError(f"no image of split {split} in {data} has a map in {folder}")
    for image_id in image_ids:
        if image_id not in by_id:
            raise DatasetError(
                f"{image_id!r} has no map in {folder} or no image in {data}; "
                f"expected an id such as {next(iter(by_id))!r}"
            )
    chosen = list(image_ids) or _choose(list(by_id), index, worst_first=worst_first, count=count)
    boxes = load_boxes(dataset, image_ids=chosen)
    cells = []
    for image_id in chosen:
        truth = np.zeros((0, 4))
        row = index.row(image_id)
        if image_id in boxes and row.status == STATUS_OK:
            truth = scale_boxes(
                boxes[image_id], width=CELL_PX, height=CELL_PX, file_width=row.width, file_height=row.height
            )
        cells.append(_cell(by_id[image_id], row, index, root=dataset.root, truth=truth, threshold=threshold))
    save_png(out, _grid(cells, columns=min(columns, len(cells))))
    return len(cells)


def _choose(ids: list[str], index: MapIndex, *, worst_first: bool, count: int) -> list[str]:
    if worst_first:
        order = sorted(ids, key=lambda image_id: (index.status(image_id) == STATUS_OK, index.peak(image_id), image_id))
        return order[:count]
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return [ids[place] for place in places]


def _cell(
    record: ImageRecord,
    row: MapRow,
    index: MapIndex,
    *,
    root: Path,
    truth: npt.NDArray[np.float64],
    threshold: float,
) -> Picture:
    """One row of pictures (image, map, overlay, boxes) with a caption."""
    size = (CELL_PX, CELL_PX)
    try:
        image = decode_image(root / record.path, enough_px=CELL_PX).rgb_hwc
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    except (ImageDecodeError, OSError):
        # The caption tells the status; a grey picture stands for the image that cannot be shown.
        image = np.full((CELL_PX, CELL_PX, 3), 200, dtype=np.uint8)
    stored = index.read_uint8(record.image_id)
    map_hw = np.asarray(cv2.resize(stored, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    boxed = draw_boxes(image, truth, colour=_GROUND_TRUTH)
    if row.status == STATUS_OK:
        boxed = draw_boxes(boxed, boxes_at_thresholds(map_hw, [threshold]), colour=_PREDICTED)
    pictures = [image, heat_colours(map_hw), overlay_heat(image, map_hw), boxed]
    gap = np.full((CELL_PX, GAP_PX, 3), _BACKGROUND, dtype=np.uint8)
    strip = np.hstack([part for picture in pictures for part in (picture, gap)])
    caption = np.full((CAPTION_PX, strip.shape[1], 3), _BACKGROUND, dtype=np.uint8)
    text = f"{record.image_id}  {row.status}  {row.proposals} proposals  peak {row.peak:.2f}"
    cv2.putText(caption, text, (2, CAPTION_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _TEXT, 1, cv2.LINE_AA)
    return np.vstack([strip, caption])


def _grid(cells: list[Picture], *, columns: int) -> Picture:
    blank = np.full_like(cells[0], _BACKGROUND)
    padded = cells + [blank] * (-len(cells) % columns)
    return np.vstack([np.hstack(padded[start : start + columns]) for start in range(0, len(padded), columns)])
