"""Turns the name of a boundary detector into boundary strengths of an image."""

import dataclasses
import functools
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pseudo_maps.proposals.appearance import appearance_bins
from pseudo_maps.proposals.boundaries import BoundaryStrength, boundaries_from_pixel_map
from pseudo_maps.proposals.color import rgb_to_luv
from pseudo_maps.proposals.directed_sobel import directed_sobel, directed_sobel_of_luv

__all__ = ["DETECTORS", "DETECTORS_WITH_MODEL", "detect_boundaries"]

DETECTORS = {
    "directed-sobel": "colour differences at three scales with local contrast normalisation; needs no model",
    "spectral-contrast": "directed Sobel, colour and texture histograms and a random walk over the superpixels",
    "structured-forest": "OpenCV's structured forest; needs its trained model file (.yml or .yml.gz)",
}
"""Name and meaning of every detector."""
DETECTORS_WITH_MODEL = frozenset({"structured-forest"})


_FOREST_OPTIONS = ("stride", "shrinkNumber", "patchSize", "patchInnerSize", "numberOfTrees", "numberOfTreesToEvaluate")
_FOREST_TABLES = ("childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")
FOREST_SMALLEST_SIDE_PX = 16
"""Side of the patch that a forest predicts; OpenCV fails on narrower images, which are mirrored up to it."""


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
        problem = _forest_problem(model)
        if problem is None:
            return cv2.ximgproc.createStructuredEdgeDetection(model)
    except (cv2.error, SystemError) as error:
        # A file that cannot be parsed is a SystemError without any word of its own.
        problem = str(error.__cause__ or error).strip()
    raise ValueError(f"boundary model {model}: not a structured forest model: {problem}")


def _forest_problem(model: str) -> str | None:
    """What a file lacks to be a forest; OpenCV itself does not look and ends the process on other files."""
    storage = cv2.FileStorage(model, cv2.FILE_STORAGE_READ)
    if not storage.isOpened():
        return "the file cannot be parsed"
    try:
        options = storage.getNode("options")
        for name in _FOREST_OPTIONS:
            value = options.getNode(name)
            if value.empty() or not value.isInt() or int(value.real()) < 1:
                return f"options/{name}: expected a whole number of at least 1"
        trees = int(options.getNode("numberOfTrees").real())
        for name in _FOREST_TABLES:
            table = storage.getNode(name)
            rows = table.size() if table.isSeq() else 0
            if rows != trees or not all(table.at(row).isSeq() and table.at(row).size() for row in range(rows)):
                return f"{name}: expected a list for each of the {trees} trees, found {rows}"
    finally:
        storage.release()
    return None


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
    if detector == "spectral-contrast":
        luv_chw = rgb_to_luv(rgb_hwc)
        return dataclasses.replace(directed_sobel_of_luv(luv_chw), appearance_bins=appearance_bins(luv_chw))
    assert model is not None
    forest = _structured_forest(model)
    height, width, _ = rgb_hwc.shape
    below, right = max(0, FOREST_SMALLEST_SIDE_PX - height), max(0, FOREST_SMALLEST_SIDE_PX - width)
    padded = np.pad(rgb_hwc, ((0, below), (0, right), (0, 0)), mode="symmetric")
    thick = forest.detectEdges(padded.astype(np.float32) / np.float32(255))
    return boundaries_from_pixel_map(np.clip(thick[:height, :width], 0, 1))
