"""The images that an evaluation is asked to score: a data set with its boxes and the devkit's blacklist.

Boxes are ``x0, y0, x1, y1``, 0-based inclusive pixels of the frame that the annotation states.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.images import EvaluationImage, EvaluationSet
from evaluation.names import BOX_CHOICES
from pipelines.datasets import Dataset, DatasetError, load_boxes, load_masks
from pipelines.jobs.box_checks import check_boxes
from pseudo_maps.records import ImageRecord

_ILSVRC_VAL = re.compile(r"(?:^|/)ILSVRC2012_val_(\d{8})(?:\.\w+)?$")
_ILSVRC_VAL_IMAGES = 50_000


def load_evaluation_set(
    dataset: Dataset,
    *,
    boxes: str = "all",
    blacklist: Path | None = None,
    limit: int | None = None,
    need_boxes: bool = True,
) -> EvaluationSet:
    """The images of a data set with their boxes.

    ``boxes`` is one of ``BOX_CHOICES``, ``blacklist`` a file of ``read_blacklist``, ``limit`` a number of first images.
    DatasetError when an annotation or the blacklist cannot be read, and when boxes and image files disagree (see
    ``check_boxes``). Where no image has a box, that is a DatasetError with ``need_boxes``, else a warning.
    """
    if boxes not in BOX_CHOICES:
        raise ValueError(f"boxes {boxes!r}, expected one of {', '.join(BOX_CHOICES)}")
    records = dataset.records[:limit]
    annotations = load_boxes(dataset, image_ids=[record.image_id for record in records])
    masks = load_masks(dataset)
    blacklisted = frozenset() if blacklist is None else read_blacklist(blacklist, dataset.records)
    images = []
    for index, record in enumerate(records):
        annotation = annotations.get(record.image_id)
        mask_files, ignored_file = masks.get(record.image_id, ((), ""))
        boxes_b4 = np.zeros((0, 4)) if annotation is None else annotation.boxes_xyxy
        images.append(
            EvaluationImage(
                index=index,
                record=record,
                boxes_xyxy=boxes_b4[:1] if boxes == "first" else boxes_b4,
                frame_wh=None if annotation is None else annotation.frame_wh,
                blacklisted=record.image_id in blacklisted,
                mask_files=tuple(mask_files),
                ignored_file=ignored_file,
            )
        )
    warnings = check_boxes(dataset, records, annotations)
    if not any(len(image.boxes_xyxy) for image in images):
        advice = "; it lists masks: score maps by them with wsol-eval maps --masks DIR" if masks else ""
        found = (
            f"{dataset.root}: none of the {len(images)} images of split {dataset.split!r} (layout {dataset.layout}) "
            "has a ground-truth box, expected XML files, a LOC_<split>_solution.csv, a localization.txt or a boxes.csv"
        )
        if need_boxes:
            raise DatasetError(found + advice)
        warnings = [*warnings, f"{found}, so localization is not scored"]
    return EvaluationSet(
        root=dataset.root,
        split=dataset.split,
        class_wnids=dataset.class_wnids,
        class_words=dataset.class_words,
        records=dataset.records,
        images=tuple(images),
        warnings=tuple(warnings),
    )


def read_blacklist(path: Path, records: Sequence[ImageRecord]) -> frozenset[str]:
    """Image ids that a blacklist names.

    The file has one name per line: an image id of ``records``, all images of the split, or, as in the devkit's
    ``ILSVRC2014_clsloc_validation_blacklist.txt``, the number of ``ILSVRC2012_val_<8 digits>``, in whatever order and
    of whichever part of these the data has images. DatasetError names the line that names no image, and that of a
    number that is none of ILSVRC's or is given for images that are not ILSVRC's.
    """
    by_id = {record.image_id for record in records}
    by_number = {int(found[1]): record.image_id for record in records if (found := _ILSVRC_VAL.search(record.image_id))}
    blacklisted = set()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if name in by_id:
            blacklisted.add(name)
        elif by_number and name.isascii() and name.isdigit() and 1 <= int(name) <= _ILSVRC_VAL_IMAGES:
            if int(name) in by_number:
                blacklisted.add(by_number[int(name)])
        else:
            numbers = f"or the number of an ILSVRC2012_val image, 1 to {_ILSVRC_VAL_IMAGES}"
            raise DatasetError(
                f"{path}: line {number}: expected an image id{f' {numbers}' if by_number else ''}, such as "
                f"{records[0].image_id!r}, found {name[:60]!r}"
            )
    return frozenset(blacklisted)
