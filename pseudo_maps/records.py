"""The record that names one image of a data set, shared by proposals, training and evaluation."""

from dataclasses import dataclass

__all__ = ["UNKNOWN_LABEL", "ImageRecord"]

UNKNOWN_LABEL = -1
"""Label of an image whose class is not known (a test split, a folder of any images)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image of a data set: what it is called, where its file lies, and its class.

    Raises nothing on its own: the reader that makes it has checked that ``path`` stays inside the data root.
    """

    image_id: str
    """Unique inside a split, stable over machines; the name other files (ImageSets, boxes) use for the image."""
    path: str
    """POSIX path of the image file relative to the data root."""
    wnid: str = ""
    """Class name: a WordNet id (``n01440764``) in ILSVRC, a folder name elsewhere, empty when unknown."""
    label: int = UNKNOWN_LABEL
    """Class index, ``0 <= label < K``, or ``UNKNOWN_LABEL``."""
