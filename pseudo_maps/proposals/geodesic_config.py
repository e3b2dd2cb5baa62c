"""Configuration, presets and weightings of the geodesic method; imports neither numba nor OpenCV."""

from dataclasses import dataclass, field

from pseudo_maps.proposals.detectors import DETECTORS

WEIGHTINGS = {
    "uniform": "every proposal counts the same: the paper's plain mean",
    "objectness": "object-like proposals count more; colour contrast, distance to the frame and centre bias are added",
}
"""Name and meaning of every weighting."""


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """Everything that decides which geodesic proposals an image gets."""

    boundaries: str = field(default="directed-sobel", metadata={"choices": tuple(DETECTORS)})
    """Boundary detector."""
    boundary_model: str = ""
    """SHA-256 of the detector's model file, empty for detectors without one."""
    superpixels: int = 1000
    """Approximate number of superpixels."""
    rounds: int = 1
    """Rounds of the superpixels' k-means."""
    seeds: int = 150
    """Number of seeds; fewer where an image has fewer superpixels."""
    levels: int = 7
    """Largest number of level sets of each distance field."""
    max_iou: float = 0.85
    """Largest overlap of two proposals (intersection over union in superpixels)."""
    seed_proposals: bool = True
    """Whether every seed superpixel alone is a proposal too (small objects)."""
    working_size: int = field(default=500, metadata={"min": 1})
    """Longest side in pixels at which objects are proposed; smaller images are not enlarged."""

    def __post_init__(self) -> None:
        if self.boundaries not in DETECTORS:
            raise ValueError(f"boundaries: expected one of {', '.join(DETECTORS)}, found {self.boundaries!r}")
        for name in ("superpixels", "rounds", "seeds", "levels", "working_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not 0 < self.max_iou < 1:
            raise ValueError(f"max_iou: expected 0 < max_iou < 1, found {self.max_iou}")


PRESETS: dict[str, ProposalConfig] = {
    "b650": ProposalConfig(seeds=130, levels=5, max_iou=0.80),
    "b1100": ProposalConfig(seeds=150, levels=7, max_iou=0.85),
    "b2200": ProposalConfig(seeds=200, levels=10, max_iou=0.90),
    "b4400": ProposalConfig(seeds=300, levels=15, max_iou=0.90),
}
"""The unsupervised presets of the authors' release 1.3, named by their approximate number of proposals with structured
forests; directed Sobel boundaries give about 1.4 times as many."""

DEFAULT_PRESET = "b1100"
