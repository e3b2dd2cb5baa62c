"""Tells which layout a data root has, and opens it: a folder on disk becomes a ``Dataset``."""

import os
from pathlib import Path

from pipelines.datasets.clsloc import find_tree, open_clsloc
from pipelines.datasets.folders import contains_image, has_wnid_folders, open_imagefolder, open_imagenet
from pipelines.datasets.model import SPLITS, Dataset, DatasetError
from pipelines.datasets.wsoleval import has_metadata, open_wsoleval

__all__ = ["LAYOUTS", "open_dataset"]

_READERS = {
    "clsloc": open_clsloc,
    "imagenet": open_imagenet,
    "imagefolder": open_imagefolder,
    "wsoleval": open_wsoleval,
}

LAYOUTS = ("auto", *_READERS)
"""Names that ``open_dataset`` takes as layout."""


def open_dataset(root: str | os.PathLike[str], *, split: str, layout: str = "auto") -> Dataset:
    """Read the records and classes of one split of a data set.

    Parameters
    ----------
    root
        Data root: a folder in one of the layouts.
    split
        ``train``, ``val`` or ``test``.
    layout
        ``clsloc`` (Kaggle's CLS-LOC tree), ``imagenet`` (``root/<split>/<wnid>/*``, as torchvision sorts it),
        ``imagefolder`` (``root/<class>/**`` or ``root/<split>/<class>/**``), ``wsoleval`` (metadata of the
        wsolevaluation project), or ``auto``, which tells it from what is there.

    Returns
    -------
    Dataset
        Records in an order that depends only on the files: that of the list, or sorted by class and path.

    Raises
    ------
    DatasetError
        No such folder, an unknown split or layout, no or more than one layout recognised, or a file that
        does not read. Images are not opened, and listed images are not looked for.

    Examples
    --------
    >>> dataset = open_dataset("/data/ILSVRC", split="val")  # doctest: +SKIP
    >>> dataset.layout, len(dataset.records)  # doctest: +SKIP
    ('clsloc', 50000)
    """
    root = Path(root)
    if split not in SPLITS:
        raise DatasetError(f"expected one of the splits {', '.join(SPLITS)}, found {split!r}")
    if layout not in LAYOUTS:
        raise DatasetError(f"expected one of the layouts {', '.join(LAYOUTS)}, found {layout!r}")
    if not root.is_dir():
        raise DatasetError(f"{root}: expected the folder of a data set, found none; check the path")
    if layout == "auto":
        layout = _detect(root)
    return _READERS[layout](root, split=split)


def _detect(root: Path) -> str:
    matches = []
    if find_tree(root) is not None:
        matches.append("clsloc")
    if any(has_wnid_folders(root / split) for split in SPLITS):
        matches.append("imagenet")
    if has_metadata(root):
        matches.append("wsoleval")
    if not matches and (root / "CLS-LOC").is_dir():
        # As an image folder it would be one class named CLS-LOC, train and val together.
        raise DatasetError(f"{root}: expected the root of a CLS-LOC tree, found one of its folders; give its parent")
    # Any folder of folders could be an image folder, so it counts only when nothing more telling is there.
    if not matches and contains_image(root):
        matches.append("imagefolder")
    if len(matches) > 1:
        raise DatasetError(
            f"{root}: expected one layout, found signs of {' and '.join(matches)}; name the one to use as layout"
        )
    if not matches:
        raise DatasetError(
            f"{root}: no known layout; looked for Data/CLS-LOC or ImageSets/CLS-LOC (clsloc), "
            "train/<wnid> or val/<wnid> (imagenet), image_ids.txt in the folder, in <split> or in "
            "metadata/ILSVRC/<split> (wsoleval), and image files in any folder (imagefolder); check the path"
        )
    return matches[0]
