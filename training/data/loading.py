"""Training images and their saliency maps: batches of aligned uint8 crops.

A worker of the loader decodes, cuts and collects a whole batch itself. Pixels travel as uint8, a quarter of what
floats would take between processes and to the device; ``to_device`` makes floats of them there.

Shapes: B images of a batch, S side of the network's input in pixels, N records.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pseudo_maps.files import spaced_files
from pseudo_maps.images import (
    DecodedImage,
    ImageDecodeError,
    ImageTimeoutError,
    decode_image,
)
from pseudo_maps.reading import raise_system_error
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import STATUS_OK, MapIndex, ShardError
from training.config import CropConfig, OnMissing
from training.data.augmentation import draw_crop, sample_image, sample_map
from training.data.sampling import SampleKey, counter_generator

_NAMED_AT_MOST = 5
"""Images without a map that an error names."""

_ASSUMED_ASPECT = 1.5
"""Long side over short side up to which a reduced decoding is tried; most photographs are 4:3 or 3:2.

The decoder takes a longest side, and the sides are known only after decoding. A longer image that turns out too
small is decoded again.
"""


class UnreadableImageError(ValueError):
    """A training image, or its saliency map, that cannot be read; names the file and says what to do."""


class MapsMissingError(ValueError):
    """Images without a usable saliency map; says how many, why, names some, and what to do."""


@dataclass(frozen=True, kw_only=True)
class MapReport:
    """Numbers of images with a usable saliency map, in no shard, and by the status of maps that could not be made."""

    ok: int
    missing: int
    failed: dict[str, int]
    examples: tuple[str, ...]
    """The first few images without a usable map, each as "id (reason)"."""

    def describe(self) -> str:
        """One line for a log or an error."""
        without = self.missing + sum(self.failed.values())
        if not without:
            return f"all {self.ok} images have a map"
        reasons = [f"{self.missing} are in no shard"] if self.missing else []
        reasons += [f"{count} have status {status}" for status, count in sorted(self.failed.items())]
        named = ", ".join(self.examples) + (", ..." if without > len(self.examples) else "")
        return f"{without} of {self.ok + without} images have no usable map: {'; '.join(reasons)} ({named})"


def check_maps(
    records: Sequence[ImageRecord], index: MapIndex, *, on_missing: OnMissing = "refuse"
) -> tuple[list[ImageRecord], MapReport]:
    """Records whose saliency map can be used, in their order, and the counts.

    MapsMissingError when images have no usable map and ``on_missing`` is ``"refuse"``, or when no image has one.
    """
    kept: list[ImageRecord] = []
    examples: list[str] = []
    failed: Counter[str] = Counter()
    for record in records:
        status = index.status(record.image_id) if record.image_id in index else None
        if status == STATUS_OK:
            kept.append(record)
            continue
        if status is not None:
            failed[status] += 1
        if len(examples) < _NAMED_AT_MOST:
            examples.append(f"{record.image_id} ({status or 'in no shard'})")
    without = len(records) - len(kept)
    report = MapReport(ok=len(kept), missing=without - failed.total(), failed=dict(failed), examples=tuple(examples))
    if without and (on_missing == "refuse" or not kept):
        raise MapsMissingError(f"{report.describe()}; {_advice(report, index)}")
    return kept, report


def _advice(report: MapReport, index: MapIndex) -> str:
    if not report.ok:
        return f"check --maps, the split and the --layout: the maps have ids such as {next(iter(index), '')!r}"
    ways = ["wsol-prep proposals makes those that are missing"] if report.missing else []
    ways += ["wsol-prep proposals --retry-failed tries those again that failed"] if report.failed else []
    return f"{', '.join(ways)}; --on-missing skip leaves these images out"


class Batch(NamedTuple):
    """A batch as the loader gives it, on the CPU."""

    images_bchw: Tensor
    """(B, 3, S, S) uint8 RGB in channels-last memory."""
    maps_bhw: Tensor | None
    """(B, S, S) uint8 saliency, 255 at the peak of the whole map; None when no maps are read."""
    labels_b: Tensor
    """(B,) int64 class indices."""
    positions_b: Tensor
    """(B,) int64 positions in the records."""
    unreadable: dict[int, Exception]
    """Position and error of each image that was asked for and cannot be read; it is not among the B."""


class DeviceBatch(NamedTuple):
    """A ``Batch`` as the network takes it: float32 pixels in 0..1, not normalised, in channels-last memory."""

    images01_bchw: Tensor
    maps01_bhw: Tensor | None
    labels_b: Tensor
    positions_b: Tensor


def images_digest(labels: npt.ArrayLike, paths: Iterable[bytes]) -> str:
    """SHA-256 (hexadecimal) of the labels and paths of images in their order."""
    digest = hashlib.sha256(np.asarray(labels, dtype=np.int64).tobytes())
    for path in paths:
        digest.update(path + b"\0")
    return digest.hexdigest()


class TrainingImages(Dataset[Batch]):
    """Images and maps by position, a batch at a time.

    Parameters
    ----------
    records, root
        Images with known labels, at least one, else ValueError, and the folder that their paths are relative to.
    crop, seed
        Training crop, drawn from seed, epoch and position alone: neither the number of workers, nor the order, nor a
        resumed run changes what an image looks like in an epoch.
    index
        Saliency maps, checked with ``check_maps``; None for methods that use none.

    Notes
    -----
    Names are kept as numpy arrays of bytes: workers share them with the main process, whereas a list of a million
    strings would be copied into each worker as Python touches the reference counts.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        *,
        root: str | os.PathLike[str],
        crop: CropConfig,
        seed: int,
        index: MapIndex | None = None,
    ) -> None:
        if not records:
            raise ValueError("no images to train on, expected at least one record")
        self._labels = np.array([record.label for record in records], dtype=np.int64)
        if self._labels.min() < 0:
            first = records[int(np.argmin(self._labels))]
            raise ValueError(
                f"{int((self._labels < 0).sum())} of {len(records)} images have no class, such as {first.path}; sort "
                "them into one folder per class (train/<class>, val/<class>)"
            )
        self._paths = np.array([os.fsencode(record.path) for record in records])
        self._ids = np.array([record.image_id.encode() for record in records]) if index is not None else None
        self._root = os.fspath(root)
        self._crop = crop
        self._seed = seed
        self._index = index

    def __len__(self) -> int:
        return len(self._labels)

    def nbytes(self, images: int) -> int:
        """Bytes of a batch of so many images."""
        return images * self._crop.input_size**2 * (3 if self._index is None else 4)

    def labels(self) -> list[int]:
        """Class index of every image."""
        labels: list[int] = self._labels.tolist()
        return labels

    def path(self, position: int) -> str:
        """File of an image."""
        return os.path.join(self._root, os.fsdecode(self._paths[position]))

    def sha256(self) -> str:
        """Digest of all paths and labels in their order: what a resumed run has to find again."""
        return images_digest(self._labels, self._paths)

    def file_bytes(self) -> int:
        """Bytes of a thousand of the image files: another number where these were replaced under their names."""
        positions = range(len(self))
        return sum(state.st_size for state in spaced_files([Path(self.path(position)) for position in positions]))

    def identity(self) -> dict[str, int | str]:
        """Number, ``sha256`` and ``file_bytes`` of the images, as checkpoints and ``finished.json`` store them."""
        return {"images": len(self), "images_sha256": self.sha256(), "image_bytes": self.file_bytes()}

    def __getitem__(self, key: SampleKey) -> Batch:
        """A batch of one image; errors as ``__getitems__``."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[SampleKey]) -> Batch:
        """Batch of the images at ``keys``, in their order, less those that cannot be read.

        What cannot be read is returned, not raised: torch wraps an error of a worker in the worker's whole traceback.
        The errors are ImageDecodeError and OSError, whose messages name the image's file, and ShardError, whose message
        names a shard.
        """
        size = self._crop.input_size
        images_bhwc = torch.empty((len(keys), size, size, 3), dtype=torch.uint8)
        maps_bhw = None if self._index is None else torch.empty((len(keys), size, size), dtype=torch.uint8)
        read: list[int] = []
        unreadable: dict[int, Exception] = {}
        into_images = images_bhwc.numpy()
        into_maps = None if maps_bhw is None else maps_bhw.numpy()
        for key in keys:
            row = len(read)
            try:
                decoded = decode_at_least(self.path(key.position), short_side_px=self._crop.short_side_px)
                size_wh = (decoded.file_width, decoded.file_height)
                map_hw = None if into_maps is None else self._read_map(key.position, size_wh=size_wh)
            except (ImageDecodeError, OSError, ShardError) as error:
                unreadable[key.position] = error
                continue
            generator = counter_generator(seed=self._seed, epoch=key.epoch, position=key.position)
            crop = draw_crop(generator, (decoded.file_height, decoded.file_width), self._crop)
            into_images[row] = sample_image(decoded.rgb_hwc, crop, size)
            if into_maps is not None and map_hw is not None:
                into_maps[row] = sample_map(map_hw, crop, size)
            read.append(key.position)
        positions_b = torch.tensor(read, dtype=torch.int64)
        return Batch(
            images_bchw=images_bhwc[: len(read)].permute(0, 3, 1, 2),
            maps_bhw=None if maps_bhw is None else maps_bhw[: len(read)],
            labels_b=torch.from_numpy(self._labels)[positions_b],
            positions_b=positions_b,
            unreadable=unreadable,
        )

    def _read_map(self, position: int, *, size_wh: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The map; ShardError where it was made of an image of another size."""
        assert self._index is not None and self._ids is not None
        image_id = self._ids[position].decode()
        try:
            expected = self._index.size(image_id)
            if expected not in (None, size_wh):
                found, made = (f"{width}x{height}" for width, height in (size_wh, expected or (0, 0)))
                raise ShardError(f"{self.path(position)}: {found} pixels, but its map was made of an image of {made}")
            return self._index.read_uint8(image_id)
        except OSError as error:
            raise_system_error([error])
            # Told apart from an image's own, which calls for other remedies.
            raise ShardError(str(error)) from error


def require_whole(batch: Batch) -> Batch:
    """The batch itself; UnreadableImageError when an image or a map of it cannot be read, or a system's OSError.

    Training without the image would be another training, so it is left out by choice only, before the first step.
    """
    raise_system_error(batch.unreadable.values())
    for error in batch.unreadable.values():
        if isinstance(error, ShardError):
            advice = (
                "wsol-prep verify MAPS --data DATA --repair removes damaged shards and prints the command that makes "
                "them again; then continue with --resume"
            )
        else:
            repair = "Wait until it can be read" if isinstance(error, ImageTimeoutError) else "Repair the file"
            advice = (
                f"{repair} and continue with --resume, or start in another --out without it: remove the file, "
                "or let wsol-prep proposals mark all such files and give --maps FOLDER --on-missing skip"
            )
        raise UnreadableImageError(f"{error}. {advice}") from error
    return batch


def decode_at_least(path: str | os.PathLike[str], *, short_side_px: int) -> DecodedImage:
    """The image at a reduced scale, its short side as long as wanted; ImageDecodeError or OSError when unreadable."""
    decoded = decode_image(path, enough_px=math.ceil(short_side_px * _ASSUMED_ASPECT))
    return decoded if is_decoded_at_least(decoded, short_side_px=short_side_px) else decode_image(path)


def is_decoded_at_least(decoded: DecodedImage, *, short_side_px: int) -> bool:
    """Whether the short side is as long as wanted, or as long as in the file."""
    short = int(min(decoded.rgb_hwc.shape[:2]))
    return short >= min(short_side_px, decoded.file_height, decoded.file_width)


def to_device(batch: Batch, device: torch.device | str) -> DeviceBatch:
    """The batch on the device, pixels in 0..1; from pinned memory the copy does not wait for the device."""
    images, maps, labels_b, positions_b = (
        None if part is None else part.to(device, non_blocking=True)
        for part in (batch.images_bchw, batch.maps_bhw, batch.labels_b, batch.positions_b)
    )
    assert images is not None and labels_b is not None and positions_b is not None
    return DeviceBatch(
        images01_bchw=_to_unit(images),
        maps01_bhw=None if maps is None else _to_unit(maps),
        labels_b=labels_b,
        positions_b=positions_b,
    )


def _to_unit(pixels: Tensor) -> Tensor:
    # Two passes on purpose: on a CPU, uint8 / 255 casts element by element and takes six times as long.
    return pixels.to(torch.float32).div_(255)
