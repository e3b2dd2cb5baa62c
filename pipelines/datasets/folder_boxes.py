"""Boxes beside the images of an image folder: ``localization.txt`` or ``boxes.csv``, which leave the ids alone.

Lines are ``name,x0,y0,x1,y1``, one for each box; ``boxes.csv`` may have a header. ``image_sizes.txt`` beside them,
``name,width,height``, states the frame that the boxes refer to where the image file is not it. In the folder of the
split a name is an image's id or its path; in the root of a data set with splits it is the path, ``val/cat/1.jpg``.
"""

from collections.abc import Iterable

from pipelines.datasets.boxes import BoxAnnotation
from pipelines.datasets.model import SPLITS, Dataset, DatasetError
from pipelines.datasets.wsoleval import read_listed_boxes

_NAMES = ("localization.txt", "boxes.csv")


def load_folder_boxes(dataset: Dataset, *, wanted: Iterable[str]) -> dict[str, BoxAnnotation]:
    """Boxes of the ``wanted`` images that have any; DatasetError for two files or for a name that no image has."""
    places = dict.fromkeys((dataset.root / dataset.split, dataset.root))
    found = [place / name for place in places for name in _NAMES if (place / name).is_file()]
    if not found:
        return {}
    if len(found) > 1:
        raise DatasetError(f"{found[0]}: expected one file of boxes, found {found[1]} too; remove one of them")
    path = found[0]
    id_of = {record.path: record.image_id for record in dataset.records}
    others: tuple[str, ...] = ()
    if path.parent != dataset.root or not (dataset.root / dataset.split).is_dir():
        id_of |= {record.image_id: record.image_id for record in dataset.records}
    else:
        others = tuple(f"{split}/" for split in SPLITS if split != dataset.split)
    return read_listed_boxes(path, wanted=wanted, id_of=id_of, header=path.suffix == ".csv", others=others)
