"""Turns a checkpoint into the scores of images: network on one device, boxes in worker processes, maps into shards."""

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from evaluation.image_scores import ImageScores
from evaluation.images import EvaluationImage
from evaluation.protocols import get_protocol
from evaluation.scoring import ImageMaps, ScoringTask, score_batch
from evaluation.workers import map_in_order
from pipelines.jobs.network_scoring import batch_of, network_maps
from pipelines.jobs.score_map_shards import ScoreMapShards
from training.inference.localizers import NetworkLocalizer, available_localizers, load_for_inference

if TYPE_CHECKING:
    from pipelines.jobs.choices import EvaluationChoices, NetworkChoices

__all__ = ["NetworkEvaluation", "usable_devices"]

MAPS_FOLDER = "maps"
_NEEDS_GRADIENT = "grad-cam"


def usable_devices(text: str) -> tuple[str, ...]:
    """Devices that ``--device`` means: ``auto`` is every visible GPU, else the CPU; several are joined by commas.

    Raises
    ------
    ValueError
        A device is unknown to torch, not there, or no device is named.
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
            raise ValueError(f"--device {name!r}: {torch.cuda.device_count()} CUDA devices are visible")
    return names


class NetworkEvaluation:
    """A network on one device, with what its images are scored for.

    Parameters
    ----------
    choices
        What is scored.
    network
        How the network is looked at.
    device
        Where it computes.

    Raises
    ------
    CheckpointError, ValueError
        See ``evaluate_network``.
    """

    def __init__(self, choices: "EvaluationChoices", network: "NetworkChoices", *, device: str) -> None:
        self._choices, self._network = choices, network
        self._device = torch.device(device)
        # --jobs are those of all devices together.
        self._jobs = max(1, choices.jobs // len(network.devices))
        self._model = load_for_inference(network.checkpoint, device=device)
        classes = len(choices.evaluation_set.class_wnids)
        if self._model.classes != classes:
            raise ValueError(
                f"{self._model.source}: a network of {self._model.classes} classes, but the data has {classes}: give "
                "the data set it was trained on"
            )
        given = available_localizers(self._model)
        self.localizers = network.localizers or tuple(name for name in given if name != _NEEDS_GRADIENT)
        """Names of the localizers that are scored."""
        self._views = network.views
        precision: Any = network.precision
        self._localizer = NetworkLocalizer(
            self._model, localizers=self.localizers, views=self._views, precision=precision
        )
        self._shards: ScoreMapShards | None = None
        if network.save_maps and choices.out is not None:
            self._shards = ScoreMapShards(
                choices.out / MAPS_FOLDER,
                images=choices.evaluation_set.images,
                localizers=self.localizers,
                split=choices.evaluation_set.split,
                config=self.source(),
            )

    def source(self) -> dict[str, Any]:
        """What decides the maps: the weights, the views and the precision."""
        model = self._model
        return {
            "network": {
                "arch": model.arch,
                "method": model.config.get("method"),
                "step": model.step,
                "weights": model.digest,
                "input_size_px": model.input_size_px,
            },
            "views": self._views.describe(),
            "precision": self._network.precision,
            # A batch of another size may give other last bits.
            "batch_size": self._network.batch_size,
        }

    def unsaved(self) -> frozenset[int]:
        """Indexes of the images whose score maps are wanted and not stored yet."""
        return frozenset(self._shards.missing()) if self._shards else frozenset()

    def maps_of(self, image: EvaluationImage) -> ImageMaps:
        """Maps of one image."""
        batches = network_maps(
            [image],
            localizer=self._localizer,
            device=self._device,
            root=self._choices.evaluation_set.root,
            batch_size=self._network.batch_size,
            workers=0,
            centre=False,
        )
        return next(batches)[1][0]

    def score(self, images: Sequence[EvaluationImage]) -> Iterator[list[ImageScores]]:
        """Scores of images in batches, in order; stores their maps when asked to."""
        task = ScoringTask(
            root=self._choices.evaluation_set.root,
            protocols=self._choices.protocols,
            localizers=self.localizers,
        )
        return map_in_order(functools.partial(score_batch, task=task), self._maps(images), jobs=self._jobs)

    def _maps(self, images: Sequence[EvaluationImage]) -> Iterator[tuple[list[EvaluationImage], list[ImageMaps]]]:
        wanted = {image.index for image in images}
        size = self._network.batch_size
        touched = {batch_of(index, batch_size=size) for index in wanted}
        whole_batches = [
            image for image in self._choices.evaluation_set.images if batch_of(image.index, batch_size=size) in touched
        ]
        batches = network_maps(
            whole_batches,
            localizer=self._localizer,
            device=self._device,
            root=self._choices.evaluation_set.root,
            batch_size=self._network.batch_size,
            workers=self._network.workers,
            centre=any(get_protocol(name).crops_centre for name in self._choices.protocols),
        )
        for batch, maps in batches:
            kept = [(image, of_image) for image, of_image in zip(batch, maps, strict=True) if image.index in wanted]
            if self._shards is not None:
                for image, of_image in kept:
                    self._shards.add(image, of_image)
            yield [image for image, _ in kept], [of_image for _, of_image in kept]
