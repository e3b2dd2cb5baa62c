"""Data set: the images of one split with their classes, and the error that every layout raises."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pseudo_maps.records import ImageRecord

SPLITS = ("train", "val", "test")
"""Names of the splits, as ILSVRC's own folders spell them."""


class DatasetError(ValueError):
    """An invalid data set; the message names the file and line, what was expected and what was found."""


class Classes(NamedTuple):
    """Classes of a data set, in label order."""

    wnids: tuple[str, ...]
    """Class names, index = label."""
    words: tuple[str, ...]
    """Human-readable names of the same classes; the wnid again where they are unknown."""


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
    class_words: tuple[str, ...]
    """Both as in ``Classes``."""
    notes: tuple[str, ...] = ()
    """What a user should know of the split, such as classes without an image; a sentence each."""
