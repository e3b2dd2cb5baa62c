"""Makes the tables that tell, for every set of neighbours of a pixel, what the pixel adds to a contour's component."""

import numpy as np

from pseudo_maps.kernels import Bytes, Ints

__all__ = ["NO_NEIGHBOUR", "neighbour_tables"]

NO_NEIGHBOUR = -1
"""Ends the list of neighbours to join."""


def neighbour_tables() -> tuple[Bytes, Ints]:
    """For every set of neighbours: what a pixel adds to twice the polygon area (256,), and whom to join (256, 4).

    Neighbours are bits, clockwise from the north. A polygon through pixel centres covers a square of 2x2 pixels
    wholly when four of them are set, half when three are, else not at all. So a pixel adds half a square wherever
    at least two of the other three are set. Neighbours that touch each other are one component already, so one bit
    of each such group is enough; -1 ends the list.
    """
    area2_m = np.zeros(256, dtype=np.uint8)
    joins_m4 = np.full((256, 4), NO_NEIGHBOUR, dtype=np.int32)
    for present in range(256):
        bits = [present >> bit & 1 for bit in range(8)]
        area2_m[present] = sum(bits[corner - 1] + bits[corner] + bits[(corner + 1) % 8] >= 2 for corner in (1, 3, 5, 7))
        # Two sides with a corner between them touch diagonally, whether the corner is set or not.
        linked = [bits[bit] or (bit % 2 and bits[bit - 1] and bits[(bit + 1) % 8]) for bit in range(8)]
        groups = [bit for bit in range(8) if linked[bit] and not linked[bit - 1]]
        if present and not groups:
            groups = [bits.index(1)]
        joins_m4[present, : len(groups)] = groups
    return area2_m, joins_m4
