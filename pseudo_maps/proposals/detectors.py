"""Registry of the boundary detectors: one file and one row each; a detector is imported at its first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pseudo_maps.proposals.boundaries import BoundaryStrength

    Detect: TypeAlias = Callable[[npt.NDArray[np.uint8], str | None], BoundaryStrength]


def _directed_sobel(rgb_hwc: npt.NDArray[np.uint8], model: str | None) -> BoundaryStrength:
    from pseudo_maps.proposals.directed_sobel import directed_sobel

    return directed_sobel(rgb_hwc)


def _spectral_contrast(rgb_hwc: npt.NDArray[np.uint8], model: str | None) -> BoundaryStrength:
    from pseudo_maps.proposals.spectral_contrast import spectral_contrast

    return spectral_contrast(rgb_hwc)


def _structured_forest(rgb_hwc: npt.NDArray[np.uint8], model: str | None) -> BoundaryStrength:
    from pseudo_maps.proposals.structured_forest import structured_forest

    assert model is not None
    return structured_forest(rgb_hwc, model=model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """One boundary detector."""

    meaning: str
    """What it looks at, for help texts."""
    detect: Detect
    """Boundary strengths of a (H, W, 3) uint8 RGB image, with the path of a model file or None."""
    needs_model: bool = False
    """Whether it needs a trained model file."""


DETECTORS = {
    "directed-sobel": Detector(
        meaning="colour differences at three scales with local contrast normalisation", detect=_directed_sobel
    ),
    "spectral-contrast": Detector(
        meaning="directed Sobel, colour and texture histograms and a random walk over the superpixels",
        detect=_spectral_contrast,
    ),
    "structured-forest": Detector(
        meaning="OpenCV's structured forest with your model file (.yml or .yml.gz)",
        detect=_structured_forest,
        needs_model=True,
    ),
}
"""Every boundary detector by its name."""


def detect_boundaries(rgb_hwc: npt.NDArray[np.uint8], *, detector: str, model: str | None = None) -> BoundaryStrength:
    """Boundary strengths of a (H, W, 3) uint8 RGB image by the named detector.

    ValueError for an unknown detector, or a model file that is missing, unreadable or not needed.
    """
    if detector not in DETECTORS:
        raise ValueError(f"boundaries: expected one of {', '.join(DETECTORS)}, found {detector!r}")
    row = DETECTORS[detector]
    if (model is not None) != row.needs_model:
        wanted = "needs a model file (--boundary-model)" if row.needs_model else "takes no model file"
        raise ValueError(f"boundary detector {detector} {wanted}")
    return row.detect(rgb_hwc, model)
