"""Turns a ``metrics.json`` of the evaluator into typed, checked values, or into an error that names the bad entry.

Rates are fractions between 0 and 1, never percentages. An entry that the schema does not know is ignored, so that
a newer writer may add some; one that is missing or of another type is refused.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from evaluation.metrics.errors import ERROR_KINDS

__all__ = [
    "CURVE_IOUS",
    "METRICS_FILE",
    "METRICS_SCHEMA",
    "ClassScore",
    "Classification",
    "Counts",
    "Curve",
    "Histogram",
    "Metrics",
    "MetricsError",
    "Rate",
    "Result",
    "parse_metrics",
    "read_metrics",
]

METRICS_FILE = "metrics.json"
"""Name of the file in a folder of results."""

METRICS_SCHEMA = "wsol-metrics-1"
"""Value of ``schema`` in the files read here."""

CURVE_IOUS = ("0.3", "0.5", "0.7")
"""Overlaps that curves are given for."""

_KINDS = ("run", "maps", "baseline")
_MISSING = object()


class MetricsError(ValueError):
    """A ``metrics.json`` that cannot be read: the message names file, entry, what was expected and what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of images with its interval."""

    rate: float | None
    """Fraction, ``0 <= rate <= 1``; ``None`` when there was no image to count."""
    correct: int | None
    """Images counted as right; ``None`` where the rate is a mean of rates."""
    images: int
    """Denominator."""
    interval: tuple[float, float] | None
    """Lower and upper end, fractions, ``lower <= upper``; ``None`` when there is none."""
    interval_kind: str
    """How the interval was made, for instance ``bootstrap 95 %``; empty without interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Accuracy at every threshold level, at three overlaps."""

    thresholds: tuple[float, ...]
    """(L,) fractions of a map's maximum, rising."""
    gt_known: Mapping[str, tuple[float, ...]]
    """By IoU (``"0.3"``, ``"0.5"``, ``"0.7"``) the (L,) shares of images localized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Images by the overlap of their box."""

    edges: tuple[float, ...]
    """(N + 1,) rising IoU values."""
    counts: tuple[int, ...]
    """(N,) images in each interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """What one class of images is worth under one result."""

    label: int
    """Class index."""
    wnid: str
    """Class name."""
    images: int
    """Images of the class in the denominator."""
    gt_known_loc: float | None
    """Share localized by the map of the true class."""
    top1_loc: float | None
    """Share localized and classified."""
    top1_class: float | None
    """Share classified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All figures of one localizer under one protocol."""

    localizer: str
    """Where the maps come from."""
    protocol: str
    """Name of the protocol."""
    describe: Mapping[str, str]
    """The protocol's rules, each a short sentence."""
    threshold: float | None
    """Fraction of the map's maximum that the reported boxes were cut at."""
    threshold_is_oracle: bool
    """Whether ``threshold`` is the best one on these very images."""
    gt_known_loc: Rate
    """IoU .5 with the map of the true class."""
    top1_loc: Rate | None
    """Likewise, and the best class is the true one."""
    top5_loc: Rate | None
    """Likewise, and the true class is among the best five."""
    max_box_acc: Mapping[str, Rate] | None
    """By IoU the rate at the threshold best for it."""
    max_box_acc_v2: Rate | None
    """Mean of ``max_box_acc`` over IoU."""
    max_box_acc_v2_name: str
    """What the mean is called under this protocol; empty without it."""
    curve: Curve | None
    """Accuracy against threshold, for protocols with a sweep."""
    iou_histogram: Histogram | None
    """Images by overlap."""
    errors: Mapping[str, int] | None
    """Images by word of the error taxonomy."""
    per_class: tuple[ClassScore, ...]
    """One entry a class; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Which images were asked for and what became of them: ``scored`` and the skipped ones add up to ``asked``."""

    asked: int
    """Images of the data set that were asked for."""
    scored: int
    """Images in the denominator, failed ones included."""
    failed: Mapping[str, int]
    """By reason, images in ``scored`` that count as wrong because something failed."""
    skipped: Mapping[str, int]
    """By reason, images outside the denominator."""
    notes: Mapping[str, int]
    """Oddities that left the image scored, for instance ``constant map``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Accuracy of the class alone."""

    images: int
    """Denominator."""
    top1: Rate
    """The best class is the true one."""
    top5: Rate
    """The true class is among the best five."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """One checked ``metrics.json``."""

    kind: str
    """``run``, ``maps`` or ``baseline``."""
    name: str
    """Name of the run, for headings."""
    counts: Counts
    """Images."""
    classification: Classification | None
    """Top-1 and Top-5 Class, where there are class scores."""
    results: tuple[Result, ...]
    """One entry a localizer and protocol."""
    baselines: tuple[Result, ...]
    """Predictors that never look at the image, under the same protocols."""
    pixels: Mapping[str, Any] | None
    """Figures from masks, as the writer named them."""
    config: Mapping[str, Any]
    """What decided the result."""
    versions: Mapping[str, Any]
    """Versions of the libraries."""


def read_metrics(path: Path) -> Metrics:
    """Read and check a ``metrics.json``.

    Raises
    ------
    MetricsError
        The file is missing, is not JSON, or does not follow the schema.
    """
    try:
        # json accepts NaN, which no rate may be and no other reader of JSON takes.
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError as error:
        raise MetricsError(f"{path}: not found; give a folder or a metrics.json that wsol-eval wrote") from error
    except (UnicodeDecodeError, json.JSONDecodeError, MetricsError) as error:
        raise MetricsError(f"{path}: expected JSON, found: {error}; run wsol-eval again to write it anew") from error
    return parse_metrics(document, source=str(path))


def parse_metrics(document: object, *, source: str = "metrics") -> Metrics:
    """Check the content of a ``metrics.json``.

    Parameters
    ----------
    document
        What ``json.loads`` gives.
    source
        Name of the file, for messages.

    Raises
    ------
    MetricsError
        An entry is missing, or of another type or range than the schema says; images are unaccounted for.
    """
    top = _Entry(document, source)
    schema = top.mapping().get("schema")
    if schema != METRICS_SCHEMA:
        raise MetricsError(
            f"{source}: schema: expected {METRICS_SCHEMA!r}, found {schema!r}; "
            "it was written by another program or version: evaluate again with this one"
        )
    return Metrics(
        kind=top["kind"].one_of(_KINDS),
        name=top["name"].text(),
        counts=_counts(top["counts"]),
        classification=None if top["classification"].is_null else _classification(top["classification"]),
        results=tuple(_result(entry) for entry in top["results"].items()),
        baselines=tuple(_result(entry) for entry in top["baselines"].items()),
        pixels=None if top["pixels"].is_null else top["pixels"].mapping(),
        config=top["config"].mapping(),
        versions=top["versions"].mapping(),
    )


def _counts(entry: "_Entry") -> Counts:
    counts = Counts(
        asked=entry["asked"].count(),
        scored=entry["scored"].count(),
        failed=entry["failed"].counts(),
        skipped=entry["skipped"].counts(),
        notes=entry["notes"].counts(),
    )
    if counts.scored + sum(counts.skipped.values()) != counts.asked:
        entry.refuse(f"scored + skipped = asked = {counts.asked}", f"{counts.scored} + {sum(counts.skipped.values())}")
    if sum(counts.failed.values()) > counts.scored:
        entry.refuse(f"at most {counts.scored} failed images", sum(counts.failed.values()))
    return counts


def _classification(entry: "_Entry") -> Classification:
    return Classification(images=entry["images"].count(), top1=_rate(entry["top1"]), top5=_rate(entry["top5"]))


def _result(entry: "_Entry") -> Result:
    by_iou = entry["max_box_acc"]
    return Result(
        localizer=entry["localizer"].text(),
        protocol=entry["protocol"].text(),
        describe={key: value.text() for key, value in entry["describe"].fields()},
        threshold=None if entry["threshold"].is_null else entry["threshold"].number(),
        threshold_is_oracle=entry["threshold_is_oracle"].flag(),
        gt_known_loc=_rate(entry["gt_known_loc"]),
        top1_loc=_optional_rate(entry["top1_loc"]),
        top5_loc=_optional_rate(entry["top5_loc"]),
        max_box_acc=None if by_iou.is_null else {iou: _rate(rate) for iou, rate in by_iou.fields()},
        max_box_acc_v2=_optional_rate(entry["max_box_acc_v2"]),
        max_box_acc_v2_name="" if entry["max_box_acc_v2"].is_null else entry["max_box_acc_v2"]["name"].text(),
        curve=None if entry["curve"].is_null else _curve(entry["curve"]),
        iou_histogram=None if entry["iou_histogram"].is_null else _histogram(entry["iou_histogram"]),
        errors=None if entry["errors"].is_null else entry["errors"].counts(only=ERROR_KINDS),
        per_class=tuple(_class_score(row) for row in entry["per_class"].items()),
    )


def _optional_rate(entry: "_Entry") -> Rate | None:
    return None if entry.is_null else _rate(entry)


def _rate(entry: "_Entry") -> Rate:
    interval, correct = entry["interval"], entry["correct"]
    ends = None if interval.is_null else interval.fractions()
    if ends is not None and (len(ends) != 2 or ends[0] > ends[1]):
        interval.refuse("two numbers, the lower one first", list(ends))
    return Rate(
        rate=None if entry["rate"].is_null else entry["rate"].fraction(),
        correct=None if correct.is_null else correct.count(),
        images=entry["images"].count(),
        interval=None if ends is None else (ends[0], ends[1]),
        interval_kind="" if ends is None else entry["interval_kind"].text(),
    )


def _curve(entry: "_Entry") -> Curve | None:
    """The curve; ``None`` when it has no values because there was no image."""
    thresholds = tuple(item.number() for item in entry["thresholds"].items())
    gt_known = {}
    for iou in CURVE_IOUS:
        values = entry[f"gt_known_{iou}"]
        if values.is_null:
            return None
        gt_known[iou] = values.fractions()
        if len(gt_known[iou]) != len(thresholds):
            values.refuse(f"{len(thresholds)} numbers, one a threshold", len(gt_known[iou]))
    return Curve(thresholds=thresholds, gt_known=gt_known)


def _histogram(entry: "_Entry") -> Histogram:
    edges = tuple(item.number() for item in entry["edges"].items())
    counts = tuple(item.count() for item in entry["counts"].items())
    if len(edges) != len(counts) + 1:
        entry.refuse(f"{len(counts) + 1} edges of {len(counts)} counts", len(edges))
    return Histogram(edges=edges, counts=counts)


def _class_score(entry: "_Entry") -> ClassScore:
    return ClassScore(
        label=int(entry["label"].number()),
        wnid=entry["wnid"].text(),
        images=entry["images"].count(),
        gt_known_loc=_class_rate(entry["gt_known_loc"]),
        top1_loc=_class_rate(entry["top1_loc"]),
        top1_class=_class_rate(entry["top1_class"]),
    )


def _class_rate(entry: "_Entry") -> float | None:
    return None if entry.is_null else entry.fraction()


def _no_constant(word: str) -> NoReturn:
    raise MetricsError(f"the word {word}, which is no JSON number")


class _Entry:
    """A value somewhere in the document, which knows its own place for messages."""

    def __init__(self, value: object, place: str) -> None:
        self._value, self._place = value, place

    def refuse(self, expected: str, found: object) -> NoReturn:
        raise MetricsError(f"{self._place}: expected {expected}, found {found!r:.80}")

    @property
    def is_null(self) -> bool:
        return self._value is None

    def mapping(self) -> dict[str, Any]:
        if not isinstance(self._value, dict):
            self.refuse("an object", self._shown)
        return self._value

    def __getitem__(self, key: str) -> "_Entry":
        value = self.mapping().get(key, _MISSING)
        if value is _MISSING:
            raise MetricsError(f"{self._inside(key)}: expected an entry, found none")
        return _Entry(value, self._inside(key))

    def fields(self) -> list[tuple[str, "_Entry"]]:
        return [(str(key), self[key]) for key in self.mapping()]

    def items(self) -> list["_Entry"]:
        if not isinstance(self._value, list | tuple):
            self.refuse("a list", self._shown)
        return [_Entry(value, f"{self._place}[{index}]") for index, value in enumerate(self._value)]

    def text(self) -> str:
        if not isinstance(self._value, str):
            self.refuse("a string", self._shown)
        return self._value

    def one_of(self, words: tuple[str, ...]) -> str:
        if self._value not in words:
            self.refuse(f"one of {', '.join(words)}", self._shown)
        return self.text()

    def flag(self) -> bool:
        if not isinstance(self._value, bool):
            self.refuse("true or false", self._shown)
        return self._value

    def number(self) -> float:
        if isinstance(self._value, bool) or not isinstance(self._value, int | float) or not math.isfinite(self._value):
            self.refuse("a finite number", self._shown)
        return self._value

    def fraction(self) -> float:
        value = self.number()
        if not 0 <= value <= 1:
            self.refuse("a fraction between 0 and 1", value)
        return value

    def fractions(self) -> tuple[float, ...]:
        return tuple(item.fraction() for item in self.items())

    def count(self) -> int:
        if isinstance(self._value, bool) or not isinstance(self._value, int) or self._value < 0:
            self.refuse("a number of images, 0 or more", self._shown)
        return self._value

    def counts(self, *, only: tuple[str, ...] = ()) -> dict[str, int]:
        for key in self.mapping():
            if only and key not in only:
                self.refuse(f"only {', '.join(only)}", key)
        return {key: value.count() for key, value in self.fields()}

    @property
    def _shown(self) -> object:
        return type(self._value).__name__ if isinstance(self._value, dict | list) else self._value

    def _inside(self, key: str) -> str:
        # The file's name and a colon come first, then the path inside the document.
        return f"{self._place}.{key}" if ": " in self._place else f"{self._place}: {key}"
