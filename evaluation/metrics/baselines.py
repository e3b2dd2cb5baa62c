"""Baselines: the map and the box of predictors that never look at the image.

Legend: H W pixels of the map.
"""

import numpy as np
import numpy.typing as npt

from evaluation.boxes.geometry import FRAME_PX

SQUARE_SIDE = 0.75
"""Side of the centred square as a share of the frame's: 168 of 224 pixels, chosen on ILSVRC val."""


def centred_gaussian_map(size: int = FRAME_PX, *, sigma: float = 0.25) -> npt.NDArray[np.float64]:
    """Centred Gaussian ``(size, size)`` float64 from 0 to 1: the baseline that never looks at the image.

    ``exp(-((x - c)^2 + (y - c)^2) / (2 (size sigma)^2))`` with ``c = (size - 1) / 2``, min-max normalised.

    ``sigma`` is the standard deviation as a fraction of the side, at least 2 pixels. Under ``wsoleval-v1`` the map
    localizes 54.06 % of ILSVRC val at IoU .5 (76.81 at .3, 29.28 at .7), with any sigma between .25 and 1: only the
    shape of its level sets matters.
    """
    offset = np.arange(size, dtype=np.float64) - (size - 1) / 2
    squared_hw = offset[:, None] ** 2 + offset**2
    map_hw = np.exp(-squared_hw / (2 * (size * sigma) ** 2))
    map_hw -= map_hw.min()
    map_hw /= map_hw.max()
    return map_hw


def centred_square_box() -> npt.NDArray[np.float64]:
    """The box ``(4,)`` float64 of the centred square with ``SQUARE_SIDE`` of the frame, inclusive: 28, 28, 195, 195.

    A fixed threshold need not cut a box of good size out of the centred Gaussian: on ILSVRC val it localizes 48.9 %
    of the images under ``cam`` and 41.4 % under ``ts-cam``. This box does not depend on the threshold.

    Notes
    -----
    At IoU .5 it localizes 53.57 % of ILSVRC val under ``cam``, 53.64 % under ``ts-cam`` and ``wsoleval-*``, and
    57.20 % under ``psol-crop``. The side was chosen on these very images, so there the rates are upper estimates. It
    is one for all protocols: alone, 159 pixels are best for ``cam`` (53.92 %) and ``ts-cam`` (54.03 %), 170 for
    ``psol-crop`` (57.28 %).
    """
    margin_px = FRAME_PX * (1 - SQUARE_SIDE) / 2
    return np.array([margin_px, margin_px, FRAME_PX - 1 - margin_px, FRAME_PX - 1 - margin_px])
