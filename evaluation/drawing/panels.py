"""Turns images, their maps and boxes into a picture of rows and columns, like the figures 1, 3 and 4 of the paper.

Legend: H W pixels, B ground-truth boxes of one image. Pictures are ``(H, W, 3)`` uint8 RGB. Boxes are
``x0, y0, x1, y1``, inclusive, in pixels of the square frame that image and maps are squeezed to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from evaluation.boxes.geometry import FRAME_PX
from evaluation.drawing.overlays import GROUND_TRUTH_RGB, PREDICTED_RGB, Picture, draw_boxes, overlay_heat

__all__ = ["PanelPrediction", "PanelRow", "localization_panels", "panel_cell"]

_DARK_RGB = (0, 0, 0)
"""Rim of ground truth: the rims tell the two kinds of boxes apart where the colours cannot."""
_LIGHT_RGB = (255, 255, 255)
"""Rim of predicted boxes."""
_PAPER_RGB = (255, 255, 255)
_INK_RGB = (32, 32, 32)
_NO_MAP_GREY = 200
_GAP_PX = 8
_FONT_PX = 15
_LINE_PX = 22
_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelPrediction:
    """What one run says about one image."""

    map_hw: npt.NDArray[np.uint8] | None
    """(H, W) uint8 map of any size, stretched to the cell; ``None`` draws a grey cell instead."""
    box_xyxy: npt.ArrayLike | None
    """(4,) predicted box in the frame; ``None`` when there is none."""
    caption: str = ""
    """Text below, for instance ``IoU 0.62, correct``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelRow:
    """One image with its ground truth and the predictions beside it."""

    image_rgb: Picture
    """(H, W, 3) uint8 RGB of any size, squeezed to the square cell as the protocol squeezes it."""
    ground_truth_b4: npt.ArrayLike
    """(B, 4) boxes in the frame; B may be 0."""
    predictions: Sequence[PanelPrediction]
    """One a column, in the order of the column headings."""
    caption: str = ""
    """Text below the image: its id and class."""


def localization_panels(
    rows: Sequence[PanelRow], *, columns: Sequence[str], frame_px: int = FRAME_PX, cell_px: int = FRAME_PX
) -> Picture:
    """Picture with a row an image: the image with its ground truth, then every prediction as heat with its box.

    Parameters
    ----------
    rows
        At least one.
    columns
        Heading of each prediction, for instance the baseline and our run.
    frame_px
        Side of the square frame that boxes are given in.
    cell_px
        Side of a cell of the picture.

    Returns
    -------
    numpy.ndarray
        ``(H, W, 3)`` uint8 RGB. The ground truth is drawn in the predictions' cells too.

    Raises
    ------
    ValueError
        There is no row, a row has another number of predictions than there are columns, or an array has another
        shape or dtype.
    """
    if not rows:
        raise ValueError("expected at least one row, found none")
    for number, row in enumerate(rows):
        if len(row.predictions) != len(columns):
            raise ValueError(f"row {number}: expected {len(columns)} predictions, found {len(row.predictions)}")
        if row.image_rgb.ndim != 3 or row.image_rgb.shape[2] != 3 or row.image_rgb.dtype != np.uint8:
            raise ValueError(
                f"row {number}: expected an image (H, W, 3) uint8, found {row.image_rgb.dtype} {row.image_rgb.shape}"
            )
    font = _font(_FONT_PX)
    strips = [_text_strip(["image and ground truth", *columns], font=font, cell_px=cell_px)]
    for number, row in enumerate(rows):
        cells = _cells(row, number=number, scale=cell_px / frame_px, cell_px=cell_px)
        strips.append(_beside(cells))
        captions = [row.caption, *(prediction.caption for prediction in row.predictions)]
        strips.append(_text_strip(captions, font=font, cell_px=cell_px))
    return np.vstack(strips)


def panel_cell(row: int, column: int, *, cell_px: int = FRAME_PX) -> tuple[int, int, int, int]:
    """Where a cell lies in the picture of ``localization_panels``.

    Parameters
    ----------
    row
        Number of the image, from 0.
    column
        0 is the image with its ground truth, then the predictions.
    cell_px
        Side of a cell, as the picture was made with.

    Returns
    -------
    tuple of int
        ``x0, y0, x1, y1`` in pixels of the picture, the last two exclusive.
    """
    left = _GAP_PX + column * (cell_px + _GAP_PX)
    top = _LINE_PX + row * (cell_px + _LINE_PX)
    return left, top, left + cell_px, top + cell_px


def _cells(row: PanelRow, *, number: int, scale: float, cell_px: int) -> list[Picture]:
    image = _stretched(row.image_rgb, cell_px=cell_px)
    truth_b4 = _to_cell(row.ground_truth_b4, scale=scale)
    cells = [_rimmed(image, truth_b4, colour=GROUND_TRUTH_RGB, rim=_DARK_RGB)]
    for prediction in row.predictions:
        map_hw = prediction.map_hw
        if map_hw is None:
            picture = np.full((cell_px, cell_px, 3), _NO_MAP_GREY, dtype=np.uint8)
        elif map_hw.ndim != 2 or map_hw.size == 0 or map_hw.dtype != np.uint8:
            raise ValueError(f"row {number}: expected a map (H, W) uint8, found {map_hw.dtype} {map_hw.shape}")
        else:
            picture = overlay_heat(image, _stretched(map_hw, cell_px=cell_px))
        picture = _rimmed(picture, truth_b4, colour=GROUND_TRUTH_RGB, rim=_DARK_RGB)
        if prediction.box_xyxy is not None:
            box_14 = _to_cell(prediction.box_xyxy, scale=scale)
            picture = _rimmed(picture, box_14, colour=PREDICTED_RGB, rim=_LIGHT_RGB)
        cells.append(picture)
    return cells


def _stretched(values: npt.NDArray[np.uint8], *, cell_px: int) -> npt.NDArray[np.uint8]:
    shrinks = min(values.shape[:2]) >= cell_px
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (cell_px, cell_px), interpolation=interpolation), dtype=np.uint8)


def _to_cell(boxes_xyxy: npt.ArrayLike, *, scale: float) -> npt.NDArray[np.float64]:
    """Boxes moved by their outer edges: pixel k of the frame covers k to k + 1."""
    boxes_n4 = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes_n4[:, :2] * scale, (boxes_n4[:, 2:] + 1) * scale - 1], axis=1)


def _rimmed(
    picture: Picture, boxes_n4: npt.NDArray[np.float64], *, colour: tuple[int, int, int], rim: tuple[int, int, int]
) -> Picture:
    under = draw_boxes(picture, boxes_n4, colour=rim, width_px=4)
    return draw_boxes(under, boxes_n4, colour=colour, width_px=2)


def _beside(cells: Sequence[Picture]) -> Picture:
    gap = np.full((cells[0].shape[0], _GAP_PX, 3), _PAPER_RGB, dtype=np.uint8)
    parts = [gap]
    for cell in cells:
        parts += [cell, gap]
    return np.hstack(parts)


def _text_strip(texts: Sequence[str], *, font: ImageFont.FreeTypeFont, cell_px: int) -> Picture:
    """A line of text below or above every cell, cut at the cell's width."""
    width_px = _GAP_PX + len(texts) * (cell_px + _GAP_PX)
    strip = Image.new("RGB", (width_px, _LINE_PX), _PAPER_RGB)
    draw = ImageDraw.Draw(strip)
    for column, text in enumerate(texts):
        fitted = _fitted(text, font=font, width_px=cell_px)
        draw.text((_GAP_PX + column * (cell_px + _GAP_PX), 1), fitted, fill=_INK_RGB, font=font)
    return np.asarray(strip, dtype=np.uint8)


def _fitted(text: str, *, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    line = " ".join(text.split())
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(line + _ELLIPSIS) > width_px:
        line = line[:-1]
    return line + _ELLIPSIS


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib brings it along: OpenCV's own letters are ASCII only."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size_px)
