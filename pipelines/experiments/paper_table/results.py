"""Results of the table: mean and spread over seeds of every metric of the finished runs, beside the paper's numbers.

All measured values come from the ``metrics.json`` of the runs. They are percentages; thresholds are fractions.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from evaluation.metrics.registry import METRICS
from evaluation.names import BASELINES
from evaluation.schema import Metrics, Result, read_metrics
from pipelines.experiments.paper_table.plan import BASELINE_NAME, PSEUDO_MAP_NAME, TablePlan, TableRun
from pipelines.experiments.paper_table.rows import PAPER_NUMBERS, REFERENCE_ROW, ROWS
from pipelines.reports.trainings import other_training_images
from pseudo_maps.files import differences
from training.config import completed

PAPER_PROTOCOL = "cam"
"""The protocol of the paper, which follows CAM (section 3.2)."""
PAPER_METRICS = ("gt_known_loc", "top1_loc", "top1_class")
"""Metrics of the paper's tables."""
CLASS_METRICS = ("top1_class", "top5_class")
"""Metrics that need neither localizer nor protocol."""
THRESHOLD_METRIC = "threshold"
"""Metric that is a fraction of a map's range; a difference of two means nothing."""
_NAMES = ("in the first", "in this")
_DIFFERS_BY_ROW = frozenset({"arch", "method", "seed", "loss", "maps", "perceptual"})
"""Keys of a training's configuration that rows, architectures and seeds are made of."""


class Key(NamedTuple):
    """Which value a line of table.csv is about."""

    arch: str
    """Empty where nothing is trained."""
    row: str
    """Key of ``ROWS``, name of a baseline, or ``pseudo-map``."""
    localizer: str
    protocol: str
    """Empty, like the localizer, for metrics of the class alone."""
    metric: str


_Measured = Mapping[Key, Mapping[int | None, float]]


@dataclass(frozen=True, slots=True)
class SeedValues:
    """A value in every seed that is finished, by seed, rising; the seed is None where nothing is trained."""

    by_seed: Mapping[int | None, float]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None without any."""
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two seeds."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What is known about one ``Key``."""

    measured: SeedValues = SeedValues({})
    difference: SeedValues = SeedValues({})
    """Less GAP of the same seed, by ``cam``, in percentage points; empty for GAP itself."""
    paper: float | None = None
    paper_difference: float | None = None
    """The paper's number less its GAP's."""
    is_oracle: bool = False
    """Whether the threshold was chosen on the images that are scored."""


@dataclass(frozen=True, kw_only=True)
class TableResults:
    """Everything that the tables show."""

    plan: TablePlan
    values: Mapping[Key, Value]
    """In the order of table.csv."""
    unfinished: Mapping[str, str]
    """By name of a run why it is not in the tables."""
    finished: Mapping[str, Metrics]
    """By name of a run what was measured."""
    configurations: Mapping[str, Mapping[str, Any]]
    """By name of a trained run that is finished the configuration that ``wsol-train`` stored."""
    records: Mapping[str, Mapping[str, Any]]
    """By name of a trained run that is finished the options that its results depend on."""
    learned_images: tuple[int, ...]
    """Numbers of images that trained runs learned from, rising, where they are known."""
    warnings: tuple[str, ...]

    def value(self, arch: str, row: str, localizer: str, protocol: str, metric: str) -> Value:
        """The value of that key; of metrics of the class for any localizer and protocol."""
        if metric in CLASS_METRICS:
            localizer = protocol = ""
        return self.values.get(Key(arch, row, localizer, protocol, metric), Value())

    @property
    def untrained(self) -> list[tuple[str, str]]:
        """Row and localizer of what takes no training: baselines, then the pseudo maps."""
        return list(dict.fromkeys((key.row, key.localizer) for key in self.values if not key.arch))


def collect_results(plan: TablePlan, runs: Sequence[TableRun]) -> TableResults:
    """Read what is finished; a run whose files cannot be read is among the unfinished ones, with the reason."""
    finished: dict[str, tuple[TableRun, Metrics]] = {}
    trainings: dict[str, Mapping[str, Any]] = {}
    unfinished: dict[str, str] = {}
    for run in runs:
        try:
            reason = _why_unfinished(plan, run)
            if reason is None:
                metrics = read_metrics(run.metrics_file)
                if run.row:
                    trainings[run.name] = run.finished_training()
                finished[run.name] = run, metrics
        except ValueError as error:
            reason = f"failed: {error}"
        if reason is not None:
            unfinished[run.name] = reason
    configurations = {name: completed(training["configuration"]) for name, training in trainings.items()}
    return TableResults(
        plan=plan,
        values=dict(_values(plan, finished.values())),
        unfinished=unfinished,
        finished={name: metrics for name, (_, metrics) in finished.items()},
        configurations=configurations,
        records={name: finished[name][0].recorded("training") for name in trainings},
        learned_images=tuple(sorted({one["images"] for one in trainings.values() if "images" in one})),
        warnings=(*_warnings(finished.values(), configurations), *other_training_images(trainings)),
    )


def _why_unfinished(plan: TablePlan, run: TableRun) -> str | None:
    if run.has_results:
        return None
    if run.failure is not None:
        return f"failed: {run.failure}"
    if run.name == PSEUDO_MAP_NAME and not plan.has_val_maps:
        return f"no maps of split {plan.val.split} in {plan.maps.name}; make them with wsol-prep proposals"
    if run.is_trained and run.row:
        return "trained, not evaluated yet"
    return "begun, not finished" if run.recorded(run.steps[0].stage) else "missing"


def _values(plan: TablePlan, finished: Iterable[tuple[TableRun, Metrics]]) -> Iterator[tuple[Key, Value]]:
    """Every value that is planned or measured, in order."""
    measured: dict[Key, dict[int | None, float]] = {key: {} for key in _expected(plan)}
    oracles: set[tuple[str, str]] = set()
    for run, metrics in finished:
        results = metrics.results if run.name != BASELINE_NAME else (*metrics.results, *metrics.baselines)
        for result in results:
            localizer = PSEUDO_MAP_NAME if run.name == PSEUDO_MAP_NAME else result.localizer
            if result.threshold_is_oracle:
                oracles.add((localizer, result.protocol))
            for metric, number in _numbers(result).items():
                key = Key(run.arch, run.row or localizer, localizer, result.protocol, metric)
                measured.setdefault(key, {})[run.seed] = number
        if metrics.classification is not None:
            rates = zip(CLASS_METRICS, (metrics.classification.top1, metrics.classification.top5), strict=True)
            for metric, rate in rates:
                if rate.rate is not None:
                    measured.setdefault(Key(run.arch, run.row, "", "", metric), {})[run.seed] = 100 * rate.rate
    for key in sorted(measured, key=lambda key: _order(plan, key)):
        paper, paper_gap = _paper(key), _paper(key._replace(row=REFERENCE_ROW, localizer=_REFERENCE_LOCALIZER))
        yield (
            key,
            Value(
                measured=_by_seed(measured[key]),
                difference=_by_seed(_paired(measured, key)),
                paper=paper,
                # Rounded: both have two decimals in the paper, and so has their difference.
                paper_difference=None
                if paper is None or paper_gap is None or key.row == REFERENCE_ROW
                else round(paper - paper_gap, 2),
                is_oracle=(key.localizer, key.protocol) in oracles,
            ),
        )


_REFERENCE_LOCALIZER = ROWS[REFERENCE_ROW].localizers[0]


def _by_seed(values: Mapping[int | None, float]) -> SeedValues:
    return SeedValues(dict(sorted(values.items(), key=lambda item: -1 if item[0] is None else item[0])))


def _expected(plan: TablePlan) -> Iterator[Key]:
    """What has a line even while no seed is finished."""
    for arch in plan.archs:
        for row in plan.rows:
            for localizer in ROWS[row].localizers:
                for protocol in plan.protocols:
                    yield from (Key(arch, row, localizer, protocol, metric) for metric in ("gt_known_loc", "top1_loc"))
            yield Key(arch, row, "", "", "top1_class")


def _order(plan: TablePlan, key: Key) -> tuple[int, ...]:
    """Architectures, rows, localizers and protocols in the plan's order, what takes no training last."""
    localizers = ROWS[key.row].localizers if key.row in ROWS else ()
    return (
        plan.archs.index(key.arch) if key.arch else len(plan.archs),
        (*ROWS, *BASELINES, PSEUDO_MAP_NAME).index(key.row),
        -1 if not key.localizer else localizers.index(key.localizer) if key.localizer in localizers else 0,
        plan.protocols.index(key.protocol) if key.protocol in plan.protocols else -1,
        (*PAPER_METRICS, key.metric).index(key.metric),
    )


def _numbers(result: Result) -> dict[str, float]:
    rates = {name: metric.read(result, None) for name, metric in METRICS.items()}
    found = {name: 100 * rate.rate for name, rate in rates.items() if rate is not None and rate.rate is not None}
    return found if result.threshold is None else {**found, THRESHOLD_METRIC: result.threshold}


def _paired(measured: _Measured, key: Key) -> dict[int | None, float]:
    """By seed the value less that of the reference row; nothing for the reference row itself."""
    if not key.arch or key.row == REFERENCE_ROW or key.metric == THRESHOLD_METRIC:
        return {}
    reference = key._replace(row=REFERENCE_ROW, localizer=_REFERENCE_LOCALIZER if key.localizer else "")
    of_reference = measured.get(reference, {})
    return {seed: value - of_reference[seed] for seed, value in measured[key].items() if seed in of_reference}


def _paper(key: Key) -> float | None:
    """The paper's number, where it has one: with its localizer, under its protocol."""
    numbers = PAPER_NUMBERS.get(key.arch, {}).get(key.row)
    if numbers is None or key.metric not in PAPER_METRICS:
        return None
    own = (ROWS[key.row].localizers[0], PAPER_PROTOCOL)
    if key.metric not in CLASS_METRICS and (key.localizer, key.protocol) != own:
        return None
    number: float = getattr(numbers, key.metric)
    return number


def _warnings(
    finished: Iterable[tuple[TableRun, Metrics]], configurations: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
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
        of_row = {name: configuration.get(name) for name in ("loss", "maps", "perceptual")}
        different = differences(first_of_all, shared, names=_NAMES)
        different += differences(first_of_row.setdefault(run.row, of_row), of_row, names=_NAMES)
        if different:
            yield f"{run.name} was trained with other settings than the first run: {'; '.join(different)}."
