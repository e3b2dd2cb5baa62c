"""Evaluation images: batches of whole squashed images, and of their centre crops.

An image that cannot be read is not an error here: an evaluation counts it as wrong and names it.

Shapes: B images of a batch that could be read, R side in pixels that the network's views are cut from.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pseudo_maps.images import ImageDecodeError
from pseudo_maps.records import ImageRecord
from training.data.augmentation import Crop, sample_image
from training.data.loading import decode_at_least, is_decoded_at_least
from training.data.workers import WorkerLoader

_WHOLE = Crop(0, 0, 1, 1, False)
_CENTRE_MARGIN = 16 / 256
"""The centre crop is the central 224 of the image squashed to 256 (PSOL, Zhang et al., CVPR 2020)."""
_CENTRE = Crop(_CENTRE_MARGIN, _CENTRE_MARGIN, 1 - _CENTRE_MARGIN, 1 - _CENTRE_MARGIN, False)


class EvaluationBatch(NamedTuple):
    """Some images by their position in the records."""

    positions: tuple[int, ...]
    """Position of each of the B images that could be read."""
    images_bchw: Tensor
    """(B, 3, R, R) uint8 RGB: the whole image squashed."""
    centre_bchw: Tensor | None
    """(B, 3, R, R) uint8 RGB: the centre crop; None when it is not wanted."""
    file_wh: tuple[tuple[int, int], ...]
    """Width and height of each file."""
    unreadable: dict[int, Exception]
    """Position and error of each image that could not be read."""


class EvaluationPixels(Dataset[EvaluationBatch]):
    """Images by lists of positions, R = ``side_px``; with ``centre`` also the centre crop."""

    def __init__(
        self, records: Sequence[ImageRecord], *, root: str | os.PathLike[str], side_px: int, centre: bool = False
    ) -> None:
        self._paths = np.array([os.fsencode(record.path) for record in records])
        self._root = os.fspath(root)
        self._side_px = side_px
        self._centre = centre

    def __len__(self) -> int:
        return len(self._paths)

    def nbytes(self, images: int) -> int:
        """Bytes of a batch of so many images."""
        return images * self._side_px**2 * (6 if self._centre else 3)

    def __getitem__(self, position: int) -> EvaluationBatch:
        """A batch of one image."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> EvaluationBatch:
        """The images at ``positions``, in their order, less those that cannot be read."""
        unreadable: dict[int, Exception] = {}
        read, sizes = [], []
        wholes, centres = [], []
        # The centre crop is enlarged least when it has R pixels of its own.
        centre_short_side_px = round(self._side_px / (1 - 2 * _CENTRE_MARGIN))
        for position in positions:
            path = os.path.join(self._root, os.fsdecode(self._paths[position]))
            try:
                decoded = decode_at_least(path, short_side_px=self._side_px)
            except (ImageDecodeError, OSError) as error:
                unreadable[position] = error
                continue
            read.append(position)
            sizes.append((decoded.file_width, decoded.file_height))
            wholes.append(sample_image(decoded.rgb_hwc, _WHOLE, self._side_px))
            if self._centre:
                # At a scale of its own, so that the whole image is the same pixels with and without the crop.
                if not is_decoded_at_least(decoded, short_side_px=centre_short_side_px):
                    decoded = decode_at_least(path, short_side_px=centre_short_side_px)
                centres.append(sample_image(decoded.rgb_hwc, _CENTRE, self._side_px))
        return EvaluationBatch(
            positions=tuple(read),
            images_bchw=_stacked(wholes, self._side_px),
            centre_bchw=_stacked(centres, self._side_px) if self._centre else None,
            file_wh=tuple(sizes),
            unreadable=unreadable,
        )


def build_evaluation_loader(
    pixels: EvaluationPixels, batches: Sequence[Sequence[int]], *, workers: int
) -> WorkerLoader[EvaluationBatch]:
    """Loader over ``batches`` of positions, in their order, for any number of workers."""
    largest = pixels.nbytes(max(map(len, batches), default=0))
    return WorkerLoader(pixels, [list(batch) for batch in batches], workers=workers, batch_bytes=largest)


def squashed(rgb_hwc: npt.NDArray[np.uint8], *, side_px: int) -> Tensor:
    """(1, 3, R, R) uint8 of pixels (H, W, 3) uint8 RGB: the whole image squashed to R = ``side_px``."""
    return _stacked([sample_image(rgb_hwc, _WHOLE, side_px)], side_px)


def _stacked(images_hwc: Sequence[np.ndarray], side_px: int) -> Tensor:
    if not images_hwc:
        return torch.empty((0, 3, side_px, side_px), dtype=torch.uint8)
    return torch.from_numpy(np.stack(images_hwc)).permute(0, 3, 1, 2)
