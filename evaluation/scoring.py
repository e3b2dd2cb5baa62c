"""The evaluator: from the maps of an image to its scores under every protocol, beside those of the baselines.

Legend: H W pixels of a map, k classes kept of an image.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.fixed_thresholds import checked_map
from evaluation.boxes.geometry import FRAME_PX, same_shape
from evaluation.boxes.ground_truth import RESIZED_PX
from evaluation.boxes.overlaps import NO_BOX, Candidates
from evaluation.image_scores import (
    BLACKLISTED,
    BOXES_CLIPPED,
    CONSTANT_MAP,
    NO_BOXES,
    NO_LABEL,
    NON_FINITE_MAP,
    NOT_TO_DECODE,
    OTHER_SHAPE,
    SCORED,
    TIMEOUT,
    TOP_CLASSES,
    UNKNOWN_RANK,
    UNREADABLE_IMAGE,
    ImageScores,
)
from evaluation.images import EvaluationImage
from evaluation.masks import mask_files, read_mask
from evaluation.metrics.baselines import centred_gaussian_map, centred_square_box
from evaluation.metrics.pixels import PIXEL_BASELINE, count_pixels
from evaluation.names import BASELINES
from evaluation.protocols import Protocol, get_protocol
from pseudo_maps.images import ImageDecodeError, ImageTimeoutError, decode_image, read_image_size
from pseudo_maps.reading import raise_system_error
from pseudo_maps.records import UNKNOWN_LABEL

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


class MapBatch(NamedTuple):
    """Images with their maps, in the same order."""

    images: Sequence[EvaluationImage]
    maps: Sequence[ImageMaps]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringTask:
    """What every image is scored for."""

    root: Path
    """Data root, to look up the size of an image whose annotation does not state it."""
    protocols: tuple[str, ...]
    localizers: tuple[str, ...]
    """Names of the localizers that every map source gives."""
    masks: Path | None = None
    """Folder of masks for PxAP, see ``evaluation.masks``; None leaves PxAP out."""
    needs_labels: bool = False
    """Whether maps are of a class, so that GT-known Loc has no meaning for an image without one."""


def ranked_classes(
    scores_k: npt.NDArray[np.floating[Any]], *, shown_k: npt.NDArray[np.float64], label: int
) -> dict[str, Any]:
    """Fields of ``ImageMaps`` that scores (K,) of all classes give; ``shown_k`` are the values that stand in results.

    None for scores with a NaN or an infinity: without an order they name no class, wrong and not right by chance.
    """
    if not np.isfinite(scores_k).all():
        return {}
    # Stable, so that the rank of a tied class is its place among the best.
    order_k = np.argsort(-scores_k, kind="stable")
    return {
        "top_classes": order_k[:TOP_CLASSES].astype(np.int64),
        "top_probabilities": shown_k[order_k[:TOP_CLASSES]],
        "true_rank": UNKNOWN_RANK if label == UNKNOWN_LABEL else int(np.flatnonzero(order_k == label)[0]),
    }


def score(batch: MapBatch, *, task: ScoringTask) -> list[ImageScores]:
    """Score the images of a batch by their maps, and the baselines beside them.

    ValueError when a map is not (H, W) with pixels or holds no real numbers; it names image and localizer.
    """
    return [_score_image(image, maps, task) for image, maps in zip(batch.images, batch.maps, strict=True)]


def _score_image(image: EvaluationImage, maps: ImageMaps, task: ScoringTask) -> ImageScores:
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
    is_unlabelled = task.needs_labels and record.label == UNKNOWN_LABEL
    if task.masks is not None and not is_unlabelled:
        scores = replace(scores, pixels=_pixels(image, maps, task.localizers, folder=task.masks))
    if not len(image.boxes_xyxy):
        return _unscored(image, maps, task, scores)
    if is_unlabelled:
        return replace(scores, status=NO_LABEL)
    image_wh = image.frame_wh or maps.file_wh
    status = TIMEOUT if maps.failure == TIMEOUT else UNREADABLE_IMAGE
    if image_wh is None and maps.failure not in NOT_TO_DECODE:
        try:
            decoded = decode_image(task.root / record.path, enough_px=1)
            image_wh = (decoded.file_width, decoded.file_height)
        except (ImageDecodeError, OSError) as error:
            raise_system_error([error])
            status = TIMEOUT if isinstance(error, ImageTimeoutError) else UNREADABLE_IMAGE
    if image_wh is None:
        # Its boxes cannot be brought to a frame, so not even a baseline has a score: wrong for all.
        return replace(scores, status=status)
    own_n4, notes = image.boxes_xyxy, set[str]()
    if image.frame_wh is None:
        # As boxes whose annotation states a frame are clipped when they are read.
        own_n4 = np.minimum(own_n4, np.tile(np.array(image_wh) - 1, 2))[(own_n4[:, :2] < image_wh).all(axis=1)]
        if not np.array_equal(own_n4, image.boxes_xyxy):
            notes.add(BOXES_CLIPPED)
        if not len(own_n4):
            return replace(scores, status=NO_BOXES)
    elif maps.file_wh is not None and not same_shape(image.frame_wh, maps.file_wh):
        notes.add(OTHER_SHAPE)
    iou, boxes, truths = {}, {}, {}
    for name in task.protocols:
        protocol = get_protocol(name)
        truths[name] = protocol.ground_truth(own_n4, image_wh=image_wh)
        candidates = {baseline: _baseline(baseline, name) for baseline in BASELINES}
        if maps.failure is None:
            for localizer in task.localizers:
                candidates[localizer] = _candidates(maps, localizer, protocol, record.image_id)
        for localizer, of_localizer in candidates.items():
            iou[localizer, name], boxes[localizer, name] = protocol.overlaps(of_localizer, truths[name])
    return replace(
        scores,
        notes=tuple(sorted(notes | _notes(maps))),
        image_wh=image_wh,
        iou=iou,
        boxes=boxes,
        ground_truth=truths,
    )


def _unscored(image: EvaluationImage, maps: ImageMaps, task: ScoringTask, scores: ImageScores) -> ImageScores:
    """An image without ground truth: its boxes under the protocols whose threshold no ground truth chooses."""
    boxes = {}
    if maps.failure is None:
        for protocol in map(get_protocol, task.protocols):
            for localizer in () if protocol.threshold_is_oracle else task.localizers:
                boxes_n4 = _candidates(maps, localizer, protocol, image.record.image_id).boxes_n4
                boxes[localizer, protocol.name] = boxes_n4 if len(boxes_n4) else np.array([NO_BOX])
    image_wh = image.frame_wh or maps.file_wh
    if boxes and image_wh is None:
        image_wh = read_image_size(task.root / image.record.path)
    notes = _notes(maps) | ({maps.failure} if maps.failure else set())
    return replace(scores, status=NO_BOXES, notes=tuple(sorted(notes)), image_wh=image_wh, boxes=boxes)


def _pixels(
    image: EvaluationImage, maps: ImageMaps, localizers: Sequence[str], *, folder: Path
) -> dict[str, npt.NDArray[np.uint16]]:
    """Pixels of the mask by score, of the baseline and of every map."""
    try:
        mask_hw = read_mask(image, folder)
        shown = {} if maps.failure is not None else {name: maps.whole[name] for name in localizers}
        return {
            name: count_pixels(map_hw, mask_hw)
            for name, map_hw in {PIXEL_BASELINE: centred_gaussian_map(), **shown}.items()
        }
    except ValueError as error:
        raise ValueError(f"image {image.record.image_id!r} with {mask_files(image)[0]}: {error}") from error


def _candidates(maps: ImageMaps, localizer: str, protocol: Protocol, image_id: str) -> Candidates:
    try:
        map_hw = maps.whole[localizer]
        if protocol.crops_centre:
            # Checked before the crop is cut in float64, which would drop the imaginary part of a complex map.
            map_hw = maps.centre[localizer] if localizer in maps.centre else centre_crop(checked_map(map_hw))
        return protocol.candidates(map_hw)
    except ValueError as error:
        raise ValueError(f"image {image_id!r}: {localizer} map: {error}") from error


def centre_crop(map_hw: Map) -> Map:
    """The part of a whole image's map that ``psol-crop`` shows, (224, 224) float64.

    Bilinear to 256x256 with pixel centres aligned, then the central 224x224. A network that sees the crop gives a
    map of its own; this is for maps that come without a network.
    """
    source_hw = np.ascontiguousarray(map_hw, dtype=np.float64)
    resized_hw: Map = cv2.resize(source_hw, (RESIZED_PX, RESIZED_PX), interpolation=cv2.INTER_LINEAR)
    start = (RESIZED_PX - FRAME_PX) // 2
    return resized_hw[start : start + FRAME_PX, start : start + FRAME_PX]


@functools.cache
def _baseline(name: str, protocol_name: str) -> Candidates:
    protocol = get_protocol(protocol_name)
    if name == "centred-gaussian":
        return protocol.candidates(centred_gaussian_map())
    frame_4 = np.array([0, 0, FRAME_PX - 1, FRAME_PX - 1], dtype=np.float64)
    return Candidates(
        boxes_n4=(centred_square_box() if name == "centred-square" else frame_4)[None],
        first_level_n=np.zeros(1, dtype=np.int64),
        last_level_n=np.full(1, len(protocol.thresholds_l) - 1, dtype=np.int64),
    )


def _notes(maps: ImageMaps) -> set[str]:
    notes = set()
    for map_hw in (*maps.whole.values(), *maps.centre.values()):
        if not np.isfinite(map_hw).all():
            notes.add(NON_FINITE_MAP)
        elif map_hw.min() == map_hw.max():
            notes.add(CONSTANT_MAP)
    return notes
