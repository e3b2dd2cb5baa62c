"""Rows of the paper's Tables 1 and 2 and two of ours: the ``wsol-train`` options of each, and the paper's numbers.

The numbers are percentages of the ILSVRC validation images, from Chen and Hsu, "Saliency Aware: Weakly Supervised
Object Localization", ICASSP 2019, Tables 1 (AlexNet) and 2 (GoogLeNet).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from training.config import RECIPES

_MAP, _TRIPLET, _AREA = ("loss.map_",), ("loss.triplet_", "perceptual"), ("loss.area_",)
_CAM = ("loss.cam_map_",)
_CAM_WEIGHT = ("--cam-map-weight", str(RECIPES["default"].config.loss.cam_map_weight))


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """A row of the tables, with the paper's name for it where it has one."""

    title: str
    arguments: tuple[str, ...]
    ignores: tuple[str, ...]
    """Beginnings of the configuration fields that mean nothing in this row."""
    localizers: tuple[str, ...]
    """Maps that boxes are taken from; the first is the one that the paper uses for this row."""
    in_paper: bool = True
    """Whether the paper has it; its losses are then those that are printed, whatever the recipe adds."""

    @property
    def uses_map(self) -> bool:
        """Whether it is trained with a map loss, and so with pseudo maps."""
        return not "loss.map_kind".startswith(self.ignores)

    @property
    def switches(self) -> tuple[str, ...]:
        """Arguments that leave out of the recipe what the paper does not have."""
        return ("--cam-map-weight", "0") if self.in_paper and self.uses_map else ()


_OURS = ("cam", "saliency", "cam*saliency")
_WITHOUT = (*_MAP, *_TRIPLET, *_AREA, *_CAM)

ROWS: Mapping[str, AblationRow] = {
    "gap": AblationRow(title="GAP", arguments=("--method", "gap"), ignores=_WITHOUT, localizers=("cam",)),
    # Section 3.3: the paper's HaS "adopts the Grad-CAM method".
    "has": AblationRow(title="HaS", arguments=("--method", "has"), ignores=_WITHOUT, localizers=("grad-cam", "cam")),
    "no-map": AblationRow(
        title="Ours w/o L_map",
        arguments=("--method", "saliency", "--no-map-loss"),
        ignores=(*_MAP, *_CAM),
        localizers=_OURS,
    ),
    "no-triplet": AblationRow(
        title="Ours w/o L_tri",
        arguments=("--method", "saliency", "--no-triplet-loss"),
        ignores=(*_TRIPLET, *_CAM),
        localizers=_OURS,
    ),
    "ours": AblationRow(title="Ours", arguments=("--method", "saliency"), ignores=_CAM, localizers=_OURS),
    "ours-cam": AblationRow(
        title="Ours + L_cam, not in the paper",
        arguments=("--method", "saliency", *_CAM_WEIGHT),
        ignores=(),
        localizers=_OURS,
        in_paper=False,
    ),
    "cam-map": AblationRow(
        title="L_cam alone, not in the paper",
        arguments=("--method", "saliency", "--no-map-loss", "--no-triplet-loss", *_CAM_WEIGHT),
        ignores=("loss.map_weight", *_TRIPLET, *_AREA),
        localizers=("cam",),
        in_paper=False,
    ),
}
"""All rows by the name of their folder: the paper's in its order, then those with the map loss on the CAM (L_cam)."""

REFERENCE_ROW = "gap"
"""The row that the others are compared with."""


class PaperNumbers(NamedTuple):
    """The paper's numbers for a row, in percent of the ILSVRC validation images."""

    gt_known_loc: float
    top1_loc: float
    top1_class: float


PAPER_NUMBERS: Mapping[str, Mapping[str, PaperNumbers]] = {
    "alexnet-gap": {
        "gap": PaperNumbers(54.90, 36.25, 60.23),
        "has": PaperNumbers(58.68, 37.65, 58.68),
        "no-map": PaperNumbers(59.30, 38.78, 60.25),
        "no-triplet": PaperNumbers(60.23, 39.98, 60.44),
        "ours": PaperNumbers(67.23, 44.16, 62.01),
    },
    "googlenet-gap": {
        "gap": PaperNumbers(58.41, 43.60, 71.95),
        "has": PaperNumbers(59.93, 44.78, 70.37),
        "no-map": PaperNumbers(61.13, 46.01, 71.90),
        "no-triplet": PaperNumbers(62.74, 46.47, 72.03),
        "ours": PaperNumbers(66.23, 51.30, 74.56),
    },
}
"""By architecture and row; architectures that the paper does not have are missing."""
