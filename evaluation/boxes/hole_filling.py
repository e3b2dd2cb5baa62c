"""Filling of the holes of a grey map at all threshold levels at once, by flooding it from its border.

Legend: H W rows and columns, p pixels of a frame with a rim of one pixel, v grey values.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Bytes, Ints, Longs, kernel

_NO_PIXEL = -1


class Flood(NamedTuple):
    """A map in a frame, flat, its rows a power of two apart: neighbours by addition, coordinates by shifts."""

    row_bits: int
    """Power of two of the distance of rows."""
    grey_p: Bytes
    """(p,) the map; 0 on the rim."""
    filled_p: Bytes
    """(p,) the map with its holes filled."""
    order: Ints
    """(H W,) positions by rising value of the filled map."""
    starts_v: Longs
    """(257,) where each value starts in ``order``."""
    raised: Ints
    """Positions that are higher than before."""


def flood(grey_hw: npt.NDArray[np.uint8]) -> Flood:
    """Let water rise from outside the border of a map ``(H, W)`` uint8; a pixel is filled to where it is reached."""
    height, width = grey_hw.shape
    row_bits = int(width + 1).bit_length()
    framed = np.zeros((height + 2, 1 << row_bits), dtype=np.uint8)
    framed[1:-1, 1 : width + 1] = grey_hw
    inside = np.zeros(framed.shape, dtype=np.bool_)
    inside[1:-1, 1 : width + 1] = True
    grey_p = framed.ravel()
    order, starts_v, filled_p, raised = _flooded(grey_p, inside.ravel(), grey_hw.size, 1 << row_bits)
    return Flood(row_bits, grey_p, filled_p, order, starts_v, raised)


@kernel
def _flooded(grey_p: Bytes, inside_p: npt.NDArray[np.bool_], pixels: int, stride: int) -> Any:
    """``order``, ``starts_v``, ``filled_p`` and ``raised`` of ``Flood``."""
    filled_p = grey_p.copy()
    dry_p = inside_p.copy()
    # One list of waiting pixels a grey value, linked through next_p; a pixel waits once.
    next_p = np.empty(grey_p.size, dtype=np.int32)
    head_v = np.full(256, _NO_PIXEL, dtype=np.int32)
    for pixel in range(grey_p.size):
        if inside_p[pixel] and not (
            inside_p[pixel - 1] and inside_p[pixel + 1] and inside_p[pixel - stride] and inside_p[pixel + stride]
        ):
            dry_p[pixel] = False
            next_p[pixel] = head_v[grey_p[pixel]]
            head_v[grey_p[pixel]] = pixel
    order = np.empty(pixels, dtype=np.int32)
    raised = np.empty(pixels, dtype=np.int32)
    starts_v = np.empty(257, dtype=np.int64)
    count = raised_count = 0
    for value in range(256):
        starts_v[value] = count
        pixel = head_v[value]
        while pixel != _NO_PIXEL:
            order[count] = pixel
            count += 1
            head_v[value] = next_p[pixel]
            for neighbour in (pixel - stride, pixel + stride, pixel - 1, pixel + 1):
                if dry_p[neighbour]:
                    dry_p[neighbour] = False
                    level = int(grey_p[neighbour])
                    if level < value:
                        level = value
                        filled_p[neighbour] = value
                        raised[raised_count] = neighbour
                        raised_count += 1
                    next_p[neighbour] = head_v[level]
                    head_v[level] = neighbour
            pixel = head_v[value]
    starts_v[256] = count
    return order, starts_v, filled_p, raised[:raised_count]
