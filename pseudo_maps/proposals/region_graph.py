"""Turns a label map and boundary strengths into the weighted graph of touching superpixels.

Legend: H, W pixels; S superpixels; E edges (pairs of touching superpixels); C crossings (pixel pairs across edges).

References
----------
Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, section 3, and the authors' release 1.3.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Floats, Ints, Longs, kernel

__all__ = ["BORDER_WIDTH_PX", "RegionGraph", "build_region_graph", "crossing_percentiles", "region_geometry"]

BORDER_WIDTH_PX = 4
"""A superpixel belongs to a side of the frame when it has a pixel in the outermost 4 rows or columns there."""
TOP, BOTTOM, LEFT, RIGHT = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class RegionGraph:
    """Touching superpixels, and where in the image their common boundary runs."""

    region_count: int
    """S, the number of superpixels."""
    edges: npt.NDArray[np.int32]
    """(E, 2) int32, ``edges[:, 0] < edges[:, 1]``, in lexicographic order."""
    crossing_edge: npt.NDArray[np.int32]
    """(C,) int32: the edge that each crossing belongs to; horizontal crossings first, both in raster order."""
    crossing_pixel: npt.NDArray[np.int64]
    """(C,) int64: flat index into the step map of the crossing: ``y * (W-1) + x`` for the horizontal ones
    (between (y, x) and (y, x+1)), ``y * W + x`` for the vertical ones (between (y, x) and (y+1, x))."""
    horizontal_count: int
    """How many of the crossings are horizontal."""
    labels: npt.NDArray[np.int32]
    """(H, W) int32: superpixel of every pixel, 0..S-1."""


@kernel
def _find_crossings(labels: Ints, region_count: int) -> tuple[Ints, Ints, Longs, int]:
    height, width = labels.shape
    horizontal = 0
    vertical = 0
    for y in range(height):
        for x in range(width):
            if x + 1 < width and labels[y, x] != labels[y, x + 1]:
                horizontal += 1
            if y + 1 < height and labels[y, x] != labels[y + 1, x]:
                vertical += 1
    total = horizontal + vertical
    crossing_edge = np.empty(total, dtype=np.int32)
    crossing_pixel = np.empty(total, dtype=np.int64)
    # Each region keeps a linked list of the larger-numbered regions it touches: about three on average.
    head = np.full(region_count, -1, dtype=np.int32)
    following = np.empty(total, dtype=np.int32)
    partner = np.empty(total, dtype=np.int32)
    edges = 0
    at = 0
    for direction in range(2):
        right, down = 1 - direction, direction
        stride = width - right
        for y in range(height - down):
            for x in range(width - right):
                one, other = labels[y, x], labels[y + down, x + right]
                if one == other:
                    continue
                low, high = min(one, other), max(one, other)
                edge = head[low]
                while edge >= 0 and partner[edge] != high:
                    edge = following[edge]
                if edge < 0:
                    edge = edges
                    edges += 1
                    partner[edge] = high
                    following[edge] = head[low]
                    head[low] = edge
                crossing_edge[at] = edge
                crossing_pixel[at] = y * stride + x
                at += 1
    # Renumber the edges lexicographically.
    ordered = np.empty((edges, 2), dtype=np.int32)
    number = np.empty(edges, dtype=np.int32)
    used = 0
    for low in range(region_count):
        first = used
        edge = head[low]
        while edge >= 0:
            place = used
            while place > first and partner[ordered[place - 1, 1]] > partner[edge]:
                ordered[place, 1] = ordered[place - 1, 1]
                place -= 1
            ordered[place, 1] = edge
            used += 1
            edge = following[edge]
        for place in range(first, used):
            edge = ordered[place, 1]
            number[edge] = place
            ordered[place, 0] = low
            ordered[place, 1] = partner[edge]
    for at in range(total):
        crossing_edge[at] = number[crossing_edge[at]]
    return ordered, crossing_edge, crossing_pixel, horizontal


def build_region_graph(labels: npt.NDArray[np.int32], *, region_count: int) -> RegionGraph:
    """Find all pairs of 4-neighbouring superpixels of a (H, W) int32 label map with values 0..S-1."""
    edges, crossing_edge, crossing_pixel, horizontal = _find_crossings(labels, region_count)
    return RegionGraph(region_count, edges, crossing_edge, crossing_pixel, int(horizontal), labels)


@kernel
def _grouped_percentiles(groups: Ints, values: Floats, group_count: int, fraction: float) -> Floats:
    starts = np.zeros(group_count + 1, dtype=np.int64)
    for group in groups:
        starts[group + 1] += 1
    for group in range(group_count):
        starts[group + 1] += starts[group]
    filled = starts[:-1].copy()
    sorted_values = np.empty(values.shape[0], dtype=np.float32)
    for item in range(values.shape[0]):
        group = groups[item]
        sorted_values[filled[group]] = values[item]
        filled[group] += 1
    percentiles = np.empty(group_count, dtype=np.float32)
    for group in range(group_count):
        first, last = starts[group], starts[group + 1]
        # Insertion sort: a group has about ten values, and the general sort takes twice as long to start on them.
        for item in range(first + 1, last):
            value = sorted_values[item]
            place = item
            while place > first and sorted_values[place - 1] > value:
                sorted_values[place] = sorted_values[place - 1]
                place -= 1
            sorted_values[place] = value
        percentiles[group] = sorted_values[first + int(fraction * (last - first - 1) + 0.5)]
    return percentiles


def crossing_percentiles(
    graph: RegionGraph, values: npt.NDArray[np.float32], *, values_per_crossing: int = 1, percent: float
) -> npt.NDArray[np.float32]:
    """Percentile of the values found along each edge, (E,) float32.

    Parameters
    ----------
    values
        (values_per_crossing * C,) float32: whole copies of the crossing order one after the other.
    percent
        0..100; of n sorted values the one at ``floor(percent / 100 * (n - 1) + 0.5)``, never an interpolation.
    """
    groups = np.tile(graph.crossing_edge, values_per_crossing)
    if values.shape != groups.shape:
        raise ValueError(f"expected {len(groups)} values, one for each crossing and copy, found {values.shape}")
    result: npt.NDArray[np.float32] = _grouped_percentiles(groups, values, len(graph.edges), percent / 100.0)
    return result


@kernel
def _geometry(labels: Ints, region_count: int) -> tuple[Ints, Ints]:
    height, width = labels.shape
    boxes = np.empty((region_count, 4), dtype=np.int32)
    boxes[:, 0] = width
    boxes[:, 1] = height
    boxes[:, 2] = -1
    boxes[:, 3] = -1
    for y in range(height):
        # Only the ends of a stretch of one label can widen its box, and rows come from top to bottom.
        for x in range(width):
            region = labels[y, x]
            if x == 0 or labels[y, x - 1] != region:
                boxes[region, 0] = min(boxes[region, 0], x)
                boxes[region, 1] = min(boxes[region, 1], y)
                boxes[region, 3] = y
            if x == width - 1 or labels[y, x + 1] != region:
                boxes[region, 2] = max(boxes[region, 2], x)
    sides = np.zeros(region_count, dtype=np.int32)
    for region in range(region_count):
        if boxes[region, 1] < BORDER_WIDTH_PX:
            sides[region] |= TOP
        if boxes[region, 3] >= height - BORDER_WIDTH_PX:
            sides[region] |= BOTTOM
        if boxes[region, 0] < BORDER_WIDTH_PX:
            sides[region] |= LEFT
        if boxes[region, 2] >= width - BORDER_WIDTH_PX:
            sides[region] |= RIGHT
    return boxes, sides


def region_geometry(
    labels: npt.NDArray[np.int32], *, region_count: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Boxes and touched sides of the superpixels of a (H, W) label map with values 0..S-1.

    Returns
    -------
    boxes_xyxy
        (S, 4) int32 ``x0, y0, x1, y1`` in pixels, 0-based, inclusive: ``0 <= x0 <= x1 < W``.
    sides
        (S,) int32 bit mask: 1 top, 2 bottom, 4 left, 8 right, by the outermost ``BORDER_WIDTH_PX`` pixels.
    """
    boxes, sides = _geometry(labels, region_count)
    return boxes, sides
