"""Registry of the data set layouts: one file and one row each; opens a data set and loads its boxes."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.boxes import BoxAnnotation
from pipelines.datasets.clsloc import is_clsloc, load_clsloc_boxes, open_clsloc
from pipelines.datasets.cub import is_cub, load_cub_boxes, open_cub
from pipelines.datasets.folder_boxes import load_folder_boxes
from pipelines.datasets.imagefolder import is_imagefolder, open_imagefolder
from pipelines.datasets.imagenet import is_imagenet, open_imagenet
from pipelines.datasets.model import SPLITS, Dataset, DatasetError
from pipelines.datasets.stanford_dogs import is_stanford_dogs, load_stanford_dogs_boxes, open_stanford_dogs
from pipelines.datasets.text import describe
from pipelines.datasets.tinyimagenet import is_tinyimagenet, load_tinyimagenet_boxes, open_tinyimagenet
from pipelines.datasets.wsoleval import is_wsoleval, load_wsoleval_boxes, load_wsoleval_masks, open_wsoleval


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to arrange a data set in folders."""

    signs: str
    """What identifies it, for the message that nothing was recognised."""
    detect: Callable[[Path], bool]
    """Whether a data root has this layout."""
    open: Callable[..., Dataset]
    """``open(root, split=...)``: records and classes of one split."""
    boxes: Callable[..., dict[str, BoxAnnotation]] | None = None
    """``boxes(dataset, wanted=ids)``: annotations of the wanted images that have any, in order; None: no boxes."""
    masks: Callable[[Dataset], dict[str, tuple[list[str], str]]] | None = None
    """By image id the mask files of its objects, and of its ignored pixels; None: the layout lists no masks."""
    fallback: bool = False
    """Whether it counts only where no other layout is recognised: any folder of folders may be an image folder."""


LAYOUTS = {
    "clsloc": Layout(
        signs="Data/CLS-LOC or ImageSets/CLS-LOC", detect=is_clsloc, open=open_clsloc, boxes=load_clsloc_boxes
    ),
    "imagenet": Layout(
        signs="train/<wnid> or val/<wnid>", detect=is_imagenet, open=open_imagenet, boxes=load_folder_boxes
    ),
    "imagefolder": Layout(
        signs="image files in any folder",
        detect=is_imagefolder,
        open=open_imagefolder,
        boxes=load_folder_boxes,
        fallback=True,
    ),
    "tinyimagenet": Layout(
        signs="val/val_annotations.txt",
        detect=is_tinyimagenet,
        open=open_tinyimagenet,
        boxes=load_tinyimagenet_boxes,
    ),
    "cub": Layout(signs="images.txt and train_test_split.txt", detect=is_cub, open=open_cub, boxes=load_cub_boxes),
    "stanforddogs": Layout(
        signs="Images, Annotation and train_list.mat",
        detect=is_stanford_dogs,
        open=open_stanford_dogs,
        boxes=load_stanford_dogs_boxes,
    ),
    "wsoleval": Layout(
        signs="image_ids.txt in the folder, in <split> or in metadata/ILSVRC/<split>",
        detect=is_wsoleval,
        open=open_wsoleval,
        boxes=load_wsoleval_boxes,
        masks=load_wsoleval_masks,
    ),
}
"""Every layout by its name."""

LAYOUT_NAMES = ("auto", *LAYOUTS)
"""Names that ``open_dataset`` takes as layout."""


def open_dataset(root: str | os.PathLike[str], *, split: str, layout: str = "auto") -> Dataset:
    """Read the records and classes of one split (``train``, ``val`` or ``test``) of a data set.

    ``layout`` is one of ``LAYOUTS``, or ``auto``, which recognises it by its files. The order of the records depends
    only on the files: that of the list, or sorted by class and path. Images are not opened, and listed images are not
    looked for. DatasetError for an unknown split or layout, none or several recognised, an invalid or unreadable file.
    """
    root = Path(root)
    if split not in SPLITS:
        raise DatasetError(f"expected one of the splits {', '.join(SPLITS)}, found {split!r}")
    if layout not in LAYOUT_NAMES:
        raise DatasetError(f"expected one of the layouts {', '.join(LAYOUT_NAMES)}, found {layout!r}")
    if not root.is_dir():
        raise DatasetError(f"{root}: expected the folder of a data set, found none; check the path")
    try:
        return LAYOUTS[_detect(root) if layout == "auto" else layout].open(root, split=split)
    except PermissionError as error:
        raise DatasetError(
            f"{error.filename}: no permission to read it; change its permissions or move it out of the data set"
        ) from error


def _detect(root: Path) -> str:
    matches = [name for name, layout in LAYOUTS.items() if not layout.fallback and layout.detect(root)]
    if not matches:
        matches = [name for name, layout in LAYOUTS.items() if layout.fallback and layout.detect(root)]
    if len(matches) > 1:
        raise DatasetError(
            f"{root}: expected one layout, found signs of {' and '.join(matches)}; name the one to use as --layout"
        )
    if not matches:
        signs = ", ".join(f"{layout.signs} ({name})" for name, layout in LAYOUTS.items())
        raise DatasetError(
            f"{root}: no known layout; looked for {signs}; check the path, or sort images into one folder per class"
        )
    return matches[0]


def load_boxes(dataset: Dataset, *, image_ids: Iterable[str] | None = None) -> dict[str, BoxAnnotation]:
    """Ground-truth boxes by image id, in the order of the records; images without annotation are absent.

    Boxes are 0-based inclusive pixels of the annotation's own frame; see ``scale_boxes``. An image whose boxes were all
    dropped is present with an array of shape (0, 4). ``image_ids`` selects images, in any order; None means all.
    DatasetError for an id that is not in the data set, or an invalid annotation file.
    """
    wanted = [record.image_id for record in dataset.records]
    if image_ids is not None:
        chosen = set(image_ids)
        unknown = chosen.difference(wanted)
        if unknown:
            raise DatasetError(
                f"{dataset.root}: expected ids of split {dataset.split!r}, found {len(unknown)} others, "
                f"such as {describe(min(unknown))}"
            )
        wanted = [image_id for image_id in wanted if image_id in chosen]
    boxes = LAYOUTS[dataset.layout].boxes
    return {} if boxes is None else boxes(dataset, wanted=wanted)


def load_masks(dataset: Dataset) -> dict[str, tuple[list[str], str]]:
    """By image id the mask files of its objects, and that of its ignored pixels ("": none), where the data lists them.

    Files are relative to a folder of masks. DatasetError for an invalid list.
    """
    masks = LAYOUTS[dataset.layout].masks
    return {} if masks is None else masks(dataset)
