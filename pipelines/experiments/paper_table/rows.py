"""Turns the names of the rows of the paper's Tables 1 and 2 into options of ``wsol-train``, and holds their numbers.

The numbers are percentages of the ILSVRC validation images, from Chen and Hsu, "Saliency Aware: Weakly Supervised
Object Localization", ICASSP 2019, Tables 1 (AlexNet) and 2 (GoogLeNet).
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PAPER_NUMBERS", "REFERENCE_ROW", "ROWS", "AblationRow", "PaperNumbers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """A row of the paper's tables."""

    title: str
    """What the paper calls it, without the architecture."""
    words: tuple[str, ...]
    """Options of ``wsol-train`` that make the row what it is."""
    uses_map: bool
    """Whether it is trained with the map loss, and so with pseudo maps."""
    uses_triplet: bool
    """Whether it is trained with the perceptual triplet loss, and so with the frozen network F."""
    localizers: tuple[str, ...]
    """Maps that boxes are taken from; the first is the one that the paper reads this row with."""

    @property
    def has_saliency(self) -> bool:
        """Whether the network has a decoder that predicts a saliency map."""
        return self.uses_map or self.uses_triplet


_OURS = ("cam", "saliency", "cam*saliency")

ROWS: Mapping[str, AblationRow] = {
    "gap": AblationRow(title="GAP", words=("--method", "gap"), uses_map=False, uses_triplet=False, localizers=("cam",)),
    # Section 3.3: the paper's HaS "adopts the Grad-CAM method".
    "has": AblationRow(
        title="HaS", words=("--method", "has"), uses_map=False, uses_triplet=False, localizers=("grad-cam", "cam")
    ),
    "no-map": AblationRow(
        title="Ours w/o L_map",
        words=("--method", "saliency", "--no-map-loss"),
        uses_map=False,
        uses_triplet=True,
        localizers=_OURS,
    ),
    "no-triplet": AblationRow(
        title="Ours w/o L_tri",
        words=("--method", "saliency", "--no-triplet-loss"),
        uses_map=True,
        uses_triplet=False,
        localizers=_OURS,
    ),
    "ours": AblationRow(
        title="Ours", words=("--method", "saliency"), uses_map=True, uses_triplet=True, localizers=_OURS
    ),
}
"""All rows by the name of their folder, in the paper's order."""

REFERENCE_ROW = "gap"
"""The row that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperNumbers:
    """What the paper reports for a row, in percent of the ILSVRC validation images."""

    gt_known_loc: float
    """GT-known Loc."""
    top1_loc: float
    """Top-1 Loc."""
    top1_class: float
    """Top-1 Class."""


def _numbers(gt_known_loc: float, top1_loc: float, top1_class: float) -> PaperNumbers:
    return PaperNumbers(gt_known_loc=gt_known_loc, top1_loc=top1_loc, top1_class=top1_class)


PAPER_NUMBERS: Mapping[str, Mapping[str, PaperNumbers]] = {
    "alexnet-gap": {
        "gap": _numbers(54.90, 36.25, 60.23),
        "has": _numbers(58.68, 37.65, 58.68),
        "no-map": _numbers(59.30, 38.78, 60.25),
        "no-triplet": _numbers(60.23, 39.98, 60.44),
        "ours": _numbers(67.23, 44.16, 62.01),
    },
    "googlenet-gap": {
        "gap": _numbers(58.41, 43.60, 71.95),
        "has": _numbers(59.93, 44.78, 70.37),
        "no-map": _numbers(61.13, 46.01, 71.90),
        "no-triplet": _numbers(62.74, 46.47, 72.03),
        "ours": _numbers(66.23, 51.30, 74.56),
    },
}
"""By architecture and row; architectures that the paper does not have are missing."""
