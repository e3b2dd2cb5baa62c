"""Layout stanforddogs: Stanford Dogs as downloaded: the three archives of images, annotations and lists in one folder.

``Images/<wnid>-<name>/<stem>.jpg`` has its boxes in ``Annotation/<wnid>-<name>/<stem>``, XML as ILSVRC's, and a split's
images stand in ``train_list.mat`` and ``test_list.mat``, in the root or in ``lists``.
"""

from collections.abc import Sequence
from pathlib import Path

from pipelines.datasets.annotation_xml import read_annotation_xml
from pipelines.datasets.boxes import BoxAnnotation, tidy_boxes
from pipelines.datasets.folders import class_folders
from pipelines.datasets.model import Dataset, DatasetError
from pipelines.datasets.text import check_ids, check_known
from pseudo_maps.records import ImageRecord


def is_stanford_dogs(root: Path) -> bool:
    """Whether ``root`` has images, annotations and the list of training images."""
    return (root / "Images").is_dir() and (root / "Annotation").is_dir() and _list_file(root, "train").is_file()


def open_stanford_dogs(root: Path, *, split: str) -> Dataset:
    """Read one split; ids are paths below ``Images``, labels positions among its sorted folders.

    There are no validation images: ``val`` and ``test`` are both the test images, which a note says of ``val``.
    """
    folders = class_folders(root / "Images")
    label_of = {folder: label for label, folder in enumerate(folders)}
    source = _list_file(root, split)
    ids = _read_list(source)
    check_ids(ids, source=source)
    check_known([image_id.partition("/")[0] for image_id in ids], label_of, source=source)
    records = [
        ImageRecord(
            image_id=image_id,
            path=f"Images/{image_id}",
            wnid=image_id.partition("-")[0],
            label=label_of[image_id.partition("/")[0]],
        )
        for image_id in ids
    ]
    note = f"{root}: Stanford Dogs has no validation images: val is its test images; choose nothing by them"
    return Dataset(
        root=root,
        split=split,
        layout="stanforddogs",
        records=tuple(records),
        class_wnids=tuple(folder.partition("-")[0] for folder in folders),
        class_words=tuple(folder.partition("-")[2].replace("_", " ") or folder for folder in folders),
        notes=(note,) if split == "val" else (),
    )


def load_stanford_dogs_boxes(dataset: Dataset, *, wanted: Sequence[str]) -> dict[str, BoxAnnotation]:
    """All boxes of the ``wanted`` images that have an annotation, in the frame that it states."""
    boxes = {}
    for image_id in wanted:
        path = dataset.root / "Annotation" / Path(image_id).with_suffix("")
        if path.is_file():
            found = read_annotation_xml(path)
            boxes[image_id] = tidy_boxes(found.corners, frame_wh=found.frame_wh)
    return boxes


def _list_file(root: Path, split: str) -> Path:
    name = f"{'train' if split == 'train' else 'test'}_list.mat"
    return root / "lists" / name if (root / "lists" / name).is_file() else root / name


def _read_list(path: Path) -> list[str]:
    """The texts of ``file_list``, a cell array (N, 1) of MATLAB."""
    # scipy takes half a second to import and nothing else here needs it.
    from scipy.io import loadmat

    try:
        cells = loadmat(path, variable_names=["file_list"])["file_list"]
        return [str(cell.item()) for cell in cells.ravel()]
    except Exception as error:
        # scipy's errors of damaged files have nothing in common.
        raise DatasetError(
            f"{path}: expected MATLAB's file_list, a column of paths, found: {type(error).__name__}: {error}; restore "
            "the file"
        ) from error
