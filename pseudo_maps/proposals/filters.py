"""Image filters: RGB to Luv conversion and tent smoothing.

Source: Dollar and Zitnick, "Fast edge detection using structured forests", PAMI 2015 (``rgbConvert`` and ``convTri``
of their toolbox).
"""

import cv2
import numpy as np

from pseudo_maps.kernels import Bytes, Floats, kernel

# The toolbox scales L, u and v by 1/270 so that all lie in about 0..1, takes RGB in 0..1 as linear (no gamma), and
# reads the cube root from a table with 1024 steps.
_SCALE = 1.0 / 270.0
_TABLE_STEPS = 1024
_LINEAR_BELOW = (6.0 / 29.0) ** 3
_LINEAR_SLOPE = (29.0 / 3.0) ** 3
_WHITE_U = np.float32(0.197833)
_WHITE_V = np.float32(0.468331)
_OFFSET_U = np.float32(88.0 * _SCALE)
_OFFSET_V = np.float32(134.0 * _SCALE)
_XR, _XG, _XB = np.float32(0.430574), np.float32(0.341550), np.float32(0.178325)
_YR, _YG, _YB = np.float32(0.222015), np.float32(0.706655), np.float32(0.071330)
_ZR, _ZG, _ZB = np.float32(0.020183), np.float32(0.129553), np.float32(0.939180)
_TINY = np.float32(1e-35)
_ONE, _THREE, _FOUR, _NINE = np.float32(1), np.float32(3), np.float32(4), np.float32(9)
_THIRTEEN, _FIFTEEN, _STEPS = np.float32(13), np.float32(15), np.float32(_TABLE_STEPS)
_BYTE = np.float32(1.0 / 255.0)


_Y = np.arange(_TABLE_STEPS + 1) / _TABLE_STEPS
_CUBE_ROOT = (116.0 * np.cbrt(_Y) - 16.0) * _SCALE
_LIGHTNESS: Floats = np.where(_Y > _LINEAR_BELOW, _CUBE_ROOT, _Y * _LINEAR_SLOPE * _SCALE).astype(np.float32)


@kernel
def _convert(rgb_hwc: Bytes, lightness: Floats) -> Floats:
    height, width, _ = rgb_hwc.shape
    luv_chw = np.empty((3, height, width), dtype=np.float32)
    red = np.empty(width, dtype=np.float32)
    green = np.empty(width, dtype=np.float32)
    blue = np.empty(width, dtype=np.float32)
    step = np.empty(width, dtype=np.int32)
    level = np.empty(width, dtype=np.float32)
    for row in range(height):
        # Loading interleaved pixels and looking up the table cannot be vectorised, so they have loops of their own:
        # 0.5 ms instead of 1.2 ms at 427x320.
        for column in range(width):
            red[column] = np.float32(rgb_hwc[row, column, 0]) * _BYTE
            green[column] = np.float32(rgb_hwc[row, column, 1]) * _BYTE
            blue[column] = np.float32(rgb_hwc[row, column, 2]) * _BYTE
        for column in range(width):
            y = _YR * red[column] + _YG * green[column] + _YB * blue[column]
            step[column] = np.int32(min(int(_STEPS * y), _TABLE_STEPS))
        for column in range(width):
            level[column] = lightness[step[column]]
        for column in range(width):
            r, g, b = red[column], green[column], blue[column]
            x = _XR * r + _XG * g + _XB * b
            y = _YR * r + _YG * g + _YB * b
            z = _ZR * r + _ZG * g + _ZB * b
            q = _ONE / (x + _FIFTEEN * y + _THREE * z + _TINY)
            luv_chw[0, row, column] = level[column]
            luv_chw[1, row, column] = level[column] * _THIRTEEN * (_FOUR * x * q - _WHITE_U) + _OFFSET_U
            luv_chw[2, row, column] = level[column] * _THIRTEEN * (_NINE * y * q - _WHITE_V) + _OFFSET_V
    return luv_chw


def rgb_to_luv(rgb_hwc: Bytes) -> Floats:
    """Convert (H, W, 3) uint8 RGB to (3, H, W) float32 Luv, all channels in about 0..1.

    No gamma is undone, u and v are shifted by 88 and 134, and all three are divided by 270, as in the toolbox and
    the release of geodesic proposals; this is not colorimetric CIE Luv.
    """
    return _convert(rgb_hwc, _LIGHTNESS)


@kernel
def _mirrored(index: int, length: int) -> int:
    """Index inside 0..length-1 after mirroring with the edge repeated: -1 -> 0, -2 -> 1, length -> length - 1."""
    index = index % (2 * length)
    return index if index < length else 2 * length - 1 - index


@kernel
def _tent_down(values: Floats, radius: int, smoothed: Floats) -> None:
    """Smooth the columns of ``values[rows, columns]``."""
    rows, columns = values.shape
    share = 1.0 / (radius + 1) ** 2
    # The second difference of the tent is three spikes, so one row costs five additions whatever the radius.
    # In float64 these sums of float32 colours are exact: equal neighbourhoods give equal results everywhere.
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
        ahead, middle = _mirrored(row + radius + 2, rows), _mirrored(row + 1, rows)
        behind = _mirrored(row - radius, rows)
        for column in range(columns):
            smoothed[row, column] = np.float32(max(total[column] * share, 0.0))
            total[column] += slope[column]
            slope[column] += (
                np.float64(values[ahead, column])
                - 2.0 * np.float64(values[middle, column])
                + np.float64(values[behind, column])
            )


def tent_filter(values: Floats, *, radius: int) -> Floats:
    """Smooth (H, W) or (H, W, C) float32 with a separable triangle of half-width ``radius`` pixels.

    The one-dimensional kernel is ``(radius + 1 - |k|) / (radius + 1)**2`` for ``|k| <= radius``. Pixels outside
    are mirrored with the edge pixel repeated. Non-negative input gives non-negative output, and a uniform image
    stays exactly uniform.
    """
    down = np.empty(values.shape, dtype=np.float32)
    _tent_down(np.ascontiguousarray(values).reshape(len(values), -1), radius, down.reshape(len(values), -1))
    # Rows are smoothed as columns of the transposed image: along a row each sum would depend on the one before.
    turned = cv2.transpose(down)
    across = np.empty_like(turned)
    _tent_down(turned.reshape(len(turned), -1), radius, across.reshape(len(turned), -1))
    smoothed: Floats = cv2.transpose(across).reshape(values.shape)
    return smoothed
