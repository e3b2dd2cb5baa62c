"""Makes the score map of the predictor that never looks at the image, beside which every result is printed.

Legend: H W pixels of the map.
"""

import numpy as np
import numpy.typing as npt

from evaluation.boxes import FRAME_PX

__all__ = ["centred_gaussian_map"]


def centred_gaussian_map(size: int = FRAME_PX, *, sigma: float = 0.25) -> npt.NDArray[np.float64]:
    """Centred Gaussian ``(size, size)`` float64 from 0 to 1: the baseline that never looks at the image.

    ``exp(-((x - c)^2 + (y - c)^2) / (2 (size sigma)^2))`` with ``c = (size - 1) / 2``, min-max normalised.

    Parameters
    ----------
    size
        Side in pixels, at least 2.
    sigma
        Standard deviation as a fraction of the side.

    Raises
    ------
    ValueError
        ``size`` is below 2, or ``sigma`` is not positive.

    Notes
    -----
    Under ``wsoleval-v1`` it localizes 54.06 % of ILSVRC val at IoU .5 (76.81 at .3, 29.28 at .7), with any
    sigma between .25 and 1: only the shape of its level sets matters.
    """
    if size < 2 or not sigma > 0:
        raise ValueError(f"expected size >= 2 and sigma > 0, found size={size} and sigma={sigma}")
    offset = np.arange(size, dtype=np.float64) - (size - 1) / 2
    squared_hw = offset[:, None] ** 2 + offset**2
    map_hw = np.exp(-squared_hw / (2 * (size * sigma) ** 2))
    map_hw -= map_hw.min()
    map_hw /= map_hw.max()
    return map_hw
