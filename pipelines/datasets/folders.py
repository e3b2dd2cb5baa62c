"""Folders of images: listing class folders and image files, and the data set made from them.

Hidden files and folders (a leading dot: thumbnails, macOS resource forks) are ignored.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.datasets.model import SPLITS, Dataset, DatasetError
from pipelines.datasets.text import check_ids, path_fault, read_synset_mapping
from pseudo_maps.records import ImageRecord

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes, in any case, of image files: the formats that ``pseudo_maps.images`` reads."""


def scan_folder(folder: Path) -> Iterator[tuple[str, bool]]:
    """Folders (True) and image files (False) directly in ``folder``, in any order; an error if it does not exist.

    A name with an image's suffix is a file unless the directory entry itself says folder: no stat, even where every
    image is a link.
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


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders, or links to folders, directly in ``folder``; an unsafe name is an error."""
    names = sorted(name for name, is_folder in scan_folder(folder) if is_folder)
    for name in names:
        fault = path_fault(name)
        if fault is not None:
            raise DatasetError(f"{folder}: expected a plain class folder name, found {fault} in {name!r}")
    return names


def folder_classes(root: Path) -> list[str]:
    """Sorted class folders of all splits together, so that a label does not depend on the split read."""
    present = [root / name for name in SPLITS if (root / name).is_dir()]
    return sorted({name for folder in present for name in class_folders(folder)})


def image_files(folder: Path, *, below: str = "") -> list[str]:
    """Sorted paths, relative to ``folder``, of the image files directly in ``folder/below``."""
    if not (folder / below).is_dir():
        return []
    prefix = f"{below}/" if below else ""
    return sorted(f"{prefix}{name}" for name, is_folder in scan_folder(folder / below) if not is_folder)


def walk_images(root: Path, *, below: str = "", above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Paths relative to ``root`` of the images in ``root/below`` and deeper; an error for a link that leads back.

    ``above`` holds device and inode of the folders on the way: the same for a folder and all links to it.
    """
    folder = root / below
    key, top = ((state.st_dev, state.st_ino) for state in (folder.stat(), root.stat()))
    if key in above:
        raise DatasetError(f"{folder}: expected a folder, found a link back to a folder above it; remove the link")
    above |= {key, top}
    prefix = f"{below}/" if below else ""
    for name, is_folder in scan_folder(folder):
        if is_folder:
            yield from walk_images(root, below=f"{prefix}{name}", above=above)
        else:
            yield f"{prefix}{name}"


def folder_dataset(
    root: Path, *, folder: Path, layout: str, split: str, records: list[ImageRecord], wnids: list[str]
) -> Dataset:
    """The data set of these records; words come from ``LOC_synset_mapping.txt`` in ``root``, where there is one."""
    if not records:
        raise DatasetError(
            f"{folder}: expected images in class folders, found none (files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}, in either case)"
        )
    check_ids([record.image_id for record in records], source=folder)
    mapping = root / "LOC_synset_mapping.txt"
    words_of = dict(zip(*read_synset_mapping(mapping), strict=True)) if mapping.is_file() else {}
    return Dataset(
        root=root,
        split=split,
        layout=layout,
        records=tuple(records),
        class_wnids=tuple(wnids),
        class_words=tuple(words_of.get(wnid, wnid) for wnid in wnids),
    )
