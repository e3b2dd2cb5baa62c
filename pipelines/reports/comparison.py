"""Evaluated runs as the report reads them: where they cannot be compared, and how they differ image by image."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import NormalDist

from evaluation.drawing.panels import PANELS_FILE, Panels, read_panels
from evaluation.image_scores import is_skipped
from evaluation.metrics.registry import GT_KNOWN_IOU
from evaluation.protocols import PROTOCOLS, protocol_title
from evaluation.results.folder import find_metrics
from evaluation.results.per_class import PER_CLASS_FILE, read_class_names
from evaluation.results.predictions import PREDICTIONS_FILE, PredictionsError, read_predictions
from evaluation.results.tables import image_account
from evaluation.schema import METRICS_FILE, Metrics, MetricsError, Result, read_metrics

VIEWS_RULE = "views"
"""The rule among those of a result that belongs to its network, not to the protocol."""

_NAMED_BASELINES = 2
"""Baselines that a warning names at most: they differ together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVerdicts:
    """The content of ``predictions.csv`` that is compared."""

    status: Mapping[str, tuple[str, str]]
    """Label and status by image id."""
    right: Mapping[tuple[str, str], frozenset[str]]
    """Ids of the localized images, those that GT-known Loc counts, by localizer and protocol."""
    first_protocol: str
    errors: Mapping[tuple[str, str], Counter[str]]
    """Images by verdict, by localizer and protocol."""
    details: Mapping[str, Mapping[str, tuple[float, str]]]
    """Overlap (0 without a box) and verdict of every scored image under the first protocol, by localizer and id."""

    @property
    def scored(self) -> set[str]:
        """Ids of the images that were not skipped."""
        return {image_id for image_id, (_, status) in self.status.items() if not is_skipped(status)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """An evaluated run as the report needs it."""

    label: str
    """Its name, unique among the runs of the report."""
    metrics: Metrics
    verdicts: ImageVerdicts | None
    """None where the folder has no ``predictions.csv``."""
    class_names: Mapping[int, str]
    """Names by label; empty where the folder has no ``per_class.csv``."""
    panels: Panels | None
    """Example pictures, where the folder has some."""

    @property
    def results(self) -> list[tuple[Result, bool]]:
        """Every result, and whether it is a baseline; those of ``wsol-eval baseline`` all are."""
        is_baseline = self.metrics.kind == "baseline"
        results = [(result, is_baseline) for result in self.metrics.results]
        return results + [(result, True) for result in self.metrics.baselines]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCounts:
    """Two runs on the images that both scored, under one localizer and protocol."""

    first: str
    """Label of the first run."""
    other: str
    localizer: str
    protocol: str
    both: int
    """Images localized in both (GT-known Loc)."""
    only_first: int
    only_other: int
    neither: int

    @property
    def images(self) -> int:
        """Images that both runs scored."""
        return self.both + self.only_first + self.only_other + self.neither

    @property
    def gained(self) -> tuple[float, float]:
        """Share of images that the other run is ahead by, and half its 95 % interval, both fractions.

        The interval is the normal one for the difference of two shares of the same images (McNemar's setting);
        there must be images.
        """
        change = self.only_other - self.only_first
        spread = self.only_other + self.only_first - change**2 / self.images
        return change / self.images, NormalDist().inv_cdf(0.975) * math.sqrt(spread) / self.images

    @property
    def gained_text(self) -> str:
        """``gained`` in percentage points; a dash without images."""
        if not self.images:
            return "-"
        gained, half = self.gained
        return f"{100 * gained:+.2f} ± {100 * half:.2f}"


def threshold_choice(result: Result) -> str:
    """What stands beside the threshold of a result; empty where the protocol fixes it."""
    if result.calibrated_on:
        return f"calibrated on {result.calibrated_on}"
    return "oracle" if result.threshold_is_oracle else ""


def load_runs(paths: Sequence[Path]) -> list[LoadedRun]:
    """Read metrics, verdicts and example pictures of runs; a second ``gap`` is labelled ``gap (2)``.

    A path is the folder that wsol-eval wrote, the ``metrics.json`` inside, or the folder of a training run that holds
    its results. MetricsError, PredictionsError or ValueError for a file that is missing, damaged or of another run.
    """
    if not paths:
        raise ValueError("expected at least one run folder or metrics.json, found none")
    runs: dict[str, LoadedRun] = {}
    for path in paths:
        metrics_path = find_metrics(path)
        metrics = read_metrics(metrics_path)
        base = label = metrics.name or metrics_path.parent.resolve().name
        number = 1
        while label in runs:
            number += 1
            label = f"{base} ({number})"
        runs[label] = _loaded(metrics_path.parent, metrics=metrics, label=label)
    return list(runs.values())


def _loaded(folder: Path, *, metrics: Metrics, label: str) -> LoadedRun:
    predictions = folder / PREDICTIONS_FILE
    verdicts = None
    if predictions.is_file():
        verdicts = _read_verdicts(predictions)
        if len(verdicts.status) != metrics.counts.asked:
            raise MetricsError(
                f"{predictions}: expected {metrics.counts.asked} images as in {METRICS_FILE}, "
                f"found {len(verdicts.status)}; the two files are of different runs: evaluate again"
            )
        for result in metrics.results:
            expected, found = result.errors, verdicts.errors.get((result.localizer, result.protocol))
            if expected is not None and found is not None and found != Counter(expected):
                raise MetricsError(
                    f"{predictions}: {result.localizer} under {result.protocol}: expected {dict(expected)} as in "
                    f"{METRICS_FILE}, found {dict(found)}; the two files are of different runs: evaluate again"
                )
    panels = read_panels((folder / PANELS_FILE).with_suffix(".json"))
    names = read_class_names(folder / PER_CLASS_FILE)
    return LoadedRun(label=label, metrics=metrics, verdicts=verdicts, class_names=names, panels=panels)


def same_images(runs: Sequence[LoadedRun]) -> bool:
    """Whether all runs were scored on the same images, labels and ground truth, as far as their files tell."""
    return not any(_image_differences(runs[0], other) for other in runs[1:])


def comparison_warnings(runs: Sequence[LoadedRun]) -> list[str]:
    """One sentence for each reason why results of these runs do not belong side by side.

    Every run is compared with the first: other images, other denominators, other ground truth (a baseline, which
    never looks at an image, has another rate), other rules under the same protocol name, no protocol in common.
    Differences that several runs share are named once. A missing ``predictions.csv`` is a reason too: without it the
    images cannot be compared.
    """
    first = runs[0]
    differing: dict[str, list[str]] = {}
    for other in runs[1:]:
        for difference in (*_image_differences(first, other), *_rule_differences(first, other)):
            differing.setdefault(difference, []).append(f"“{other.label}”")
    warnings = [f"“{first.label}” and {', '.join(labels)}: {difference}" for difference, labels in differing.items()]
    unchecked = [run.label for run in runs if run.verdicts is None]
    if len(runs) > 1 and unchecked:
        listed = ", ".join(f"“{label}”" for label in unchecked)
        warnings.append(
            f"{listed}: no {PREDICTIONS_FILE}, so only the numbers of images could be compared, not the images."
        )
    return warnings


def paired_counts(runs: Sequence[LoadedRun]) -> list[PairedCounts]:
    """Every run against the first, image by image, for each localizer and protocol that both have.

    Left out are images that either run skipped, baselines, and runs without ``predictions.csv``.
    """
    rows = []
    first = runs[0]
    ours = {(result.localizer, result.protocol) for result, is_baseline in first.results if not is_baseline}
    for other in runs[1:]:
        if first.verdicts is None or other.verdicts is None:
            continue
        shared = first.verdicts.scored & other.verdicts.scored
        for pair, right_first in first.verdicts.right.items():
            if pair not in ours or pair not in other.verdicts.right:
                continue
            a, b = right_first & shared, other.verdicts.right[pair] & shared
            rows.append(
                PairedCounts(
                    first=first.label,
                    other=other.label,
                    localizer=pair[0],
                    protocol=pair[1],
                    both=len(a & b),
                    only_first=len(a - b),
                    only_other=len(b - a),
                    neither=len(shared - a - b),
                )
            )
    return rows


def _image_differences(first: LoadedRun, other: LoadedRun) -> list[str]:
    differences = []
    one, two = first.metrics.counts, other.metrics.counts
    if (one.asked, one.scored, dict(one.skipped)) != (two.asked, two.scored, dict(two.skipped)):
        differences.append(f"different images were counted: {image_account(one)}, against {image_account(two)}.")
    if first.verdicts is not None and other.verdicts is not None:
        a, b = first.verdicts.status, other.verdicts.status
        if a.keys() != b.keys():
            differences.append(
                f"different image sets: {len(a.keys() - b.keys())} images are in the first alone, "
                f"{len(b.keys() - a.keys())} in the second alone."
            )
        shared = a.keys() & b.keys()
        relabelled = sum(a[image_id][0] != b[image_id][0] for image_id in shared)
        if relabelled:
            differences.append(f"{relabelled} images have another class label.")
        moved = len((first.verdicts.scored ^ other.verdicts.scored) & shared)
        if moved:
            differences.append(f"{moved} images are scored in one run and skipped in the other.")
    if differences:
        # On other images the baselines differ as well: no news.
        return differences
    ours, theirs = (
        # Other thresholds give other rates on the same images.
        {
            (one.localizer, one.protocol, one.calibrated_on): one.gt_known_loc.rate
            for one, is_baseline in run.results
            if is_baseline
        }
        for run in (first, other)
    )
    changed = [
        f"{localizer} (protocol {protocol_title(protocol)})"
        for (localizer, protocol, chosen_on), rate in ours.items()
        if theirs.get((localizer, protocol, chosen_on), rate) != rate
    ]
    if changed:
        named = ", ".join(changed[:_NAMED_BASELINES]) + (", ..." if len(changed) > _NAMED_BASELINES else "")
        return [
            f"the baseline {named}, which never looks at an image, has another GT-known Loc: ground truth or images "
            "differ."
        ]
    digests = [run.metrics.config.get("data") for run in (first, other)]
    ours_data, theirs_data = (data.get("sha256") if isinstance(data, Mapping) else None for data in digests)
    if ours_data and theirs_data and ours_data != theirs_data:
        return ["the same images, but other boxes, sizes that the boxes refer to, or blacklisted images."]
    return []


def _rule_differences(first: LoadedRun, other: LoadedRun) -> list[str]:
    ours, theirs = ({result.protocol: result.describe for result, _ in run.results} for run in (first, other))
    shared = [protocol for protocol in ours if protocol in theirs]
    if ours and theirs and not shared:
        return ["no protocol in common."]
    return [
        f"the protocol {protocol_title(protocol)} has other rules: {key} is “{ours[protocol].get(key, 'not given')}”, "
        f"against “{theirs[protocol].get(key, 'not given')}”."
        for protocol in shared
        for key in dict.fromkeys([*ours[protocol], *theirs[protocol]])
        if key != VIEWS_RULE and ours[protocol].get(key) != theirs[protocol].get(key)
    ]


def _read_verdicts(path: Path) -> ImageVerdicts:
    """The verdicts of all images, each with the localizers and protocols of the first, once."""
    status: dict[str, tuple[str, str]] = {}
    right: dict[tuple[str, str], set[str]] = {}
    details: dict[str, dict[str, tuple[float, str]]] = {}
    errors: dict[tuple[str, str], Counter[str]] = {}
    first_protocol = ""
    for image_id, group in groupby(read_predictions(path), key=itemgetter("image_id")):
        of_image = list(group)
        rows = {(row["localizer"], row["protocol"]): row for row in of_image}
        right = right or {pair: set() for pair in rows}
        first_protocol = first_protocol or of_image[0]["protocol"]
        if image_id in status or len(rows) < len(of_image) or rows.keys() != right.keys():
            raise PredictionsError(
                f"{path}: image {image_id!r}: expected one row for each of {len(right)} localizers and protocols, as "
                f"the first image has, found {len(of_image)}{' more' if image_id in status else ''}; evaluate again"
            )
        status[image_id] = (of_image[0]["label"], of_image[0]["status"])
        for pair, row in rows.items():
            iou = float(row["iou"] or 0)
            is_exclusive = pair[1] in PROTOCOLS and PROTOCOLS[pair[1]].gt_known_exclusive
            if row["verdict"] and (iou > GT_KNOWN_IOU or (iou == GT_KNOWN_IOU and not is_exclusive)):
                right[pair].add(image_id)
            errors.setdefault(pair, Counter())[row["verdict"]] += bool(row["verdict"])
            if row["verdict"] and row["protocol"] == first_protocol:
                details.setdefault(row["localizer"], {})[image_id] = (iou, row["verdict"])
    return ImageVerdicts(
        status=status,
        right={pair: frozenset(ids) for pair, ids in right.items()},
        first_protocol=first_protocol,
        errors=errors,
        details=details,
    )
