"""Tally of image scores: counts, rates and confidence intervals of many images, as metrics.json holds them.

Legend: I images, L threshold levels, K classes, S bootstrap resamples, F functions of ``METRICS`` counted at every
level. Rates are fractions between 0 and 1. Memory does not grow with images: only counts are kept.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.image_scores import (
    BLACKLISTED,
    TOP_CLASSES,
    ImageScores,
    Pair,
    is_failed,
    is_skipped,
    stack_levels,
)
from evaluation.metrics.calibration import Calibration, choice_of_level
from evaluation.metrics.errors import image_verdicts
from evaluation.metrics.intervals import (
    WeightedSums,
    interval_of,
    poisson_weights,
    rate_of,
    ratios_of,
)
from evaluation.metrics.registry import GT_KNOWN_IOU, IOU_THRESHOLDS, METRICS, HitFunction
from evaluation.names import ERROR_KINDS
from evaluation.protocols import Protocol
from evaluation.schema import Classification, ClassScore, Counts, Curve, Histogram, NamedRate, Rate, Result
from pseudo_maps.records import UNKNOWN_LABEL

HISTOGRAM_EDGES: npt.NDArray[np.float64] = np.linspace(0, 1, 21)
"""Edges of the 20 bins of overlaps: each holds its lower edge, the last both."""
HISTOGRAM_EDGES.setflags(write=False)

V2_NAMES = {"wsoleval-v2": "MaxBoxAccV2"}
"""What the mean over ``IOU_THRESHOLDS`` is called under a sweep protocol; elsewhere ``V2 over largest boxes``."""

IMAGES_AT_ONCE = 256
"""Images to add at once: every matrix product writes S x C sums, 1.3 million for 1000 resamples and 255 levels, so few
large batches are cheaper than many small ones. 50,000 images under both sweep protocols take 8 s of one core."""

_HITS: tuple[HitFunction, ...] = tuple(dict.fromkeys(metric.hits for metric in METRICS.values() if metric.hits))
"""The F functions; several metrics may share one."""


def _row(name: str) -> int:
    """Position of a metric's function among the F."""
    hits = METRICS[name].hits
    assert hits is not None
    return _HITS.index(hits)


_GT_KNOWN, _TOP1 = _row("gt_known_loc"), _row("top1_loc")
_BY_IOU = {f"{wanted_iou:g}": _row(f"max_box_acc_{wanted_iou:g}") for wanted_iou in IOU_THRESHOLDS}
_REPORTED = f"{GT_KNOWN_IOU:g}"


class Tally:
    """Counts images under several localizers and protocols at once.

    A failed image counts as wrong for every localizer that has no result of it; a skipped one is outside the
    localization denominators. Under a sweep protocol all metrics of a result are taken at one threshold, the best for
    GT-known Loc; only MaxBoxAcc has one for each IoU. Classification counts all images of known class that are not
    blacklisted, those without boxes too; an image without class scores is wrong.

    Results depend on the set of images, the seed and the number of resamples, never on order or batches. They come in
    the order of ``localizers`` and ``protocols``; those of ``baselines`` stand apart. ``bootstrap_samples`` is S, 0
    leaves intervals out; ``class_wnids`` are the names of the K classes by label. With a ``calibration`` the sweep
    protocols take its levels instead of the best on these images; intervals do not cover how these were chosen.
    """

    def __init__(
        self,
        protocols: Sequence[Protocol],
        localizers: Sequence[str],
        *,
        class_wnids: Sequence[str],
        baselines: Sequence[str] = (),
        bootstrap_samples: int = 1000,
        seed: int = 0,
        calibration: Calibration | None = None,
    ) -> None:
        classes = len(class_wnids)
        self._calibration = calibration
        chosen = calibration.levels if calibration else {}
        self._has_scores = False
        self._class_wnids = tuple(class_wnids)
        self._baselines = frozenset(baselines)
        self._samples, self._seed = bootstrap_samples, seed
        self._statuses: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        # By class: images of the localization denominators, images classified, those whose class is right.
        self._localized_k, self._classified_k, self._top1_k = np.zeros((3, classes), dtype=np.int64)
        # Images of the localization denominators, those of known class, images classified, Top-1, Top-5.
        self._totals_5 = np.zeros(5, dtype=np.int64)
        self._sums = WeightedSums(5, samples=bootstrap_samples)
        self._counts: dict[Pair, _ResultCounts] = {
            (localizer, protocol.name): _ResultCounts(
                protocol,
                localizer,
                classes=classes,
                samples=bootstrap_samples,
                chosen=chosen.get((localizer, protocol.name)),
            )
            for localizer in localizers
            for protocol in protocols
        }

    def add(self, batch: Sequence[ImageScores]) -> None:
        """Count a batch of images. Each image of the data set must come once.

        ValueError names an image whose label is not below K, or a scored one that lacks a localizer or a level.
        """
        for image in batch:
            if image.label >= len(self._class_wnids):
                raise ValueError(
                    f"image {image.image_id!r} (index {image.index}): expected a label below "
                    f"{len(self._class_wnids)}, found {image.label}; give the names of all classes"
                )
        if not batch:
            return
        weights_is = poisson_weights([image.index for image in batch], samples=self._samples, seed=self._seed)
        label_i = np.array([image.label for image in batch], dtype=np.int64)
        rank_i = np.array([image.true_rank for image in batch], dtype=np.int64)
        inside_i = np.array([not is_skipped(image.status) for image in batch])
        inside = [image for image in batch if not is_skipped(image.status)]
        for counts in self._counts.values():
            counts.add(inside, label_i=label_i[inside_i], rank_i=rank_i[inside_i], weights_is=weights_is[inside_i])
        known_i = label_i != UNKNOWN_LABEL
        classified_i = known_i & np.array([image.status != BLACKLISTED for image in batch])
        top5_i = classified_i & (rank_i >= 0) & (rank_i < TOP_CLASSES)
        top1_i = top5_i & (rank_i == 0)
        columns_i5 = np.stack([inside_i, inside_i & known_i, classified_i, top1_i, top5_i], axis=1)
        self._totals_5 += columns_i5.sum(axis=0)
        self._sums.add(weights_is, columns_i5)
        for counts_k, of_class_i in (
            (self._localized_k, inside_i & known_i),
            (self._classified_k, classified_i),
            (self._top1_k, top1_i),
        ):
            counts_k += np.bincount(label_i[of_class_i], minlength=len(counts_k))
        self._has_scores = self._has_scores or any(image.top_classes is not None for image in batch)
        self._statuses.update(image.status for image in batch)
        self._notes.update(note for image in batch for note in image.notes)

    def counts(self) -> Counts:
        """What became of the images."""
        statuses = dict(sorted(self._statuses.items()))
        skipped = {status: count for status, count in statuses.items() if is_skipped(status)}
        return Counts(
            asked=sum(statuses.values()),
            scored=sum(statuses.values()) - sum(skipped.values()),
            failed={status: count for status, count in statuses.items() if is_failed(status)},
            skipped=skipped,
            notes=dict(sorted(self._notes.items())),
        )

    def classification(self) -> Classification | None:
        """Accuracy of the class alone; None when no image had class scores, or none of them a known class."""
        *_, images, top1, top5 = self._totals_5.tolist()
        *_, images_s, top1_s, top5_s = self._sums.sums_sc.T
        if not self._has_scores or not images:
            return None
        return Classification(
            images=images,
            top1=rate_of(top1, images, ratios_of(top1_s, images_s)),
            top5=rate_of(top5, images, ratios_of(top5_s, images_s)),
        )

    def results(self, *, baselines: bool = False) -> tuple[Result, ...]:
        """Results of all localizers, or of the baselines; none when no image is in the localization denominators."""
        chosen = [counts for counts in self._counts.values() if (counts.localizer in self._baselines) == baselines]
        return tuple(map(self._result, chosen)) if self._totals_5[0] else ()

    def reported_levels(self) -> dict[Pair, int]:
        """Level that each result is reported at, by localizer and protocol: the oracle's, the calibrated one, or 0."""
        return {pair: counts.level(_REPORTED) for pair, counts in self._counts.items()}

    def _result(self, counts: "_ResultCounts") -> Result:
        protocol = counts.protocol
        level = counts.level(_REPORTED)
        calibration = self._calibration if counts.chosen else None
        images, labelled, *_ = self._totals_5.tolist()
        images_s, labelled_s, *_ = self._sums.sums_sc.T
        level_s = counts.level_of_samples(_REPORTED)
        at_level_fs = np.take_along_axis(counts.sums_sfl, level_s[:, None, None], axis=2)[:, :, 0].T

        def rate(name: str) -> Rate | None:
            needs_classes, row = METRICS[name].needs_classes, _row(name)
            count, count_s = (labelled, labelled_s) if needs_classes else (images, images_s)
            if needs_classes and not (self._has_scores and count):
                return None
            return rate_of(int(counts.correct_fl[row, level]), count, ratios_of(at_level_fs[row], count_s))

        gt_known = rate("gt_known_loc")
        assert gt_known is not None
        by_iou = v2 = curve = None
        if protocol.threshold_is_oracle:
            by_iou, v2 = self._best_of_sweep(counts, images, images_s)
            rates_dl = (counts.correct_fl[list(_BY_IOU.values())] / images).tolist()
            curve = Curve(
                thresholds=tuple(protocol.thresholds_l.tolist()),
                gt_known_30=tuple(rates_dl[0]),
                gt_known_50=tuple(rates_dl[1]),
                gt_known_70=tuple(rates_dl[2]),
            )
        return Result(
            localizer=counts.localizer,
            protocol=protocol.name,
            describe={**protocol.describe(), "reported threshold": choice_of_level(protocol, calibration)},
            threshold=float(protocol.thresholds_l[level]),
            threshold_is_oracle=protocol.threshold_is_oracle and calibration is None,
            calibrated_on=calibration.name if calibration else None,
            gt_known_loc=gt_known,
            top1_loc=rate("top1_loc"),
            top5_loc=rate("top5_loc"),
            max_box_acc=by_iou,
            max_box_acc_v2=v2,
            curve=curve,
            iou_histogram=Histogram(
                edges=tuple(HISTOGRAM_EDGES.tolist()), counts=tuple(counts.histogram_lh[level].tolist())
            ),
            errors=dict(zip(ERROR_KINDS, counts.verdicts_lv[level].tolist(), strict=True)),
            per_class=tuple(self._per_class(counts, level)),
        )

    def _best_of_sweep(
        self, counts: "_ResultCounts", images: int, images_s: npt.NDArray[np.int32]
    ) -> tuple[dict[str, Rate], NamedRate]:
        """MaxBoxAcc at each overlap, and their mean."""
        best = {iou: int(counts.correct_fl[row, counts.level(iou)]) for iou, row in _BY_IOU.items()}
        rows = np.arange(self._samples)
        ratios = {
            iou: ratios_of(counts.sums_sfl[rows, row, counts.level_of_samples(iou)], images_s)
            for iou, row in _BY_IOU.items()
        }
        mean = float(sum(best.values())) / (len(best) * images)
        interval, kind = interval_of(mean, images, np.mean(list(ratios.values()), axis=0))
        v2 = NamedRate(
            name=V2_NAMES.get(counts.protocol.name, "V2 over largest boxes"),
            rate=mean,
            correct=None,
            images=images,
            interval=interval,
            interval_kind=kind,
        )
        return {iou: rate_of(best[iou], images, ratios[iou]) for iou in best}, v2

    def _per_class(self, counts: "_ResultCounts", level: int) -> Iterator[ClassScore]:
        for label in np.flatnonzero(self._localized_k + self._classified_k).tolist():
            images, classified = int(self._localized_k[label]), int(self._classified_k[label])
            gt_known, top1 = counts.class_correct_fkl[:, label, level].tolist()
            yield ClassScore(
                label=label,
                wnid=self._class_wnids[label],
                images=images,
                gt_known_loc=gt_known / images if images else None,
                top1_loc=top1 / images if images and self._has_scores else None,
                top1_class=int(self._top1_k[label]) / classified if classified and self._has_scores else None,
            )


class _ResultCounts:
    """Counts of one localizer under one protocol, at all levels."""

    def __init__(
        self, protocol: Protocol, localizer: str, *, classes: int, samples: int, chosen: Mapping[str, int] | None = None
    ) -> None:
        levels = len(protocol.thresholds_l)
        self.chosen = chosen
        """By overlap the level that a calibration chose."""
        self.protocol = protocol
        self.localizer = localizer
        self.correct_fl = np.zeros((len(_HITS), levels), dtype=np.int64)
        self.histogram_lh = np.zeros((levels, len(HISTOGRAM_EDGES) - 1), dtype=np.int64)
        self.verdicts_lv = np.zeros((levels, len(ERROR_KINDS)), dtype=np.int64)
        self.class_correct_fkl = np.zeros((2, classes, levels), dtype=np.int32)
        """GT-known and Top-1 Loc by class: 2 MB for 1000 classes and 255 levels."""
        self._sums = WeightedSums(len(_HITS) * levels, samples=samples)

    @property
    def sums_sfl(self) -> npt.NDArray[np.int32]:
        """Weighted hits of the bootstrap resamples, (S, F, L)."""
        return self._sums.sums_sc.reshape(-1, *self.correct_fl.shape)

    def level(self, iou: str) -> int:
        """The level that was chosen for this overlap, else the lowest of those best for it on these images."""
        return self.chosen[iou] if self.chosen else int(self.correct_fl[_BY_IOU[iou]].argmax())

    def level_of_samples(self, iou: str) -> npt.NDArray[np.int64]:
        """The same of the resamples (S,): each chooses anew, so that the interval holds the luck of the choice."""
        sums_sl = self.sums_sfl[:, _BY_IOU[iou]]
        return np.full(len(sums_sl), self.chosen[iou]) if self.chosen else sums_sl.argmax(axis=1)

    def add(
        self,
        images: Sequence[ImageScores],
        *,
        label_i: npt.NDArray[np.int64],
        rank_i: npt.NDArray[np.int64],
        weights_is: npt.NDArray[np.uint8],
    ) -> None:
        """Count images inside the localization denominators."""
        if not images:
            return
        iou_il, boxes_il4 = stack_levels(images, localizer=self.localizer, protocol=self.protocol)
        # F between images and levels, so that one matrix product serves all of them.
        hits_ifl = np.empty((len(images), *self.correct_fl.shape), dtype=np.bool_)
        for row, hits in enumerate(_HITS):
            hits_ifl[:, row] = hits(iou_il, rank_i, self.protocol)
        self.correct_fl += hits_ifl.sum(axis=0)
        self._sums.add(weights_is, hits_ifl.reshape(len(images), -1))
        self._add_by_class(hits_ifl[:, [_GT_KNOWN, _TOP1]], label_i)
        bins_il = np.searchsorted(HISTOGRAM_EDGES[1:-1], iou_il, side="right")
        _add_by_level(self.histogram_lh, bins_il)
        verdicts_il = image_verdicts(images, protocol=self.protocol, iou_il=iou_il, boxes_il4=boxes_il4)
        _add_by_level(self.verdicts_lv, verdicts_il)

    def _add_by_class(self, hits_ifl: npt.NDArray[np.bool_], label_i: npt.NDArray[np.int64]) -> None:
        order_i = np.argsort(label_i, kind="stable")
        order_i = order_i[label_i[order_i] != UNKNOWN_LABEL]
        if len(order_i):
            labels_u, starts_u = np.unique(label_i[order_i], return_index=True)
            sums_ufl = np.add.reduceat(hits_ifl[order_i], starts_u, axis=0, dtype=np.int32)
            self.class_correct_fkl[:, labels_u] += sums_ufl.transpose(1, 0, 2)


def _add_by_level(counts_lc: npt.NDArray[np.int64], column_il: npt.NDArray[np.integer[Any]]) -> None:
    levels, columns = counts_lc.shape
    cells_il = column_il + np.arange(levels) * columns
    counts_lc += np.bincount(cells_il.ravel(), minlength=levels * columns).reshape(levels, columns)
