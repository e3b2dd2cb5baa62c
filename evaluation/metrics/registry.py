"""Registry of metrics: what each counts, what tables call it, in which order they show it, and what it means.

Legend: I images, L threshold levels. A new metric is a row here, with a field of ``evaluation.schema.Result``
that has its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from evaluation.image_scores import TOP_CLASSES, exceeds
from evaluation.protocols import Protocol
from evaluation.schema import Classification, Rate, Result

IOU_THRESHOLDS = (0.3, 0.5, 0.7)
"""Overlaps that MaxBoxAccV2 averages over (Choe et al., CVPR 2020 and its extension arXiv:2007.04178)."""

GT_KNOWN_IOU = 0.5
"""Overlap of GT-known, Top-1 and Top-5 Loc (ILSVRC's localization task)."""

HitFunction = Callable[[npt.NDArray[np.float64], npt.NDArray[np.int64], Protocol], npt.NDArray[np.bool_]]
"""Of overlaps (I, L), ranks of the true class (I,) and the protocol: which images count as right, (I, L)."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of the registry."""

    name: str
    """Name in result files and in table.csv."""
    heading: str
    """Heading in tables."""
    meaning: str
    """One sentence for the legend of a table."""
    read: Callable[[Result, Classification | None], Rate | None]
    """The metric of a result; None where it has none."""
    hits: HitFunction | None = None
    """Which images count as right; None for what is not counted at every threshold level."""
    needs_classes: bool = False
    """Whether it is over the images of known class alone, and exists with class scores only."""


def _localized(
    iou_il: npt.NDArray[np.float64], _rank_i: npt.NDArray[np.int64], protocol: Protocol, *, wanted_iou: float
) -> npt.NDArray[np.bool_]:
    return exceeds(iou_il, wanted_iou, exclusive=protocol.gt_known_exclusive)


_LOCALIZED = {wanted_iou: partial(_localized, wanted_iou=wanted_iou) for wanted_iou in IOU_THRESHOLDS}
"""Shared by metrics of the same overlap, so that each is counted once."""


def _localized_and_among_best(
    iou_il: npt.NDArray[np.float64], rank_i: npt.NDArray[np.int64], protocol: Protocol, *, count: int
) -> npt.NDArray[np.bool_]:
    is_best_i = (rank_i >= 0) & (rank_i < count)
    return exceeds(iou_il, GT_KNOWN_IOU, exclusive=protocol.top1_exclusive) & is_best_i[:, None]


def _max_box_acc(wanted_iou: float) -> Metric:
    return Metric(
        name=f"max_box_acc_{wanted_iou:g}",
        heading=f"MaxBoxAcc {wanted_iou:g}".replace("0.", "."),
        meaning=f"Images localized at IoU {wanted_iou:g}, at the one threshold that is best for it on these very "
        "images.",
        read=lambda result, _: (result.max_box_acc or {}).get(f"{wanted_iou:g}"),
        hits=_LOCALIZED[wanted_iou],
    )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="gt_known_loc",
            heading="GT-known Loc",
            meaning="Images whose box, from the map of the true class, overlaps a ground-truth box by at least half "
            "(IoU .5).",
            read=lambda result, _: result.gt_known_loc,
            hits=_LOCALIZED[GT_KNOWN_IOU],
        ),
        Metric(
            name="top1_loc",
            heading="Top-1 Loc",
            meaning="GT-known Loc, and the true class has the highest score.",
            read=lambda result, _: result.top1_loc,
            hits=partial(_localized_and_among_best, count=1),
            needs_classes=True,
        ),
        Metric(
            name="top5_loc",
            heading="Top-5 Loc",
            meaning="GT-known Loc, and the true class is among the five highest scores.",
            read=lambda result, _: result.top5_loc,
            hits=partial(_localized_and_among_best, count=TOP_CLASSES),
            needs_classes=True,
        ),
        Metric(
            name="top1_class",
            heading="Top-1 Class",
            meaning="The true class has the highest score, whatever the box; the same in all rows of a run.",
            read=lambda _, classification: None if classification is None else classification.top1,
        ),
        Metric(
            name="top5_class",
            heading="Top-5 Class",
            meaning="The true class is among the five highest scores, whatever the box.",
            read=lambda _, classification: None if classification is None else classification.top5,
        ),
        *(_max_box_acc(wanted_iou) for wanted_iou in IOU_THRESHOLDS),
        Metric(
            name="max_box_acc_v2",
            heading="MaxBoxAcc mean",
            meaning="The mean of the three MaxBoxAcc. With the boxes of all contours it is called MaxBoxAccV2, with "
            "those of the largest one V2 over largest boxes.",
            read=lambda result, _: result.max_box_acc_v2,
        ),
    )
}
"""All metrics by name, in the order of tables."""
