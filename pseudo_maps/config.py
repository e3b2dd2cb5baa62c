"""Configuration of a saliency map: everything that decides its values; stored in every shard."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pseudo_maps.images import MAX_PIXELS
from pseudo_maps.proposals.geodesic_config import DEFAULT_PRESET, PRESETS, WEIGHTINGS
from pseudo_maps.proposals.methods import METHODS, MethodConfig


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """What decides the result: two runs with equal configurations and images give equal bytes."""

    proposals: MethodConfig = field(default_factory=lambda: PRESETS[DEFAULT_PRESET])
    """Configuration of the proposal method; its class determines the method."""
    weighting: str = field(default="uniform", metadata={"choices": tuple(WEIGHTINGS)})
    """Weighting of the proposals; uniform is the paper's plain mean, and the only choice for selective-search."""
    map_size: int = field(default=224, metadata={"min": 1})
    """Side in pixels of the square map; the whole image is squeezed into it."""
    max_pixels: int = field(default=MAX_PIXELS, metadata={"min": 1})
    """Images with more pixels, according to their header, are not decoded."""
    by_name: bool = True
    """Also list every map under the name of its image in the shard (/by_name), for viewers."""

    def __post_init__(self) -> None:
        weightings = METHODS[self.method].weightings
        if self.weighting not in weightings:
            raise ValueError(
                f"weighting: expected one of {', '.join(weightings)} with method {self.method}, "
                f"found {self.weighting!r}"
            )
        if self.map_size < 1 or self.max_pixels < 1:
            raise ValueError(
                f"expected map_size and max_pixels of at least 1, found {self.map_size}, {self.max_pixels}"
            )

    @property
    def method(self) -> str:
        """Name of the proposal method, a key of ``METHODS``."""
        return next(name for name, method in METHODS.items() if isinstance(self.proposals, method.config))

    def as_json(self) -> dict[str, Any]:
        """The configuration as it is stored: nested dictionaries of strings, numbers and booleans."""
        return {"method": self.method, **asdict(self)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The configuration that ``as_json`` returned, also after a round trip through JSON.

        ValueError for an unknown method or a value out of range; TypeError for an unknown name.
        """
        values = dict(stored)
        method = values.pop("method")
        if method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
        return cls(**{**values, "proposals": METHODS[method].config(**values["proposals"])})
