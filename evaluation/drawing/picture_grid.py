"""One picture of many: rows and columns of equal pictures, with headings and captions."""

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.drawing.overlays import Picture

GAP_PX = 8
"""Left and right of every picture."""
LINE_PX = 22
"""Height of a line of headings or captions."""
_FONT_PX = 15
_PAPER_RGB, _INK_RGB = (255, 255, 255), (32, 32, 32)


def picture_grid(headings: Sequence[str], rows: Sequence[Sequence[tuple[Picture, str]]]) -> Picture:
    """Rows of pictures of one size, each with its caption below, under a heading for each column.

    The result is ``(H, W, 3)`` uint8 RGB; texts that are wider than a picture are cut in the middle.
    """
    width_px = rows[0][0][0].shape[1]
    strips = [_text_strip(headings, width_px=width_px)]
    for row in rows:
        gap = np.full((row[0][0].shape[0], GAP_PX, 3), _PAPER_RGB, dtype=np.uint8)
        strips.append(np.hstack([gap, *(part for picture, _ in row for part in (picture, gap))]))
        strips.append(_text_strip([caption for _, caption in row], width_px=width_px))
    return np.vstack(strips)


def _text_strip(texts: Sequence[str], *, width_px: int) -> Picture:
    """One line of text for each picture of a row."""
    strip = Image.new("RGB", (GAP_PX + len(texts) * (width_px + GAP_PX), LINE_PX), _PAPER_RGB)
    draw = ImageDraw.Draw(strip)
    for column, text in enumerate(texts):
        place = (GAP_PX + column * (width_px + GAP_PX), 1)
        draw.text(place, _fitted(text, width_px=width_px), fill=_INK_RGB, font=_font())
    return np.asarray(strip, dtype=np.uint8)


def _fitted(text: str, *, width_px: int) -> str:
    """A text in one line, cut in the middle where it is too wide: names differ at their ends."""
    line = " ".join(text.split())
    kept, fitted = len(line), line
    while kept and _font().getlength(fitted) > width_px:
        kept -= 1
        fitted = f"{line[: (kept + 1) // 2]}…{line[len(line) - kept // 2 :]}"
    return fitted


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib brings it along: OpenCV's own letters are ASCII only."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), _FONT_PX)
