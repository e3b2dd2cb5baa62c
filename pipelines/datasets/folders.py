"""Turns folders of images, torchvision's ImageNet folder or any tree of class folders, into records.

Hidden files and folders (a leading dot: thumbnails, macOS resource forks) are passed over.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.datasets.model import SPLITS, Dataset, DatasetError
from pipelines.datasets.text import check_ids, path_fault, read_synset_mapping
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord

__all__ = [
    "IMAGE_SUFFIXES",
    "class_folders",
    "contains_image",
    "has_wnid_folders",
    "image_files",
    "open_imagefolder",
    "open_imagenet",
]

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes, in any case, of the files taken for images: the formats that ``pseudo_maps.images`` reads."""

_WNID = re.compile(r"n[0-9]{8}")


def open_imagenet(root: Path, *, split: str) -> Dataset:
    """Read one split of torchvision's ImageNet folder: ``root/<split>/<wnid>/<name>.<suffix>``.

    Ids are ``<wnid>/<name>``. Labels are the positions among the sorted class folders of all splits; words
    come from ``LOC_synset_mapping.txt`` in the root, where there is one.

    Raises
    ------
    DatasetError
        No folder of the split, a class folder that is no wnid, images outside class folders, two files that
        differ in their suffix only, or no image at all.
    """
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected images of split {split!r} in wnid folders")
    loose = image_files(folder, below="")
    if loose:
        raise DatasetError(
            f"{folder}: expected images in wnid folders, found {len(loose)} outside, such as {loose[0]!r}; "
            "sort them into wnid folders or use layout 'clsloc' or 'imagefolder'"
        )
    wnids = _all_class_folders(root)
    for wnid in wnids:
        if not _WNID.fullmatch(wnid):
            raise DatasetError(
                f"{root}: expected class folders named n and eight digits, found {wnid!r}; "
                "use layout 'imagefolder' for other names"
            )
    records = []
    for label, wnid in enumerate(wnids):
        for name in image_files(folder, below=wnid):
            image_id = name.rpartition(".")[0]
            records.append(
                ImageRecord(image_id=image_id, path=f"{split}/{name}", wnid=wnid, label=label),
            )
    return _folder_dataset(root, folder=folder, layout="imagenet", split=split, records=records, wnids=wnids)


def open_imagefolder(root: Path, *, split: str) -> Dataset:
    """Read any tree of class folders: ``root/<class>/**`` or ``root/<split>/<class>/**``.

    The class root is ``root/<split>`` when ``root`` has a folder of that name, else ``root`` itself. Ids are
    paths below the class root with their suffix. Images directly in the class root have no class. Labels
    are the positions among the sorted class folders (of all splits, when split folders exist).

    Raises
    ------
    DatasetError
        Other splits' folders but not this one's, a link that leads back to a folder above it, a file name
        that cannot be an id, or no image at all.
    """
    present = [name for name in SPLITS if (root / name).is_dir()]
    if present and split not in present:
        raise DatasetError(
            f"{root}: expected the folder {split!r} beside {', '.join(map(repr, present))}, found none; "
            f"choose one of these splits"
        )
    folder = root / split if present else root
    prefix = f"{split}/" if present else ""
    wnids = _all_class_folders(root) if present else class_folders(root)
    records = [
        ImageRecord(image_id=name, path=f"{prefix}{name}", wnid="", label=UNKNOWN_LABEL)
        for name in image_files(folder, below="")
    ]
    for label, wnid in enumerate(wnids):
        if not (folder / wnid).is_dir():
            continue
        for name in sorted(_walk(folder, below=wnid, above=frozenset({_folder_key(folder)}))):
            records.append(ImageRecord(image_id=name, path=f"{prefix}{name}", wnid=wnid, label=label))
    return _folder_dataset(root, folder=folder, layout="imagefolder", split=split, records=records, wnids=wnids)


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders, or links to folders, directly in ``folder``; one scan.

    Raises
    ------
    DatasetError
        A name that cannot be a class name, or no such folder.
    """
    names = sorted(name for name, is_folder in _scan(folder) if is_folder)
    for name in names:
        fault = path_fault(name)
        if fault is not None:
            raise DatasetError(f"{folder}: expected a plain class folder name, found {fault} in {name!r}")
    return names


def image_files(folder: Path, *, below: str) -> list[str]:
    """Sorted paths, relative to ``folder``, of the image files directly in ``folder/below``; one scan."""
    if not (folder / below).is_dir():
        return []
    prefix = f"{below}/" if below else ""
    return sorted(f"{prefix}{name}" for name, is_folder in _scan(folder / below) if not is_folder)


def has_wnid_folders(folder: Path) -> bool:
    """Whether ``folder`` has a folder directly in it that is named like a wnid."""
    return folder.is_dir() and any(is_folder and _WNID.fullmatch(name) for name, is_folder in _scan(folder))


def contains_image(folder: Path) -> bool:
    """Whether there is an image in ``folder`` or anywhere below it; stops at the first."""
    return next(_walk(folder, below="", above=frozenset()), None) is not None


def _scan(folder: Path) -> Iterator[tuple[str, bool]]:
    """Folders (True) and image files (False) directly in ``folder``.

    A name with an image's suffix is a file unless the directory entry itself says folder. That costs no stat,
    also where every image is a link.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder, found none; check the data root")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in IMAGE_SUFFIXES and not entry.is_dir(follow_symlinks=False):
                yield entry.name, False
            elif suffix not in IMAGE_SUFFIXES and entry.is_dir():
                yield entry.name, True


def _walk(root: Path, *, below: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Paths relative to ``root`` of the images in ``root/below`` and deeper; ``above`` are folders passed."""
    folder = root / below
    key = _folder_key(folder)
    if key in above:
        raise DatasetError(f"{folder}: expected a folder, found a link back to a folder above it; remove the link")
    prefix = f"{below}/" if below else ""
    for name, is_folder in _scan(folder):
        if is_folder:
            yield from _walk(root, below=f"{prefix}{name}", above=above | {key})
        else:
            yield f"{prefix}{name}"


def _folder_key(folder: Path) -> tuple[int, int]:
    """Device and inode: the same for every path, over whatever links, to one folder."""
    state = folder.stat()
    return state.st_dev, state.st_ino


def _all_class_folders(root: Path) -> list[str]:
    """Sorted class folders of all splits together, so that a label does not depend on the split read."""
    present = [root / name for name in SPLITS if (root / name).is_dir()]
    return sorted({name for folder in present for name in class_folders(folder)})


def _folder_dataset(
    root: Path, *, folder: Path, layout: str, split: str, records: list[ImageRecord], wnids: list[str]
) -> Dataset:
    if not records:
        raise DatasetError(
            f"{folder}: expected images in class folders, found none (files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}, in either case)"
        )
    check_ids([record.image_id for record in records], source=folder)
    mapping = root / "LOC_synset_mapping.txt"
    words_of: dict[str, str] = {}
    if mapping.is_file():
        declared = read_synset_mapping(mapping)
        words_of = dict(zip(declared.wnids, declared.words, strict=True))
    return Dataset(
        root=root,
        split=split,
        layout=layout,
        records=tuple(records),
        class_wnids=tuple(wnids),
        class_words=tuple(words_of.get(wnid, wnid) for wnid in wnids),
    )
