"""Turns the maps of images into their scores under every protocol, with those of the baselines.

Legend: H W pixels of a map, k classes kept of an image.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.fixed_thresholds import checked_map
from evaluation.boxes.ground_truth import RESIZED_PX
from evaluation.boxes.overlaps import Candidates
from evaluation.image_scores import (
    BLACKLISTED,
    CONSTANT_MAP,
    NO_BOXES,
    NON_FINITE_MAP,
    SCORED,
    UNKNOWN_RANK,
    UNREADABLE_IMAGE,
    ImageScores,
)
from evaluation.images import EvaluationImage
from evaluation.metrics.baselines import centred_gaussian_map, centred_square_box
from evaluation.names import BASELINES
from evaluation.protocols import FRAME_PX, Protocol, frame_box, get_protocol
from pseudo_maps.images import ImageDecodeError, decode_image

__all__ = ["ImageMaps", "ScoringTask", "centre_crop", "score_batch", "score_images"]

Map = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageMaps:
    """What is known of one image before it is scored."""

    failure: str | None = None
    """Why there is no map, a failure of ``evaluation.image_scores``; None when there are maps."""
    whole: dict[str, Map] = field(default_factory=dict)
    """By localizer a map (H, W) of the whole image."""
    centre: dict[str, Map] = field(default_factory=dict)
    """By localizer a map of the centre crop; where it is missing, the crop is cut out of ``whole``."""
    file_wh: tuple[int, int] | None = None
    """Width and height of the image file where it has been decoded."""
    top_classes: npt.NDArray[np.int64] | None = None
    """(k,) best classes; None without a classifier."""
    top_probabilities: npt.NDArray[np.float64] | None = None
    """(k,) their probabilities."""
    true_rank: int = UNKNOWN_RANK
    """Rank of the true class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringTask:
    """What every image is scored for."""

    root: Path
    """Data root, to look up the size of an image whose annotation does not state it."""
    protocols: tuple[str, ...]
    """Names of protocols."""
    localizers: tuple[str, ...]
    """Names of the localizers that every map source gives."""


def score_images(
    images: Sequence[EvaluationImage], maps: Sequence[ImageMaps], *, task: ScoringTask
) -> list[ImageScores]:
    """Score images by their maps, and the baselines beside them.

    Parameters
    ----------
    images
        What to score.
    maps
        The maps of each, in the same order.
    task
        Protocols and localizers.

    Raises
    ------
    ValueError
        A map is not (H, W) with pixels or holds no real numbers; image, localizer and what was found are named.
    """
    return [_score(image, of_image, task) for image, of_image in zip(images, maps, strict=True)]


def score_batch(
    batch: tuple[Sequence[EvaluationImage], Sequence[ImageMaps]], *, task: ScoringTask
) -> list[ImageScores]:
    """``score_images`` of a pair of images and maps, for worker processes: to find it they need not import torch."""
    images, maps = batch
    return score_images(images, maps, task=task)


def centre_crop(map_hw: Map) -> Map:
    """The part of a whole image's map that ``psol-crop`` shows, (224, 224) float64.

    Bilinear to 256x256 with pixel centres aligned, then the central 224x224. A network that sees the crop gives a
    map of its own; this is for maps that come without a network.
    """
    source_hw = np.ascontiguousarray(map_hw, dtype=np.float64)
    resized_hw: Map = cv2.resize(source_hw, (RESIZED_PX, RESIZED_PX), interpolation=cv2.INTER_LINEAR)
    start = (RESIZED_PX - FRAME_PX) // 2
    return resized_hw[start : start + FRAME_PX, start : start + FRAME_PX]


def _score(image: EvaluationImage, maps: ImageMaps, task: ScoringTask) -> ImageScores:
    record = image.record
    scores = ImageScores(
        index=image.index,
        image_id=record.image_id,
        label=record.label,
        wnid=record.wnid,
        status=maps.failure or SCORED,
        top_classes=maps.top_classes,
        top_probabilities=maps.top_probabilities,
        true_rank=maps.true_rank,
    )
    if image.blacklisted:
        return replace(scores, status=BLACKLISTED)
    if not len(image.boxes_xyxy):
        return replace(scores, status=NO_BOXES)
    image_wh = image.frame_wh or maps.file_wh
    if image_wh is None:
        try:
            decoded = decode_image(task.root / record.path, enough_px=1)
        except (ImageDecodeError, OSError):
            # Its boxes cannot be brought to a frame, so not even a baseline has a score: wrong for all.
            return replace(scores, status=UNREADABLE_IMAGE)
        image_wh = (decoded.file_width, decoded.file_height)
    iou, boxes, truths = {}, {}, {}
    for name in task.protocols:
        protocol = get_protocol(name)
        truths[name] = protocol.ground_truth(image.boxes_xyxy, image_wh=image_wh)
        candidates = {baseline: _baseline(baseline, name) for baseline in BASELINES}
        if maps.failure is None:
            candidates |= {
                localizer: _candidates(maps, localizer, protocol, record.image_id) for localizer in task.localizers
            }
        for localizer, of_localizer in candidates.items():
            found = protocol.overlaps([of_localizer], [truths[name]])
            iou[localizer, name] = found.iou_il[0]
            boxes[localizer, name] = found.boxes_il4[0]
    return replace(scores, notes=_notes(maps), iou=iou, boxes=boxes, ground_truth=truths)


def _candidates(maps: ImageMaps, localizer: str, protocol: Protocol, image_id: str) -> Candidates:
    try:
        map_hw = maps.whole[localizer]
        if protocol.crops_centre:
            map_hw = maps.centre[localizer] if localizer in maps.centre else _checked_crop(map_hw)
        return protocol.candidates(map_hw)
    except ValueError as error:
        raise ValueError(f"image {image_id!r}: {localizer} map: {error}") from error


def _checked_crop(map_hw: Map) -> Map:
    # Before the crop is cut in float64, which would drop the imaginary part of a complex map.
    return centre_crop(checked_map(map_hw))


@functools.cache
def _baseline(name: str, protocol_name: str) -> Candidates:
    protocol = get_protocol(protocol_name)
    if name == "centred-gaussian":
        return protocol.candidates(centred_gaussian_map())
    return Candidates(
        boxes_n4=(centred_square_box() if name == "centred-square" else frame_box())[None],
        first_level_n=np.zeros(1, dtype=np.int64),
        last_level_n=np.full(1, len(protocol.thresholds_l) - 1, dtype=np.int64),
    )


def _notes(maps: ImageMaps) -> tuple[str, ...]:
    notes = set()
    for map_hw in (*maps.whole.values(), *maps.centre.values()):
        if not np.isfinite(map_hw).all():
            notes.add(NON_FINITE_MAP)
        elif map_hw.min() == map_hw.max():
            notes.add(CONSTANT_MAP)
    return tuple(sorted(notes))
