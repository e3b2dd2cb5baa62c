"""Turns images into smoothed images: the tent filter that every boundary detector here uses."""

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["tent_filter"]


def tent_filter(values: npt.NDArray[np.float32], *, radius: int) -> npt.NDArray[np.float32]:
    """Smooth (H, W) or (H, W, C) float32 with a separable triangle of half-width ``radius`` pixels.

    The one-dimensional kernel is ``(radius + 1 - |k|) / (radius + 1)**2`` for ``|k| <= radius``. Pixels outside
    are mirrored with the edge pixel repeated. Never negative for non-negative input.

    References
    ----------
    Dollar and Zitnick, PAMI 2015 (the toolbox's ``convTri``).
    """
    offsets = np.arange(-radius, radius + 1)
    taps = ((radius + 1 - np.abs(offsets)) / (radius + 1) ** 2).astype(np.float32)
    smoothed: npt.NDArray[np.float32] = cv2.sepFilter2D(values, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REFLECT)
    return smoothed.reshape(values.shape)
