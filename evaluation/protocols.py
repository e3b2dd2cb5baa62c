"""Six published evaluation protocols as one table: map to boxes, ground truth to frame, boxes to overlap.

Legend: H W pixels of a map, B ground-truth boxes of an image, L threshold levels. A protocol scores in a frame of
224 x 224 pixels. Boxes are ``x0, y0, x1, y1`` in pixels of it, ``x0 <= x1`` and ``y0 <= y1``, and overlaps take both
corners as inside the box. The same map can score ten points apart under two protocols, so no rate should be printed
without the name of its protocol.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.boxes.cam_release import RELEASE_GREY_LEVELS, cam_release_box
from evaluation.boxes.fixed_thresholds import (
    CAM_FRACTION,
    TS_CAM_FALLBACK_BOX,
    TS_CAM_FRACTION,
    checked_map,
    largest_component,
    one_box,
    ts_cam_box,
)
from evaluation.boxes.geometry import FRAME_PX, boxes_in_image
from evaluation.boxes.ground_truth import (
    RESIZED_PX,
    clipped_truncated_boxes,
    cropped_boxes,
    scaled_boxes,
    truncated_boxes,
)
from evaluation.boxes.overlaps import Candidates, best_overlaps
from evaluation.boxes.wsoleval import (
    WSOLEVAL_FALLBACK_BOX,
    all_contours,
    boxes_at_thresholds,
    largest_contours,
    level_thresholds,
    normalise_score_map,
)

_SQUASHED = "image squeezed to 224x224"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Protocol:
    """One published way from a score map and ground-truth boxes to an overlap."""

    name: str
    title: str
    """Its name in pages, tables and charts, never that of a localizer."""
    summary: str
    """The protocol in one sentence, with its source."""
    map_rule: str
    """What image the map shows and how it is brought to the frame."""
    threshold_rule: str
    """Which pixels are foreground."""
    box_rule: str
    """How these pixels become a box."""
    ground_truth_rule: str
    """How boxes are brought to the frame."""
    iou_rule: str
    """What overlap is enough."""
    candidates: Callable[..., Candidates]
    """Every box of one map (H, W), in the frame, at levels from 0 to L - 1.

    Scores are of any size and real dtype, higher where the object is; ValueError unless the map is 2-D and has pixels.
    ``cam``, ``psol-crop`` and ``cam-release`` give no box for a map with NaN or infinity or all zeros, and the frame
    (``cam-release``: less its margin) for another constant above 0 (``cam-release``: other than 0); ``ts-cam`` and
    ``wsoleval-*`` give the corner box of their evaluators.
    """
    ground_truth: Callable[..., npt.NDArray[np.float64]]
    """A function of ``evaluation.boxes.ground_truth``: boxes of an image of ``image_wh`` pixels, moved to the frame."""
    thresholds_l: npt.NDArray[np.float64]
    """(L,) float64, the share of the map's maximum that each level stands for; read-only."""
    takes_threshold: bool = False
    """Whether ``candidates`` takes the share of the maximum as ``fraction``, and then gives one box at most."""
    clips_map: bool = False
    """Whether a map is clipped at 0 and divided by its maximum; otherwise it is stretched from its minimum on."""
    threshold_is_oracle: bool = False
    """Whether the level is chosen afterwards, as the best on the images scored."""
    crops_centre: bool = False
    """Whether the map must show the central 224 of the image squeezed to 256; otherwise it shows the whole image."""
    fallback_box: tuple[float, float, float, float] | None = None
    """The box of a map without foreground: scored like any, but "no box" among the errors; None: no box."""
    first_box_only: bool = False
    """Whether only the first box of each image is ground truth; changes ``describe`` alone."""
    gt_known_exclusive: bool = False
    """Whether GT-known Loc requires an IoU above the wanted one, not one at least as large."""
    top1_exclusive: bool = False
    """The same for Top-1 and Top-5 Loc."""

    def describe(self) -> dict[str, str]:
        """The rules as sentences, for result files: summary, map, threshold, box, ground_truth and iou."""
        counted, compared = ("first box only", "the first") if self.first_box_only else ("all boxes", "any")
        return {
            "summary": self.summary,
            "map": self.map_rule,
            "threshold": self.threshold_rule,
            "box": self.box_rule,
            "ground_truth": f"{counted}, {self.ground_truth_rule}",
            "iou": f"corners inclusive (+ 1), {compared} ground-truth box; {self.iou_rule}",
        }

    def grey_levels(self, map_hw: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        """A map (H, W) as uint8 grey levels of its size or the frame's, as the protocol scales it before it cuts.

        All 0 for a map that has NaN or infinity, or none of whose scores would be above 0.
        """
        if not self.clips_map:
            return normalise_score_map(map_hw)
        clipped_hw = np.maximum(np.asarray(map_hw, dtype=np.float64), 0)
        peak = clipped_hw.max()
        if not 0 < peak < np.inf:
            return np.zeros(clipped_hw.shape, dtype=np.uint8)
        grey_hw: npt.NDArray[np.uint8] = (clipped_hw * (255 / peak)).astype(np.uint8)
        return grey_hw

    def overlaps(
        self, candidates: Candidates, truth_b4: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Best IoU (L,) of an image at each level and its boxes (L, 4), see ``best_overlaps``."""
        return best_overlaps(candidates, truth_b4, levels=len(self.thresholds_l))

    def box_in_image(
        self, map_hw: npt.NDArray[np.generic], *, image_wh: tuple[int, int], threshold: float | None = None
    ) -> npt.NDArray[np.float64] | None:
        """The box ``(4,)`` of a map in pixels of its image, found without ground truth; None where there is none.

        ``threshold``, ``0 <= t < 1``, is a share of the map's maximum; None is the protocol's own. ValueError where the
        protocol has none of its own, or takes no other.
        """
        if threshold is None and self.threshold_is_oracle:
            raise ValueError(f"protocol {self.name} has no threshold of its own: give one, as metrics.json states it")
        if threshold is not None and not (self.takes_threshold and 0 <= threshold < 1):
            allowed = "0 <= t < 1" if self.takes_threshold else "none: the protocol has its own rule"
            raise ValueError(f"threshold {threshold:g} under protocol {self.name}: expected {allowed}")
        given = {} if threshold is None else {"fraction": threshold}
        boxes_n4 = self.candidates(map_hw, **given).boxes_n4
        if not len(boxes_n4) or tuple(boxes_n4[0]) == self.fallback_box:
            return None
        box_4: npt.NDArray[np.float64] = self.in_image(boxes_n4[:1], image_wh=image_wh)[0]
        return box_4

    def in_image(self, boxes_n4: npt.NDArray[np.float64], *, image_wh: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Boxes ``(N, 4)`` of the frame in pixels of their image, see ``boxes_in_image``."""
        margin_px = (RESIZED_PX - FRAME_PX) // 2 if self.crops_centre else 0
        return boxes_in_image(boxes_n4, image_wh=image_wh, margin_px=margin_px)


def _largest_wsoleval(map_hw: npt.NDArray[np.generic], *, fraction: float | None = None) -> Candidates:
    map_uint8_hw = normalise_score_map(checked_map(map_hw))
    if fraction is None:
        return largest_contours(map_uint8_hw)
    return one_box(tuple(boxes_at_thresholds(map_uint8_hw, [fraction])[0]))


def _all_wsoleval(map_hw: npt.NDArray[np.generic]) -> Candidates:
    return all_contours(normalise_score_map(checked_map(map_hw)))


def _read_only(thresholds: npt.ArrayLike) -> npt.NDArray[np.float64]:
    thresholds_l = np.array(thresholds, dtype=np.float64, ndmin=1)
    thresholds_l.setflags(write=False)
    return thresholds_l


_WSOLEVAL_MAP = f"{_SQUASHED}; map to 224x224 (bicubic), minimum to 0 and maximum to 255, cut to 8 bit"
_WSOLEVAL_THRESHOLD = (
    "strictly above int(t * 255), one t of arange(0, 1, .001) for all images: the best on the images scored (oracle)"
)
_WSOLEVAL_BOX = "x, y, min(x + w, 223), min(y + h, 223); (0, 0, 0, 0) without contour"
_CAM_THRESHOLD = "strictly above 20 % of the maximum, by more than rounding (1e-6 of it)"
_CAM_BOX = "largest 8-connected component by pixels, first in scan order of equals; none: no box, wrong"

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="cam",
            title="CAM (20 % of the maximum)",
            summary="The rule in the CAM paper's words (Zhou et al., CVPR 2016, section 3.2).",
            map_rule=f"{_SQUASHED}; map clipped at 0, to 224x224 (bilinear), divided by its maximum",
            threshold_rule=_CAM_THRESHOLD,
            box_rule=_CAM_BOX,
            ground_truth_rule="scaled to 224, not truncated",
            iou_rule="at least the wanted IoU",
            candidates=largest_component,
            clips_map=True,
            ground_truth=scaled_boxes,
            thresholds_l=_read_only(CAM_FRACTION),
            takes_threshold=True,
        ),
        Protocol(
            name="cam-release",
            title="CAM, released code (three grey levels)",
            summary="What the code released with the CAM paper does (Zhou et al., CVPR 2016, bboxgenerator).",
            map_rule="image squeezed; map (ten-crop: sum of absolute ones) to 224x224 (bicubic, as MATLAB's imresize), "
            "absolute, divided by its maximum, rounded to 8 bit",
            threshold_rule="strictly above grey levels 20, 100 and 110; distance to the outside, rescaled to 255, "
            "above 10",
            box_rule="contours of all three levels, holes too, clamped 5 px from the right and lower side; the largest",
            ground_truth_rule="scaled to 224, not truncated; images of the blacklist skipped when given",
            iou_rule="at least the wanted IoU",
            candidates=cam_release_box,
            ground_truth=scaled_boxes,
            # The three levels are pooled into one; the lowest bounds the foreground.
            thresholds_l=_read_only(RELEASE_GREY_LEVELS[0] / 255),
        ),
        Protocol(
            name="wsoleval-v1",
            title="MaxBoxAcc (one threshold for all)",
            summary="MaxBoxAcc: the largest contour at the best shared threshold (Choe et al., CVPR 2020).",
            map_rule=_WSOLEVAL_MAP,
            threshold_rule=_WSOLEVAL_THRESHOLD,
            box_rule=f"contour with the largest polygon area: {_WSOLEVAL_BOX}",
            ground_truth_rule="scaled to 224 and truncated",
            iou_rule="at least the wanted IoU",
            candidates=_largest_wsoleval,
            ground_truth=truncated_boxes,
            thresholds_l=_read_only(level_thresholds()),
            takes_threshold=True,
            threshold_is_oracle=True,
            fallback_box=WSOLEVAL_FALLBACK_BOX,
        ),
        Protocol(
            name="wsoleval-v2",
            title="MaxBoxAccV2 (one threshold for all)",
            summary="MaxBoxAccV2: all contours at the best shared threshold, mean over IoU .3, .5 and .7 "
            "(Choe et al., extended version of CVPR 2020).",
            map_rule=_WSOLEVAL_MAP,
            threshold_rule=_WSOLEVAL_THRESHOLD,
            box_rule=f"every contour, holes too, the best of them: {_WSOLEVAL_BOX}",
            ground_truth_rule="scaled to 224 and truncated",
            iou_rule="at least .3, .5 and .7",
            candidates=_all_wsoleval,
            ground_truth=truncated_boxes,
            thresholds_l=_read_only(level_thresholds()),
            threshold_is_oracle=True,
            fallback_box=WSOLEVAL_FALLBACK_BOX,
        ),
        Protocol(
            name="ts-cam",
            title="TS-CAM (12 % of the maximum)",
            summary="The evaluator of TS-CAM (Gao et al., ICCV 2021).",
            map_rule=f"{_SQUASHED}; map to 224x224 (bilinear), minimum to 0 and maximum to 255, cut to 8 bit",
            threshold_rule="strictly above int(12 % of the maximum)",
            box_rule="contour with the largest polygon area: x, y, x + w, y + h; (0, 0, 1, 1) without contour",
            ground_truth_rule="scaled to 224, clipped to 0..223 and truncated",
            iou_rule="GT-known at least, Top-1 and Top-5 above the wanted IoU",
            candidates=ts_cam_box,
            ground_truth=clipped_truncated_boxes,
            thresholds_l=_read_only(TS_CAM_FRACTION),
            takes_threshold=True,
            fallback_box=TS_CAM_FALLBACK_BOX,
            top1_exclusive=True,
        ),
        Protocol(
            name="psol-crop",
            title="PSOL (central crop, 20 % of the maximum)",
            summary="The frame of PSOL (Zhang et al., CVPR 2020), which predicts boxes itself; from a map, boxes are "
            "taken by the rule of cam.",
            map_rule="image squeezed to 256x256, central 224x224; map of the crop clipped at 0, to 224x224 (bilinear), "
            "divided by its maximum",
            threshold_rule=_CAM_THRESHOLD,
            box_rule=_CAM_BOX,
            ground_truth_rule="scaled to 256, clipped to the crop; a box outside it stays as a strip on its edge",
            iou_rule="above the wanted IoU",
            candidates=largest_component,
            clips_map=True,
            ground_truth=cropped_boxes,
            thresholds_l=_read_only(CAM_FRACTION),
            takes_threshold=True,
            crops_centre=True,
            gt_known_exclusive=True,
            top1_exclusive=True,
        ),
    )
}
"""All protocols by name, the default first."""


def get_protocol(name: str) -> Protocol:
    """The protocol of that name; ValueError with all names when there is none."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def protocol_title(name: str) -> str:
    """The title of a protocol; of one that is not known, as in results of a later version, its name."""
    return PROTOCOLS[name].title if name in PROTOCOLS else name
