"""predictions.csv: one row per image, written from its scores and read back with every value checked.

The file is RFC 4180 in UTF-8, but a line feed alone ends a line. Columns: ``image_id``, ``label`` (-1: unknown),
``wnid``, ``status``, ``notes`` (joined by ``; ``), ``predicted_class`` (a label), ``predicted_score``, ``true_rank``
(0: best, -1: unknown), then for each localizer and protocol ``<localizer> <protocol> box_224px`` (``x0 y0 x1 y1`` in
pixels of the protocol's frame, both corners inside the box), ``<localizer> <protocol> iou`` and
``<localizer> <protocol> verdict`` (one of ``ERROR_KINDS``). A value that does not exist is empty. Numbers have at most
six decimals, without trailing zeros.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
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

__all__ = ["PREDICTIONS_FILE", "PredictionsError", "read_predictions", "result_pairs", "write_predictions"]

PREDICTIONS_FILE = "predictions.csv"
"""Name of the file in a folder of results."""

_IMAGES_AT_ONCE = 256
"""Images whose verdicts are computed together."""

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_INTEGER = r"-?[0-9]+"
_STATUSES = "|".join(map(re.escape, (SCORED, *FAILED_STATUSES, *SKIPPED_STATUSES)))

FIXED_COLUMNS = {
    "image_id": (r"(?s:.*)", "text"),
    "label": (_INTEGER, "a whole number"),
    "wnid": (r"(?s:.*)", "text"),
    "status": (rf"{_STATUSES}|{re.escape(MAP_NOT_USABLE)}(?s:.*)", "a status of an evaluated image"),
    "notes": (r"(?s:.*)", "text"),
    "predicted_class": (rf"({_INTEGER})?", "a whole number or nothing"),
    "predicted_score": (rf"({_NUMBER})?", "a number or nothing"),
    "true_rank": (_INTEGER, "a whole number"),
}
"""First columns of the file, with the pattern of their values and what it means."""
_RESULT_COLUMNS = {
    "box_224px": (rf"({' '.join([_NUMBER] * 4)})?", "a box 'x0 y0 x1 y1' or nothing"),
    "iou": (rf"({_NUMBER})?", "a number or nothing"),
    "verdict": ("|".join(map(re.escape, ("", *ERROR_KINDS))), f"one of {', '.join(ERROR_KINDS)}, or nothing"),
}
"""Columns of each localizer and protocol, likewise."""


class PredictionsError(ValueError):
    """A predictions.csv that cannot be read: the message names file, row, what was expected and what was found."""


def result_pairs(columns: Iterable[str]) -> list[Pair]:
    """Localizers and protocols that a file has columns of, in order."""
    return [(name[0], name[1]) for name in (column.split(" ") for column in columns) if name[2:] == ["box_224px"]]


def write_predictions(
    path: Path,
    images: Iterable[ImageScores],
    *,
    protocols: Sequence[Protocol],
    localizers: Sequence[str],
    levels: Mapping[Pair, int],
) -> None:
    """Write one row per image, in the order given, atomically; memory does not grow with images.

    ``images`` hold the skipped ones too, whose results are empty. Columns follow ``protocols`` and ``localizers``;
    ``levels`` is the threshold level to report, as ``Tally.reported_levels`` gives it. ValueError when a scored image
    lacks a localizer.
    """
    columns = _columns([(localizer, protocol.name) for localizer in localizers for protocol in protocols])
    source = iter(images)
    # surrogateescape: file names that are not UTF-8 keep their bytes.
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        while batch := list(islice(source, _IMAGES_AT_ONCE)):
            writer.writerows(_rows(batch, protocols=protocols, localizers=localizers, levels=levels))


def read_predictions(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a predictions.csv, one at a time, as a dict by column name, all values as text.

    Every value is checked while it is read: ``int(row["label"])``, ``float(row["cam cam iou"] or "nan")`` and
    ``[float(side) for side in row["cam cam box_224px"].split()]`` cannot fail. Other columns are passed on unchecked.
    PredictionsError when the file is missing or no CSV, a column is missing, a row is cut off, or a value is not what
    its column holds. The row after the header is row 1.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            missing = [column for column in _columns(result_pairs(header)) if column not in header]
            if missing or len(set(header)) < len(header):
                raise PredictionsError(
                    f"{path}: header: expected the columns of predictions.csv, each once; missing {missing}, found "
                    f"{header[:12]}; give a file that wsol-eval wrote"
                )
            checks = [_check_of(column) for column in header]
            for number, values in enumerate(reader, start=1):
                if len(values) != len(header):
                    raise PredictionsError(
                        f"{path}: row {number}: expected {len(header)} values, found {len(values)}; the file is cut "
                        "off or was edited: evaluate again to write it anew"
                    )
                for column, value, (pattern, expected) in zip(header, values, checks, strict=True):
                    if not pattern.fullmatch(value):
                        raise PredictionsError(
                            f"{path}: row {number}: {column}: expected {expected}, found {value!r}; evaluate again to "
                            "write the file anew"
                        )
                yield dict(zip(header, values, strict=True))
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: not found; give a predictions.csv that wsol-eval wrote") from error
    except csv.Error as error:
        raise PredictionsError(f"{path}: expected CSV as in RFC 4180, found: {error}") from error


def _columns(pairs: Sequence[Pair]) -> list[str]:
    return [*FIXED_COLUMNS, *(f"{a} {b} {value}" for a, b in pairs for value in _RESULT_COLUMNS)]


def _check_of(column: str) -> tuple[re.Pattern[str], str]:
    """Pattern that every value of a column matches, and its meaning."""
    known = {" ".join([*column.split(" ")[:2], name]): check for name, check in _RESULT_COLUMNS.items()}
    pattern, expected = {**known, **FIXED_COLUMNS}.get(column, FIXED_COLUMNS["image_id"])
    return re.compile(pattern), expected


def _rows(
    images: Sequence[ImageScores],
    *,
    protocols: Sequence[Protocol],
    localizers: Sequence[str],
    levels: Mapping[Pair, int],
) -> list[list[str]]:
    rows = [_fixed_values(image) for image in images]
    for localizer in localizers:
        for protocol in protocols:
            level = levels[localizer, protocol.name]
            iou_il, boxes_il4 = stack_levels(images, localizer=localizer, protocol=protocol)
            iou_i1, boxes_i14 = iou_il[:, [level]], boxes_il4[:, [level]]
            verdicts_i1 = image_verdicts(images, protocol=protocol, iou_il=iou_i1, boxes_il4=boxes_i14)
            boxless_i = (boxes_i14[:, 0] == NO_BOX).all(axis=1)
            for row, image in enumerate(images):
                scored = (localizer, protocol.name) in image.iou
                box = "" if boxless_i[row] else " ".join(map(_number, boxes_i14[row, 0].tolist()))
                iou = _number(float(iou_i1[row, 0])) if scored else ""
                verdict = "" if is_skipped(image.status) else ERROR_KINDS[verdicts_i1[row, 0]]
                rows[row] += [box, iou, verdict]
    return rows


def _fixed_values(image: ImageScores) -> list[str]:
    predicted = ["", ""]
    if image.top_classes is not None and image.top_probabilities is not None:
        predicted = [str(image.top_classes[0]), _number(float(image.top_probabilities[0]))]
    texts = [image.image_id, str(image.label), image.wnid, image.status, "; ".join(image.notes)]
    return [*texts, *predicted, str(image.true_rank)]


def _number(value: float) -> str:
    """At most six decimals, no trailing zeros, no negative zero; empty for a NaN or infinity."""
    if not np.isfinite(value):
        return ""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
