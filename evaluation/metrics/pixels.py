"""PxAP: average precision over the pixels of all images, from score maps and object masks.

Legend: H W pixels, T thresholds. Masks are uint8: 0 background, 255 object, 128 ignored. Everything is compared in
the frame of 224 x 224 pixels. The arithmetic follows ``MaskEvaluator`` of Choe et al., "Evaluating weakly supervised
object localization methods right" (CVPR 2020), to the last bit.
"""

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.wsoleval import unit_score_map
from evaluation.schema import PixelScores

__all__ = ["BACKGROUND", "IGNORED", "OBJECT", "PixelPrecision"]

BACKGROUND = 0
"""Mask value of pixels outside every object."""
OBJECT = 255
"""Mask value of object pixels."""
IGNORED = 128
"""Mask value of pixels that count for nothing (groups, unclear borders)."""

_INTERVAL = 0.001
"""Distance of thresholds (``cam_curve_interval`` of the reference)."""

_EDGES = np.append(np.arange(0, 1, _INTERVAL), [1.0, 2.0, 3.0])
"""Bins [0, .001), ..., [.999, 1), [1, 2), [2, 3) of the reference; the last stays empty and starts the curve."""

_BINS = len(_EDGES) - 1


class PixelPrecision:
    """Counts object and background pixels by score; memory does not grow with images."""

    def __init__(self) -> None:
        self.images = 0
        self.failed = 0
        self._ignored_pixels = 0
        self._object_counts_t = np.zeros(_BINS, dtype=np.int64)
        self._background_counts_t = np.zeros(_BINS, dtype=np.int64)

    def add(self, map_hw: npt.NDArray[np.generic] | None, mask_hw: npt.NDArray[np.uint8]) -> None:
        """Count one image.

        ``map_hw`` are scores of any size and real dtype, brought to the frame by ``unit_score_map``; an image without
        map scores 0 everywhere. ``mask_hw`` (H, W) uint8, of any size, is the union of all objects of the image; it is
        resized to the frame by nearest neighbour. ValueError when map or mask is not 2-D or has no pixels, or the mask
        has another dtype or value.
        """
        mask_px = _mask_in_frame(mask_hw)
        scores_px = np.zeros((FRAME_PX, FRAME_PX)) if map_hw is None else unit_score_map(map_hw)
        self._object_counts_t += np.histogram(scores_px[mask_px == OBJECT], bins=_EDGES)[0]
        self._background_counts_t += np.histogram(scores_px[mask_px == BACKGROUND], bins=_EDGES)[0]
        self._ignored_pixels += int((mask_px == IGNORED).sum())
        self.images += 1
        self.failed += map_hw is None

    def average_precision(self) -> float:
        """PxAP, a fraction: the sum of precision times gain in recall; ValueError when no object pixel was counted."""
        objects = int(self._object_counts_t.sum())
        if objects == 0:
            raise ValueError(
                f"no object pixel in {self.images} masks: PxAP is not defined; objects must have the value {OBJECT}"
            )
        # From the highest bin down; float64 as in the reference, exact below 2^53 pixels.
        hits_t = np.cumsum(self._object_counts_t[::-1]).astype(np.float64)
        predicted_t = hits_t + np.cumsum(self._background_counts_t[::-1])
        # Nothing scores 2 or more, and maybe nothing 1: precision has no value there, and recall gains nothing.
        some_t = predicted_t > 0
        gained_t = np.diff(hits_t / objects, prepend=0.0)[some_t]
        return float((hits_t[some_t] / predicted_t[some_t] * gained_t).sum())

    def scores(self, *, baseline: "PixelPrecision") -> PixelScores:
        """What metrics.json holds under ``pixels``; ValueError when no object pixel was counted."""
        return PixelScores(
            px_ap=self.average_precision(),
            images=self.images,
            failed=self.failed,
            object_pixels=int(self._object_counts_t.sum()),
            background_pixels=int(self._background_counts_t.sum()),
            ignored_pixels=self._ignored_pixels,
            frame_px=FRAME_PX,
            centred_gaussian_px_ap=baseline.average_precision(),
        )


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
