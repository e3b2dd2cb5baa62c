"""PxAP: average precision over the pixels of all images, from score maps and object masks.

Legend: H W pixels, T thresholds. Masks are uint8: 0 background, 255 object, 128 ignored. Everything is compared in
the frame of 224 x 224 pixels. The arithmetic follows ``MaskEvaluator`` of Choe et al., "Evaluating weakly supervised
object localization methods right" (CVPR 2020), to the last bit.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.wsoleval import unit_score_map
from evaluation.image_scores import ImageScores
from evaluation.names import BASELINES
from evaluation.schema import PixelScores

BACKGROUND = 0
"""Mask value of pixels outside every object."""
OBJECT = 255
"""Mask value of object pixels."""
IGNORED = 128
"""Mask value of pixels that count for nothing (groups, unclear borders)."""

PIXEL_BASELINE = BASELINES[0]
"""The baseline that has a map: its pixels are counted for every image that has a mask."""

_INTERVAL = 0.001
"""Distance of thresholds (``cam_curve_interval`` of the reference)."""

_EDGES = np.append(np.arange(0, 1, _INTERVAL), [1.0, 2.0, 3.0])
"""Bins [0, .001), ..., [.999, 1), [1, 2), [2, 3) of the reference; the last stays empty and starts the curve."""


def count_pixels(map_hw: npt.NDArray[np.generic], mask_hw: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Object and background pixels of one image by score, ``(2, T)`` uint16.

    ``map_hw`` are scores of any size and real dtype, brought to the frame by ``unit_score_map``. ``mask_hw`` (H, W)
    uint8, of any size, is the union of all objects of the image; it is resized to the frame by nearest neighbour.
    ValueError when map or mask is not 2-D or has no pixels, or the mask has another dtype or value.
    """
    mask_px = _mask_in_frame(mask_hw)
    scores_px = unit_score_map(map_hw)
    # A frame has 50,176 pixels, so every count fits.
    return np.stack(
        [np.histogram(scores_px[mask_px == kind], bins=_EDGES)[0].astype(np.uint16) for kind in (OBJECT, BACKGROUND)]
    )


def pixel_scores(images: Iterable[ImageScores], *, localizers: Sequence[str]) -> PixelScores:
    """What metrics.json holds under ``pixels``, over the images whose pixels were counted.

    An image without a localizer's map scores 0 everywhere. ValueError when no object pixel was counted.
    """
    counts = {name: np.zeros((2, len(_EDGES) - 1), dtype=np.int64) for name in (*localizers, PIXEL_BASELINE)}
    counted = failed = 0
    for image in images:
        if PIXEL_BASELINE not in image.pixels:
            continue
        nothing_2t = np.zeros_like(image.pixels[PIXEL_BASELINE])
        nothing_2t[:, 0] = image.pixels[PIXEL_BASELINE].sum(axis=1)
        counted += 1
        failed += len(image.pixels) == 1
        for name, counts_2t in counts.items():
            counts_2t += image.pixels.get(name, nothing_2t)
    precisions = {name: average_precision(counts_2t, images=counted) for name, counts_2t in counts.items()}
    objects, background = map(int, counts[PIXEL_BASELINE].sum(axis=1))
    return PixelScores(
        centred_gaussian_px_ap=precisions.pop(PIXEL_BASELINE),
        px_ap=precisions,
        images=counted,
        failed=failed,
        object_pixels=objects,
        background_pixels=background,
        ignored_pixels=counted * FRAME_PX**2 - objects - background,
        frame_px=FRAME_PX,
    )


def average_precision(counts_2t: npt.NDArray[np.int64], *, images: int) -> float:
    """PxAP, a fraction, of the sum of ``count_pixels`` over images: the sum of precision times gain in recall.

    ValueError when no object pixel was counted.
    """
    objects = int(counts_2t[0].sum())
    if objects == 0:
        raise ValueError(
            f"no object pixel in {images} masks: PxAP is not defined; objects must have the value {OBJECT}"
        )
    # From the highest bin down; float64 as in the reference, exact below 2^53 pixels.
    hits_t, missed_t = np.cumsum(counts_2t[:, ::-1], axis=1).astype(np.float64)
    predicted_t = hits_t + missed_t
    # Nothing scores 2 or more, and maybe nothing 1: precision has no value there, and recall gains nothing.
    some_t = predicted_t > 0
    gained_t = np.diff(hits_t / objects, prepend=0.0)[some_t]
    return float((hits_t[some_t] / predicted_t[some_t] * gained_t).sum())


def _mask_in_frame(mask_hw: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if mask_hw.ndim != 2 or mask_hw.size == 0 or mask_hw.dtype != np.uint8:
        raise ValueError(f"expected a mask (H, W) uint8 with pixels, found {mask_hw.dtype} {mask_hw.shape}")
    counts = np.bincount(mask_hw.ravel(), minlength=256)
    counts[[BACKGROUND, OBJECT, IGNORED]] = 0
    if counts.any():
        raise ValueError(
            f"expected a mask of {BACKGROUND} (background), {OBJECT} (object) and {IGNORED} (ignored), found "
            f"{np.flatnonzero(counts)[:5].tolist()}"
        )
    mask_px: npt.NDArray[np.uint8] = cv2.resize(mask_hw, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_NEAREST)
    return mask_px
