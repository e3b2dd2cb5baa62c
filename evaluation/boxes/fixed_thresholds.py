"""The one box of a score map at a fixed share of its peak: the rules of the protocols ``cam`` and ``ts-cam``.

Legend: H W pixels of a map as it comes. Boxes are ``x0, y0, x1, y1`` in pixels of the 224 x 224 frame, to be
compared as inclusive corners. Maps reach the frame by bilinear interpolation with pixel centres aligned
(``cv2.INTER_LINEAR``, torch's ``align_corners=False``) and without smoothing before a reduction.
"""

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.overlaps import Candidates

CAM_FRACTION = 0.2
"""Share of the peak that a pixel must exceed (Zhou et al., "Learning deep features for discriminative
localization", CVPR 2016, section 3.2)."""

_ROUNDING = 1e-6
"""Share of the peak by which equal scores may differ, so that a map meets a threshold alike in every number type.

A score of 51 of 255 is .2 of the peak in uint8 and 3e-9 above it in float32. Scores rounded to float32 and then
interpolated by OpenCV, whose weights are float32, are off by up to 2e-7 of the peak.
"""

TS_CAM_FRACTION = 0.12
"""Share of the peak in TS-CAM's configuration for ILSVRC (Gao et al., ICCV 2021; ``MODEL.CAM_THR``)."""

TS_CAM_FALLBACK_BOX = (0.0, 0.0, 1.0, 1.0)
"""What TS-CAM's code answers for a map without foreground. A lone pixel in the corner gives the same box."""

_GREY_MAX = 255
_REAL_KINDS = "buif"


def checked_map(map_hw: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The map as ``(H, W)`` float64, NaN and infinity left in it; ValueError unless it is 2-D, with pixels and real."""
    if map_hw.ndim != 2 or map_hw.size == 0 or map_hw.dtype.kind not in _REAL_KINDS:
        raise ValueError(
            f"expected a score map (H, W) of real numbers with pixels, found {map_hw.dtype} of shape {map_hw.shape}; "
            "give one map at a time"
        )
    return np.ascontiguousarray(map_hw, dtype=np.float64)


def one_box(box_xyxy: tuple[float, float, float, float] | None) -> Candidates:
    """Candidates of a protocol with a single level: the box, or none at all."""
    boxes_n4 = np.array([] if box_xyxy is None else [box_xyxy], dtype=np.float64).reshape(-1, 4)
    level_n = np.zeros(len(boxes_n4), dtype=np.int64)
    return Candidates(boxes_n4=boxes_n4, first_level_n=level_n, last_level_n=level_n)


def largest_component(map_hw: npt.NDArray[np.generic], *, fraction: float = CAM_FRACTION) -> Candidates:
    """Box around the largest group of pixels above a share of the peak, 20 %: the rule ``cam``.

    Scores below 0 count as 0, the map is brought to the frame and divided by its maximum, and pixels *strictly*
    above ``fraction``, by more than ``_ROUNDING``, are joined to their eight neighbours. The group with the most
    pixels gives the box, both of whose corners lie on it. Of groups of equal size the one whose first pixel comes
    first, row by row, is taken.

    Scores are of any size and real dtype and computed in float64; ValueError as ``checked_map``. The one box is of
    level 0; there is none when no score is above 0 and the threshold, or any is NaN or infinite. A constant map above
    0 gives the frame.
    """
    source_hw = checked_map(map_hw)
    if not np.isfinite(source_hw).all():
        return one_box(None)
    scores_hw = _at_frame_size(np.maximum(source_hw, 0))
    peak = float(scores_hw.max())
    if not peak > 0:
        return one_box(None)
    scores_hw /= peak
    above_hw = scores_hw > fraction + _ROUNDING
    if not above_hw.any():
        return one_box(None)
    # 224 x 224 pixels hold at most 112 x 112 components, so 16 bits do. Counting labels here takes a third of the
    # time of connectedComponentsWithStats (0.1 against 0.35 ms).
    _, labels_hw = cv2.connectedComponents(above_hw.view(np.uint8), connectivity=8, ltype=cv2.CV_16U)
    pixels_c = np.bincount(labels_hw.ravel())[1:]
    largest = np.flatnonzero(pixels_c == pixels_c.max()) + 1
    # OpenCV numbers components in blocks of 2 x 2 pixels, hence the search among equals.
    label = int(largest[0] if len(largest) == 1 else labels_hw.ravel()[np.isin(labels_hw, largest).argmax()])
    component_hw = labels_hw == label
    columns, rows = np.flatnonzero(component_hw.any(axis=0)), np.flatnonzero(component_hw.any(axis=1))
    return one_box((columns[0], rows[0], columns[-1], rows[-1]))


def ts_cam_box(map_hw: npt.NDArray[np.generic], *, fraction: float = TS_CAM_FRACTION) -> Candidates:
    """Box around the largest contour above a share of the peak, 12 %: the rule ``ts-cam``.

    The map is brought to the frame, stretched so that its minimum is 0 and its maximum 1, multiplied by 255 and cut
    to uint8. Pixels *strictly* above ``int(fraction * 255)``, grey level 30, are searched for contours, holes included,
    and the contour with the largest polygon area, the first of equals, gives the box.

    Scores are of any size and real dtype and computed in float32, as TS-CAM's maps are; ValueError as ``checked_map``.
    ``x1`` and ``y1`` are one beyond the contour's last pixel and may be 224, yet the overlap takes them as inclusive:
    both are TS-CAM's. ``TS_CAM_FALLBACK_BOX`` for a map that is constant or not finite in float32, where TS-CAM divides
    by zero or stretches the noise of its interpolation to the full range.

    Source: ``lib/cams_deit.py`` of the code of Gao et al., "TS-CAM: token semantic coupled attention map for weakly
    supervised object localization", ICCV 2021.
    """
    with np.errstate(over="ignore"):
        source_hw = checked_map(map_hw).astype(np.float32)
    if not np.isfinite(source_hw).all() or source_hw.min() == source_hw.max():
        return one_box(TS_CAM_FALLBACK_BOX)
    scores_hw = _at_frame_size(source_hw)
    lowest = scores_hw.min()
    with np.errstate(over="ignore"):
        span = scores_hw.max() - lowest
    # 0 where a reduction skips every pixel that differs, infinite where the range leaves float32.
    if not 0 < span < np.inf:
        return one_box(TS_CAM_FALLBACK_BOX)
    grey_hw = ((scores_hw - lowest) / span * np.float32(_GREY_MAX)).astype(np.uint8)
    above_hw = grey_hw > int(fraction * int(grey_hw.max()))
    contours, _ = cv2.findContours(above_hw.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return one_box((x, y, x + width, y + height))


def _at_frame_size(scores_hw: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """``(224, 224)`` by bilinear interpolation, pixel centres aligned, in the dtype given."""
    resized_hw: npt.NDArray[np.floating] = cv2.resize(scores_hw, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_LINEAR)
    return resized_hw
