"""Solution files of the Kaggle localization challenge: ``LOC_train_solution.csv`` and ``LOC_val_solution.csv``.

After a header each line is ``ImageId,PredictionString``, where the second field repeats ``wnid x0 y0 x1 y1``. The frame
size is not stated.
"""

from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.model import DatasetError
from pipelines.datasets.text import check_ids, describe, parse_number, read_lines

_HEADER = "ImageId,PredictionString"
_FIELDS_A_BOX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionRow:
    """One image's row, corners as written (not ordered, not clipped)."""

    line: int
    """Line of the file, 1-based."""
    wnids: tuple[str, ...]
    """Class of each box, at least one."""
    corners: tuple[tuple[float, ...], ...]
    """``x0, y0, x1, y1`` of each box, finite, 0-based inclusive pixels."""


def read_solution_csv(path: Path, *, split: str) -> dict[str, SolutionRow]:
    """Read a solution file: rows by image id, as the ImageSets lists write it, in file order.

    Kaggle's train file writes ``n01440764_10026`` where the list says ``n01440764/n01440764_10026``; both are accepted
    when ``split`` is ``train``.
    """
    lines = read_lines(path)
    if not lines or lines[0].strip() != _HEADER:
        found = describe(lines[0]) if lines else "an empty file"
        raise DatasetError(f"{path}, line 1: expected the header {_HEADER!r}, found {found}")
    ids: list[str] = []
    rows: list[SolutionRow] = []
    for number, line in enumerate(lines[1:], start=2):
        image_id, comma, boxes = line.partition(",")
        fields = boxes.split()
        if not comma or not fields or len(fields) % _FIELDS_A_BOX:
            raise DatasetError(
                f"{path}, line {number}: expected an image id, a comma and five fields for each box "
                f"(wnid x0 y0 x1 y1), found {len(fields)} fields in {describe(line)}"
            )
        values = []
        for field in (field for place, field in enumerate(fields) if place % _FIELDS_A_BOX):
            value = parse_number(field)
            if value is None:
                raise DatasetError(f"{path}, line {number}: expected a number as box corner, found {describe(field)}")
            values.append(value)
        corners = tuple(tuple(values[start : start + 4]) for start in range(0, len(values), 4))
        if split == "train" and "/" not in image_id:
            image_id = f"{image_id.partition('_')[0]}/{image_id}"
        ids.append(image_id)
        rows.append(SolutionRow(line=number, wnids=tuple(fields[::_FIELDS_A_BOX]), corners=corners))
    check_ids(ids, source=path, first_line=2)
    return dict(zip(ids, rows, strict=True))
