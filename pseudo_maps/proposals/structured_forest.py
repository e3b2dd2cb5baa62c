"""Boundary detector structured-forest: OpenCV's structured edges with a trained model file.

Source: Dollar and Zitnick, "Fast edge detection using structured forests", PAMI 2015, in OpenCV's ``ximgproc``.
"""

import functools
from pathlib import Path

import cv2
import numpy as np

from pseudo_maps.kernels import Bytes
from pseudo_maps.proposals.boundaries import BoundaryStrength, boundaries_from_pixel_map

SMALLEST_SIDE_PX = 16
"""Side of the patch that a forest predicts; OpenCV fails on narrower images, which are mirrored up to it."""
_OPTIONS = ("stride", "shrinkNumber", "patchSize", "patchInnerSize", "numberOfTrees", "numberOfTreesToEvaluate")
_TABLES = ("childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")


def structured_forest(rgb_hwc: Bytes, *, model: str) -> BoundaryStrength:
    """Boundary strengths of a (H, W, 3) uint8 RGB image by the forest in the file ``model``.

    ValueError for no such file, one that is not a structured forest, or OpenCV without ``ximgproc``.
    """
    forest = _load(model)
    height, width, _ = rgb_hwc.shape
    below, right = max(0, SMALLEST_SIDE_PX - height), max(0, SMALLEST_SIDE_PX - width)
    padded = np.pad(rgb_hwc, ((0, below), (0, right), (0, 0)), mode="symmetric")
    thick = forest.detectEdges(padded.astype(np.float32) / np.float32(255))
    return boundaries_from_pixel_map(np.clip(thick[:height, :width], 0, 1))


@functools.lru_cache(maxsize=1)
def _load(model: str) -> "cv2.ximgproc.StructuredEdgeDetection":
    if not hasattr(cv2, "ximgproc"):
        raise ValueError(
            "the structured-forest detector needs cv2.ximgproc: install opencv-contrib-python-headless (and no other "
            "opencv package beside it)"
        )
    if not Path(model).is_file():
        raise ValueError(f"boundary model {model}: no such file")
    try:
        problem = _find_problem(model)
        if problem is None:
            return cv2.ximgproc.createStructuredEdgeDetection(model)
    except (cv2.error, SystemError) as error:
        # A file that cannot be parsed is a SystemError without a message of its own.
        problem = str(error.__cause__ or error).strip()
    raise ValueError(f"boundary model {model}: not a structured forest model: {problem}")


def _find_problem(model: str) -> str | None:
    """What a file lacks to be a forest, or None; OpenCV itself does not check and crashes on other files."""
    storage = cv2.FileStorage(model, cv2.FILE_STORAGE_READ)
    if not storage.isOpened():
        return "the file cannot be parsed"
    try:
        options = storage.getNode("options")
        for name in _OPTIONS:
            value = options.getNode(name)
            if value.empty() or not value.isInt() or int(value.real()) < 1:
                return f"options/{name}: expected a whole number of at least 1"
        trees = int(options.getNode("numberOfTrees").real())
        for name in _TABLES:
            table = storage.getNode(name)
            rows = table.size() if table.isSeq() else 0
            if rows != trees or not all(table.at(row).isSeq() and table.at(row).size() for row in range(rows)):
                return f"{name}: expected a list for each of the {trees} trees, found {rows}"
    finally:
        storage.release()
    return None
