"""Text on pictures: rows and columns of equal pictures with headings and captions, and a title on a single one."""

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
_SIDE_PER_FONT_PX = 25
"""Pixels of a picture's shorter side for each pixel of its title's letters."""
_TITLE_GAP_PX = 4
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


def with_title(picture: Picture, text: str) -> Picture:
    """A copy of a picture ``(H, W, 3)`` uint8 RGB with a line of text on a dark ground at its upper left corner.

    Letters grow with the picture's shorter side; a text that is wider than the picture is cut in the middle.
    """
    height_px, width_px = picture.shape[:2]
    font = _font(max(_FONT_PX, min(height_px, width_px) // _SIDE_PER_FONT_PX))
    line = _fitted(text, width_px=width_px - 2 * _TITLE_GAP_PX, font=font)
    _, _, right, bottom = font.getbbox(line)
    place = (0, 0, int(right) + 2 * _TITLE_GAP_PX - 1, int(bottom) + _TITLE_GAP_PX - 1)
    titled = picture.copy()
    # Only the rows that the text covers: a photo has millions of pixels.
    strip = Image.fromarray(titled[: place[3] + 1])
    draw = ImageDraw.Draw(strip)
    draw.rectangle(place, fill=_INK_RGB)
    draw.text((_TITLE_GAP_PX, 0), line, fill=_PAPER_RGB, font=font)
    titled[: place[3] + 1] = np.asarray(strip)
    return titled


def _text_strip(texts: Sequence[str], *, width_px: int) -> Picture:
    """One line of text for each picture of a row."""
    strip = Image.new("RGB", (GAP_PX + len(texts) * (width_px + GAP_PX), LINE_PX), _PAPER_RGB)
    draw = ImageDraw.Draw(strip)
    for column, text in enumerate(texts):
        place = (GAP_PX + column * (width_px + GAP_PX), 1)
        draw.text(place, _fitted(text, width_px=width_px, font=_font()), fill=_INK_RGB, font=_font())
    return np.asarray(strip, dtype=np.uint8)


def _fitted(text: str, *, width_px: int, font: ImageFont.FreeTypeFont) -> str:
    """A text in one line, cut in the middle where it is too wide: names differ at their ends."""
    line = " ".join(text.split())
    kept, fitted = len(line), line
    while kept and font.getlength(fitted) > width_px:
        kept -= 1
        fitted = f"{line[: (kept + 1) // 2]}…{line[len(line) - kept // 2 :]}"
    return fitted


@functools.cache
def _font(size_px: int = _FONT_PX) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib brings it along: OpenCV's own letters are ASCII only."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size_px)
