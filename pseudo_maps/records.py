"""Record of one image of a data set, shared by proposals, training and evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN_LABEL = -1
"""Label of an image of unknown class (a test split, a folder without classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image of a data set: its id, file and class. The reader that creates it checks that ``path`` is safe."""

    image_id: str
    """Unique in a split and the same on every machine; lists and box files use it."""
    path: str
    """POSIX path of the image file relative to the data root."""
    wnid: str = ""
    """Class name: a WordNet id (``n01440764``) in ILSVRC, a folder name in other data sets, empty when unknown."""
    label: int = UNKNOWN_LABEL
    """Class index, ``0 <= label < K``, or ``UNKNOWN_LABEL``."""

    def class_name(self, words_k: Sequence[str]) -> str:
        """Its class's human-readable name among ``words_k``, those of all classes by label; else ``wnid``."""
        return words_k[self.label] if self.wnid and 0 <= self.label < len(words_k) else self.wnid
