"""Results of the demo: the introduction of its report, and the last lines on the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.protocols import protocol_title
from evaluation.schema import Rate
from pipelines.reports.comparison import PairedCounts, load_runs, paired_counts
from pipelines.reports.html_pages import write_page

GAP, FULL, MAPS, BOXES = "gap", "full-method", "pseudo-maps", "boxes"
"""Names of the demo's four evaluations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResults:
    """What was measured on the validation images, all of which were scored."""

    images: int
    rates: Mapping[str, Mapping[tuple[str, str], Rate]]
    """GT-known Loc by protocol, and by evaluation and localizer."""
    pairs: Mapping[str, PairedCounts]
    """By protocol the CAM of the full method against that of the baseline, on the same images."""


def read_results(evaluations: Mapping[str, Path]) -> DemoResults:
    """Read the four evaluations, by name; ValueError when one is missing or damaged."""
    runs = dict(zip(evaluations, load_runs(list(evaluations.values())), strict=True))
    rates: dict[str, dict[tuple[str, str], Rate]] = {}
    for name, run in runs.items():
        for result in run.metrics.all_results:
            rates.setdefault(result.protocol, {})[name, result.localizer] = result.gt_known_loc
    pairs = {pair.protocol: pair for pair in paired_counts([runs[GAP], runs[FULL]]) if pair.localizer == "cam"}
    return DemoResults(images=runs[GAP].metrics.counts.scored, rates=rates, pairs=pairs)


def summary_lines(results: DemoResults) -> list[str]:
    """The three numbers that matter under each protocol, as lines for the terminal."""
    return [
        f"{protocol_title(protocol)}: CAM of the full method {_percent(rates[FULL, 'cam'])}, "
        f"CAM of gap {_percent(rates[GAP, 'cam'])}, centred box {_percent(rates[BOXES, 'centred-square'])}"
        for protocol, rates in results.rates.items()
    ]


def write_introduction(
    out: Path, results: DemoResults, *, train_images: int, arch: str, input_size_px: int, epochs: int
) -> None:
    """Write the introduction of the report as plain text: what is shown, what is not, and how it was computed."""
    context = {
        "images": results.images,
        "protocols": {
            protocol: {key: f"{_percent(rate)}{_interval(rate)}" for key, rate in rates.items()}
            for protocol, rates in results.rates.items()
        },
        "differences": {protocol: _difference(pair) for protocol, pair in results.pairs.items()},
        "train_images": train_images,
        "arch": arch,
        "input_size_px": input_size_px,
        "epochs": epochs,
    }
    write_page(out, template="demo_introduction.txt.jinja", context=context)


def _percent(rate: Rate) -> str:
    return "nothing" if rate.rate is None else f"{100 * rate.rate:.0f} %"


def _interval(rate: Rate) -> str:
    return "" if rate.interval is None else f" ({100 * rate.interval[0]:.0f} to {100 * rate.interval[1]:.0f})"


def _difference(pair: PairedCounts) -> str:
    """How far apart both CAMs are on the same images, and whether that may be chance."""
    gained, half = pair.gained
    verdict = "which may be chance" if abs(gained) <= half else "more than chance explains"
    return f"{pair.gained_text} percentage points, {verdict}"
