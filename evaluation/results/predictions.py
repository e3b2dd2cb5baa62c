"""predictions.csv: one row per image, localizer and protocol, written from scores and read back with checks.

The file is RFC 4180 in UTF-8, but a line feed alone ends a line. Columns of the image: ``image_id``, ``label`` (-1:
unknown), ``wnid``, ``status``, ``notes`` (joined by ``; ``), ``predicted_class`` (a label), ``predicted_score``,
``true_rank`` (0: best, -1: unknown), ``width`` and ``height``. Columns of the result: ``localizer``, ``protocol``,
``x0``, ``y0``, ``x1``, ``y1`` (pixels of the image of that width and height, both corners inside the box), ``iou``
(measured in the protocol's own frame) and ``verdict`` (one of ``ERROR_KINDS``). A value that does not exist is empty.
Numbers have at most six decimals, corners two, without trailing zeros.

Every image has the same localizers and protocols, in the same order, its rows one after the other.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path

import numpy as np

from evaluation.boxes.overlaps import NO_BOX
from evaluation.image_scores import (
    FAILED_STATUSES,
    MAP_NOT_USABLE,
    SCORED,
    SKIPPED_STATUSES,
    ImageScores,
    Pair,
    is_skipped,
    stack_levels,
)
from evaluation.metrics.errors import image_verdicts
from evaluation.names import ERROR_KINDS
from evaluation.protocols import Protocol
from pseudo_maps.files import replacing

PREDICTIONS_FILE = "predictions.csv"
"""Name of the file in a folder of results."""

_IMAGES_AT_ONCE = 256
"""Images whose verdicts are computed together."""

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_INTEGER = r"-?[0-9]+"
_STATUSES = "|".join(map(re.escape, (SCORED, *FAILED_STATUSES, *SKIPPED_STATUSES)))

_OPTIONAL_NUMBER = (rf"({_NUMBER})?", "a number or nothing")
_OPTIONAL_INTEGER = (rf"({_INTEGER})?", "a whole number or nothing")
_TEXT = (r"(?s:.*)", "text")

IMAGE_COLUMNS = {
    "image_id": _TEXT,
    "label": (_INTEGER, "a whole number"),
    "wnid": _TEXT,
    "status": (rf"{_STATUSES}|{re.escape(MAP_NOT_USABLE)}(?s:.*)", "a status of an evaluated image"),
    "notes": _TEXT,
    "predicted_class": _OPTIONAL_INTEGER,
    "predicted_score": _OPTIONAL_NUMBER,
    "true_rank": (_INTEGER, "a whole number"),
    "width": _OPTIONAL_INTEGER,
    "height": _OPTIONAL_INTEGER,
}
"""Columns of the image, with the pattern of their values and what it means."""
RESULT_COLUMNS = {
    "localizer": _TEXT,
    "protocol": _TEXT,
    **dict.fromkeys(("x0", "y0", "x1", "y1"), _OPTIONAL_NUMBER),
    "iou": _OPTIONAL_NUMBER,
    "verdict": ("|".join(map(re.escape, ("", *ERROR_KINDS))), f"one of {', '.join(ERROR_KINDS)}, or nothing"),
}
"""Columns of the localizer and the protocol, likewise."""
_COLUMNS = {**IMAGE_COLUMNS, **RESULT_COLUMNS}
_BOX_DECIMALS = 2


class PredictionsError(ValueError):
    """A predictions.csv that cannot be read: the message names file, row, what was expected and what was found."""


def write_predictions(
    path: Path,
    images: Iterable[ImageScores],
    *,
    protocols: Sequence[Protocol],
    localizers: Sequence[str],
    levels: Mapping[Pair, int],
) -> None:
    """Write the rows of all images, in the order given, atomically; memory does not grow with images.

    ``images`` hold the skipped ones too, whose overlaps and verdicts are empty. Rows of an image follow ``localizers``,
    then ``protocols``; ``levels`` is the threshold level to report, as ``Tally.reported_levels`` gives it. ValueError
    when a scored image lacks a localizer.
    """
    source = iter(images)
    # surrogateescape: file names that are not UTF-8 keep their bytes.
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        while batch := list(islice(source, _IMAGES_AT_ONCE)):
            writer.writerows(_rows(batch, protocols=protocols, localizers=localizers, levels=levels))


def read_predictions(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a predictions.csv, one at a time, as a dict by column name, all values as text.

    Every value is checked while it is read: ``int(row["label"])`` and ``float(row["iou"] or "nan")`` cannot fail.
    Other columns are passed on unchecked. PredictionsError when the file is missing or no CSV, a column is missing, a
    row is cut off, or a value is not what its column holds. The row after the header is row 1.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            missing = [column for column in _COLUMNS if column not in header]
            if missing or len(set(header)) < len(header):
                raise PredictionsError(
                    f"{path}: header: expected the columns of predictions.csv, each once; missing {missing}, found "
                    f"{header[:12]}; give a file that wsol-eval wrote; versions before had one row per image: remove "
                    "theirs and evaluate again"
                )
            checks = [(place, re.compile(_COLUMNS[name][0])) for place, name in enumerate(header) if name in _COLUMNS]
            before: Sequence[str] = [""] * len(header)
            for number, values in enumerate(reader, start=1):
                if len(values) != len(header):
                    raise PredictionsError(
                        f"{path}: row {number}: expected {len(header)} values, found {len(values)}; the file is cut "
                        "off or was edited: evaluate again to write it anew"
                    )
                for place, pattern in checks:
                    # Most are those of the row before, which is of the same image.
                    if (number == 1 or values[place] != before[place]) and not pattern.fullmatch(values[place]):
                        raise PredictionsError(
                            f"{path}: row {number}: {header[place]}: expected {_COLUMNS[header[place]][1]}, found "
                            f"{values[place]!r}; evaluate again to write the file anew"
                        )
                before = values
                yield dict(zip(header, values, strict=True))
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: not found; give a predictions.csv that wsol-eval wrote") from error
    except csv.Error as error:
        raise PredictionsError(f"{path}: expected CSV as in RFC 4180, found: {error}") from error


def _rows(
    images: Sequence[ImageScores],
    *,
    protocols: Sequence[Protocol],
    localizers: Sequence[str],
    levels: Mapping[Pair, int],
) -> Iterator[list[str]]:
    pairs = list(product(localizers, protocols))
    results = [
        _result_values(images, localizer, protocol, level=levels[localizer, protocol.name])
        for localizer, protocol in pairs
    ]
    for place, image in enumerate(images):
        values = _image_values(image)
        for (localizer, protocol), of_images in zip(pairs, results, strict=True):
            yield [*values, localizer, protocol.name, *of_images[place]]


def _result_values(images: Sequence[ImageScores], localizer: str, protocol: Protocol, *, level: int) -> list[list[str]]:
    """Corners, overlap and verdict of every image."""
    pair = (localizer, protocol.name)
    iou_il, boxes_il4 = stack_levels(images, localizer=localizer, protocol=protocol)
    iou_i1, boxes_i14 = iou_il[:, [level]], boxes_il4[:, [level]]
    verdicts_i1 = image_verdicts(images, protocol=protocol, iou_il=iou_i1, boxes_il4=boxes_i14)
    for row, image in enumerate(images):
        if is_skipped(image.status) and pair in image.boxes:
            boxes_i14[row] = image.boxes[pair]
    has_box_i = (boxes_i14[:, 0] != NO_BOX).any(axis=1)
    own_i4 = protocol.in_image(boxes_i14[:, 0], image_wh=[image.image_wh or (1, 1) for image in images])
    values = []
    for row, image in enumerate(images):
        shown = has_box_i[row] and image.image_wh is not None
        box = [decimal(side, _BOX_DECIMALS) for side in own_i4[row].tolist()] if shown else [""] * 4
        iou = decimal(float(iou_i1[row, 0])) if pair in image.iou else ""
        verdict = "" if is_skipped(image.status) else ERROR_KINDS[verdicts_i1[row, 0]]
        values.append([*box, iou, verdict])
    return values


def _image_values(image: ImageScores) -> list[str]:
    predicted = ["", ""]
    if image.top_classes is not None and image.top_probabilities is not None:
        predicted = [str(image.top_classes[0]), decimal(float(image.top_probabilities[0]))]
    texts = [image.image_id, str(image.label), image.wnid, image.status, "; ".join(image.notes)]
    return [*texts, *predicted, str(image.true_rank), *map(str, image.image_wh or ("", ""))]


def decimal(value: float, decimals: int = 6) -> str:
    """At most so many decimals, no trailing zeros, no negative zero; empty for a NaN or infinity."""
    if not np.isfinite(value):
        return ""
    text = f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
