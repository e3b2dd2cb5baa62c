"""Selective Search boxes from OpenCV and their average.

Source: Uijlings et al., "Selective search for object recognition", IJCV 2013, as implemented in ``cv2.ximgproc``.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SELECTIVE_SEARCH_MODES = {
    "fast": "switchToSelectiveSearchFast",
    "quality": "switchToSelectiveSearchQuality",
    "single": "switchToSingleStrategy",
}
"""OpenCV's three strategies: several colour spaces and similarities, more of them, or one of each."""
SMALLEST_SIDE_PX = 2
"""OpenCV's graph segmentation has nothing to compare in images with a side of one pixel."""


@dataclass(frozen=True, kw_only=True)
class SelectiveSearchConfig:
    """Everything that decides which boxes an image gets."""

    mode: str = field(default="fast", metadata={"choices": tuple(SELECTIVE_SEARCH_MODES)})
    """Strategy of Selective Search."""
    working_size: int = field(default=500, metadata={"min": 1})
    """Longest side in pixels at which objects are proposed; smaller images are not enlarged."""

    def __post_init__(self) -> None:
        if self.mode not in SELECTIVE_SEARCH_MODES:
            raise ValueError(f"mode: expected one of {', '.join(SELECTIVE_SEARCH_MODES)}, found {self.mode!r}")
        if self.working_size < 1:
            raise ValueError(f"working_size: expected at least 1, found {self.working_size}")


def average_selective_search(
    rgb_hwc: npt.NDArray[np.uint8], config: SelectiveSearchConfig, *, weighting: str, boundary_model: str | None
) -> tuple[npt.NDArray[np.float32], int]:
    """Average of the boxes of an image at working size, and their number: see ``ProposalMethod.average``."""
    boxes_xyxy = selective_search_boxes(rgb_hwc, mode=config.mode)
    height, width, _ = rgb_hwc.shape
    return average_boxes(boxes_xyxy, height=height, width=width), len(boxes_xyxy)


def selective_search_boxes(rgb_hwc: npt.NDArray[np.uint8], *, mode: str = "fast") -> npt.NDArray[np.int32]:
    """All boxes that Selective Search finds in a (H, W, 3) uint8 RGB image; ValueError for OpenCV without ``ximgproc``.

    (P, 4) int32 ``x0, y0, x1, y1`` in pixels, 0-based, inclusive, in lexicographic order (OpenCV ranks them with random
    numbers, so its order changes from call to call; the set does not).
    """
    import cv2  # Not above: the registry of methods imports this module, and cv2 takes 0.2 s.

    if not hasattr(cv2, "ximgproc"):
        raise ValueError(
            "selective search needs cv2.ximgproc, which this OpenCV lacks: install opencv-contrib-python-headless "
            "and remove every other opencv package"
        )
    if min(rgb_hwc.shape[:2]) < SMALLEST_SIDE_PX:
        return np.zeros((0, 4), dtype=np.int32)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(rgb_hwc[..., ::-1]))
    getattr(search, SELECTIVE_SEARCH_MODES[mode])()
    x, y, w, h = np.asarray(search.process(), dtype=np.int32).reshape(-1, 4).T
    return np.unique(np.stack([x, y, x + w - 1, y + h - 1], axis=1), axis=0)


def average_boxes(boxes_xyxy: npt.NDArray[np.int32], *, height: int, width: int) -> npt.NDArray[np.float32]:
    """Share of the boxes (P, 4), inclusive, that cover each pixel: (height, width) float32 in 0..1."""
    corners = np.zeros((height + 1, width + 1), dtype=np.int64)
    x0, y0, x1, y1 = boxes_xyxy.T
    for y, x, sign in ((y0, x0, 1), (y0, x1 + 1, -1), (y1 + 1, x0, -1), (y1 + 1, x1 + 1, 1)):
        np.add.at(corners, (y, x), sign)
    covered = corners.cumsum(axis=0).cumsum(axis=1)[:height, :width]
    return (covered / max(len(boxes_xyxy), 1)).astype(np.float32)
