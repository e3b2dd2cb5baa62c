"""Turns the scores of images, batch by batch, into the counts and rates of metrics.json.

Legend: I images, L threshold levels, K classes, S bootstrap samples, F figures counted at every level.
Rates are fractions between 0 and 1. Memory does not grow with images: only counts are kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.image_scores import (
    BLACKLISTED,
    TOP_CLASSES,
    ImageScores,
    Pair,
    ScoringRules,
    exceeds,
    is_failed,
    is_skipped,
    stack_levels,
)
from evaluation.metrics.errors import ERROR_KINDS, image_verdicts
from evaluation.metrics.intervals import INTERVAL_KIND, WeightedSums, percentile_interval, poisson_weights
from pseudo_maps.records import UNKNOWN_LABEL

__all__ = ["GT_KNOWN_IOU", "HISTOGRAM_EDGES", "IOU_THRESHOLDS", "V2_NAMES", "Tally"]

IOU_THRESHOLDS = (0.3, 0.5, 0.7)
"""Overlaps that MaxBoxAccV2 averages over (Choe et al., CVPR 2020 and its extension arXiv:2007.04178)."""

GT_KNOWN_IOU = 0.5
"""Overlap of GT-known, Top-1 and Top-5 Loc (ILSVRC's localization task)."""

HISTOGRAM_EDGES: npt.NDArray[np.float64] = np.linspace(0, 1, 21)
"""Edges of the 20 bins of overlaps: each holds its lower edge, the last both."""
HISTOGRAM_EDGES.setflags(write=False)

V2_NAMES = {"wsoleval-v2": "MaxBoxAccV2"}
"""What the mean over ``IOU_THRESHOLDS`` is called under a sweep protocol; elsewhere ``V2 over largest boxes``."""

_IMAGES_AT_ONCE = 256
"""Images counted together, whatever the batches: every matrix product writes S x C sums, 1.3 million for 1000
samples and 255 levels, so few large ones are cheaper than many small ones. 50,000 images under both sweep protocols
take 8 s of one core.
"""

_GT_KNOWN, _TOP1, _TOP5 = 1, 3, 4
"""Figures: GT-known at each of ``IOU_THRESHOLDS``, then Top-1 and Top-5 Loc at IoU .5."""
_FIGURES = 5

_ORACLE_CHOICE = (
    "the level that is best for GT-known Loc at IoU .5 on these very images, the lowest of equals; Top-1 and Top-5 "
    "Loc, histogram, errors and classes are counted at it; MaxBoxAcc at each IoU has its own best level; bootstrap "
    "samples choose anew"
)
_FIXED_CHOICE = "fixed by the protocol"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Images inside the localization denominators."""

    images: Sequence[ImageScores]
    label_i: npt.NDArray[np.int64]
    rank_i: npt.NDArray[np.int64]
    weights_is: npt.NDArray[np.uint8]


class Tally:
    """Counts images under several localizers and protocols at once.

    A failed image counts as wrong for every localizer that has no result of it; a skipped one is outside the
    localization denominators. Top-k Loc asks that the true class is among the best k and that the true class's box
    is right. Under a sweep protocol all figures of a result stand at one threshold, the best for GT-known Loc;
    only MaxBoxAcc at .3, .5 and .7 has each its own. Classification counts all images of known class that are not
    blacklisted, those without boxes too; an image without class scores is wrong.

    Results depend on the set of images, the seed and the number of samples, never on order or batches.

    Parameters
    ----------
    protocols
        The protocols to count under, in the order of the results.
    localizers
        Names of the localizers, in the order of the results.
    class_wnids
        Names of the K classes by label.
    baselines
        Those of ``localizers`` that are reported as baselines.
    bootstrap_samples
        S; 0 leaves intervals out.
    seed
        Seed of the bootstrap weights, ``0 <= seed < 2**64``.

    Raises
    ------
    ValueError
        A name is missing, repeated or holds a space, ``baselines`` has a name that ``localizers`` lacks, a protocol
        with a fixed threshold has several levels, or ``bootstrap_samples`` is negative.
    """

    def __init__(
        self,
        protocols: Sequence[ScoringRules],
        localizers: Sequence[str],
        *,
        class_wnids: Sequence[str],
        baselines: Sequence[str] = (),
        bootstrap_samples: int = 1000,
        seed: int = 0,
    ) -> None:
        _check_names([rules.name for rules in protocols], kind="protocol")
        _check_names(localizers, kind="localizer")
        unknown = sorted(set(baselines) - set(localizers))
        if unknown or bootstrap_samples < 0:
            raise ValueError(
                f"expected baselines among the localizers {list(localizers)} and at least 0 bootstrap samples, found "
                f"{unknown} and {bootstrap_samples}"
            )
        for rules in protocols:
            if not rules.threshold_is_oracle and len(rules.thresholds_l) != 1:
                raise ValueError(f"protocol {rules.name!r} has a fixed threshold but {len(rules.thresholds_l)} levels")
        self._class_wnids = tuple(class_wnids)
        self._baselines = frozenset(baselines)
        self._samples = bootstrap_samples
        self._seed = seed
        self._pending: list[ImageScores] = []
        self._statuses: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._classification = _ClassificationCounts(len(class_wnids), samples=bootstrap_samples)
        classes = len(class_wnids)
        self._localized_k = np.zeros(classes, dtype=np.int64)
        self._images = 0
        self._labelled_images = 0
        # Columns: images, images of known class.
        self._image_sums = WeightedSums(2, samples=bootstrap_samples)
        self._counts: dict[Pair, _ResultCounts] = {
            (localizer, rules.name): _ResultCounts(rules, localizer, classes=classes, samples=bootstrap_samples)
            for localizer in localizers
            for rules in protocols
        }

    def add(self, batch: Sequence[ImageScores]) -> None:
        """Count a batch of images. Each image of the data set must come once.

        Raises
        ------
        ValueError
            A label is not below K, or a scored image lacks a localizer or has another number of levels; it is named.
        """
        for image in batch:
            if image.label >= len(self._class_wnids):
                raise ValueError(
                    f"image {image.image_id!r} (index {image.index}): expected a label below "
                    f"{len(self._class_wnids)}, found {image.label}; give the names of all classes"
                )
        self._pending += batch
        while len(self._pending) >= _IMAGES_AT_ONCE:
            self._count(self._pending[:_IMAGES_AT_ONCE])
            self._pending = self._pending[_IMAGES_AT_ONCE:]

    def metrics(self) -> dict[str, Any]:
        """The parts ``counts``, ``classification``, ``results`` and ``baselines`` of metrics.json.

        Only dicts, lists, strings, numbers, booleans and None. A figure over no image is None; ``results`` and
        ``baselines`` are empty when no image is inside the localization denominators.

        Raises
        ------
        ValueError
            As ``add``, for images that were still waiting to be counted.
        """
        self._count_pending()
        results = {pair: self._result(counts) for pair, counts in self._counts.items() if self._images}
        return {
            "counts": self._count_summary(),
            "classification": self._classification.metrics(),
            "results": [result for (localizer, _), result in results.items() if localizer not in self._baselines],
            "baselines": [result for (localizer, _), result in results.items() if localizer in self._baselines],
        }

    def reported_levels(self) -> dict[Pair, int]:
        """Level that each result is reported at, by localizer and protocol: the oracle's, or 0.

        Raises
        ------
        ValueError
            As ``metrics``.
        """
        self._count_pending()
        return {pair: counts.reported_level() for pair, counts in self._counts.items()}

    def _count_pending(self) -> None:
        waiting, self._pending = self._pending, []
        self._count(waiting)

    def _count(self, images: Sequence[ImageScores]) -> None:
        if not images:
            return
        weights_is = poisson_weights([image.index for image in images], samples=self._samples, seed=self._seed)
        self._classification.add(images, weights_is)
        inside = [row for row, image in enumerate(images) if not is_skipped(image.status)]
        kept = [images[row] for row in inside]
        batch = _Batch(
            images=kept,
            label_i=np.array([image.label for image in kept], dtype=np.int64),
            rank_i=np.array([image.true_rank for image in kept], dtype=np.int64),
            weights_is=weights_is[inside],
        )
        for counts in self._counts.values():
            counts.add(batch)
        known_i = batch.label_i != UNKNOWN_LABEL
        self._images += len(kept)
        self._labelled_images += int(known_i.sum())
        self._image_sums.add(batch.weights_is, np.stack([np.ones_like(known_i), known_i], axis=1))
        self._localized_k += np.bincount(batch.label_i[known_i], minlength=len(self._localized_k))
        self._statuses.update(image.status for image in images)
        self._notes.update(note for image in images for note in image.notes)

    def _count_summary(self) -> dict[str, Any]:
        skipped = {status: self._statuses[status] for status in sorted(self._statuses) if is_skipped(status)}
        asked = sum(self._statuses.values())
        return {
            "asked": asked,
            "scored": asked - sum(skipped.values()),
            "failed": {status: self._statuses[status] for status in sorted(self._statuses) if is_failed(status)},
            "skipped": skipped,
            "notes": dict(sorted(self._notes.items())),
        }

    def _result(self, counts: "_ResultCounts") -> dict[str, Any]:
        rules = counts.rules
        level = counts.reported_level()
        images_s, labelled_s = self._image_sums.sums_sc.T
        sums_sfl = counts.sums_sfl
        # In each sample the threshold is chosen anew, so that the interval holds the luck of that choice.
        level_s = sums_sfl[:, _GT_KNOWN].argmax(axis=1)
        at_level_fs = np.take_along_axis(sums_sfl, level_s[:, None, None], axis=2)[:, :, 0].T

        def rate_at_level(figure: int, images: int, denominator_s: npt.NDArray[np.int32]) -> dict[str, Any]:
            samples_s = _ratios(at_level_fs[figure], denominator_s)
            return _rate(int(counts.correct_fl[figure, level]), images, samples_s)

        has_classes = self._classification.has_scores and self._labelled_images > 0
        result: dict[str, Any] = {
            "localizer": counts.localizer,
            "protocol": rules.name,
            "describe": {
                **rules.describe(),
                "reported threshold": _ORACLE_CHOICE if rules.threshold_is_oracle else _FIXED_CHOICE,
            },
            "threshold": float(rules.thresholds_l[level]),
            "threshold_is_oracle": rules.threshold_is_oracle,
            "gt_known_loc": rate_at_level(_GT_KNOWN, self._images, images_s),
            "top1_loc": rate_at_level(_TOP1, self._labelled_images, labelled_s) if has_classes else None,
            "top5_loc": rate_at_level(_TOP5, self._labelled_images, labelled_s) if has_classes else None,
            "max_box_acc": None,
            "max_box_acc_v2": None,
            "curve": None,
            "iou_histogram": {
                "edges": HISTOGRAM_EDGES.tolist(),
                "counts": counts.histogram_lh[level].tolist(),
            },
            "errors": dict(zip(ERROR_KINDS, counts.verdicts_lv[level].tolist(), strict=True)),
            "per_class": self._per_class(counts, level),
        }
        if rules.threshold_is_oracle:
            result.update(self._sweep_figures(counts, images_s))
        return result

    def _sweep_figures(self, counts: "_ResultCounts", images_s: npt.NDArray[np.int32]) -> dict[str, Any]:
        overlaps = len(IOU_THRESHOLDS)
        best_d = counts.correct_fl[:overlaps].max(axis=1)
        ratios_ds = np.stack([_ratios(counts.sums_sfl[:, d].max(axis=1), images_s) for d in range(overlaps)])
        curves = {
            f"gt_known_{wanted:g}": (counts.correct_fl[d] / self._images).tolist()
            for d, wanted in enumerate(IOU_THRESHOLDS)
        }
        return {
            "max_box_acc": {
                f"{wanted:g}": _rate(int(best_d[d]), self._images, ratios_ds[d])
                for d, wanted in enumerate(IOU_THRESHOLDS)
            },
            "max_box_acc_v2": {
                "name": V2_NAMES.get(counts.rules.name, "V2 over largest boxes"),
                **_rate(None, self._images, ratios_ds.mean(axis=0)),
                "rate": float(best_d.sum()) / (overlaps * self._images),
            },
            "curve": {"thresholds": counts.rules.thresholds_l.tolist(), **curves},
        }

    def _per_class(self, counts: "_ResultCounts", level: int) -> list[dict[str, Any]]:
        has_scores = self._classification.has_scores
        rows = []
        for label in np.flatnonzero(self._localized_k + self._classification.images_k).tolist():
            images = int(self._localized_k[label])
            classified = int(self._classification.images_k[label])
            gt_known, top1 = counts.class_correct_fkl[:, label, level].tolist()
            top1_class = int(self._classification.top1_k[label])
            rows.append(
                {
                    "label": label,
                    "wnid": self._class_wnids[label],
                    "images": images,
                    "gt_known_loc": gt_known / images if images else None,
                    "top1_loc": top1 / images if images and has_scores else None,
                    "top1_class": top1_class / classified if classified and has_scores else None,
                }
            )
        return rows


class _ResultCounts:
    """Counts of one localizer under one protocol, at all levels."""

    def __init__(self, rules: ScoringRules, localizer: str, *, classes: int, samples: int) -> None:
        levels = len(rules.thresholds_l)
        self.rules = rules
        self.localizer = localizer
        self.correct_fl = np.zeros((_FIGURES, levels), dtype=np.int64)
        self.histogram_lh = np.zeros((levels, len(HISTOGRAM_EDGES) - 1), dtype=np.int64)
        self.verdicts_lv = np.zeros((levels, len(ERROR_KINDS)), dtype=np.int64)
        self.class_correct_fkl = np.zeros((2, classes, levels), dtype=np.int32)
        """GT-known and Top-1 Loc by class: 2 MB for 1000 classes and 255 levels."""
        self._sums = WeightedSums(_FIGURES * levels, samples=samples)

    @property
    def sums_sfl(self) -> npt.NDArray[np.int32]:
        """Weighted hits of the bootstrap samples, (S, F, L)."""
        return self._sums.sums_sc.reshape(-1, *self.correct_fl.shape)

    def reported_level(self) -> int:
        """The lowest level of those best for GT-known Loc."""
        return int(self.correct_fl[_GT_KNOWN].argmax())

    def add(self, batch: _Batch) -> None:
        """Count a batch."""
        images = len(batch.images)
        if images == 0:
            return
        rules = self.rules
        iou_il, boxes_il4 = stack_levels(batch.images, localizer=self.localizer, rules=rules)
        # Figures between images and levels, so that one matrix product serves all of them.
        hits_ifl = np.empty((images, *self.correct_fl.shape), dtype=np.bool_)
        for figure, wanted in enumerate(IOU_THRESHOLDS):
            hits_ifl[:, figure] = exceeds(iou_il, wanted, exclusive=rules.gt_known_exclusive)
        right_box_il = exceeds(iou_il, GT_KNOWN_IOU, exclusive=rules.top1_exclusive)
        hits_ifl[:, _TOP1] = right_box_il & (batch.rank_i == 0)[:, None]
        hits_ifl[:, _TOP5] = right_box_il & ((batch.rank_i >= 0) & (batch.rank_i < TOP_CLASSES))[:, None]
        self.correct_fl += hits_ifl.sum(axis=0)
        self._sums.add(batch.weights_is, hits_ifl.reshape(images, -1))
        self._add_by_class(hits_ifl[:, [_GT_KNOWN, _TOP1]], batch.label_i)
        bins_il = np.searchsorted(HISTOGRAM_EDGES[1:-1], iou_il, side="right")
        _add_by_level(self.histogram_lh, bins_il)
        verdicts_il = image_verdicts(batch.images, rules=rules, iou_il=iou_il, boxes_il4=boxes_il4)
        _add_by_level(self.verdicts_lv, verdicts_il)

    def _add_by_class(self, hits_ifl: npt.NDArray[np.bool_], label_i: npt.NDArray[np.int64]) -> None:
        order_i = np.argsort(label_i, kind="stable")
        order_i = order_i[label_i[order_i] != UNKNOWN_LABEL]
        if len(order_i):
            labels_u, starts_u = np.unique(label_i[order_i], return_index=True)
            sums_ufl = np.add.reduceat(hits_ifl[order_i], starts_u, axis=0, dtype=np.int32)
            self.class_correct_fkl[:, labels_u] += sums_ufl.transpose(1, 0, 2)


class _ClassificationCounts:
    """Top-1 and Top-5 classification of the images of known class."""

    def __init__(self, classes: int, *, samples: int) -> None:
        self.has_scores = False
        self.images_k = np.zeros(classes, dtype=np.int64)
        self.top1_k = np.zeros(classes, dtype=np.int64)
        self._top5 = 0
        # Columns: images, Top-1, Top-5.
        self._sums = WeightedSums(3, samples=samples)

    def add(self, images: Sequence[ImageScores], weights_is: npt.NDArray[np.uint8]) -> None:
        """Count a batch, images without boxes included."""
        self.has_scores = self.has_scores or any(image.top_classes is not None for image in images)
        label_i = np.array([image.label for image in images], dtype=np.int64)
        rank_i = np.array([image.true_rank for image in images], dtype=np.int64)
        listed_i = np.array([image.status == BLACKLISTED for image in images], dtype=np.bool_)
        inside_i = (label_i != UNKNOWN_LABEL) & ~listed_i
        top1_i = inside_i & (rank_i == 0)
        top5_i = inside_i & (rank_i >= 0) & (rank_i < TOP_CLASSES)
        self.images_k += np.bincount(label_i[inside_i], minlength=len(self.images_k))
        self.top1_k += np.bincount(label_i[top1_i], minlength=len(self.top1_k))
        self._top5 += int(top5_i.sum())
        self._sums.add(weights_is, np.stack([inside_i, top1_i, top5_i], axis=1))

    def metrics(self) -> dict[str, Any] | None:
        """Rates with intervals, or None when no image had class scores, or none of them a known class."""
        images = int(self.images_k.sum())
        if not self.has_scores or not images:
            return None
        images_s, top1_s, top5_s = self._sums.sums_sc.T
        return {
            "images": images,
            "top1": _rate(int(self.top1_k.sum()), images, _ratios(top1_s, images_s)),
            "top5": _rate(self._top5, images, _ratios(top5_s, images_s)),
        }


def _rate(correct: int | None, images: int, samples_s: npt.NDArray[np.float64]) -> dict[str, Any]:
    interval = percentile_interval(samples_s)
    return {
        "rate": None if correct is None else correct / images,
        "correct": correct,
        "images": images,
        "interval": interval,
        "interval_kind": INTERVAL_KIND if interval is not None else None,
    }


def _ratios(hits_s: npt.NDArray[np.int32], images_s: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Rate of each bootstrap sample, NaN where it holds no image."""
    ratios_s = np.full(len(hits_s), np.nan)
    np.divide(hits_s, images_s, out=ratios_s, where=images_s > 0)
    return ratios_s


def _add_by_level(counts_lc: npt.NDArray[np.int64], column_il: npt.NDArray[np.integer[Any]]) -> None:
    levels, columns = counts_lc.shape
    cells_il = column_il + np.arange(levels) * columns
    counts_lc += np.bincount(cells_il.ravel(), minlength=levels * columns).reshape(levels, columns)


def _check_names(names: Sequence[str], *, kind: str) -> None:
    if not names or len(set(names)) < len(names) or any(not name or " " in name for name in names):
        raise ValueError(f"expected at least one {kind}, each once and without spaces, found {list(names)}")
