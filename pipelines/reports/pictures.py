"""Turns the pictures of several runs into parts of a page, with the same image of all runs side by side."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from evaluation.drawing.panel_grids import PanelGrid, cell_picture
from pipelines.reports.comparison import LoadedRun
from pipelines.reports.html_pages import data_uri

__all__ = ["picture_sections"]

_JPEG_QUALITY = 85
"""Pillow's scale; box edges of two pixels stay sharp."""


def picture_sections(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Pictures by name: one table where all runs that have it show the same images, else one below the other.

    Parameters
    ----------
    runs
        In the order in which they are shown.

    Returns
    -------
    list of dict
        ``name``, ``pictures`` (``run``, ``uri``) and ``table``, which is None or holds ``protocol``, ``columns``
        (``localizer``, ``run``) and ``rows`` (``caption``, ``image``, ``cells`` of ``uri``, ``alt``, ``text``). A
        predictor that never looks at the image stands once, behind all others.
    """
    sections = []
    for name in sorted({name for run in runs for name in run.panels}):
        having = [run for run in runs if name in run.panels]
        grids = [run.grids[name] for run in having if name in run.grids]
        comparable = len(grids) == len(having) and len({_shown(grid) for grid in grids}) == 1
        sections.append(
            {
                "name": name.replace("_", " ").replace("-", " "),
                "table": _table(having, name=name) if comparable else None,
                "pictures": []
                if comparable
                else [
                    {"run": run.label, "uri": data_uri(_as_jpeg(_decoded(run.panels[name])), kind="jpeg")}
                    for run in having
                ],
            }
        )
    return sections


def _shown(grid: PanelGrid) -> tuple[str, ...]:
    """What two pictures must have in common to stand side by side."""
    return (grid.protocol, *(row.caption for row in grid.rows))


def _table(runs: Sequence[LoadedRun], *, name: str) -> dict[str, Any]:
    columns: list[tuple[LoadedRun, int]] = []
    baselines: dict[str, tuple[LoadedRun, int]] = {}
    for run in runs:
        grid = run.grids[name]
        for number, localizer in enumerate(grid.localizers):
            if number < grid.baselines:
                baselines.setdefault(localizer, (run, number))
            else:
                columns.append((run, number))
    columns += baselines.values()
    pictures = {run.label: _decoded(run.panels[name]) for run in runs}
    first = runs[0]
    rows = []
    for row_number, row in enumerate(first.grids[name].rows):
        cells = []
        for run, number in columns:
            grid = run.grids[name]
            text = grid.rows[row_number].captions[number]
            cells.append(
                {
                    "uri": _cell_uri(pictures[run.label], row=row_number, column=number + 1),
                    "alt": f"{row.caption}, {grid.localizers[number]} of {run.label}: {text}",
                    "text": text,
                }
            )
        image = _cell_uri(pictures[first.label], row=row_number, column=0)
        rows.append({"caption": row.caption, "image": image, "cells": cells})
    return {
        "protocol": first.grids[name].protocol,
        "columns": [
            {
                "localizer": run.grids[name].localizers[number],
                "run": "baseline" if number < run.grids[name].baselines else run.label,
            }
            for run, number in columns
        ],
        "rows": rows,
    }


def _cell_uri(picture: Image.Image, *, row: int, column: int) -> str:
    return data_uri(_as_jpeg(cell_picture(picture, row=row, column=column)), kind="jpeg")


def _decoded(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return picture.convert("RGB")


def _as_jpeg(picture: Image.Image) -> bytes:
    """A picture as JPEG: photographs take a tenth of the bytes, and a page of several runs stays below 2 MB."""
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()
