"""Layout imagenet: torchvision's ImageNet folder, ``root/<split>/<wnid>/<name>.<suffix>``."""

from pathlib import Path

from pipelines.datasets.folders import WNID, folder_classes, folder_dataset, image_files, scan_folder
from pipelines.datasets.model import SPLITS, Dataset, DatasetError
from pipelines.datasets.tinyimagenet import is_tinyimagenet
from pseudo_maps.records import ImageRecord


def is_imagenet(root: Path) -> bool:
    """Whether a split's folder in ``root`` has a folder that is named like a wnid, and it is not Tiny ImageNet."""
    if is_tinyimagenet(root):
        return False
    folders = [root / split for split in SPLITS if (root / split).is_dir()]
    return any(is_folder and WNID.fullmatch(name) for folder in folders for name, is_folder in scan_folder(folder))


def open_imagenet(root: Path, *, split: str) -> Dataset:
    """Read one split: ids are ``<wnid>/<name>``, labels positions among the sorted class folders of train."""
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected images of split {split!r} in wnid folders")
    loose = image_files(folder)
    if loose:
        raise DatasetError(
            f"{folder}: expected images in wnid folders, found {len(loose)} outside, such as {loose[0]!r}; "
            "sort them into one folder per class, named as in train"
        )
    found, wnids = folder_classes(root, split=split)
    for wnid in (*wnids, *found):
        if not WNID.fullmatch(wnid):
            raise DatasetError(
                f"{root}: expected class folders named n and eight digits, found {wnid!r}; "
                "use --layout imagefolder for other names"
            )
    unread: list[str] = []
    records = [
        ImageRecord(image_id=name.rpartition(".")[0], path=f"{split}/{name}", wnid=wnid, label=label)
        for label, wnid in enumerate(wnids)
        for name in image_files(folder, below=wnid, unread=unread)
    ]
    return folder_dataset(
        root, folder=folder, layout="imagenet", split=split, records=records, found=found, wnids=wnids, unread=unread
    )
