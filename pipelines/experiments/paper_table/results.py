"""Turns the finished runs of a plan into the figures of the tables: mean and spread over seeds, beside the paper's.

All measured figures come from the ``metrics.json`` of the runs. Figures are percentages, thresholds fractions.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.metrics.registry import METRICS
from evaluation.names import BASELINES
from evaluation.results.schema import Metrics, Result, read_metrics
from pipelines.experiments.paper_table.plan import BASELINE_NAME, PSEUDO_MAP_NAME, TablePlan, TableRun
from pipelines.experiments.paper_table.rows import PAPER_NUMBERS, REFERENCE_ROW, ROWS
from pipelines.reports.trainings import other_training_images
from pseudo_maps.files import differences

__all__ = [
    "CLASS_METRICS",
    "PAPER_PROTOCOL",
    "THRESHOLD_METRIC",
    "Figure",
    "SeedValues",
    "TableResults",
    "collect_results",
]

PAPER_PROTOCOL = "cam"
"""The protocol of the paper, which follows CAM (section 3.2)."""
CLASS_METRICS = ("top1_class", "top5_class")
"""Metrics that need neither localizer nor protocol."""
_PAPER_METRICS = ("gt_known_loc", "top1_loc", "top1_class")
THRESHOLD_METRIC = "threshold"
"""Metric that is a fraction of a map's range; a difference of two says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedValues:
    """One figure of a row in every seed that is finished."""

    by_seed: Mapping[int | None, float]
    """By seed, rising; the key is None where nothing is trained."""

    @property
    def mean(self) -> float:
        """Mean over the seeds, of which there is at least one."""
        return statistics.fmean(self.by_seed.values())

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n - 1); None for one seed."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A line of table.csv: one metric of one row under one localizer and protocol."""

    arch: str
    """Architecture; empty where nothing is trained."""
    row: str
    """Key of ``ROWS``, name of a baseline, or ``pseudo-map``."""
    localizer: str
    """Where boxes come from; empty for metrics of the class alone."""
    protocol: str
    """Protocol; empty for metrics of the class alone."""
    metric: str
    """``gt_known_loc``, ``top1_loc``, ``top1_class`` and others."""
    values: SeedValues | None
    """What was measured; None while no seed is finished."""
    difference: SeedValues | None = None
    """Less GAP of the same seed, by ``cam``, in percentage points; None for GAP itself and without common seeds."""
    paper: float | None = None
    """What the paper reports on ILSVRC."""
    paper_difference: float | None = None
    """The paper's figure less its GAP's."""
    is_oracle: bool = False
    """Whether the threshold was chosen on the images that are scored."""


@dataclass(frozen=True, kw_only=True)
class TableResults:
    """Everything that the tables show."""

    plan: TablePlan
    """What was asked for."""
    figures: tuple[Figure, ...]
    """All figures."""
    unfinished: Mapping[str, str]
    """By name of a run why it is not in the figures."""
    finished: Mapping[str, Metrics]
    """By name of a run its checked figures."""
    configurations: Mapping[str, Mapping[str, Any]]
    """By name of a trained run that is finished the configuration that ``wsol-train`` stored."""
    records: Mapping[str, Mapping[str, Any]]
    """By name of a trained run that is finished the options that decided it."""
    learned_images: tuple[int, ...]
    """Numbers of images that trained runs learned from, rising; those that say none are left out."""
    warnings: tuple[str, ...]
    """Why runs do not belong side by side."""

    def figure(self, *, arch: str, row: str, localizer: str, protocol: str, metric: str) -> Figure | None:
        """The figure of that name; None when there is none."""
        if metric in CLASS_METRICS:
            localizer = protocol = ""
        wanted = (arch, row, localizer, protocol, metric)
        for figure in self.figures:
            if (figure.arch, figure.row, figure.localizer, figure.protocol, figure.metric) == wanted:
                return figure
        return None

    @property
    def untrained(self) -> list[tuple[str, str]]:
        """Row and localizer of what takes no training: baselines, then the pseudo maps."""
        found = {(figure.row, figure.localizer): None for figure in self.figures if not figure.arch}
        return list(found)


def collect_results(plan: TablePlan, runs: Sequence[TableRun], *, refused: Mapping[str, str]) -> TableResults:
    """Read what is finished.

    Parameters
    ----------
    plan
        What was asked for.
    runs
        Its runs.
    refused
        By name of a run why its folder must not be read.

    Returns
    -------
    TableResults
        A run whose files cannot be read is among the unfinished ones, with the reason.
    """
    finished: dict[str, Metrics] = {}
    configurations: dict[str, Mapping[str, Any]] = {}
    records: dict[str, Mapping[str, Any]] = {}
    trainings: dict[str, Mapping[str, Any]] = {}
    unfinished: dict[str, str] = {}
    for run in runs:
        try:
            reason = _why_unfinished(plan, run, refused=refused)
            if reason is None:
                metrics = read_metrics(run.metrics_file)
                training = run.finished_training() if run.row else {}
                record = run.record() or {}
        except ValueError as error:
            reason = f"failed: {error}"
        if reason is not None:
            unfinished[run.name] = reason
            continue
        finished[run.name] = metrics
        if run.row:
            trainings[run.name], records[run.name] = training, record.get("training", {})
            configurations[run.name] = training["configuration"]
    by_name = {run.name: run for run in runs}
    return TableResults(
        plan=plan,
        figures=tuple(_figures(plan, {name: (by_name[name], metrics) for name, metrics in finished.items()})),
        unfinished=unfinished,
        finished=finished,
        configurations=configurations,
        records=records,
        learned_images=tuple(sorted({one["images"] for one in trainings.values() if "images" in one})),
        warnings=(
            *_warnings([(by_name[name], metrics) for name, metrics in finished.items()], configurations),
            *other_training_images(trainings),
        ),
    )


def _why_unfinished(plan: TablePlan, run: TableRun, *, refused: Mapping[str, str]) -> str | None:
    if run.name in refused:
        return f"failed: {refused[run.name]}"
    if run.is_finished:
        return None
    if run.failure is not None:
        return f"failed: {run.failure}"
    if run.name == PSEUDO_MAP_NAME and not plan.has_val_maps:
        return f"no maps of split {plan.val.split} in {plan.maps.name}; make them with wsol-prep proposals"
    if run.is_trained and run.row:
        return "trained, not evaluated yet"
    return "begun, not finished" if run.record() is not None else "missing"


def _figures(plan: TablePlan, finished: Mapping[str, tuple[TableRun, Metrics]]) -> Iterable[Figure]:
    measured: dict[tuple[str, str, str, str, str], dict[int | None, float]] = {}
    oracles: set[tuple[str, str]] = set()
    for run, metrics in finished.values():
        rows = [*metrics.results] if run.name != BASELINE_NAME else [*metrics.results, *metrics.baselines]
        for result in rows:
            row = run.row or (PSEUDO_MAP_NAME if run.name == PSEUDO_MAP_NAME else result.localizer)
            localizer = PSEUDO_MAP_NAME if run.name == PSEUDO_MAP_NAME else result.localizer
            if result.threshold_is_oracle:
                oracles.add((localizer, result.protocol))
            for metric, value in _values(result).items():
                measured.setdefault((run.arch, row, localizer, result.protocol, metric), {})[run.seed] = value
        for metric, value in _class_values(metrics).items():
            measured.setdefault((run.arch, run.row, "", "", metric), {})[run.seed] = value
    keys = dict.fromkeys([*_expected(plan), *measured])
    for key in sorted(keys, key=lambda key: _order(plan, key)):
        arch, row, localizer, protocol, metric = key
        by_seed = measured.get(key, {})
        reference = _reference(measured, key)
        paired = {seed: by_seed[seed] - reference[seed] for seed in by_seed if seed in reference}
        paper, paper_gap = _paper(key), _paper((arch, REFERENCE_ROW, "", protocol, metric), any_localizer=True)
        is_other = row != REFERENCE_ROW
        yield Figure(
            arch=arch,
            row=row,
            localizer=localizer,
            protocol=protocol,
            metric=metric,
            values=SeedValues(by_seed=dict(sorted(by_seed.items(), key=_by_seed))) if by_seed else None,
            difference=SeedValues(by_seed=dict(sorted(paired.items(), key=_by_seed))) if paired else None,
            paper=paper,
            # Rounded: both have two decimals in the paper, and so has what is between them.
            paper_difference=None
            if paper is None or paper_gap is None or not is_other
            else round(paper - paper_gap, 2),
            is_oracle=(localizer, protocol) in oracles,
        )


def _by_seed(item: tuple[int | None, float]) -> int:
    return -1 if item[0] is None else item[0]


def _expected(plan: TablePlan) -> list[tuple[str, str, str, str, str]]:
    """Figures that have a line even while no seed is finished."""
    keys = []
    for arch in plan.archs:
        for row in plan.rows:
            for localizer in ROWS[row].localizers:
                for protocol in plan.protocols:
                    keys += [(arch, row, localizer, protocol, metric) for metric in ("gt_known_loc", "top1_loc")]
            keys.append((arch, row, "", "", "top1_class"))
    return keys


def _order(plan: TablePlan, key: tuple[str, str, str, str, str]) -> tuple[int, ...]:
    """Architectures, rows, localizers and protocols in the plan's order, what takes no training last."""
    arch, row, localizer, protocol, metric = key
    rows, kind = (*ROWS, *BASELINES, PSEUDO_MAP_NAME), ROWS.get(row)
    return (
        plan.archs.index(arch) if arch else len(plan.archs),
        rows.index(row),
        -1 if not localizer else kind.localizers.index(localizer) if kind and localizer in kind.localizers else 0,
        plan.protocols.index(protocol) if protocol in plan.protocols else -1,
        (*_PAPER_METRICS, metric).index(metric),
    )


def _values(result: Result) -> dict[str, float]:
    rates = {name: metric.read(result, None) for name, metric in METRICS.items()}
    found = {name: 100 * rate.rate for name, rate in rates.items() if rate is not None and rate.rate is not None}
    return found if result.threshold is None else {**found, THRESHOLD_METRIC: result.threshold}


def _class_values(metrics: Metrics) -> dict[str, float]:
    if metrics.classification is None:
        return {}
    rates = zip(CLASS_METRICS, (metrics.classification.top1, metrics.classification.top5), strict=True)
    return {name: 100 * rate.rate for name, rate in rates if rate.rate is not None}


def _reference(
    measured: Mapping[tuple[str, str, str, str, str], Mapping[int | None, float]], key: tuple[str, str, str, str, str]
) -> Mapping[int | None, float]:
    """What the reference row has where ``key`` has its own; nothing for the reference row itself."""
    arch, row, localizer, protocol, metric = key
    if not arch or row == REFERENCE_ROW or metric == THRESHOLD_METRIC:
        return {}
    return measured.get(
        (arch, REFERENCE_ROW, ROWS[REFERENCE_ROW].localizers[0] if localizer else "", protocol, metric), {}
    )


def _paper(key: tuple[str, str, str, str, str], *, any_localizer: bool = False) -> float | None:
    """The paper's figure, where it has one: with its localizer, under its protocol."""
    arch, row, localizer, protocol, metric = key
    numbers = PAPER_NUMBERS.get(arch, {}).get(row)
    if numbers is None or metric not in _PAPER_METRICS:
        return None
    is_class = metric in CLASS_METRICS
    if not is_class and (protocol != PAPER_PROTOCOL or not (any_localizer or localizer == ROWS[row].localizers[0])):
        return None
    number: float = getattr(numbers, metric)
    return number


def _warnings(
    finished: Sequence[tuple[TableRun, Metrics]], configurations: Mapping[str, Mapping[str, Any]]
) -> Iterable[str]:
    """Sentences that name runs made with other settings or scored on other images than the first."""
    first_of_all: Mapping[str, Any] | None = None
    first_of_row: dict[str, Mapping[str, Any]] = {}
    data: Any = None
    for run, metrics in finished:
        scored = {"data": metrics.config.get("data"), "boxes": metrics.config.get("boxes"), "n": metrics.counts.scored}
        data = data or scored
        if scored != data:
            yield f"{run.name} was scored on other images or with other ground truth than the first run."
        if not run.row:
            continue
        configuration = configurations[run.name]
        shared = {name: value for name, value in configuration.items() if name not in _DIFFERS_BY_ROW}
        first_of_all = first_of_all or shared
        different = differences(first_of_all, shared)
        of_row = {name: configuration.get(name) for name in ("loss", "maps", "perceptual")}
        different += differences(first_of_row.setdefault(run.row, of_row), of_row)
        if different:
            yield f"{run.name} was trained with other settings than the first run: {'; '.join(different)}."


_DIFFERS_BY_ROW = frozenset({"arch", "method", "seed", "loss", "maps", "perceptual"})
"""Keys of a training's configuration that rows, architectures and seeds are made of."""
