"""Turns 8-bit RGB pixels into the CIE Luv channels that the boundary detector differentiates."""

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Bytes, Floats, kernel

__all__ = ["rgb_to_luv"]

# Dollar's toolbox scales L, u and v by 1/270 so that all lie in about 0..1, works on
# linear 0..1 RGB without gamma, and reads the cube root from a table with 1024 steps (Dollar & Zitnick 2015).
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


def _lightness_table() -> npt.NDArray[np.float32]:
    y = np.arange(_TABLE_STEPS + 1, dtype=np.float64) / _TABLE_STEPS
    cube_root = (116.0 * np.cbrt(y) - 16.0) * _SCALE
    return np.where(y > _LINEAR_BELOW, cube_root, y * _LINEAR_SLOPE * _SCALE).astype(np.float32)


_LIGHTNESS = _lightness_table()


@kernel
def _convert(rgb_hwc: Bytes, lightness: Floats, luv_chw: Floats) -> None:
    height, width, _ = rgb_hwc.shape
    red = np.empty(width, dtype=np.float32)
    green = np.empty(width, dtype=np.float32)
    blue = np.empty(width, dtype=np.float32)
    step = np.empty(width, dtype=np.int32)
    level = np.empty(width, dtype=np.float32)
    for row in range(height):
        # Reading pixels apart and looking up the table are the steps that the compiler cannot do eight at a time, so
        # they have loops of their own: 0.5 ms instead of 1.2 ms at 427x320.
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


def rgb_to_luv(rgb_hwc: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Convert (H, W, 3) uint8 RGB to (3, H, W) float32 Luv, all channels in about 0..1.

    No gamma is undone and L, u, v are divided by 270 (u and v shifted by 88 and 134 first), as the structured
    edge and geodesic proposal programs do; this is not colorimetric CIE Luv.

    References
    ----------
    Dollar and Zitnick, "Fast edge detection using structured forests", PAMI 2015 (the toolbox's ``rgbConvert``).
    """
    height, width, channels = rgb_hwc.shape
    luv_chw = np.empty((channels, height, width), dtype=np.float32)
    _convert(rgb_hwc, _LIGHTNESS, luv_chw)
    return luv_chw
