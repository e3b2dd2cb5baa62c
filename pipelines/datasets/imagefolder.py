"""Layout imagefolder: any tree of class folders, ``root/<class>/**`` or ``root/<split>/<class>/**``."""

from pathlib import Path

from pipelines.datasets.folders import class_folders, folder_classes, folder_dataset, image_files, walk_images
from pipelines.datasets.model import SPLITS, Dataset, DatasetError
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord

_ILSVRC_LABELS = frozenset(map(str, range(1000)))
"""Folders of ImageNetV2 as downloaded (Recht et al., ICML 2019); sorted as text they would get other labels."""


def is_imagefolder(root: Path) -> bool:
    """Whether there is an image in ``root`` or anywhere below it; stops at the first."""
    if (root / "CLS-LOC").is_dir():
        # It would be read as one class named CLS-LOC, train and val together.
        raise DatasetError(f"{root}: expected the root of a CLS-LOC tree, found one of its folders; give its parent")
    return next(walk_images(root), None) is not None


def open_imagefolder(root: Path, *, split: str) -> Dataset:
    """Read one split.

    The class root is ``root/<split>`` when ``root`` has a folder of any split's name, else ``root`` itself. Ids are
    paths below the class root with their suffix; images directly in it have no class. Labels are positions among the
    sorted class folders (of train, when split folders exist; without train, of all); in ImageNetV2, whose folders are
    called 0 to 999, their numbers, which are ILSVRC's labels.
    """
    present = [name for name in SPLITS if (root / name).is_dir()]
    if present and split not in present:
        raise DatasetError(
            f"{root}: expected the folder {split!r} beside {', '.join(map(repr, present))}, found none; "
            "choose one of these splits"
        )
    folder = root / split if present else root
    prefix = f"{split}/" if present else ""
    found, wnids = folder_classes(root, split=split) if present else (class_folders(root),) * 2
    if not present and set(found) == _ILSVRC_LABELS:
        wnids = sorted(found, key=int)
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    unread: list[str] = []
    records = [ImageRecord(image_id=name, path=f"{prefix}{name}") for name in image_files(folder, unread=unread)]
    for wnid in found:
        label = label_of.get(wnid, UNKNOWN_LABEL)
        for name in sorted(walk_images(folder, below=wnid, unread=unread)):
            known = wnid if wnid in label_of else ""
            records.append(ImageRecord(image_id=name, path=f"{prefix}{name}", wnid=known, label=label))
    return folder_dataset(
        root, folder=folder, layout="imagefolder", split=split, records=records, found=found, wnids=wnids, unread=unread
    )
