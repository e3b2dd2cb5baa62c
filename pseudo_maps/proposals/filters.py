"""Turns images into smoothed images: the tent filter that every boundary detector here uses."""

import cv2
import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Floats, kernel

__all__ = ["tent_filter"]


@kernel
def _mirrored(index: int, length: int) -> int:
    """Index of the pixel that stands for one outside: -1 -> 0, -2 -> 1, length -> length - 1, and so on."""
    index = index % (2 * length)
    return index if index < length else 2 * length - 1 - index


@kernel
def _tent_down(values: Floats, radius: int, smoothed: Floats) -> None:
    """Smooth the columns of ``values[rows, columns]``."""
    rows, columns = values.shape
    share = 1.0 / (radius + 1) ** 2
    # Second differences of the tent are three spikes, so one step down costs five additions whatever the radius.
    # In float64 these sums of float32 colours are exact: equal pixels give equal results wherever they are.
    total = np.zeros(columns, dtype=np.float64)
    slope = np.zeros(columns, dtype=np.float64)
    for offset in range(-radius, radius + 1):
        row, weight = _mirrored(offset, rows), radius + 1 - abs(offset)
        for column in range(columns):
            total[column] += weight * np.float64(values[row, column])
    for offset in range(-radius, radius + 2):
        row, sign = _mirrored(offset, rows), 1.0 if offset > 0 else -1.0
        for column in range(columns):
            slope[column] += sign * np.float64(values[row, column])
    for row in range(rows):
        ahead, middle, behind = (
            _mirrored(row + radius + 2, rows),
            _mirrored(row + 1, rows),
            _mirrored(row - radius, rows),
        )
        for column in range(columns):
            smoothed[row, column] = np.float32(max(total[column] * share, 0.0))
            total[column] += slope[column]
            slope[column] += (
                np.float64(values[ahead, column])
                - 2.0 * np.float64(values[middle, column])
                + np.float64(values[behind, column])
            )


def tent_filter(values: npt.NDArray[np.float32], *, radius: int) -> npt.NDArray[np.float32]:
    """Smooth (H, W) or (H, W, C) float32 with a separable triangle of half-width ``radius`` pixels.

    The one-dimensional kernel is ``(radius + 1 - |k|) / (radius + 1)**2`` for ``|k| <= radius``. Pixels outside
    are mirrored with the edge pixel repeated. Never negative for non-negative input, and every pixel is rounded
    in the same way, so that a uniform image stays exactly uniform.

    References
    ----------
    Dollar and Zitnick, PAMI 2015 (the toolbox's ``convTri``).
    """
    down = np.empty(values.shape, dtype=np.float32)
    _tent_down(np.ascontiguousarray(values).reshape(len(values), -1), radius, down.reshape(len(values), -1))
    # Rows are smoothed as the columns of the transposed image: along a row the sums would wait for one another.
    turned = cv2.transpose(down)
    across = np.empty_like(turned)
    _tent_down(turned.reshape(len(turned), -1), radius, across.reshape(len(turned), -1))
    smoothed: npt.NDArray[np.float32] = cv2.transpose(across).reshape(values.shape)
    return smoothed
