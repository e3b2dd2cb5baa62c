"""Turns the metadata folder of the wsolevaluation project into records, classes, boxes and frame sizes.

Its text files separate fields with commas: ``image_ids.txt`` (id), ``class_labels.txt`` (id, label),
``image_sizes.txt`` (id, width, height) and ``localization.txt`` (id, x0, y0, x1, y1; a line a box). Ids are
paths with their suffix, such as ``val/ILSVRC2012_val_00000001.JPEG``.
"""

from collections.abc import Iterable
from pathlib import Path

from pipelines.datasets.boxes import BoxAnnotation, tidy_boxes
from pipelines.datasets.model import SPLITS, Classes, Dataset, DatasetError
from pipelines.datasets.text import (
    check_ids,
    describe,
    parse_count,
    parse_number,
    read_lines,
    read_synset_mapping,
)
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord

__all__ = ["find_metadata", "has_metadata", "load_wsoleval_boxes", "open_wsoleval"]

_IDS_FILE = "image_ids.txt"
_LABELS_FILE = "class_labels.txt"
_SIZES_FILE = "image_sizes.txt"
_BOXES_FILE = "localization.txt"
_IMAGE_FOLDER = "dataset/ILSVRC"
"""Where the project's own checkout keeps the images that its ids name."""
_MAX_LABEL = 1_000_000
"""Labels above are taken for a mistake; all of ImageNet has 21,841 classes."""


def find_metadata(root: Path, *, split: str) -> Path | None:
    """Folder that holds the split's ``image_ids.txt``: the root itself or one of the project's places."""
    places = (root, root / split, root / "metadata" / "ILSVRC" / split)
    return next((place for place in places if (place / _IDS_FILE).is_file()), None)


def has_metadata(root: Path) -> bool:
    """Whether ``root`` holds metadata of any split."""
    return any(find_metadata(root, split=split) is not None for split in SPLITS)


def open_wsoleval(root: Path, *, split: str) -> Dataset:
    """Read one split's metadata; images are expected at their id below the root, or below ``dataset/ILSVRC``.

    Wnids come from ``synsets.txt`` (one a line, in label order) or ``LOC_synset_mapping.txt``, beside the
    lists or in the root. Without either, classes are named by their number, ``"0"`` to the largest label.

    Raises
    ------
    DatasetError
        No ``image_ids.txt`` for the split, a list of another split, or a line that does not read.
    """
    folder = find_metadata(root, split=split)
    if folder is None:
        raise DatasetError(
            f"{root}: expected {_IDS_FILE} for split {split!r}, found none; looked in {root}, "
            f"{root / split} and {root / 'metadata' / 'ILSVRC' / split}"
        )
    ids_file = folder / _IDS_FILE
    ids = read_lines(ids_file)
    check_ids(ids, source=ids_file)
    if not ids:
        raise DatasetError(f"{ids_file}: expected one image id a line, found an empty file")
    if folder == root:
        _check_split(ids[0], split=split, source=ids_file)
    labels = _read_labels(folder)
    classes = _read_classes(root, folder=folder, labels=labels)
    prefix = f"{_IMAGE_FOLDER}/" if (root / _IMAGE_FOLDER).is_dir() else ""
    records = []
    for image_id in ids:
        label = labels.get(image_id, UNKNOWN_LABEL)
        wnid = "" if label == UNKNOWN_LABEL else classes.wnids[label]
        records.append(ImageRecord(image_id=image_id, path=f"{prefix}{image_id}", wnid=wnid, label=label))
    return Dataset(
        root=root,
        split=split,
        layout="wsoleval",
        records=tuple(records),
        class_wnids=classes.wnids,
        class_words=classes.words,
    )


def load_wsoleval_boxes(dataset: Dataset, *, wanted: Iterable[str]) -> dict[str, BoxAnnotation]:
    """Boxes of the ``wanted`` images that have any, in the frame ``image_sizes.txt`` states.

    Raises
    ------
    DatasetError
        A line with another number of fields, or a field that is no number.
    """
    folder = find_metadata(dataset.root, split=dataset.split)
    if folder is None:
        raise DatasetError(f"{dataset.root}: the metadata of split {dataset.split!r} is gone; restore it")
    corners: dict[str, list[tuple[float, ...]]] = {}
    boxes_file = folder / _BOXES_FILE
    for number, line in enumerate(read_lines(boxes_file) if boxes_file.is_file() else [], start=1):
        image_id, *fields = line.rsplit(",", 4)
        values = [parse_number(field.strip()) for field in fields]
        box = tuple(value for value in values if value is not None)
        if len(box) != 4:
            raise DatasetError(
                f"{boxes_file}, line {number}: expected id,x0,y0,x1,y1 with four numbers, found {describe(line)}"
            )
        corners.setdefault(image_id, []).append(box)
    sizes = _read_sizes(folder)
    boxes = {}
    for image_id in wanted:
        if image_id in corners:
            width, height = sizes.get(image_id, (None, None))
            boxes[image_id] = tidy_boxes(corners[image_id], frame_width=width, frame_height=height)
    return boxes


def _check_split(image_id: str, *, split: str, source: Path) -> None:
    """Refuse a list whose ids name another split: scoring the wrong images would look like a result.

    The project calls ILSVRC's val images ``val`` in their ids and ``test`` as a split, so both are taken.
    """
    named = image_id.partition("/")[0]
    accepted = {"train": ("train",), "val": ("val", "test"), "test": ("val", "test")}[split]
    if "/" in image_id and named in SPLITS and named not in accepted:
        raise DatasetError(
            f"{source}, line 1: expected images of split {split!r}, found {describe(image_id)}; "
            f"open it as split {named!r}"
        )


def _read_labels(folder: Path) -> dict[str, int]:
    path = folder / _LABELS_FILE
    if not path.is_file():
        return {}
    ids: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(read_lines(path), start=1):
        image_id, _, text = line.rpartition(",")
        label = parse_count(text.strip())
        if not image_id or label is None or label > _MAX_LABEL:
            raise DatasetError(
                f"{path}, line {number}: expected id,label with a label of 0 to {_MAX_LABEL}, found {describe(line)}"
            )
        ids.append(image_id)
        labels.append(label)
    check_ids(ids, source=path)
    return dict(zip(ids, labels, strict=True))


def _read_sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Frame width and height of each image that has a size; 0 counts as unknown."""
    path = folder / _SIZES_FILE
    if not path.is_file():
        return {}
    ids: list[str] = []
    sizes: list[tuple[int, int]] = []
    for number, line in enumerate(read_lines(path), start=1):
        image_id, *fields = line.rsplit(",", 2)
        counts = [parse_count(field.strip()) for field in fields]
        size = tuple(count for count in counts if count is not None)
        if len(size) != 2:
            raise DatasetError(
                f"{path}, line {number}: expected id,width,height with whole numbers, found {describe(line)}"
            )
        ids.append(image_id)
        sizes.append((size[0], size[1]))
    check_ids(ids, source=path)
    return {image_id: size for image_id, size in zip(ids, sizes, strict=True) if min(size) > 0}


def _read_classes(root: Path, *, folder: Path, labels: dict[str, int]) -> Classes:
    largest = max(labels.values(), default=-1)
    for place in (folder, root):
        for name in ("synsets.txt", "LOC_synset_mapping.txt"):
            path = place / name
            if path.is_file():
                classes = read_synset_mapping(path)
                if largest >= len(classes.wnids):
                    raise DatasetError(
                        f"{path}: expected a class for every label up to {largest} of "
                        f"{folder / _LABELS_FILE}, found {len(classes.wnids)} classes"
                    )
                return classes
    numbers = tuple(str(label) for label in range(largest + 1))
    return Classes(wnids=numbers, words=numbers)
