"""Layout cub: CUB-200-2011 as downloaded, ``CUB_200_2011`` or the folder that it was unpacked into.

Lists give every image a number: ``images.txt`` (number, path below ``images``), ``image_class_labels.txt`` (number,
class number from 1), ``train_test_split.txt`` (number, 1 for train) and ``bounding_boxes.txt`` (number, x, y, width,
height); ``classes.txt`` holds class number and name. Fields are separated by spaces.

Boxes cover ``x`` to ``x + width``, 0-based and inclusive: the corners in the metadata of the wsolevaluation project,
none of which lies beyond its image.
"""

from collections.abc import Sequence
from pathlib import Path

from pipelines.datasets.boxes import BoxAnnotation, tidy_boxes
from pipelines.datasets.model import Dataset, DatasetError
from pipelines.datasets.text import check_ids, check_known, describe, parse_number, read_lines
from pseudo_maps.records import ImageRecord

_IMAGES, _SPLIT, _LABELS = "images.txt", "train_test_split.txt", "image_class_labels.txt"


def is_cub(root: Path) -> bool:
    """Whether ``root``, or ``CUB_200_2011`` in it, has the lists of images and of the split."""
    folder = _folder(root)
    return (folder / _IMAGES).is_file() and (folder / _SPLIT).is_file()


def open_cub(root: Path, *, split: str) -> Dataset:
    """Read one split; ids are paths below ``images``, labels class numbers less 1.

    There are no validation images: ``val`` and ``test`` are both the test images, which a note says of ``val``.
    """
    folder = _folder(root)
    prefix = (folder / "images").relative_to(root).as_posix()
    classes = _by_number(folder / "classes.txt")
    names = {number: name for number, (name,) in classes.items()}
    label_of = {number: label for label, number in enumerate(names)}
    paths = _by_number(folder / _IMAGES)
    labels, is_train = (_by_number(folder / name, of=paths) for name in (_LABELS, _SPLIT))
    check_ids([path for (path,) in paths.values()], source=folder / _IMAGES)
    check_known([number for (number,) in labels.values()], label_of, source=folder / _LABELS)
    check_known([mark for (mark,) in is_train.values()], "01", source=folder / _SPLIT)
    records = []
    for number, (path,) in paths.items():
        if (is_train[number] == ["1"]) == (split == "train"):
            (class_number,) = labels[number]
            name, label = names[class_number], label_of[class_number]
            records.append(ImageRecord(image_id=path, path=f"{prefix}/{path}", wnid=name, label=label))
    note = f"{root}: CUB-200-2011 has no validation images: val is its test images; choose nothing by them"
    return Dataset(
        root=root,
        split=split,
        layout="cub",
        records=tuple(records),
        class_wnids=tuple(names.values()),
        class_words=tuple(name.partition(".")[2].replace("_", " ") or name for name in names.values()),
        notes=(note,) if split == "val" else (),
    )


def load_cub_boxes(dataset: Dataset, *, wanted: Sequence[str]) -> dict[str, BoxAnnotation]:
    """The box of each of the ``wanted`` images; the list states no frame size."""
    folder = _folder(dataset.root)
    paths = _by_number(folder / _IMAGES)
    boxes = _by_number(folder / "bounding_boxes.txt", of=paths, fields=4)
    number_of = {path: number for number, (path,) in paths.items()}
    found = {}
    for image_id in wanted:
        x, y, width, height = (parse_number(text) for text in boxes[number_of[image_id]])
        if x is None or y is None or width is None or height is None:
            raise DatasetError(
                f"{folder / 'bounding_boxes.txt'}: image {number_of[image_id]}: expected x, y, width and height, found "
                f"{describe(' '.join(boxes[number_of[image_id]]))}"
            )
        found[image_id] = tidy_boxes([(x, y, x + width, y + height)])
    return found


def _folder(root: Path) -> Path:
    return root / "CUB_200_2011" if (root / "CUB_200_2011").is_dir() else root


def _by_number(path: Path, *, of: dict[str, list[str]] | None = None, fields: int = 1) -> dict[str, list[str]]:
    """Fields of every line by the number in front of them; with ``of`` the numbers have to be the same."""
    rows: dict[str, list[str]] = {}
    for line_number, line in enumerate(read_lines(path), start=1):
        number, *values = line.split()
        if len(values) != fields or not number.isdigit() or number in rows:
            raise DatasetError(
                f"{path}, line {line_number}: expected a new number and {fields} more, found {describe(line)}"
            )
        rows[number] = values
    if of is not None and rows.keys() != of.keys():
        missing = next((number for number in of if number not in rows), None)
        found = f"no line of image {missing}" if missing else f"{next(one for one in rows if one not in of)} too"
        raise DatasetError(f"{path}: expected the images of {_IMAGES}, found {found}; restore the file")
    return rows
