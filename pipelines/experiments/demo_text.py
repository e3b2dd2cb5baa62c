"""Texts of the demo: the introduction of its report, and the last lines on the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.schema import Rate
from pipelines.reports.comparison import load_runs

GAP, FULL, MAPS, BOXES = "gap", "full-method", "pseudo-maps", "boxes"
"""Names of the demo's four evaluations."""

CENTRED_BOX = "centred-square"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResults:
    """What was measured, by protocol."""

    images: int
    """Validation images, all of which were scored."""
    rates: Mapping[tuple[str, str, str], Rate]
    """GT-known Loc by evaluation, localizer and protocol."""

    @property
    def protocols(self) -> tuple[str, ...]:
        """In the order in which they were asked for."""
        return tuple(dict.fromkeys(protocol for _, _, protocol in self.rates))

    @property
    def shows_the_effect(self) -> bool:
        """Whether the CAM of the full method is above the baseline's under every protocol."""
        return all(
            (self.rates[FULL, "cam", protocol].rate or 0) > (self.rates[GAP, "cam", protocol].rate or 0)
            for protocol in self.protocols
        )


def read_results(evaluations: Mapping[str, Path]) -> DemoResults:
    """Read the four evaluations, by name.

    Raises
    ------
    ValueError
        One is missing or damaged.
    """
    runs = dict(zip(evaluations, load_runs(list(evaluations.values())), strict=True))
    rates = {
        (name, result.localizer, result.protocol): result.gt_known_loc
        for name, run in runs.items()
        for result in run.metrics.all_results
    }
    return DemoResults(images=runs[GAP].metrics.counts.scored, rates=rates)


def summary_lines(results: DemoResults) -> list[str]:
    """The three numbers that matter under each protocol, as lines for the terminal."""
    lines = []
    for protocol in results.protocols:
        gap, full, box = (
            _percent(results.rates[key])
            for key in ((GAP, "cam", protocol), (FULL, "cam", protocol), (BOXES, CENTRED_BOX, protocol))
        )
        lines.append(f"{protocol}: CAM of the full method {full}, CAM of gap {gap}, centred box {box}")
    return lines


def introduction(results: DemoResults, *, train_images: int, arch: str, input_size_px: int, epochs: int) -> str:
    """Introduction of the report: what is shown, what is not, and how it was computed.

    Architecture, input size, epochs and number of training images are the same for both networks.
    """
    verdict = (
        "The full method is above the baseline under every protocol, as in the paper."
        if results.shows_the_effect
        else "In this run the full method is not above the baseline under every protocol."
    )
    return "\n\n".join(
        [
            "# What is shown",
            f"Two networks of the same architecture ({arch}) learned from the same {train_images} images for the same "
            f"{epochs} epochs. They were given the class of each image and never where the object is. “gap” learned to "
            "classify: the baseline. “full-method” is the method of Chen and Hsu (ICASSP 2019): beside the class it "
            "learned to draw saliency maps like those that were made beforehand by averaging object proposals (the "
            "map loss), and a frozen network F compared each image with its foreground and its background (the "
            "triplet loss).",
            *(_comparison(results, protocol) for protocol in results.protocols),
            f"{verdict} The charts under “Training” show how both learned, the tables all numbers and intervals, "
            "the pictures the maps and boxes of some images.",
            "# What is not shown",
            "The images are generated. Each has one object, whose body is drawn alike for all classes; only a small "
            "mark on it tells the class. So a network that classifies needs to look at nothing but the mark, which is "
            "the difficulty that the method is made for. Photographs are harder in many other ways. "
            f"The networks see {input_size_px} x {input_size_px} pixels, the paper's see 224 x 224. The paper's F is a "
            "ResNet-50 that was trained on ImageNet; here F is the small “gap” network of this very demo, so that "
            f"nothing is downloaded. {results.images} images are few: mind the intervals.",
            "# How the numbers were computed",
            "Every map of a validation image became one box, which counts when it overlaps the drawn object's exact "
            "box by half (IoU .5). Under “cam” maps are cut at a fixed fifth of their range. Under “wsoleval-v1” they "
            "are cut at the one threshold that is best on these very images, for each row on its own, so these numbers "
            "are upper estimates. Maps are those of the true class (GT-known Loc). Boxes were used for these numbers "
            "alone. The settings, the same for both networks where both have them, were chosen on this data set to fit "
            "a few minutes on two cores. Everything was made by the commands that the demo printed; the same commands "
            "on the same machine give the same numbers.",
        ]
    )


def _comparison(results: DemoResults, protocol: str) -> str:
    rates = results.rates
    gap, full = rates[GAP, "cam", protocol], rates[FULL, "cam", protocol]
    decoder, product = (_percent(rates[FULL, name, protocol]) for name in ("saliency", "cam*saliency"))
    return (
        f"Under the protocol {protocol} the class activation maps (CAM) of gap localize {_percent(gap)}"
        f"{_interval(gap)} of the {results.images} validation images, those of full-method {_percent(full)}"
        f"{_interval(full)}. What else full-method gives: its decoder's saliency {decoder}, the product of CAM and "
        f"saliency {product}. The averaged proposals that it learned from reach "
        f"{_percent(rates[MAPS, 'pseudo-map', protocol])}, and a centred box that never looks at the image "
        f"{_percent(rates[BOXES, CENTRED_BOX, protocol])}."
    )


def _percent(rate: Rate) -> str:
    return "nothing" if rate.rate is None else f"{100 * rate.rate:.0f} %"


def _interval(rate: Rate) -> str:
    if rate.interval is None:
        return ""
    return f" (95 % interval {100 * rate.interval[0]:.0f} to {100 * rate.interval[1]:.0f})"
