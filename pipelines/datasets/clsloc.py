"""Turns the Kaggle CLS-LOC tree (``Data``, ``ImageSets``, ``LOC_*`` files) into image records and classes.

Image ids are what the ImageSets lists write: ``n01440764/n01440764_10026`` in train and
``ILSVRC2012_val_00000001`` in val and test. Listed images are not looked for on disk: 1,281,167 stats at the
1 ms of a busy cluster file system are 20 minutes. Without a list each image folder is scanned once.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.annotation_xml import read_annotation_xml
from pipelines.datasets.folders import class_folders, image_files
from pipelines.datasets.model import Classes, Dataset, DatasetError
from pipelines.datasets.solution_csv import read_solution_csv
from pipelines.datasets.text import check_ids, describe, read_lines, read_synset_mapping
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord

__all__ = ["IMAGE_SUFFIX", "ClslocTree", "find_tree", "open_clsloc", "xml_stems"]

IMAGE_SUFFIX = ".JPEG"
"""Suffix of every image of ILSVRC, also of the one that is a PNG; the lists leave it out."""

_LIST_NAMES = {"train": "train_cls.txt", "val": "val.txt", "test": "test.txt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClslocTree:
    """Where the parts of a CLS-LOC tree lie."""

    root: Path
    """The data root: holds the ``LOC_*`` files."""
    below: str
    """``""``, or ``"ILSVRC/"`` when the three folders lie in that folder, as Kaggle's archive unpacks."""

    def folder(self, kind: str, split: str | None = None) -> Path:
        """Folder of ``kind`` (``Data``, ``Annotations``, ``ImageSets``), of one split when given."""
        folder = self.root / f"{self.below}{kind}" / "CLS-LOC"
        return folder if split is None else folder / split

    def mapping(self) -> Path:
        """File of the class list."""
        return self.root / "LOC_synset_mapping.txt"

    def solution(self, split: str) -> Path:
        """CSV file of a split's boxes."""
        return self.root / f"LOC_{split}_solution.csv"


def find_tree(root: Path) -> ClslocTree | None:
    """The CLS-LOC tree at ``root``, or None when there is neither its image nor its list folder."""
    for below in ("", "ILSVRC/"):
        tree = ClslocTree(root=root, below=below)
        if tree.folder("Data").is_dir() or tree.folder("ImageSets").is_dir():
            return tree
    return None


def open_clsloc(root: Path, *, split: str) -> Dataset:
    """Read one split of a CLS-LOC tree.

    Labels are the line numbers of ``LOC_synset_mapping.txt``; without it, the sorted class folders of train;
    without those, the sorted wnids of the split's own images. Classes of val images come from
    ``LOC_val_solution.csv``, without it from the annotation XML files, and stay unknown without either, as
    those of test.

    Raises
    ------
    DatasetError
        No such tree, no images of the split, or a list, CSV or XML file that does not read.
    """
    tree = find_tree(root)
    if tree is None:
        raise DatasetError(
            f"{root}: expected a CLS-LOC tree with the folder Data/CLS-LOC or ImageSets/CLS-LOC (in the root "
            "or in its folder ILSVRC), found neither; check the data root"
        )
    ids, paths, source = _list_images(tree, split=split)
    classes = _declared_classes(tree)
    if split == "train":
        wnids = [image_id.partition("/")[0] for image_id in ids]
    elif split == "val":
        wnid_of = _val_wnids(tree, ids=ids, classes=classes)
        wnids = [wnid_of.get(image_id, "") for image_id in ids]
    else:
        wnids = [""] * len(ids)
    if classes is None:
        found = tuple(sorted(set(wnids) - {""}))
        classes = Classes(wnids=found, words=found)
    # One shared string and number a class: 1.28 million copies of a wnid are 75 MB.
    class_of = {wnid: (wnid, label) for label, wnid in enumerate(classes.wnids)}
    class_of[""] = ("", UNKNOWN_LABEL)
    records: list[ImageRecord] = []
    for image_id, path, wnid in zip(ids, paths, wnids, strict=True):
        known = class_of.get(wnid)
        if known is None:
            raise DatasetError(
                f"{source}, entry {len(records) + 1}: image {describe(image_id)} is of class {describe(wnid)}, "
                f"expected one of the {len(classes.wnids)} classes of {tree.mapping()} (or, without it, of the train "
                "folders); add the class there or remove the image"
            )
        records.append(ImageRecord(image_id=image_id, path=path, wnid=known[0], label=known[1]))
    return Dataset(
        root=root,
        split=split,
        layout="clsloc",
        records=tuple(records),
        class_wnids=classes.wnids,
        class_words=classes.words,
    )


def xml_stems(folder: Path) -> dict[str, str]:
    """Annotation files of one folder: name without its suffix (``.xml`` in any case) to name; one scan."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(".xml"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name[: -len(".xml")]: name for name in names}


def _list_images(tree: ClslocTree, *, split: str) -> tuple[list[str], list[str], Path]:
    """Image ids and their paths below the root, in list order or sorted by path, and where they were found."""
    image_set = tree.folder("ImageSets") / _LIST_NAMES[split]
    images = tree.folder("Data", split)
    below = images.relative_to(tree.root).as_posix()
    if image_set.is_file():
        ids = _read_image_set(image_set, with_folder=split == "train")
        paths = [f"{below}/{image_id}{IMAGE_SUFFIX}" for image_id in ids]
        source = image_set
    else:
        folders = class_folders(images) if split == "train" else [""]
        names = [name for folder in folders for name in image_files(images, below=folder)]
        ids = [name.rpartition(".")[0] for name in names]
        check_ids(ids, source=images)
        paths = [f"{below}/{name}" for name in names]
        source = images
    if not ids:
        raise DatasetError(
            f"{source}: expected images of split {split!r}, found none; looked for the list {image_set} and "
            f"for image files in {images}{'/<wnid>' if split == 'train' else ''}"
        )
    return ids, paths, source


def _read_image_set(path: Path, *, with_folder: bool) -> list[str]:
    """Ids of an ImageSets list: ``id number`` or just ``id`` a line."""
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


def _declared_classes(tree: ClslocTree) -> Classes | None:
    if tree.mapping().is_file():
        return read_synset_mapping(tree.mapping())
    train = tree.folder("Data", "train")
    wnids = tuple(class_folders(train)) if train.is_dir() else ()
    return Classes(wnids=wnids, words=wnids) if wnids else None


def _val_wnids(tree: ClslocTree, *, ids: Sequence[str], classes: Classes | None) -> dict[str, str]:
    """Class of each val image that has one, from the CSV file, else from the XML files."""
    solution = tree.solution("val")
    if solution.is_file():
        rows = read_solution_csv(solution, split="val")
        listed = {image_id: rows[image_id] for image_id in ids if image_id in rows}
        known = frozenset(() if classes is None else classes.wnids)
        for row in listed.values():
            if classes is not None and row.wnids[0] not in known:
                raise DatasetError(
                    f"{solution}, line {row.line}: expected one of the {len(classes.wnids)} classes of "
                    f"{tree.mapping()} (or, without it, of the train folders), found {describe(row.wnids[0])}"
                )
        return {image_id: row.wnids[0] for image_id, row in listed.items()}
    annotations = tree.folder("Annotations", "val")
    available = xml_stems(annotations)
    names = _names_to_wnids(classes)
    wnid_of = {}
    for image_id in ids:
        if image_id in available:
            for name in read_annotation_xml(annotations / available[image_id]).names:
                wnid = names.get(name.casefold(), "") if names else name
                if wnid:
                    wnid_of[image_id] = wnid
                    break
    return wnid_of


def _names_to_wnids(classes: Classes | None) -> dict[str, str]:
    """What ``<name>`` may say, in lower case, to the wnid; ``""`` for words that two classes share.

    Some files hold words instead of the wnid: all words of the class or one of its comma-separated synonyms
    ("crane" is a bird and a machine, so it says nothing).
    """
    if classes is None:
        return {}
    names: dict[str, str] = {}
    for wnid, words in zip(classes.wnids, classes.words, strict=True):
        synonyms = {words.casefold(), *(word.strip().casefold() for word in words.split(","))}
        for name in synonyms - {""}:
            names[name] = "" if names.get(name, wnid) != wnid else wnid
    names.update({wnid.casefold(): wnid for wnid in classes.wnids})
    return names
