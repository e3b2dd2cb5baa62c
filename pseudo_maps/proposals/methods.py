"""Registry of the proposal methods: one file and one row each; imports neither numba nor OpenCV."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pseudo_maps.proposals.geodesic_config import WEIGHTINGS, ProposalConfig
from pseudo_maps.proposals.selective_search import SelectiveSearchConfig, average_selective_search

MethodConfig: TypeAlias = ProposalConfig | SelectiveSearchConfig
"""Configuration of any method: a frozen dataclass of plain values, ``working_size`` in pixels among them."""


def _average_geodesic(
    rgb_hwc: npt.NDArray[np.uint8], config: ProposalConfig, *, weighting: str, boundary_model: str | None
) -> tuple[npt.NDArray[np.float32], int]:
    from pseudo_maps.proposals.geodesic_proposals import propose

    proposals = propose(rgb_hwc, config=config, boundary_model=boundary_model)
    return proposals.average(weighting=weighting), len(proposals.masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalMethod:
    """One proposal method."""

    meaning: str
    """What it does, for help texts."""
    config: type[MethodConfig]
    """Class of its configuration; every method has its own."""
    average: Callable[..., tuple[npt.NDArray[np.float32], int]]
    """``average(rgb_hwc, config, *, weighting, boundary_model)``: saliency (H, W) float32 in 0..1, all zero without
    proposals, and the number of proposals of a (H, W, 3) uint8 RGB image that is at working size already."""
    weightings: tuple[str, ...] = ("uniform",)
    """Weightings that its average offers."""


METHODS = {
    "geodesic": ProposalMethod(
        meaning="geodesic object proposals, unsupervised, as in the paper",
        config=ProposalConfig,
        average=_average_geodesic,
        weightings=tuple(WEIGHTINGS),
    ),
    "selective-search": ProposalMethod(
        meaning="OpenCV's Selective Search boxes; much slower",
        config=SelectiveSearchConfig,
        average=average_selective_search,
    ),
}
"""Every proposal method by its name."""
