"""Tables of a report by class and by image, which a reader sorts and filters in the page."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from evaluation.protocols import protocol_title
from evaluation.results.tables import percent
from pipelines.reports.html_pages import Cell, Table, row_of
from pipelines.reports.report_rows import ReportRow

IMAGES_SHOWN = 500
"""A row takes some 300 bytes: a page of four runs stays below 3 MB."""


def class_table(rows: Sequence[ReportRow], names: Mapping[int, str]) -> Table | None:
    """GT-known Loc of every class, a column for each of ``rows``, the lowest of the first column first.

    ``names`` are the names of the classes by label; without one the wnid stands, or the label. None without classes.
    """
    columns = [{score.label: score for score in row.result.per_class} for row in rows if row.result.per_class]
    labels = {label: score for column in reversed(columns) for label, score in column.items()}
    if not labels:
        return None
    lines = []
    for label, score in labels.items():
        rates = [column[label].gt_known_loc if label in column else None for column in columns]
        name = names.get(label) or score.wnid or str(label)
        order = rates[0] if rates[0] is not None else math.inf
        lines.append((order, label, row_of(name, score.images, *map(percent, rates))))
    return Table(
        f"GT-known Loc (%) of every class under the protocol {protocol_title(rows[0].result.protocol)}",
        "lr" + "r" * len(columns),
        ["class", "images", *(row.name for row in rows if row.result.per_class)],
        [line for _, _, line in sorted(lines)],
    )


def image_table(rows: Sequence[ReportRow], names: Mapping[int, str]) -> dict[str, Any] | None:
    """Overlap and verdict of every image, a column for each of ``rows``, the lowest mean overlap first.

    The ``table`` has at most ``IMAGES_SHOWN`` of ``images``, of these ``classes``.
    None where the runs have no ``predictions.csv`` of the protocol.
    """
    read = [(row, row.runs[0].verdicts) for row in rows]
    columns = [
        (row.name, verdicts.details[row.result.localizer])
        for row, verdicts in read
        if verdicts is not None and verdicts.first_protocol == row.result.protocol
    ]
    labels = next((verdicts.status for _, verdicts in read if verdicts is not None), {})
    if not columns:
        return None
    lines = []
    for image_id, (label, _) in labels.items():
        cells = [details[image_id] for _, details in columns if image_id in details]
        if len(cells) == len(columns):
            name = names.get(int(label), label)
            shown = row_of(image_id, name, *(Cell(f"{iou:.2f}", verdict) for iou, verdict in cells))
            lines.append((fmean(iou for iou, _ in cells), image_id, name, shown))
    lines.sort(key=lambda line: line[:2])
    return {
        "table": Table(
            f"Overlap (IoU) and verdict under the protocol {protocol_title(rows[0].result.protocol)}",
            "ll" + "r" * len(columns),
            ["image", "class", *(name for name, _ in columns)],
            [shown for _, _, _, shown in lines[:IMAGES_SHOWN]],
        ),
        "images": len(lines),
        "classes": sorted({name for _, _, name, _ in lines[:IMAGES_SHOWN]}),
    }
