"""Turns the name of a boundary detector into boundary strengths of an image."""

import functools
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pseudo_maps.boundaries import BoundaryStrength, boundaries_from_pixel_map
from pseudo_maps.directed_sobel import directed_sobel

__all__ = ["DETECTORS", "DETECTORS_WITH_MODEL", "detect_boundaries"]

DETECTORS = {
    "directed-sobel": "colour differences at three scales with local contrast normalisation; needs no model",
    "structured-forest": "OpenCV's structured forest; needs its trained model file (.yml or .yml.gz)",
}
"""Name and meaning of every detector."""
DETECTORS_WITH_MODEL = frozenset({"structured-forest"})


@functools.lru_cache(maxsize=1)
def _structured_forest(model: str) -> "cv2.ximgproc.StructuredEdgeDetection":
    if not hasattr(cv2, "ximgproc"):
        raise ValueError(
            "the structured-forest detector needs cv2.ximgproc: install opencv-contrib-python-headless (and no other "
            "opencv package beside it)"
        )
    if not Path(model).is_file():
        raise ValueError(f"boundary model {model}: no such file")
    try:
        return cv2.ximgproc.createStructuredEdgeDetection(model)
    except cv2.error as error:
        raise ValueError(f"boundary model {model}: not a structured forest model: {error}") from None


def detect_boundaries(rgb_hwc: npt.NDArray[np.uint8], *, detector: str, model: str | None = None) -> BoundaryStrength:
    """Boundary strengths of a (H, W, 3) uint8 RGB image by the named detector.

    Raises
    ------
    ValueError
        Unknown detector, a model that is missing, not readable or not wanted.
    """
    if detector not in DETECTORS:
        raise ValueError(f"boundaries: expected one of {', '.join(DETECTORS)}, found {detector!r}")
    if (model is not None) != (detector in DETECTORS_WITH_MODEL):
        wanted = "needs a model file (--boundary-model)" if model is None else "takes no model file"
        raise ValueError(f"boundary detector {detector} {wanted}")
    if detector == "directed-sobel":
        return directed_sobel(rgb_hwc)
    assert model is not None
    forest = _structured_forest(model)
    thick = forest.detectEdges(rgb_hwc.astype(np.float32) / np.float32(255))
    return boundaries_from_pixel_map(np.clip(thick, 0, 1))
