"""Turns ranked proposals into the weights with which they are averaged.

References
----------
Chen and Hsu, ICASSP 2019, section 2.3: the plain mean is the paper's pseudo saliency map.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["WEIGHTINGS", "proposal_weights"]

WEIGHTINGS = {"uniform": "every proposal counts the same: the paper's plain mean"}
"""Name and meaning of every weighting."""


def proposal_weights(
    masks: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], *, weighting: str
) -> npt.NDArray[np.float64] | None:
    """Weights (P,) float64 >= 0 of ``masks[P, S]`` with ``scores[P]``; ``None`` stands for equal weights."""
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: expected one of {', '.join(WEIGHTINGS)}, found {weighting!r}")
    return None
