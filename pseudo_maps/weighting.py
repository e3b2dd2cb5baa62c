"""Turns proposals over superpixels into the saliency of every superpixel.

References
----------
Chen and Hsu, ICASSP 2019, section 2.3: the plain mean is the paper's pseudo saliency map.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["WEIGHTINGS", "superpixel_saliency"]

WEIGHTINGS = {"uniform": "every proposal counts the same: the paper's plain mean"}
"""Name and meaning of every weighting."""


def superpixel_saliency(masks: npt.NDArray[np.bool_], *, weighting: str) -> npt.NDArray[np.float32]:
    """Weighted share of ``masks[P, S]`` that contain each superpixel: (S,) float32 in 0..1, zero without masks.

    Raises
    ------
    ValueError
        An unknown weighting.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: expected one of {', '.join(WEIGHTINGS)}, found {weighting!r}")
    counts = np.count_nonzero(masks, axis=0)
    shares: npt.NDArray[np.float32] = (counts / max(len(masks), 1)).astype(np.float32)
    return shares
