"""Saliency maps sharpened by a network: the geometric mean of each map and the CAM of its image's own label, as shards.

The network may be a classifier trained elsewhere, or one that was trained on the maps themselves: then the refined maps
are the targets of a second round (self-training). Class labels are used, boxes never.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from evaluation.image_scores import TIMEOUT
from evaluation.images import EvaluationImage
from evaluation.scoring import ImageMaps
from pipelines.datasets import Dataset
from pipelines.jobs.network_maps import load_for_classes, network_config, network_maps
from pipelines.jobs.verification import replaced_images
from pseudo_maps.records import UNKNOWN_LABEL, ImageRecord
from pseudo_maps.runs.generation import RunConfig, Summary, plan_run
from pseudo_maps.runs.given_maps import write_shards
from pseudo_maps.shards import (
    STATUS_OK,
    STATUS_TIMEOUT,
    MapIndex,
    MapRow,
    ShardError,
    ShardReader,
    quantise_map,
)
from pseudo_maps.shards.manifest import read_manifest
from pseudo_maps.shards.outcomes import MadeMap
from pseudo_maps.shards.sources import check_sources
from training.class_names import ClassNames
from training.data.workers import explaining_lost_workers
from training.inference.config import Views
from training.inference.localizers import NetworkLocalizer

BATCH_IMAGES = 16
"""Images per forward pass, always cut at the same places of a shard: another number may give other last bits."""

SHARPENING = 0.24
"""Standard deviation of a map that ``sharpened_mean`` leaves as it is. Chosen, as its weights of 1/3 and 2/3, on the
even image ids of ten ILSVRC classes (val) and scored on the odd ones: docs/results.md."""

Mean = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.generic]], npt.NDArray[np.float32]]
"""``geometric_mean`` or ``sharpened_mean``."""

_NO_BOXES = np.zeros((0, 4))
_RULE = "sqrt(map x class activation map of the label), each divided by its maximum"
_SHARPENED_RULE = f"cbrt(map x class activation map of the label ** 2) ** ({SHARPENING} / standard deviation)"


class Refinement:
    """The maps in a folder, a network, and the folder of the maps that come of both.

    Parameters
    ----------
    dataset
        Images and class labels of the split whose maps are refined; those without a map are left out.
    maps
        Folder of the maps, complete.
    network
        As ``load_for_inference`` takes it.
    input_size_px
        Side of the square that images are squeezed to; None for that of the network.
    sharpen
        Take ``sharpened_mean`` in place of ``geometric_mean``.

    Raises
    ------
    CheckpointError
        The network cannot be read.
    ValueError
        Maps of other images or without checksums, classes that the network does not know, a side that is too small,
        or a folder of other maps (ManifestMismatch).
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        maps: Path,
        network: Path,
        input_size_px: int | None,
        sharpen: bool,
        device: str,
        run: RunConfig,
    ) -> None:
        self._dataset, self._device, self._run = dataset, torch.device(device), run
        self._mean = sharpened_mean if sharpen else geometric_mean
        self._index = index = MapIndex(maps, dataset.split)
        records = {record.image_id: record for record in dataset.records}
        foreign = [image_id for image_id in index if image_id not in records]
        if foreign:
            raise ValueError(
                f"{maps}: {len(foreign)} of {len(index)} maps are of images that {dataset.root} does not have, such as "
                f"{foreign[0]!r}; give the --data and --layout that they were made with"
            )
        self._records = [records[image_id] for image_id in index]
        digest = index.digest()
        if digest is None:
            raise ShardError(f"{maps}: shards of {dataset.split} lack their .sha256 files; wsol-prep verify lists them")
        names = ClassNames(dataset.class_wnids, dataset.class_words)
        model, self.note = load_for_classes(network, names=names, device=device)
        side_px = input_size_px or model.input_size_px
        views = Views(scales=(side_px / model.input_size_px,))
        self._localizer = NetworkLocalizer(model, localizers=("cam",), views=views)
        configuration = {
            "method": "refinement",
            "rule": _SHARPENED_RULE if sharpen else _RULE,
            "uses": "class labels",
            "maps": {"sha256": digest, "configuration": index.provenance["configuration"]},
            "network": {**network_config(model, note=self.note), "input_size_px": side_px},
            "batch_size": BATCH_IMAGES,
        }
        size = read_manifest(maps, dataset.split).shard_size
        self.plan = plan_run(self._records, split=dataset.split, configuration=configuration, run=run, shard_size=size)

    def warnings(self) -> list[str]:
        """Images replaced since their maps were made, or refined by another label; ShardError where most were."""
        root, split = self._dataset.root, self._dataset.split
        refined = replaced_images(self._records, split=split, out=self._run.out, root=root)
        return list(dict.fromkeys([*check_sources(self._index, self._records, root=root), *refined]))

    def make(self, *, workers: int, on_images: Callable[..., None] = lambda _count, **_notes: None) -> Summary:
        """Make the shards that the plan says are to be made; ``workers`` processes decode.

        Safe to kill at any moment and to start again, with the same bytes on the same device: a shard appears under
        its name only when it is complete. ``on_images(done, failed=...)`` is called after every shard. RuntimeError
        when a worker is lost, OSError when a shard cannot be written; finished shards are kept.
        """
        made = ((shard, self._refined(shard, found)) for shard, found in self._activation_maps(workers=workers))
        with explaining_lost_workers():
            return write_shards(self.plan, made, run=self._run, map_size=self._index.map_shape[0], on_images=on_images)

    def _activation_maps(self, *, workers: int) -> Iterator[tuple[int, dict[int, ImageMaps]]]:
        """Every shard to be made, with what the network found in its images by their row."""
        batches = {}
        for shard in self.plan.to_do:
            # Images whose map failed may crash the decoder as well.
            usable = [
                EvaluationImage(index=row, record=record, boxes_xyxy=_NO_BOXES, frame_wh=None, blacklisted=False)
                for row, record in enumerate(self._records_of(shard))
                if record.label != UNKNOWN_LABEL and self._index.status(record.image_id) == STATUS_OK
            ]
            batches[shard] = [
                tuple(usable[first : first + BATCH_IMAGES]) for first in range(0, len(usable), BATCH_IMAGES)
            ]
        made = network_maps(
            [batch for of_shard in batches.values() for batch in of_shard],
            localizer=self._localizer,
            device=self._device,
            root=self._dataset.root,
            workers=workers,
            centre=False,
        )
        for shard, of_shard in batches.items():
            found: dict[int, ImageMaps] = {}
            for batch in itertools.islice(made, len(of_shard)):
                found.update((image.index, maps) for image, maps in zip(batch.images, batch.maps, strict=True))
            yield shard, found

    def _records_of(self, shard: int) -> Sequence[ImageRecord]:
        start = shard * self.plan.manifest.shard_size
        return self._records[start : start + self.plan.manifest.shard_rows(shard)]

    def _refined(self, shard: int, found: Mapping[int, ImageMaps]) -> Iterator[MadeMap]:
        records = self._records_of(shard)
        # Shards of the same size, so row by row the same images.
        with ShardReader(self._index.shard_path(records[0].image_id)) as source:
            for number, (record, row) in enumerate(zip(records, source.rows, strict=True)):
                row = replace(row, **asdict(record))
                map_hw, status, message = refined_map(
                    source.read_uint8(number), row, found.get(number), mean=self._mean
                )
                stored_hw, peak = quantise_map(map_hw)
                yield MadeMap(map_uint8=stored_hw, row=replace(row, peak=peak, status=status), message=message)


def refined_map(
    map_hw: npt.NDArray[np.uint8],
    row: MapRow,
    found: ImageMaps | None,
    *,
    mean: Mean,
) -> tuple[npt.NDArray[np.float32], str, str]:
    """Refined map (H, W) float32, status, and why there is no map: then it is all zero.

    ``map_hw`` is the map as stored with its ``row``, ``found`` what the network found in the image, if it was shown,
    ``mean`` is ``geometric_mean`` or ``sharpened_mean``.
    """
    refined_hw = np.zeros(map_hw.shape, dtype=np.float32)
    if row.status != STATUS_OK:
        return refined_hw, row.status, "the image had no map before"
    if found is None:
        return refined_hw, "no-label", "the class of the image is unknown"
    if found.failure is not None:
        return refined_hw, STATUS_TIMEOUT if found.failure == TIMEOUT else "unreadable", "the image cannot be read"
    if found.file_wh != (row.width, row.height):
        return refined_hw, "error", f"the image has {found.file_wh} pixels, its map is of {(row.width, row.height)}"
    refined_hw = mean(map_hw, found.whole["cam"])
    if not refined_hw.any():
        return refined_hw, "no-cam", "the class activation map is nowhere above 0 where the map is"
    return refined_hw, STATUS_OK, ""


def geometric_mean(map_hw: npt.NDArray[np.uint8], cam_hw: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Root of the product of a stored map and a class activation map, each from 0 to its maximum of 1.

    ``map_hw`` is (H, W) uint8, ``cam_hw`` (h, w) of any real dtype and sign, both of the whole image. The activations
    are resized to (H, W) by cubic interpolation, pixel centres aligned; negative ones then count as 0. The mean is
    (H, W) float32 in 0..1, all zeros where one of the two has no value above 0 or the activations are not finite.

    The plain product would shrink the area that exceeds a share of the maximum, which fixed thresholds are made for;
    the root has the contrast of one map.
    """
    mean_hw: npt.NDArray[np.float32] = np.sqrt(map_hw / np.float32(255) * _positive_share(cam_hw, map_hw.shape))
    return mean_hw


def sharpened_mean(map_hw: npt.NDArray[np.uint8], cam_hw: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Cubic root of map x CAM², from 0 to a maximum of 1, to a power that is higher the less the map varies.

    Arguments and zeros as ``geometric_mean``. The power is ``SHARPENING`` over the standard deviation over all pixels.
    A map of a small object varies little, and its halo exceeds the share of the maximum that suits larger ones. The
    power moves the share that suits each map to about the same place, for rules with one threshold for all images.
    """
    mean_hw = np.cbrt(map_hw / np.float32(255) * _positive_share(cam_hw, map_hw.shape) ** 2)
    mean_hw /= max(float(mean_hw.max()), np.finfo(np.float32).tiny)
    deviation = float(mean_hw.std(dtype=np.float64))
    sharpened_hw: npt.NDArray[np.float32] = mean_hw ** np.float32(SHARPENING / deviation) if deviation else mean_hw
    return sharpened_hw


def _positive_share(cam_hw: npt.NDArray[np.generic], size_hw: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Activations at a size, negative ones 0, divided by their maximum; zeros without one above 0 or a finite one."""
    resized_hw = cv2.resize(cam_hw.astype(np.float32), (size_hw[1], size_hw[0]), interpolation=cv2.INTER_CUBIC)
    positive_hw: npt.NDArray[np.float32] = np.maximum(resized_hw, 0)
    if not np.isfinite(positive_hw).all() or not positive_hw.any():
        return np.zeros_like(positive_hw)
    positive_hw /= positive_hw.max()
    return positive_hw
