"""The data set that every layout's reader makes out of a data root, and the error they all raise."""

from dataclasses import dataclass
from pathlib import Path

from pseudo_maps.records import ImageRecord

__all__ = ["SPLITS", "Classes", "Dataset", "DatasetError"]

SPLITS = ("train", "val", "test")
"""Names of the splits, as ILSVRC's own folders spell them."""


class DatasetError(ValueError):
    """A data root that does not read as a data set; names the file, the line, what was expected and found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Classes of a data set, in label order."""

    wnids: tuple[str, ...]
    """Class names, index = label."""
    words: tuple[str, ...]
    """Human words of the same classes; the wnid again where they are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One split of a data set: where it lies, its images in a fixed order, and its classes."""

    root: Path
    """Folder that every record's ``path`` is relative to."""
    split: str
    """One of ``SPLITS``."""
    layout: str
    """Layout it was read as (never ``auto``)."""
    records: tuple[ImageRecord, ...]
    """Images with unique ids, in list order or sorted by class and path."""
    class_wnids: tuple[str, ...]
    """Class names, index = label."""
    class_words: tuple[str, ...]
    """Human words of the classes in the same order; the wnid again where they are unknown."""
