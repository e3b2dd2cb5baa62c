"""Object proposals of an image, and the averaging of proposals into saliency."""

from pseudo_maps.proposals.geodesic_proposals import (
    PRESETS,
    ProposalConfig,
    Proposals,
    propose,
    propose_from_boundaries,
)

__all__ = ["PRESETS", "ProposalConfig", "Proposals", "propose", "propose_from_boundaries"]
