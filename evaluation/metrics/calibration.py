"""Thresholds chosen on the images of another evaluation, in place of the best ones on the images that are scored.

The rule of Choe et al., "Evaluating weakly supervised object localization methods right" (CVPR 2020), for what a method
lets one choose: on one split, reported on another.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evaluation.image_scores import Pair
from evaluation.protocols import PROTOCOLS, Protocol
from evaluation.schema import Metrics

_BEST = "the level that is best for GT-known Loc at IoU .5"
_AT_LEVEL = (
    "the lowest of equals; Top-1 and Top-5 Loc, histogram, errors and classes are counted at it; MaxBoxAcc at each IoU"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Threshold levels of sweep protocols that were chosen on other images."""

    name: str
    """What was scored to choose them: evaluation, split and number of images."""
    levels: Mapping[Pair, Mapping[str, int]]
    """By localizer and protocol, and by overlap (``"0.3"``, ``"0.5"``, ``"0.7"``): the level that is best there."""

    def config(self) -> dict[str, object]:
        """What decides the results, as JSON values."""
        return {
            "chosen_on": self.name,
            "levels": {" ".join(pair): dict(by_iou) for pair, by_iou in self.levels.items()},
        }


def calibrate(
    chosen_on: Metrics, *, localizers: Iterable[str], protocols: Iterable[str], source: object
) -> Calibration:
    """The lowest of the best levels of an evaluation, for every localizer under every sweep protocol.

    ValueError, which begins with ``source``, without a sweep protocol among ``protocols``, and for a localizer that the
    evaluation has no curve of under one of them.
    """
    sweeps = [name for name in protocols if PROTOCOLS[name].threshold_is_oracle]
    if not sweeps:
        raise ValueError(
            f"{source}: no protocol asked for has a threshold to choose; add --protocol wsoleval-v1 or wsoleval-v2"
        )
    curves = {(result.localizer, result.protocol): result.curve for result in chosen_on.all_results}
    levels = {}
    for pair in ((localizer, protocol) for localizer in localizers for protocol in sweeps):
        curve = curves.get(pair)
        if curve is None or curve.thresholds != tuple(PROTOCOLS[pair[1]].thresholds_l.tolist()):
            found = ", ".join(f"{localizer} under {protocol}" for (localizer, protocol), has in curves.items() if has)
            raise ValueError(
                f"{source}: expected a curve of {pair[0]} under {pair[1]}, found {found or 'none'}; evaluate the same "
                "localizers under the same protocols there"
            )
        rates = {"0.3": curve.gt_known_30, "0.5": curve.gt_known_50, "0.7": curve.gt_known_70}
        levels[pair] = {iou: rates_l.index(max(rates_l)) for iou, rates_l in rates.items()}
    data = chosen_on.config.get("data")
    split = data.get("split", "") if isinstance(data, Mapping) else ""
    return Calibration(name=f"{chosen_on.name} ({split}, {chosen_on.counts.scored} images)", levels=levels)


def choice_of_level(protocol: Protocol, calibration: Calibration | None) -> str:
    """How the threshold of a result was chosen, in words; ``calibration`` is None where it has none."""
    if calibration is not None:
        return f"{_BEST} on {calibration.name}, {_AT_LEVEL} at the level that is best for it there"
    if protocol.threshold_is_oracle:
        return f"{_BEST} on these very images, {_AT_LEVEL} has its own best level; bootstrap samples choose anew"
    return "fixed by the protocol"
