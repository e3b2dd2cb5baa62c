"""Object proposals of an image, and the averaging of proposals into saliency."""

from typing import TYPE_CHECKING, Any

from pseudo_maps.proposals.geodesic_config import PRESETS, ProposalConfig

if TYPE_CHECKING:
    from pseudo_maps.proposals.geodesic_proposals import Proposals, propose, propose_from_boundaries

__all__ = ["PRESETS", "ProposalConfig", "Proposals", "propose", "propose_from_boundaries"]


def __getattr__(name: str) -> Any:
    """Import the algorithm, and with it numba and OpenCV (0.5 s), when one of its names is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pseudo_maps.proposals import geodesic_proposals

    return getattr(geodesic_proposals, name)
