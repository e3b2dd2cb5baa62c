"""Turns an image into Selective Search boxes and their average: the fallback built on OpenCV.

References
----------
Uijlings et al., "Selective search for object recognition", IJCV 2013, as implemented in ``cv2.ximgproc``.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pseudo_maps.proposals.geodesic_proposals import fit_working_size

__all__ = ["SELECTIVE_SEARCH_MODES", "SelectiveSearchConfig", "average_boxes", "selective_search_boxes"]

SELECTIVE_SEARCH_MODES = ("fast", "quality", "single")
"""OpenCV's three strategies: several colour spaces and similarities, more of them, or one of each."""
SMALLEST_SIDE_PX = 2
"""OpenCV's graph segmentation has nothing to compare in images with a side of one pixel."""


@dataclass(frozen=True, kw_only=True)
class SelectiveSearchConfig:
    """Everything that decides which boxes an image gets."""

    mode: str = "fast"
    """Strategy: fast, quality or single."""
    working_size: int = 500
    """Longest side in pixels at which boxes are searched; smaller images are not enlarged."""

    def __post_init__(self) -> None:
        if self.mode not in SELECTIVE_SEARCH_MODES:
            raise ValueError(f"mode: expected one of {', '.join(SELECTIVE_SEARCH_MODES)}, found {self.mode!r}")
        if self.working_size < 1:
            raise ValueError(f"working_size: expected at least 1, found {self.working_size}")


def selective_search_boxes(
    image_rgb: npt.NDArray[np.uint8], *, config: SelectiveSearchConfig
) -> tuple[npt.NDArray[np.int32], tuple[int, int]]:
    """All boxes that Selective Search finds in a (H, W, 3) uint8 RGB image.

    Returns
    -------
    boxes_xyxy
        (P, 4) int32 ``x0, y0, x1, y1``, 0-based, inclusive, in working-size pixels, in lexicographic order
        (OpenCV ranks them with random numbers, so its order changes from call to call; the set does not).
    (height, width)
        The working size.

    Raises
    ------
    ValueError
        OpenCV without ``ximgproc``.
    """
    if not hasattr(cv2, "ximgproc"):
        raise ValueError(
            "selective search needs cv2.ximgproc, which this OpenCV lacks: install opencv-contrib-python-headless "
            "and remove every other opencv package"
        )
    working = fit_working_size(image_rgb, longest_px=config.working_size)
    height, width, _ = working.shape
    if min(height, width) < SMALLEST_SIDE_PX:
        return np.zeros((0, 4), dtype=np.int32), (height, width)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(working[..., ::-1]))
    if config.mode == "fast":
        search.switchToSelectiveSearchFast()
    elif config.mode == "quality":
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSingleStrategy()
    x, y, w, h = np.asarray(search.process(), dtype=np.int32).reshape(-1, 4).T
    boxes = np.stack([x, y, x + w - 1, y + h - 1], axis=1)
    return np.unique(boxes, axis=0), (height, width)


def average_boxes(boxes_xyxy: npt.NDArray[np.int32], *, height: int, width: int) -> npt.NDArray[np.float32]:
    """Share of the boxes (P, 4), inclusive, that cover each pixel: (height, width) float32 in 0..1."""
    corners = np.zeros((height + 1, width + 1), dtype=np.int64)
    x0, y0, x1, y1 = boxes_xyxy.T
    for y, x, sign in ((y0, x0, 1), (y0, x1 + 1, -1), (y1 + 1, x0, -1), (y1 + 1, x1 + 1, 1)):
        np.add.at(corners, (y, x), sign)
    covered = corners.cumsum(axis=0).cumsum(axis=1)[:height, :width]
    return (covered / max(len(boxes_xyxy), 1)).astype(np.float32)
