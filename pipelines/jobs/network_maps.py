"""A trained network on one device as a source of class scores and maps, optionally saved as shards."""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.image_scores import TIMEOUT, UNREADABLE_IMAGE
from evaluation.images import EvaluationBatch, EvaluationImage, EvaluationSet
from evaluation.maps import MapSource
from evaluation.scoring import ImageMaps, MapBatch, ranked_classes
from pipelines.jobs.score_map_shards import ScoreMapShards
from pseudo_maps.files import spaced_files
from pseudo_maps.images import ImageTimeoutError
from pseudo_maps.reading import raise_system_error
from training.class_names import ClassNames, match_classes
from training.config import Precision
from training.data.loading import images_digest
from training.inference.config import Views
from training.inference.images import EvaluationBatch as ImageBatch
from training.inference.images import EvaluationPixels, build_evaluation_loader
from training.inference.localizers import (
    InferenceModel,
    Localization,
    NetworkLocalizer,
    available_localizers,
    load_for_inference,
    select_classes,
)

MAPS_FOLDER = "maps"
_NEEDS_GRADIENT = "grad-cam"


@dataclass(frozen=True, kw_only=True)
class NetworkChoices:
    """Options of the evaluation of a network."""

    checkpoint: Path
    """Checkpoint file, or folder of a run."""
    localizers: tuple[str, ...]
    """Names of localizers; empty: all that need no gradient."""
    views: Views
    precision: Precision
    devices: tuple[str, ...]
    """One process each."""
    batch_size: int
    """Images per forward pass."""
    workers: int
    """Processes that decode, per device."""
    save_maps: bool
    """Store the score maps as shards."""


def usable_devices(text: str) -> tuple[str, ...]:
    """Devices that ``--device`` means: ``auto`` is every visible GPU, else the CPU; several are joined by commas.

    ValueError for a device that torch does not know or that is not there, and for no device.
    """
    if text == "auto":
        count = torch.cuda.device_count()
        return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError(f"--device {text!r}: expected auto, cpu, cuda, cuda:N or several joined by commas")
    for name in names:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"--device {name!r}: {error}") from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"--device {name!r}: found only {torch.cuda.device_count()} CUDA devices")
    return names


def load_for_classes(checkpoint: Path, *, names: ClassNames, device: str) -> tuple[InferenceModel, str]:
    """A network whose labels are those of a data set with these classes, and what a user should know of both's classes.

    CheckpointError as ``load_for_inference``, ValueError for a class that the network does not know.
    """
    model = load_for_inference(checkpoint, device=device)
    match = match_classes(model.names, names, classes=model.classes, source=model.source)
    return (model if match.columns is None else select_classes(model, match.columns)), match.note


def network_config(model: InferenceModel, *, note: str) -> dict[str, Any]:
    """What tells a network and its classes from others, as JSON values; ``note`` as ``load_for_classes`` gives it."""
    return {
        "arch": model.arch,
        "method": model.config.get("method"),
        "step": model.step,
        "weights": model.digest,
        "input_size_px": model.input_size_px,
        **({"classes": note} if note else {}),
    }


class NetworkMaps(MapSource):
    """A network on one device as a source of maps.

    It also looks at the centre crop when ``centre`` is set, and saves maps below ``out``, the folder of the results,
    when the choices ask for it. CheckpointError and ValueError as ``evaluate_network``.
    """

    needs_labels = True

    def __init__(
        self,
        choices: NetworkChoices,
        evaluation_set: EvaluationSet,
        *,
        device: str,
        centre: bool,
        out: Path | None,
    ) -> None:
        self.evaluation_set, self.centre, self.out = evaluation_set, centre, out
        self.batch_size = choices.batch_size
        names = ClassNames(evaluation_set.class_wnids, evaluation_set.class_words)
        self._model, self.note = load_for_classes(choices.checkpoint, names=names, device=device)
        """What a user should know about the classes; empty where checkpoint and data have the same."""
        records = [image.record for image in evaluation_set.images]
        digest = images_digest([one.label for one in records], (os.fsencode(one.path) for one in records))
        self.learned = digest == self._model.images_sha256
        """Whether the images have the paths and classes of the training images."""
        # The file of a folder's newest checkpoint: the folder may have another one when other processes look into it.
        self.choices = replace(choices, checkpoint=self._model.source)
        given = available_localizers(self._model)
        self.localizers = choices.localizers or tuple(name for name in given if name != _NEEDS_GRADIENT)
        localizer = NetworkLocalizer(
            self._model, localizers=self.localizers, views=choices.views, precision=choices.precision
        )
        self._look = functools.partial(
            network_maps, localizer=localizer, device=torch.device(device), root=evaluation_set.root
        )
        files = [evaluation_set.root / image.record.path for image in evaluation_set.images]
        self._image_bytes = sum(state.st_size for state in spaced_files(files))
        self._shards: ScoreMapShards | None = None
        if choices.save_maps and out is not None:
            self._shards = ScoreMapShards(
                out / MAPS_FOLDER,
                images=evaluation_set.images,
                localizers=self.localizers,
                split=evaluation_set.split,
                config=self.config(),
            )

    def config(self) -> dict[str, Any]:
        """What decides the maps: the weights, the views, the precision and the images."""
        return {
            "network": network_config(self._model, note=self.note),
            "views": self.choices.views.describe(),
            "precision": self.choices.precision,
            # A batch of another size may give other last bits.
            "batch_size": self.batch_size,
            # Of a thousand images, so that files replaced under their names are noticed.
            "image_bytes": self._image_bytes,
        }

    def unsaved(self) -> frozenset[int]:
        """Indexes of the images whose score maps are wanted and not stored yet."""
        return frozenset(self._shards.missing()) if self._shards else frozenset()

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """Maps of one whole image."""
        return next(self._look([(image,)], workers=0, centre=False)).maps[0]

    def maps(self, batches: Iterable[EvaluationBatch]) -> Iterator[MapBatch]:
        """Maps of images, batch by batch, in order."""
        for batch in self._look(list(batches), workers=self.choices.workers, centre=self.centre):
            if self._shards is not None:
                for image, maps in zip(batch.images, batch.maps, strict=True):
                    self._shards.add(image, maps)
            yield batch


def network_maps(
    batches: Sequence[EvaluationBatch],
    *,
    localizer: NetworkLocalizer,
    device: torch.device,
    root: Path,
    workers: int,
    centre: bool,
) -> Iterator[MapBatch]:
    """Maps of images by a network on ``device``, a batch at a time, in order; ``workers`` processes decode.

    A batch of another size may give other last bits: give the batches of ``EvaluationSet.batches``, and the maps do not
    depend on where an evaluation was stopped or how it was shared among devices.
    """
    images = [image for batch in batches for image in batch]
    pixels = EvaluationPixels(
        [image.record for image in images], root=root, side_px=localizer.image_side_px, centre=centre
    )
    positions = iter(range(len(images)))
    position_batches = [[next(positions) for _ in batch] for batch in batches]
    loaded = build_evaluation_loader(pixels, position_batches, workers=workers)
    for batch, of_batch, pixels_of_batch in zip(batches, position_batches, loaded, strict=True):
        labels = [images[position].record.label for position in pixels_of_batch.positions]
        labels_b = torch.tensor(labels, dtype=torch.int64)
        raise_system_error(pixels_of_batch.unreadable.values())
        maps = {
            position: ImageMaps(failure=TIMEOUT if isinstance(error, ImageTimeoutError) else UNREADABLE_IMAGE)
            for position, error in pixels_of_batch.unreadable.items()
        }
        if labels:
            whole = localizer(pixels_of_batch.images_bchw.to(device, non_blocking=True), labels_b)
            cropped = None
            if pixels_of_batch.centre_bchw is not None:
                # The map of the class that the whole image was taken for, where the true one is unknown.
                cropped = localizer(pixels_of_batch.centre_bchw.to(device, non_blocking=True), whole.classes_b)
            maps |= _image_maps(pixels_of_batch, whole, cropped, labels)
        yield MapBatch(batch, [maps[position] for position in of_batch])


def _image_maps(
    batch: ImageBatch, whole: Localization, cropped: Localization | None, labels: Sequence[int]
) -> dict[int, ImageMaps]:
    scores_bk = whole.scores_bk.cpu().numpy()
    probabilities_bk = whole.probabilities_bk.cpu().numpy().astype(np.float64)
    whole_maps = {name: maps_bhw.cpu().numpy() for name, maps_bhw in whole.maps.items()}
    centre_maps = {name: maps_bhw.cpu().numpy() for name, maps_bhw in cropped.maps.items()} if cropped else {}
    found = {}
    for row, (position, label) in enumerate(zip(batch.positions, labels, strict=True)):
        found[position] = ImageMaps(
            whole={name: maps_bhw[row] for name, maps_bhw in whole_maps.items()},
            centre={name: maps_bhw[row] for name, maps_bhw in centre_maps.items()},
            file_wh=batch.file_wh[row],
            **ranked_classes(scores_bk[row], shown_k=probabilities_bk[row], label=label),
        )
    return found
