"""Layout wsoleval: the metadata folder of the wsolevaluation project.

Its text files separate fields with commas: ``image_ids.txt`` (id), ``class_labels.txt`` (id, label),
``image_sizes.txt`` (id, width, height) and ``localization.txt`` (id, x0, y0, x1, y1; one line per box. For OpenImages:
id, mask, ignored; one line per mask). Ids are paths with their suffix, such as ``val/ILSVRC2012_val_00000001.JPEG``.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pipelines.datasets.boxes import BoxAnnotation, tidy_boxes
from pipelines.datasets.folders import WNID
from pipelines.datasets.model import SPLITS, Classes, Dataset, DatasetError
from pipelines.datasets.text import (
    check_ids,
    check_known,
    describe,
    parse_count,
    parse_number,
    path_fault,
    read_lines,
    read_synset_mapping,
)
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord

_Number = TypeVar("_Number", int, float)

_IDS_FILE = "image_ids.txt"
_LABELS_FILE = "class_labels.txt"
_BOXES_FILE = "localization.txt"
_PROJECT_SETS = ("ILSVRC", "CUB", "OpenImages")
"""Folders in ``metadata`` of the project's own checkout, and in ``dataset``, where it keeps the images."""
_MAX_LABEL = 1_000_000
"""Larger labels are taken for mistakes; all of ImageNet has 21,841 classes."""


def _metadata_folder(root: Path, *, split: str, name: str) -> Path | None:
    """Folder that holds the split's ``image_ids.txt``: the root itself or the project's place for the data set."""
    places = (root, root / split, root / "metadata" / name / split)
    return next((place for place in places if (place / _IDS_FILE).is_file()), None)


def _project_sets(root: Path) -> list[str]:
    """Names of the data sets that a checkout of the project has metadata of; empty for anything else."""
    return [name for name in _PROJECT_SETS if (root / "metadata" / name).is_dir()]


def _project_set(root: Path) -> str:
    """The data set that a checkout is read as: ILSVRC where it is there, else the only other one."""
    found = _project_sets(root) or [_PROJECT_SETS[0]]
    if len(found) > 1 and found[0] != _PROJECT_SETS[0]:
        raise DatasetError(
            f"{root}: expected one data set, found {' and '.join(found)}; give one, {root / 'metadata' / found[0]}"
        )
    return found[0]


def is_wsoleval(root: Path) -> bool:
    """Whether ``root`` holds metadata of any split; DatasetError for a checkout, or its folder ``dataset``, without."""
    if any(_metadata_folder(root, split=split, name=_project_set(root)) is not None for split in SPLITS):
        return True
    # Its images would be read as an image folder, with one class for each data set.
    checkout = root.absolute().parent if root.absolute().name == "dataset" else root
    if _project_sets(checkout):
        raise DatasetError(
            f"{root}: of a checkout of the wsolevaluation project with {' and '.join(_project_sets(checkout))}: "
            f"expected {checkout}, with the lists of a split such as metadata/{_project_set(checkout)}/val/{_IDS_FILE}"
        )
    return False


def _located(root: Path) -> tuple[Path, str]:
    """Root and data set: of ``metadata/<data set>`` in a checkout the checkout, in which the images are."""
    folder = root.absolute()
    checkout = folder.parent.parent
    if folder.parent.name == "metadata" and (checkout / "dataset" / folder.name).is_dir():
        return checkout, folder.name
    return root, _project_set(root)


def _metadata_of(dataset: Dataset) -> Path | None:
    """The metadata folder of an opened split."""
    path = dataset.records[0].path
    read = [name for name in _PROJECT_SETS if path.startswith(f"dataset/{name}/")]
    name = read[0] if read else _project_set(dataset.root)
    return _metadata_folder(dataset.root, split=dataset.split, name=name)


def open_wsoleval(root: Path, *, split: str) -> Dataset:
    """Read one split's metadata; images are expected at their id below the root, or below ``dataset/ILSVRC``.

    A checkout is read as ILSVRC where it has that, with the others noted; its ``metadata/<data set>`` as that data set,
    with the checkout as the root of the images.

    Wnids come from ``synsets.txt`` (one per line, in label order) or ``LOC_synset_mapping.txt``, beside the lists or in
    the root. Without either, classes are named by their number, ``"0"`` to the largest label.
    """
    given = root
    root, name = _located(root)
    folder = _metadata_folder(root, split=split, name=name)
    if folder is None:
        raise DatasetError(
            f"{root}: expected {_IDS_FILE} for split {split!r}, found none; looked in {root}, "
            f"{root / split} and {root / 'metadata' / name / split}"
        )
    ids_file = folder / _IDS_FILE
    ids = read_lines(ids_file)
    check_ids(ids, source=ids_file)
    if not ids:
        raise DatasetError(f"{ids_file}: expected one image id per line, found an empty file")
    if folder == root:
        _check_split(ids[0], split=split, source=ids_file)
    rows = read_id_rows(folder / _LABELS_FILE, ("label",), _parse_label, known=frozenset(ids))
    labels = {image_id: label for image_id, (label,) in rows}
    classes = _read_classes(root, folder=folder, largest_label=max(labels.values(), default=-1))
    images = f"dataset/{name}"
    prefix = f"{images}/" if (root / images).is_dir() else ""
    records = []
    for image_id in ids:
        label = labels.get(image_id, UNKNOWN_LABEL)
        wnid = "" if label == UNKNOWN_LABEL else classes.wnids[label]
        class_folder = image_id.rpartition("/")[0].rpartition("/")[2]
        if class_folder != wnid and WNID.fullmatch(class_folder) and WNID.fullmatch(wnid):
            raise DatasetError(
                f"{folder / _LABELS_FILE}: {describe(image_id)} has the label {label}, which is the class {wnid}, but "
                f"lies in the folder of {class_folder}; put the classes of synsets.txt into the order of the labels"
            )
        records.append(ImageRecord(image_id=image_id, path=f"{prefix}{image_id}", wnid=wnid, label=label))
    return Dataset(
        root=root,
        split=split,
        layout="wsoleval",
        records=tuple(records),
        class_wnids=classes.wnids,
        class_words=classes.words,
        notes=_checkout_notes(root, name, split=split, first_id=ids[0], chosen=given != root),
    )


def _checkout_notes(root: Path, name: str, *, split: str, first_id: str, chosen: bool) -> tuple[str, ...]:
    """What the project's names of data sets and splits mean; empty for other folders."""
    others = [other for other in _project_sets(root) if other != name]
    notes = []
    if (root / "metadata" / name).is_dir() and name == _PROJECT_SETS[0]:
        if split == "val" and not first_id.startswith("val/"):
            notes.append(f"{root}: the split val of this project is not ILSVRC's, which is its test: {first_id!r}")
        if split == "test" and first_id.startswith("val/"):
            notes.append(f"{root}: the split test of this project is ILSVRC's val")
    if others and not chosen:
        left_out = " and ".join(others)
        notes.append(f"{root}: read as {name}; {left_out} left out: give {root / 'metadata' / others[0]} to read it")
    return tuple(notes)


def load_wsoleval_boxes(dataset: Dataset, *, wanted: Iterable[str]) -> dict[str, BoxAnnotation]:
    """Boxes of the ``wanted`` images that have any, in the frame that ``image_sizes.txt`` states."""
    folder = _metadata_of(dataset)
    if folder is None:
        raise DatasetError(f"{dataset.root}: the metadata of split {dataset.split!r} is gone; restore it")
    if _lists_masks(folder):
        return {}
    known = {record.image_id: record.image_id for record in dataset.records}
    return read_listed_boxes(folder / _BOXES_FILE, wanted=wanted, id_of=known)


def read_listed_boxes(
    path: Path, *, wanted: Iterable[str], id_of: Mapping[str, str], header: bool = False, others: tuple[str, ...] = ()
) -> dict[str, BoxAnnotation]:
    """Boxes of the ``wanted`` images that have any, from lines ``name,x0,y0,x1,y1``.

    ``id_of`` has the image id of every name; ``image_sizes.txt`` beside the file states frames, a size of 0 means
    unknown. ``header`` and ``others``, and errors, as ``read_id_rows``.
    """
    columns, corners = ("x0", "y0", "x1", "y1"), defaultdict(list)
    rows = read_id_rows(path, columns, parse_number, known=id_of, unique=False, header=header, others=others)
    for name, box in rows:
        corners[id_of[name]].append(box)
    sizes_file = path.with_name("image_sizes.txt")
    sizes = read_id_rows(sizes_file, ("width", "height"), parse_count, known=id_of, others=others)
    frames = {id_of[name]: (width, height) for name, (width, height) in sizes if width and height}
    return {
        image_id: tidy_boxes(corners[image_id], frame_wh=frames.get(image_id))
        for image_id in wanted
        if image_id in corners
    }


def load_wsoleval_masks(dataset: Dataset) -> dict[str, tuple[list[str], str]]:
    """By image id the files of its objects' masks and that of its ignored pixels, empty for none.

    From a ``localization.txt`` of lines ``id,mask,ignored``, as the project has for OpenImages: one line per object,
    with the ignored pixels in an image's first line. Empty where the file lists boxes or is not there.
    """
    folder = _metadata_of(dataset)
    found: dict[str, tuple[list[str], str]] = {}
    if folder is None or not _lists_masks(folder):
        return found
    path = folder / _BOXES_FILE
    ids = {record.image_id for record in dataset.records}
    for number, line in enumerate(read_lines(path), start=1):
        image_id, mask, ignored = (field.strip() for field in ["", "", *line.rsplit(",", 2)][-3:])
        files, known = found.setdefault(image_id, ([], ignored))
        if any(name and path_fault(name) for name in (mask, ignored)):
            raise DatasetError(f"{path}, line {number}: expected masks inside the folder, found {describe(line)}")
        if image_id not in ids or not mask or (ignored and ignored != known):
            raise DatasetError(
                f"{path}, line {number}: expected id,mask,ignored with an id of {_IDS_FILE}, and ignored "
                f"pixels in the image's first line only, found {describe(line)}"
            )
        files.append(mask)
    return found


def _lists_masks(folder: Path) -> bool:
    """Whether the first line of ``localization.txt`` names a mask: three fields, the second no number."""
    lines = read_lines(folder / _BOXES_FILE) if (folder / _BOXES_FILE).is_file() else []
    fields = lines[0].split(",") if lines else []
    return len(fields) == 3 and parse_number(fields[1].strip()) is None


def _check_split(image_id: str, *, split: str, source: Path) -> None:
    """Refuse a list whose ids name another split; the project calls ILSVRC's val ``val`` in ids, else ``test``."""
    named = image_id.partition("/")[0]
    accepted = {"train": ("train",), "val": ("val", "test"), "test": ("val", "test")}[split]
    if "/" in image_id and named in SPLITS and named not in accepted:
        raise DatasetError(
            f"{source}, line 1: expected images of split {split!r}, found {describe(image_id)}; "
            f"open it as split {named!r}"
        )


def _parse_label(text: str) -> int | None:
    label = parse_count(text)
    return None if label is None or label > _MAX_LABEL else label


def read_id_rows(
    path: Path,
    columns: tuple[str, ...],
    parse: Callable[[str], _Number | None],
    *,
    known: Collection[str],
    unique: bool = True,
    header: bool = False,
    others: tuple[str, ...] = (),
) -> list[tuple[str, tuple[_Number, ...]]]:
    """Id and numbers of every line ``id,number,...``, ids with commas included; none when the file is missing.

    An id that is not ``known`` is a DatasetError. Lines whose id begins with one of ``others`` are left out, and so is
    the first line if it may be a ``header`` and has no number; it has to name corners.
    """
    rows = []
    lines = read_lines(path) if path.is_file() else []
    has_header = header and lines and not any(map(parse, lines[0].split(",")[1:]))
    if has_header and [_axis_of(name) for name in lines[0].rsplit(",", len(columns))[1:]] != list("xyxy"):
        raise DatasetError(f"{path}, line 1: expected the columns id,{','.join(columns)}, found {describe(lines[0])}")
    for number, line in enumerate(lines[1:] if has_header else lines, start=2 if has_header else 1):
        image_id, *fields = line.rsplit(",", len(columns))
        parsed = [parse(field.strip()) for field in fields]
        values = tuple(value for value in parsed if value is not None)
        if not image_id or len(values) != len(columns):
            kind = "numbers" if parse is parse_number else "whole numbers"
            raise DatasetError(
                f"{path}, line {number}: expected id,{','.join(columns)} with valid {kind}, found {describe(line)}"
            )
        rows.append((image_id, values))
    ids = [image_id for image_id, _ in rows]
    first_line = 2 if has_header else 1
    if unique:
        check_ids(ids, source=path, first_line=first_line)
    elsewhere = {image_id for image_id in ids if others and image_id.startswith(others)}
    check_known(ids, elsewhere.union(known) if elsewhere else known, source=path, first_line=first_line)
    return [row for row in rows if row[0] not in elsewhere]


def _axis_of(column: str) -> str:
    """``x`` or ``y`` for the name of a corner's column, such as ``xmin``, ``box_y1`` or ``right``; else another."""
    first = re.sub(r"^\W*(b?box)?_?(min|max)?_?", "", column.lower())[:1]
    return {"l": "x", "r": "x", "t": "y", "b": "y"}.get(first, first)


def _read_classes(root: Path, *, folder: Path, largest_label: int) -> Classes:
    for place in (folder, root):
        for name in ("synsets.txt", "LOC_synset_mapping.txt"):
            path = place / name
            if path.is_file():
                classes = read_synset_mapping(path)
                if largest_label >= len(classes.wnids):
                    raise DatasetError(
                        f"{path}: expected a class for every label up to {largest_label} of "
                        f"{folder / _LABELS_FILE}, found {len(classes.wnids)} classes"
                    )
                return classes
    numbers = tuple(str(label) for label in range(largest_label + 1))
    return Classes(wnids=numbers, words=numbers)
