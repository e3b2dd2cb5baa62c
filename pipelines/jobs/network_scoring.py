"""Turns images into class scores and maps by a trained network, batch by batch, ready to be scored."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from evaluation.image_scores import TOP_CLASSES, UNKNOWN_RANK, UNREADABLE_IMAGE
from evaluation.images import EvaluationImage
from evaluation.scoring import ImageMaps
from pipelines.jobs.score_map_shards import SHARD_ROWS
from pseudo_maps.records import UNKNOWN_LABEL
from training.inference.images import EvaluationBatch, EvaluationPixels, build_evaluation_loader
from training.inference.localizers import Localization, NetworkLocalizer
from training.processes import start_batches

__all__ = ["batch_of", "network_maps"]


def network_maps(
    images: Sequence[EvaluationImage],
    *,
    localizer: NetworkLocalizer,
    device: torch.device,
    root: Path,
    batch_size: int,
    workers: int,
    centre: bool,
) -> Iterator[tuple[list[EvaluationImage], list[ImageMaps]]]:
    """Maps of images, a batch at a time, in order.

    Batches are cut by the images' place in the whole evaluation, because a batch of another size may give other last
    bits: give whole batches, and the maps do not depend on where an evaluation was stopped or how it was shared out.

    Parameters
    ----------
    images
        What to look at.
    localizer
        The network and its localizers.
    device
        Where the network is.
    root
        Data root.
    batch_size
        Images that pass the network together.
    workers
        Processes that decode.
    centre
        Also look at the centre crop.
    """
    pixels = EvaluationPixels(
        [image.record for image in images], root=root, side_px=localizer.image_side_px, centre=centre
    )
    blocks: dict[tuple[int, int], list[int]] = {}
    for position, image in enumerate(images):
        blocks.setdefault(batch_of(image.index, batch_size=batch_size), []).append(position)
    batches = list(blocks.values())
    read = start_batches(build_evaluation_loader(pixels, batches, workers=workers))
    for positions, batch in zip(batches, read, strict=True):
        labels_b = torch.tensor([images[position].record.label for position in batch.positions], dtype=torch.int64)
        of_position: dict[int, ImageMaps] = {
            position: ImageMaps(failure=UNREADABLE_IMAGE) for position in batch.unreadable
        }
        if batch.positions:
            whole = localizer(batch.images_bchw.to(device, non_blocking=True), labels_b.to(device))
            cropped = None
            if batch.centre_bchw is not None:
                # The map of the class that the whole image was taken for, where the true one is unknown.
                cropped = localizer(batch.centre_bchw.to(device, non_blocking=True), whole.classes_b)
            of_position |= _image_maps(batch, whole, cropped, labels_b.tolist())
        yield [images[position] for position in positions], [of_position[position] for position in positions]


def batch_of(index: int, *, batch_size: int) -> tuple[int, int]:
    """Which batch an image belongs to: batches do not reach over the end of a shard of score maps."""
    return index // SHARD_ROWS, index % SHARD_ROWS // batch_size


def _image_maps(
    batch: EvaluationBatch, whole: Localization, cropped: Localization | None, labels: Sequence[int]
) -> dict[int, ImageMaps]:
    scores_bk = whole.scores_bk.cpu().numpy()
    probabilities_bk = whole.probabilities_bk.cpu().numpy().astype(np.float64)
    whole_maps = {name: maps_bhw.cpu().numpy() for name, maps_bhw in whole.maps.items()}
    centre_maps = {name: maps_bhw.cpu().numpy() for name, maps_bhw in cropped.maps.items()} if cropped else {}
    found = {}
    for row, position in enumerate(batch.positions):
        if not np.isfinite(scores_bk[row]).all():
            # Scores without an order name no class: wrong, not right by chance.
            found[position] = ImageMaps(
                whole={name: maps_bhw[row] for name, maps_bhw in whole_maps.items()},
                centre={name: maps_bhw[row] for name, maps_bhw in centre_maps.items()},
                file_wh=batch.file_wh[row],
            )
            continue
        # Stable, so that the rank of a tied class is its place among the best.
        order_k = np.argsort(-scores_bk[row], kind="stable")
        label = labels[row]
        found[position] = ImageMaps(
            whole={name: maps_bhw[row] for name, maps_bhw in whole_maps.items()},
            centre={name: maps_bhw[row] for name, maps_bhw in centre_maps.items()},
            file_wh=batch.file_wh[row],
            top_classes=order_k[:TOP_CLASSES].astype(np.int64),
            top_probabilities=probabilities_bk[row][order_k[:TOP_CLASSES]],
            true_rank=UNKNOWN_RANK if label == UNKNOWN_LABEL else int(np.flatnonzero(order_k == label)[0]),
        )
    return found
