"""Layout tinyimagenet: Tiny ImageNet as downloaded, ``train/<wnid>/images`` and one unsorted folder of val images.

The classes of val are in ``val/val_annotations.txt`` (file, wnid, x0, y0, x1, y1, separated by tabs), the boxes of a
train class in ``train/<wnid>/<wnid>_boxes.txt`` (file and corners). Test images have no class.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.datasets.boxes import BoxAnnotation, tidy_boxes
from pipelines.datasets.folders import class_folders, image_files
from pipelines.datasets.model import Dataset, DatasetError
from pipelines.datasets.text import check_ids, describe, parse_number, read_lines
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord

_VAL_LIST = "val/val_annotations.txt"
_WORDS = "words.txt"
_CORNERS = 4


def is_tinyimagenet(root: Path) -> bool:
    """Whether ``root`` has the list of val images."""
    return (root / _VAL_LIST).is_file()


def open_tinyimagenet(root: Path, *, split: str) -> Dataset:
    """Read one split; ids are names without suffix, in train below the wnid; train's sorted folders are the labels."""
    wnids = class_folders(root / "train")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    if split == "train":
        names = [
            (f"train/{name}", wnid) for wnid in wnids for name in image_files(root / "train", below=f"{wnid}/images")
        ]
    elif split == "val":
        names = [(f"val/images/{fields[0]}", fields[1]) for _, fields in _rows(root / _VAL_LIST, texts=2)]
    else:
        names = [(f"{split}/{name}", "") for name in image_files(root / split, below="images")]
    records = []
    for number, (path, wnid) in enumerate(names, start=1):
        if wnid and wnid not in label_of:
            raise DatasetError(
                f"{root / _VAL_LIST}, line {number}: expected a class of {root / 'train'}, found {describe(wnid)}"
            )
        stem = Path(path).stem
        image_id = f"{wnid}/{stem}" if split == "train" else stem
        records.append(
            ImageRecord(image_id=image_id, path=path, wnid=wnid, label=label_of[wnid] if wnid else UNKNOWN_LABEL)
        )
    if not records:
        raise DatasetError(f"{root / split}: expected the images of Tiny ImageNet, found none")
    check_ids([record.image_id for record in records], source=root / (_VAL_LIST if split == "val" else split))
    words = dict(line.partition("\t")[::2] for line in read_lines(root / _WORDS)) if (root / _WORDS).is_file() else {}
    return Dataset(
        root=root,
        split=split,
        layout="tinyimagenet",
        records=tuple(records),
        class_wnids=tuple(wnids),
        class_words=tuple(words.get(wnid, wnid) for wnid in wnids),
    )


def load_tinyimagenet_boxes(dataset: Dataset, *, wanted: Sequence[str]) -> dict[str, BoxAnnotation]:
    """Boxes of the ``wanted`` images of train or val, one each; the lists state no frame size."""
    if dataset.split == "train":
        lists = {wnid: dataset.root / "train" / wnid / f"{wnid}_boxes.txt" for wnid in dataset.class_wnids}
        rows = {
            f"{wnid}/{Path(fields[0]).stem}": corners
            for wnid, path in lists.items()
            if path.is_file()
            for corners, fields in _rows(path, texts=1)
        }
    elif dataset.split == "val":
        rows = {Path(fields[0]).stem: corners for corners, fields in _rows(dataset.root / _VAL_LIST, texts=2)}
    else:
        rows = {}
    return {image_id: tidy_boxes([rows[image_id]]) for image_id in wanted if image_id in rows}


def _rows(path: Path, *, texts: int) -> Iterator[tuple[tuple[float, ...], list[str]]]:
    """Corners and texts of every line: ``texts`` fields and four numbers, separated by tabs."""
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        corners = tuple(value for field in fields[texts:] if (value := parse_number(field)) is not None)
        if len(fields) != texts + _CORNERS or len(corners) != _CORNERS:
            raise DatasetError(
                f"{path}, line {number}: expected {texts} names and four corners with tabs between them, found "
                f"{describe(line)}"
            )
        yield corners, fields[:texts]
