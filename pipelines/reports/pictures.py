"""Tables of example pictures for a page: the same image of several runs side by side."""

from collections.abc import Sequence
from typing import Any

from evaluation.drawing.panels import Panels
from pipelines.reports.comparison import LoadedRun
from pipelines.reports.html_pages import data_uri


def picture_tables(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """One table for all runs whose pictures show the same images under the same protocol, a baseline once and last.

    Each holds ``protocol``, ``columns`` (``localizer``, ``run``) and ``rows`` (``caption``, ``image``, ``cells`` of
    ``uri``, ``alt``, ``text``).
    """
    tables: dict[tuple[str, ...], list[tuple[str, Panels]]] = {}
    for run in runs:
        if run.panels is not None:
            shown = (run.panels.protocol, *(row.image.caption for row in run.panels.rows))
            tables.setdefault(shown, []).append((run.label, run.panels))
    return [_table(of_same_images) for of_same_images in tables.values()]


def _table(runs: Sequence[tuple[str, Panels]]) -> dict[str, Any]:
    columns = []
    baselines: dict[str, tuple[str, Panels, int]] = {}
    for label, panels in runs:
        for place, column in enumerate(panels.columns):
            if column.is_baseline:
                baselines.setdefault(column.localizer, ("baseline", panels, place))
            else:
                columns.append((label, panels, place))
    columns += baselines.values()
    first = runs[0][1]
    rows = []
    for number, row in enumerate(first.rows):
        cells = []
        for label, panels, place in columns:
            one = panels.rows[number].predictions[place]
            alt = f"{row.image.caption}, {panels.columns[place].localizer}, {label}: {one.caption}"
            cells.append({"uri": data_uri(one.jpeg, kind="jpeg"), "alt": alt, "text": one.caption})
        rows.append({"caption": row.image.caption, "image": data_uri(row.image.jpeg, kind="jpeg"), "cells": cells})
    return {
        "protocol": first.protocol,
        "columns": [{"localizer": panels.columns[place].localizer, "run": label} for label, panels, place in columns],
        "rows": rows,
    }
