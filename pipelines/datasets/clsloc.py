"""Layout clsloc: the Kaggle CLS-LOC tree (``Data``, ``Annotations``, ``ImageSets``, ``LOC_*`` files).

The first three folders lie in the root or, as in Kaggle's archive, in its folder ``ILSVRC``. Image ids are what the
ImageSets lists write: ``n01440764/n01440764_10026`` in train and ``ILSVRC2012_val_00000001`` in val and test. Listed
images are not looked for on disk: 1,281,167 stats at the 1 ms of a busy cluster file system take 20 minutes. Without a
list each image folder is scanned once.
"""

import dataclasses
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pipelines.datasets.annotation_xml import Annotation, read_annotation_xml
from pipelines.datasets.boxes import BoxAnnotation, tidy_boxes
from pipelines.datasets.folders import WNID, class_folders, image_files
from pipelines.datasets.model import Classes, Dataset, DatasetError
from pipelines.datasets.text import check_ids, check_known, describe, parse_number, read_lines, read_synset_mapping
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord

_IMAGE_SUFFIX = ".JPEG"
"""Suffix of every image of ILSVRC, also of the one that is a PNG; the lists leave it out."""
_LIST_NAMES = {"train": "train_cls.txt", "val": "val.txt", "test": "test.txt"}
_MAPPING = "LOC_synset_mapping.txt"
_SOLUTION_HEADER = "ImageId,PredictionString"
_FIELDS_A_BOX = 5


def _find_tree(root: Path) -> Path | None:
    """Folder of ``Data`` and ``ImageSets``, or None when ``root`` has neither."""
    kinds = ("Data", "ImageSets")
    places = (root, root / "ILSVRC")
    return next((place for place in places if any((place / kind / "CLS-LOC").is_dir() for kind in kinds)), None)


def _need_tree(root: Path) -> Path:
    tree = _find_tree(root)
    if tree is None:
        raise DatasetError(
            f"{root}: expected a CLS-LOC tree with the folder Data/CLS-LOC or ImageSets/CLS-LOC (in the root "
            "or in its folder ILSVRC), found neither; check the data root"
        )
    return tree


def is_clsloc(root: Path) -> bool:
    """Whether ``root`` is a CLS-LOC tree."""
    return _find_tree(root) is not None


def open_clsloc(root: Path, *, split: str) -> Dataset:
    """Read one split of a CLS-LOC tree.

    Labels are the line numbers of ``LOC_synset_mapping.txt``; without it, positions among the sorted class folders of
    train; without those, among the sorted wnids of the split's own images. Classes of val images come from
    ``LOC_val_solution.csv``, without it from the annotation XML files; without either they are unknown, as in test.
    """
    tree = _need_tree(root)
    ids, paths, source = _list_images(root, tree, split=split)
    classes = _declared_classes(root, tree)
    if split == "train":
        wnids = [image_id.partition("/")[0] for image_id in ids]
    else:
        wnid_of = _val_wnids(root, tree, ids=ids, classes=classes) if split == "val" else {}
        wnids = [wnid_of.get(image_id, "") for image_id in ids]
    if classes is None:
        found = tuple(sorted(set(wnids) - {""}))
        classes = Classes(wnids=found, words=found)
    # One shared string for each class: 1.28 million copies of a wnid are 75 MB.
    class_of = {wnid: (wnid, label) for label, wnid in enumerate(classes.wnids)}
    class_of[""] = ("", UNKNOWN_LABEL)
    records: list[ImageRecord] = []
    for image_id, path, wnid in zip(ids, paths, wnids, strict=True):
        if wnid not in class_of:
            raise DatasetError(
                f"{source}, entry {len(records) + 1}: image {describe(image_id)} is of class {describe(wnid)}, "
                f"expected {_known_classes(root, classes)}; add the class there or remove the image"
            )
        wnid, label = class_of[wnid]
        records.append(ImageRecord(image_id=image_id, path=path, wnid=wnid, label=label))
    return Dataset(
        root=root,
        split=split,
        layout="clsloc",
        records=tuple(records),
        class_wnids=classes.wnids,
        class_words=classes.words,
    )


def load_clsloc_boxes(dataset: Dataset, *, wanted: Sequence[str]) -> dict[str, BoxAnnotation]:
    """Boxes of the ``wanted`` images that have any.

    They come from the split's XML files when it has an annotation folder (these state the frame size too), else from
    ``LOC_<split>_solution.csv``, which states none; of val both are compared. In train, 544,546 of 1,281,167 images are
    annotated. An annotation belongs to the image it is filed under, whatever its ``<filename>`` says; boxes of another
    class than the image's are left out and counted.
    """
    annotations = _need_tree(dataset.root) / "Annotations" / "CLS-LOC" / dataset.split
    solution = dataset.root / f"LOC_{dataset.split}_solution.csv"
    boxes: dict[str, BoxAnnotation] = {}
    wnid_of = {record.image_id: record.wnid for record in dataset.records}
    named = _wnids_by_name(Classes(wnids=dataset.class_wnids, words=dataset.class_words))

    def own_boxes(image_id: str, found: Annotation) -> BoxAnnotation:
        is_own = [_may_be(name, wnid_of[image_id], named=named) for name in found.names]
        tidied = tidy_boxes(list(itertools.compress(found.corners, is_own)), frame_wh=found.frame_wh)
        return dataclasses.replace(tidied, other_class=is_own.count(False))

    if annotations.is_dir():
        # One scan of each folder instead of 736,621 failing opens.
        stems: dict[str, dict[str, str]] = {}
        rows = read_solution_csv(solution, split="val") if dataset.split == "val" and solution.is_file() else {}
        for image_id in wanted:
            below = PurePosixPath(image_id).parent.as_posix()
            if below not in stems:
                stems[below] = _xml_stems(annotations / below)
                if dataset.split != "train":
                    _check_annotated(stems[below], wnid_of, source=annotations / below)
            name = stems[below].get(image_id.rpartition("/")[2])
            if name is not None:
                found = read_annotation_xml(annotations / below / name)
                differs = image_id in rows and sorted(rows[image_id].corners) != sorted(found.corners)
                boxes[image_id] = dataclasses.replace(own_boxes(image_id, found), contradicted=differs)
    elif solution.is_file():
        rows = read_solution_csv(solution, split=dataset.split)
        if dataset.split != "train" or wnid_of.keys().isdisjoint(rows):
            _check_annotated(rows, wnid_of, source=solution)
        boxes = {image_id: own_boxes(image_id, rows[image_id]) for image_id in wanted if image_id in rows}
    return boxes


def _check_annotated(annotated: Collection[str], known: Collection[str], *, source: Path) -> None:
    """Refuse annotations of no image where images lack theirs; a list that covers more than the images is harmless."""
    if not set(known).issubset(annotated):
        check_known(annotated, known, source=source, first_line=2 if source.is_file() else None)


def _may_be(name: str, wnid: str, *, named: Mapping[str, str]) -> bool:
    """Whether a box's name may mean the image's class: words that name no class, or several, do."""
    found = named.get(name.casefold(), "")
    return not wnid or name == wnid or (not WNID.fullmatch(name) if not found else found == wnid)


def _xml_stems(folder: Path) -> dict[str, str]:
    """File name by stem of the annotation files in a folder (``.xml`` in any case); one scan."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(".xml"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name[: -len(".xml")]: name for name in names}


def _list_images(root: Path, tree: Path, *, split: str) -> tuple[list[str], list[str], Path]:
    """Image ids and their paths below the root, in list order or sorted by path, and where they were found."""
    image_set = tree / "ImageSets" / "CLS-LOC" / _LIST_NAMES[split]
    images = tree / "Data" / "CLS-LOC" / split
    below = images.relative_to(root).as_posix()
    if image_set.is_file():
        ids = _read_image_set(image_set, with_folder=split == "train")
        paths, source = [f"{below}/{image_id}{_IMAGE_SUFFIX}" for image_id in ids], image_set
    else:
        folders = class_folders(images) if split == "train" else [""]
        names = [name for folder in folders for name in image_files(images, below=folder)]
        ids = [name.rpartition(".")[0] for name in names]
        check_ids(ids, source=images)
        paths, source = [f"{below}/{name}" for name in names], images
    if not ids:
        raise DatasetError(
            f"{source}: expected images of split {split!r}, found none; looked for the list {image_set} and "
            f"for image files in {images}{'/<wnid>' if split == 'train' else ''}"
        )
    return ids, paths, source


def _read_image_set(path: Path, *, with_folder: bool) -> list[str]:
    """Ids of an ImageSets list, each line ``id number`` or just ``id``."""
    ids = []
    for number, line in enumerate(read_lines(path), start=1):
        image_id, _, index = line.partition(" ")
        if index and not index.strip().isdigit():
            raise DatasetError(
                f"{path}, line {number}: expected an image id without suffix, a space and its number, "
                f"found {describe(line)}"
            )
        if with_folder and "/" not in image_id:
            raise DatasetError(
                f"{path}, line {number}: expected a train image as wnid/name, found {describe(image_id)}"
            )
        ids.append(image_id)
    check_ids(ids, source=path)
    return ids


def _declared_classes(root: Path, tree: Path) -> Classes | None:
    if (root / _MAPPING).is_file():
        return read_synset_mapping(root / _MAPPING)
    train = tree / "Data" / "CLS-LOC" / "train"
    wnids = tuple(class_folders(train)) if train.is_dir() else ()
    return Classes(wnids=wnids, words=wnids) if wnids else None


def _known_classes(root: Path, classes: Classes) -> str:
    return f"one of the {len(classes.wnids)} classes of {root / _MAPPING} (or, without it, of the train folders)"


def _val_wnids(root: Path, tree: Path, *, ids: Sequence[str], classes: Classes | None) -> dict[str, str]:
    """Class of each val image that has one, from the CSV file, else from the XML files."""
    solution = root / "LOC_val_solution.csv"
    wnid_of = {}
    if solution.is_file():
        rows = read_solution_csv(solution, split="val")
        _check_annotated(rows, set(ids), source=solution)
        known = frozenset(() if classes is None else classes.wnids)
        for image_id in ids:
            if image_id in rows:
                wnid = wnid_of[image_id] = rows[image_id].names[0]
                if classes is not None and wnid not in known:
                    raise DatasetError(
                        f"{solution}, line {[*rows].index(image_id) + 2}: expected {_known_classes(root, classes)}, "
                        f"found {describe(wnid)}"
                    )
        return wnid_of
    annotations = tree / "Annotations" / "CLS-LOC" / "val"
    available = _xml_stems(annotations)
    named = {} if classes is None else _wnids_by_name(classes)
    for image_id in ids:
        if image_id in available:
            names = read_annotation_xml(annotations / available[image_id]).names
            wnids = (named.get(name.casefold(), "") if named else name for name in names)
            wnid = next(filter(None, wnids), "")
            if wnid:
                wnid_of[image_id] = wnid
    return wnid_of


def _wnids_by_name(classes: Classes) -> dict[str, str]:
    """Wnid of everything that ``<name>`` may hold, in lower case; ``""`` for words that two classes share.

    Some files hold words instead of the wnid: all words of the class or one of its comma-separated synonyms ("crane" is
    a bird and a machine, hence ambiguous).
    """
    names: dict[str, str] = {}
    for wnid, words in zip(*classes, strict=True):
        synonyms = {words.casefold(), *(word.strip().casefold() for word in words.split(","))}
        for name in synonyms - {""}:
            names[name] = "" if names.get(name, wnid) != wnid else wnid
    names.update({wnid.casefold(): wnid for wnid in classes.wnids})
    return names


def read_solution_csv(path: Path, *, split: str) -> dict[str, Annotation]:
    """Read ``LOC_train_solution.csv`` or ``LOC_val_solution.csv``: rows by image id, as the lists write it, in order.

    After a header each line is ``ImageId,PredictionString``, whose second field repeats ``wnid x0 y0 x1 y1``, at least
    once. The frame size is not stated.

    Kaggle's train file writes ``n01440764_10026`` where the list says ``n01440764/n01440764_10026``; both are accepted
    when ``split`` is ``train``.
    """
    lines = read_lines(path)
    if not lines or lines[0].strip() != _SOLUTION_HEADER:
        found = describe(lines[0]) if lines else "an empty file"
        raise DatasetError(f"{path}, line 1: expected the header {_SOLUTION_HEADER!r}, found {found}")
    ids: list[str] = []
    rows: list[Annotation] = []
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
        rows.append(Annotation(names=tuple(fields[::_FIELDS_A_BOX]), corners=corners))
    check_ids(ids, source=path, first_line=2)
    return dict(zip(ids, rows, strict=True))
