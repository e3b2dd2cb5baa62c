"""The images of an evaluation, with their ground-truth boxes.

Boxes are ``x0, y0, x1, y1``, 0-based inclusive pixels of the frame that the annotation states.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pseudo_maps.records import ImageRecord

BLOCK_IMAGES = 1000
"""Batches do not reach over multiples of this index, so that each belongs to one shard of saved score maps."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationImage:
    """One image to score."""

    index: int
    """Position in the evaluation, from 0."""
    record: ImageRecord
    """Name, file and class."""
    boxes_xyxy: npt.NDArray[np.float64]
    """(B, 4) ground truth; B is 0 when the image has none."""
    frame_wh: tuple[int, int] | None
    """Width and height that the boxes refer to; None when only the image file tells."""
    blacklisted: bool
    """Whether the devkit's blacklist names it."""
    mask_files: tuple[str, ...] = ()
    """Masks of its objects, where the data set lists files of them, relative to the folder of all masks."""
    ignored_file: str = ""
    """Mask of the pixels that count for nothing, likewise."""


EvaluationBatch = tuple[EvaluationImage, ...]
"""Consecutive images that are scored and stored together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationSet:
    """All images that are asked for, in a fixed order."""

    root: Path
    """Folder that every record's ``path`` is relative to."""
    split: str
    class_wnids: tuple[str, ...]
    class_words: tuple[str, ...]
    """Names of the classes, index = label: wnids or folder names, and human-readable."""
    records: tuple[ImageRecord, ...]
    """All images of the split, those beyond a limit too."""
    images: tuple[EvaluationImage, ...]
    warnings: tuple[str, ...] = ()
    """What is unusual about the boxes, a sentence each."""

    def batches(self, size: int) -> list[EvaluationBatch]:
        """All images in batches of at most ``size``, always cut at the same places."""
        images = self.images
        return [
            images[first : min(first + size, end)]
            for start in range(0, len(images), BLOCK_IMAGES)
            for end in [min(start + BLOCK_IMAGES, len(images))]
            for first in range(start, end, size)
        ]

    def config(self) -> dict[str, object]:
        """What decides the results about data: split, number of images and a digest of names, classes and boxes."""
        digest = hashlib.sha256()
        for image in self.images:
            record = image.record
            digest.update(f"{record.image_id}\0{record.label}\0{image.frame_wh}\0{image.blacklisted}\0".encode())
            digest.update(np.ascontiguousarray(image.boxes_xyxy).tobytes())
        return {
            "split": self.split,
            "images": len(self.images),
            "classes": len(self.class_wnids),
            "sha256": digest.hexdigest(),
        }
