"""Class scores or best classes of another classifier, read from a CSV or .npy file, for Top-1 and Top-5 metrics."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.image_scores import TOP_CLASSES, UNKNOWN_RANK
from evaluation.images import EvaluationSet
from evaluation.map_files import read_map
from evaluation.maps import names_of
from evaluation.scoring import ranked_classes
from pipelines.datasets.text import parse_count
from pseudo_maps.files import file_sha256
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord


class ClassScores(NamedTuple):
    """What a classifier says of every image of an evaluation."""

    by_image: Mapping[str, Mapping[str, Any]]
    """By image id the fields of ``ImageMaps``."""
    sha256: str
    """Digest of the file."""
    warnings: tuple[str, ...]


def read_class_scores(path: Path, evaluation_set: EvaluationSet) -> ClassScores:
    """Read a file of class scores; K is the number of classes of the data.

    A CSV file has a header and one row per image, which its first column names as ``names_of`` does. The other columns
    are called ``top1`` to ``top5`` and hold classes, best first, or are called like the K classes, in any order, and
    hold their scores. A class is named as in the data (wnid or folder), or by its label from 0. A ``.npy`` file has one
    row for each image of the split, in the order of the data: (I, K) floating-point scores, or (I, 5) integer labels.
    Where K is below 5, K classes suffice.

    ValueError, which names file and line, for any other file, for a row of no image, and where an image of the
    evaluation has no row. Scores that hold a NaN or an infinity name no class.
    """
    classes = evaluation_set.class_wnids
    if not classes:
        raise ValueError(f"{path}: class scores need a data set with classes, found none")
    if path.suffix.lower() == ".npy":
        rows = _read_array(path, evaluation_set.records, classes=len(classes))
    else:
        rows = _read_csv(path, evaluation_set.records, classes=classes)
    wanted = {image.record.image_id: image.record.label for image in evaluation_set.images}
    found = {image_id: _fields(row, label=wanted[image_id]) for image_id, row in rows if image_id in wanted}
    missing = [image_id for image_id in wanted if image_id not in found]
    if missing:
        raise ValueError(
            f"{path}: expected a row for each image of the evaluation, found none for {len(missing)} of {len(wanted)}, "
            f"such as {missing[0]!r}"
        )
    ranks = [found[image_id]["true_rank"] for image_id, label in wanted.items() if label >= 0 and found[image_id]]
    hits, by_chance = ranks.count(0), len(ranks) / len(classes)
    warnings: tuple[str, ...] = ()
    if ranks and len(classes) > 1 and hits <= by_chance + 2 * math.sqrt(by_chance * (1 - 1 / len(classes))):
        warnings = (
            f"{path}: the true class is the best of only {hits} of {len(ranks)} images, about what chance gives: the "
            "rows or the classes may be in another order than those of the data",
        )
    return ClassScores(found, file_sha256(path), warnings)


_Row = npt.NDArray[Any]
"""Scores (K,) of floating point, or labels (5,) of integers."""


def _fields(row: _Row, *, label: int) -> dict[str, Any]:
    if row.dtype.kind == "f":
        return ranked_classes(row, shown_k=row.astype(np.float64), label=label)
    places = np.flatnonzero(row == label)
    known = UNKNOWN_RANK if label == UNKNOWN_LABEL else len(row)
    return {
        "top_classes": row[:TOP_CLASSES].astype(np.int64),
        # Nobody knows: empty in predictions.csv.
        "top_probabilities": np.full(len(row[:TOP_CLASSES]), np.nan),
        "true_rank": int(places[0]) if len(places) else known,
    }


def _read_array(path: Path, records: Sequence[ImageRecord], *, classes: int) -> Iterator[tuple[str, _Row]]:
    try:
        array = read_map(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    labels = array.dtype.kind in "iu"
    columns = min(TOP_CLASSES, classes) if labels else classes
    fits = array.ndim == 2 and len(array) == len(records) and (labels or array.dtype.kind == "f")
    if not fits or (array.shape[1] < columns if labels else array.shape[1] != columns):
        raise ValueError(
            f"{path}: expected floating-point scores ({len(records)}, {classes}), or integer labels ({len(records)}, "
            f"{min(TOP_CLASSES, classes)}), one row for each image of the split; found {array.dtype} {array.shape}"
        )
    if labels and not ((array >= 0) & (array < classes)).all():
        raise ValueError(f"{path}: expected labels from 0 to {classes - 1}, found {array.min()} to {array.max()}")
    return ((record.image_id, row) for record, row in zip(records, array, strict=True))


def _read_csv(path: Path, records: Sequence[ImageRecord], *, classes: Sequence[str]) -> Iterator[tuple[str, _Row]]:
    ids: dict[str, str | None] = {}
    for record in records:
        for name in names_of(record):
            # A file name that several images have names none of them.
            ids[name] = record.image_id if name not in ids else None
    ids |= {record.image_id: record.image_id for record in records}
    wanted = min(TOP_CLASSES, len(classes))
    rows: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = next(reader, [])[1:]
            is_best = bool(columns) and columns == [f"top{place}" for place in range(1, len(columns) + 1)]
            if is_best and len(columns) < wanted:
                raise ValueError(f"{path}, line 1: expected columns top1 to top{wanted}, found {', '.join(columns)}")
            order = None if is_best else _labels(columns, classes, where=f"{path}, line 1", every=True)
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                image_id = ids.get(values[0]) if values else None
                if image_id is None or image_id in rows or len(values) != len(columns) + 1:
                    raise ValueError(
                        f"{where}: expected the name of an image of the data, once in the file, and "
                        f"{len(columns)} values, found {values[:2]} of {len(values)}"
                    )
                rows[image_id] = values[1:]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected CSV in UTF-8: {error}") from error
    if order is None:
        texts = sorted({text for row in rows.values() for text in row})
        label_of = dict(zip(texts, _labels(texts, classes, where=str(path)), strict=True))
        return ((image_id, np.array([label_of[text] for text in row])) for image_id, row in rows.items())
    return ((image_id, _scores(row, order=order, where=f"{path}: {image_id!r}")) for image_id, row in rows.items())


def _labels(texts: Sequence[str], classes: Sequence[str], *, where: str, every: bool = False) -> list[int]:
    """Labels of classes that are all given by name or all by number; with ``every`` they have to be all classes."""
    names = {name: label for label, name in enumerate(classes)}
    numbers = [parse_count(text) for text in texts]
    labels = [names[text] for text in texts if text in names]
    if len(labels) < len(texts):
        labels = [number for number in numbers if number is not None and number < len(classes)]
    if len(labels) < len(texts) or (every and sorted(labels) != list(range(len(classes)))):
        raise ValueError(
            f"{where}: expected {'each class' if every else 'classes'} by name, such as {classes[0]!r}, or by number "
            f"from 0 to {len(classes) - 1}{', or top1 to top5' if every else ''}; found {', '.join(texts[:6])}"
        )
    return labels


def _scores(row: Iterable[str], *, order: Sequence[int], where: str) -> _Row:
    scores_k = np.empty(len(order))
    try:
        scores_k[order] = [float(text) for text in row]
    except ValueError as error:
        raise ValueError(f"{where}: expected a number for each class: {error}") from None
    return scores_k
