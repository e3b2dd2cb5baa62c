"""Types of ``metrics.json``: a tally returns them, the file holds them, and reports read them back.

Rates are fractions between 0 and 1, never percentages. msgspec checks types and ranges on reading (it imports in
10 ms, has no dependencies and refuses a string for a number). Unknown entries are ignored, so that a newer version
may add some.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta, Struct

from evaluation.names import ErrorKind, EvaluationKind
from pseudo_maps.files import write_atomically

METRICS_FILE = "metrics.json"
"""Name of the file in a folder of results."""

Fraction = Annotated[float, Meta(ge=0, le=1)]
ImageCount = Annotated[int, Meta(ge=0)]


class MetricsError(ValueError):
    """A ``metrics.json`` that cannot be read: the message names file, entry and what was expected."""


class Rate(Struct, frozen=True, kw_only=True):
    """A share of images with its confidence interval."""

    rate: Fraction | None
    """None when there was no image to count."""
    correct: ImageCount | None
    """Images counted as right; None where the rate is a mean of rates."""
    images: ImageCount
    """Denominator."""
    interval: tuple[Fraction, Fraction] | None
    """Lower and upper end; None when there is none."""
    interval_kind: str | None
    """How the interval was made, for instance ``bootstrap 95 %``; None without interval."""

    def __post_init__(self) -> None:
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"Expected the lower end of the interval first, got {list(self.interval)}")


class NamedRate(Rate, frozen=True, kw_only=True):
    """A rate whose name depends on the protocol."""

    name: str


class Curve(Struct, frozen=True, kw_only=True):
    """GT-known Loc at every threshold level, at three overlaps."""

    thresholds: tuple[Fraction, ...]
    """(L,) fractions of a map's maximum, rising."""
    gt_known_30: tuple[Fraction, ...] = msgspec.field(name="gt_known_0.3")
    gt_known_50: tuple[Fraction, ...] = msgspec.field(name="gt_known_0.5")
    gt_known_70: tuple[Fraction, ...] = msgspec.field(name="gt_known_0.7")
    """(L,) at IoU .7."""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.gt_known_30, self.gt_known_50, self.gt_known_70)}
        if lengths != {len(self.thresholds)}:
            raise ValueError(f"Expected {len(self.thresholds)} values, one per threshold, got {sorted(lengths)}")


class Histogram(Struct, frozen=True, kw_only=True):
    """Images by the overlap of their box."""

    edges: tuple[Fraction, ...]
    """(N + 1,) rising IoU values."""
    counts: tuple[ImageCount, ...]
    """(N,) images in each interval."""

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"Expected {len(self.counts) + 1} edges of {len(self.counts)} counts")


class ClassScore(Struct, frozen=True, kw_only=True):
    """Rates of one class of images."""

    label: int
    wnid: str
    images: ImageCount
    """Images of the class in the localization denominators."""
    gt_known_loc: Fraction | None
    top1_loc: Fraction | None
    top1_class: Fraction | None


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All metrics of one localizer under one protocol; ``evaluation.metrics.registry`` says what each means."""

    localizer: str
    protocol: str
    describe: Mapping[str, str]
    """The protocol's rules, each a short sentence."""
    threshold: Fraction | None
    """Fraction of the map's maximum that the reported boxes were cut at."""
    threshold_is_oracle: bool
    """Whether ``threshold`` is the best one on these very images."""
    calibrated_on: str | None = None
    """Name of the evaluation on whose images ``threshold``, and that of each MaxBoxAcc, was chosen."""
    gt_known_loc: Rate
    top1_loc: Rate | None
    top5_loc: Rate | None
    max_box_acc: Mapping[str, Rate] | None
    """By IoU (``"0.3"``, ``"0.5"``, ``"0.7"``)."""
    max_box_acc_v2: NamedRate | None
    """Mean of ``max_box_acc`` over IoU."""
    curve: Curve | None
    """For protocols with a threshold sweep."""
    iou_histogram: Histogram | None
    errors: Mapping[ErrorKind, ImageCount] | None
    per_class: tuple[ClassScore, ...]


class Counts(Struct, frozen=True, kw_only=True):
    """Which images were asked for and what became of them: ``scored`` and the skipped ones add up to ``asked``."""

    asked: ImageCount
    scored: ImageCount
    """Images in the denominator, failed ones included."""
    failed: Mapping[str, ImageCount]
    """By reason, images in ``scored`` that count as wrong because something failed."""
    skipped: Mapping[str, ImageCount]
    """By reason, images outside the denominator."""
    notes: Mapping[str, ImageCount]
    """Remarks that left the image scored, for instance ``constant map``."""

    def __post_init__(self) -> None:
        skipped, failed = sum(self.skipped.values()), sum(self.failed.values())
        if self.scored + skipped != self.asked or failed > self.scored:
            raise ValueError(
                f"Expected scored + skipped = {self.asked} asked for and at most {self.scored} failed, got "
                f"{self.scored} + {skipped} and {failed}"
            )


class Classification(Struct, frozen=True, kw_only=True):
    """Accuracy of the class alone."""

    images: ImageCount
    top1: Rate
    top5: Rate


class PixelScores(Struct, frozen=True, kw_only=True):
    """PxAP over masks, see ``evaluation.metrics.pixels``."""

    px_ap: Mapping[str, Fraction]
    """By localizer."""
    images: ImageCount
    failed: ImageCount
    """Images without a map: all their pixels score 0."""
    object_pixels: int
    background_pixels: int
    ignored_pixels: int
    frame_px: int
    centred_gaussian_px_ap: Fraction
    """PxAP of the baseline."""


class Metrics(Struct, frozen=True, kw_only=True, tag_field="schema", tag="wsol-metrics-1"):
    """One ``metrics.json``."""

    kind: EvaluationKind
    name: str
    """Name of the evaluation, for headings."""
    counts: Counts
    classification: Classification | None
    """None without class scores."""
    results: tuple[Result, ...]
    """One entry per localizer and protocol."""
    baselines: tuple[Result, ...]
    """Predictors that never look at the image, under the same protocols."""
    pixels: PixelScores | None
    config: Mapping[str, Any]
    """What decided the result."""
    versions: Mapping[str, str]
    """Versions of the libraries."""

    @property
    def all_results(self) -> tuple[Result, ...]:
        """Results, then baselines."""
        return (*self.results, *self.baselines)


def read_metrics(path: Path) -> Metrics:
    """Read and check a ``metrics.json``; MetricsError when it is missing, not JSON, or not of this schema."""
    try:
        # Not msgspec.json: it refuses the lone surrogates of file names that are not UTF-8.
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise MetricsError(f"{path}: not found; give a folder or a metrics.json that wsol-eval wrote") from error
    except ValueError as error:
        raise MetricsError(f"{path}: expected JSON, found: {error}; run wsol-eval again to write it anew") from error
    return parse_metrics(document, source=str(path))


def parse_metrics(document: object, *, source: str = "metrics") -> Metrics:
    """Check the content of a ``metrics.json``; MetricsError names ``source`` and the entry that is wrong."""
    try:
        return msgspec.convert(document, Metrics)
    except msgspec.ValidationError as error:
        message = str(error).replace("`$.", "`")
        raise MetricsError(f"{source}: {message}; evaluate again with this version to write it anew") from error


def write_json(path: Path, content: Struct) -> None:
    """Write a structure as JSON atomically; ValueError for NaN or infinity."""
    text = json.dumps(msgspec.to_builtins(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    # A name may come from a file name that is not UTF-8; backslashreplace writes what JSON reads as the same.
    write_atomically(path, text.encode("utf-8", errors="backslashreplace"))


def protocols_in_order(runs: list[Metrics]) -> list[str]:
    """Names of all protocols of several files, in the order in which they first appear."""
    results = itertools.chain.from_iterable(run.all_results for run in runs)
    return list(dict.fromkeys(result.protocol for result in results))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is not a JSON number")
