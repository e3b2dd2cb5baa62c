"""Names everything that decides what a saliency map looks like: the configuration stored in every shard."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pseudo_maps.images import MAX_PIXELS
from pseudo_maps.proposals.geodesic_proposals import PRESETS, ProposalConfig
from pseudo_maps.proposals.selective_search import SelectiveSearchConfig
from pseudo_maps.proposals.weighting import WEIGHTINGS

__all__ = ["DEFAULT_PRESET", "METHODS", "MapConfig"]

METHODS = {
    "geodesic": "geodesic object proposals, unsupervised, as in the paper",
    "selective-search": "OpenCV's Selective Search boxes; much slower",
}
"""Name and meaning of every proposal method."""
DEFAULT_PRESET = "b1100"


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """What decides the result: two runs with equal configurations and images give equal bytes."""

    proposals: ProposalConfig | SelectiveSearchConfig = field(default_factory=lambda: PRESETS[DEFAULT_PRESET])
    """How objects are proposed."""
    weighting: str = "uniform"
    """How proposals are averaged."""
    map_size: int = 224
    """Side in pixels of the square map; the whole image is squeezed into it."""
    max_pixels: int = MAX_PIXELS
    """An image whose header states more pixels is not decoded."""
    by_name: bool = True
    """Give every map a name of its own below /by_name in the shard."""

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting: expected one of {', '.join(WEIGHTINGS)}, found {self.weighting!r}")
        if self.weighting != "uniform" and not isinstance(self.proposals, ProposalConfig):
            raise ValueError(f"weighting: boxes of Selective Search have only 'uniform', found {self.weighting!r}")
        if self.map_size < 1 or self.max_pixels < 1:
            raise ValueError(
                f"expected map_size and max_pixels of at least 1, found {self.map_size}, {self.max_pixels}"
            )

    @property
    def method(self) -> str:
        """Name of the proposal method, a key of ``METHODS``."""
        return "geodesic" if isinstance(self.proposals, ProposalConfig) else "selective-search"

    def as_json(self) -> dict[str, Any]:
        """The configuration as it is stored: nested dictionaries of strings, numbers and booleans."""
        return {"method": self.method, **asdict(self)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The configuration that ``as_json`` gave, also after a way through JSON.

        Raises
        ------
        ValueError
            An unknown method, or values that no configuration has.
        TypeError
            Names that no configuration has.
        """
        values = dict(stored)
        method = values.pop("method")
        if method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
        kind = ProposalConfig if method == "geodesic" else SelectiveSearchConfig
        return cls(**{**values, "proposals": kind(**values["proposals"])})
