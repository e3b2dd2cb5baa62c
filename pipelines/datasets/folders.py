"""Folders of images: listing class folders and image files, and the data set made from them.

Hidden files and folders (a leading dot: thumbnails, macOS resource forks) are ignored, and so are the folders that
archives, file servers and file systems add, and the output of this package's own commands.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.datasets.model import SPLITS, Dataset, DatasetError
from pipelines.datasets.text import check_ids, describe, path_fault, read_synset_mapping
from pseudo_maps.records import ImageRecord
from pseudo_maps.wording import counted

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes, in any case, of image files: the formats that ``pseudo_maps.images`` reads."""

UNREAD_SUFFIXES = frozenset(
    ".gif .apng .heic .heif .avif .jp2 .j2k .jpf .jpx .jxl .svg .tga .psd .exr .hdr .dng .cr2 .cr3 .nef .arw".split()
)
"""Suffixes of pictures in other formats, which are counted and left out."""
WNID = re.compile(r"n[0-9]{8}")
"""What a class of ImageNet is called: the number of its synset in WordNet."""
JUNK_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information"}
)
"""Names, in lower case, of folders that no user made: of archives, file servers, recycle bins, file systems."""
_OUTPUT_FILE = re.compile(
    r".+\.manifest\.json|checkpoint-\d{8,}\.pt|metrics\.jsonl|predictions\.csv|finished-steps\.json|table-run\.json"
)
"""Files by which a folder that one of the commands wrote is known."""
_PREDICTIONS = "predictions.json"
"""The same for ``wsol-eval predict``, whose folder has pictures too."""
_NAMED = 3
"""Names that a message lists."""


def scan_folder(folder: Path, *, unread: list[str] | None = None) -> Iterator[tuple[str, bool]]:
    """Folders (True) and image files (False) directly in ``folder``, in any order; an error if it does not exist.

    A name with an image's suffix is a file unless the directory entry itself says folder: no stat, even where every
    image is a link. Paths of pictures in formats that are not read are added to ``unread``.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder, found none; check the data root")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in JUNK_FOLDERS:
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in IMAGE_SUFFIXES and not entry.is_dir(follow_symlinks=False):
                yield entry.name, False
            elif suffix not in IMAGE_SUFFIXES and entry.is_dir():
                yield entry.name, True
            elif unread is not None and suffix in UNREAD_SUFFIXES:
                unread.append(entry.path)


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders, or links to folders, directly in ``folder``; an unsafe name is an error."""
    names = sorted(name for name, is_folder in scan_folder(folder) if is_folder and not _is_output(folder / name))
    for name in names:
        fault = path_fault(name)
        if fault is not None:
            raise DatasetError(f"{folder}: expected a plain class folder name, found {fault} in {name!r}")
    return names


def _is_output(folder: Path) -> bool:
    """Whether commands of this package wrote all of ``folder``; stops at the first image."""
    if (folder / _PREDICTIONS).is_file():
        return True
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _OUTPUT_FILE.fullmatch(entry.name):
                return True
            if entry.name.lower().endswith(IMAGE_SUFFIXES):
                return False
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
    return bool(below) and all(_is_output(folder / name) for name in below)


def folder_classes(root: Path, *, split: str) -> tuple[list[str], list[str]]:
    """Class folders of ``split``, and those that give the labels: of train, without any there of all splits.

    Where none of test's folders is a class, the classes of its images are unknown. Otherwise a class of val or test
    that train has no image of is a DatasetError that names it: no class of the network would have its label.
    """
    folders = {name: class_folders(root / name) for name in SPLITS if (root / name).is_dir()}
    train = folders.get("train")
    if not train:
        return folders.get(split, []), sorted(set().union(*folders.values()))
    known = set(train)
    if split == "train":
        known = {name for name in train if _has_images(root / "train", name)}
    other = "val" if split == "train" else split
    strange = [name for name in folders.get(other, ()) if name not in known and _has_images(root / other, name)]
    if strange and (other != "test" or len(strange) < len(folders[other])):
        written = {_folded(name): name for name in train}
        near = next((written[_folded(name)] for name in strange if _folded(name) in written), "")
        hint = f" (its {describe(near)} is written otherwise)" if near and near not in strange else ""
        raise DatasetError(
            f"{root / other}: expected the classes of {root / 'train'}, found {counted(len(strange), 'class folder')} "
            f"whose class has no image in train: {named(strange)}{hint}; rename or remove them, or sort the images "
            "into one folder per class of train"
        )
    return folders.get(split, []), train


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _has_images(folder: Path, name: str) -> bool:
    return next(walk_images(folder, below=name), None) is not None


def named(names: Sequence[str]) -> str:
    """The first three names, quoted."""
    return ", ".join(map(describe, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def image_files(folder: Path, *, below: str = "", unread: list[str] | None = None) -> list[str]:
    """Sorted paths, relative to ``folder``, of the image files directly in ``folder/below``; ``unread`` as above."""
    if not (folder / below).is_dir():
        return []
    prefix = f"{below}/" if below else ""
    return sorted(f"{prefix}{name}" for name, is_folder in scan_folder(folder / below, unread=unread) if not is_folder)


def walk_images(
    root: Path,
    *,
    below: str = "",
    above: frozenset[tuple[int, int]] = frozenset(),
    unread: list[str] | None = None,
) -> Iterator[str]:
    """Paths relative to ``root`` of the images in ``root/below`` and deeper; an error for a link that leads back.

    ``above`` holds device and inode of the folders on the way: the same for a folder and all links to it. ``unread`` is
    that of ``scan_folder``.
    """
    folder = root / below
    key, top = ((state.st_dev, state.st_ino) for state in (folder.stat(), root.stat()))
    if key in above:
        raise DatasetError(f"{folder}: expected a folder, found a link back to a folder above it; remove the link")
    above |= {key, top}
    prefix = f"{below}/" if below else ""
    for name, is_folder in scan_folder(folder, unread=unread):
        if is_folder:
            if not _is_output(folder / name):
                yield from walk_images(root, below=f"{prefix}{name}", above=above, unread=unread)
        else:
            yield f"{prefix}{name}"


def describe_unread(paths: Sequence[str], *, before: str = "") -> str:
    """How many pictures are in formats that are not read, with three names; empty for none."""
    if not paths:
        return ""
    suffixes = ", ".join(sorted({os.path.splitext(path)[1].lower() for path in paths}))
    names = named(sorted(os.path.basename(path) for path in paths))
    return f"{before}{counted(len(paths), 'picture')} left out, {suffixes} is not read: {names}; convert to JPEG or PNG"


def folder_dataset(
    root: Path,
    *,
    folder: Path,
    layout: str,
    split: str,
    records: list[ImageRecord],
    found: Sequence[str],
    wnids: Sequence[str],
    unread: Sequence[str] = (),
) -> Dataset:
    """The data set of these records; words come from ``LOC_synset_mapping.txt`` in ``root``, where there is one.

    ``found`` are the class folders in ``folder``. It is noted which of them have no image, what other folders are
    there, and how many pictures are ``unread``.
    """
    if not records:
        raise DatasetError(
            f"{folder}: expected images in one folder per class, found none (files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}, in either case){describe_unread(unread, before='; ')}"
        )
    check_ids([record.image_id for record in records], source=folder)
    filled = {record.wnid for record in records}
    empty = [name for name in found if name not in filled and name in wnids]
    with os.scandir(folder) as entries:
        others = {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()}
    remarks = {"of a class without an image": empty, "left out, no class": sorted(others.difference(found))}
    notes = [
        f"{folder}: {counted(len(names), 'folder')} {what}: {named(names)}" for what, names in remarks.items() if names
    ]
    if unread:
        notes.append(f"{folder}: {describe_unread(unread)}")
    mapping = root / "LOC_synset_mapping.txt"
    words_of = dict(zip(*read_synset_mapping(mapping), strict=True)) if mapping.is_file() else {}
    return Dataset(
        root=root,
        split=split,
        layout=layout,
        records=tuple(records),
        class_wnids=tuple(wnids),
        class_words=tuple(words_of.get(wnid, wnid) for wnid in wnids),
        notes=tuple(notes),
    )
