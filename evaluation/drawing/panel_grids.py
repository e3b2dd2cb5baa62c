"""Turns a picture of panels and the file beside it into its cells, each with the localizer, image and words shown."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.boxes.geometry import FRAME_PX
from evaluation.drawing.panels import panel_cell
from pseudo_maps.files import write_atomically

__all__ = ["PanelGrid", "PanelGridRow", "cell_picture", "read_grid", "write_grid"]

_SCHEMA = "wsol-panels-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelGridRow:
    """One image of the picture."""

    caption: str
    """Class and id of the image; tells whether two pictures show the same one."""
    captions: tuple[str, ...]
    """Words below each prediction, in the order of the localizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelGrid:
    """What stands where in a picture of ``localization_panels`` with cells of the usual size."""

    protocol: str
    """The protocol that the boxes belong to."""
    baselines: int
    """How many of the localizers, from the first on, never look at the image."""
    localizers: tuple[str, ...]
    """One a column, after the column of the image itself."""
    rows: tuple[PanelGridRow, ...]
    """From the top."""


def write_grid(picture: Path, grid: PanelGrid) -> None:
    """Write what ``picture`` shows as JSON beside it, under its name with the ending ``.json``."""
    text = json.dumps({"schema": _SCHEMA, **asdict(grid)}, indent=1, ensure_ascii=False) + "\n"
    # An id may come from a file name that is no UTF-8; backslashreplace makes of it what JSON reads as the same.
    write_atomically(picture.with_suffix(".json"), text.encode("utf-8", errors="backslashreplace"))


def read_grid(picture: Path) -> PanelGrid | None:
    """What ``picture`` shows, or None where no file beside it says so.

    Raises
    ------
    ValueError
        The file is damaged, or does not belong to a picture of that size.
    """
    path = picture.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        grid = _parsed(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected the description ({_SCHEMA}) of {picture.name}, found something else "
            f"({type(error).__name__}: {error}); remove both and evaluate again"
        ) from error
    with Image.open(picture, formats=["PNG"]) as opened:
        found_px = opened.size
    last_cell = panel_cell(len(grid.rows) - 1, len(grid.localizers), cell_px=FRAME_PX)
    if last_cell[2] > found_px[0] or last_cell[3] > found_px[1]:
        raise ValueError(
            f"{path}: expected the description of a picture of {found_px[0]} x {found_px[1]} pixels, found one of "
            f"{len(grid.rows)} images and {len(grid.localizers)} localizers; remove both and evaluate again"
        )
    return grid


def cell_picture(picture: Image.Image, *, row: int, column: int) -> Image.Image:
    """A cell of the picture; column 0 is the image with its ground truth."""
    return picture.crop(panel_cell(row, column, cell_px=FRAME_PX))


def _parsed(found: Any) -> PanelGrid:
    if found["schema"] != _SCHEMA:
        raise ValueError(f"schema {found['schema']!r}")
    localizers = tuple(str(name) for name in found["localizers"])
    rows = tuple(
        PanelGridRow(caption=str(row["caption"]), captions=tuple(str(text) for text in row["captions"]))
        for row in found["rows"]
    )
    if not rows or not localizers or any(len(row.captions) != len(localizers) for row in rows):
        raise ValueError("rows of another number of predictions than there are localizers, or none")
    return PanelGrid(
        protocol=str(found["protocol"]), baselines=int(found["baselines"]), localizers=localizers, rows=rows
    )
