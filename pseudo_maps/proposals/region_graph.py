"""Superpixel graph: pairs of touching superpixels, their common boundary, and geometry and colour of each superpixel.

Legend: H, W pixels; S superpixels; E edges (pairs of touching superpixels); C crossings (pixel pairs across edges).

Source: Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, section 3, and the authors' release 1.3.
"""

from dataclasses import dataclass

import numpy as np

from pseudo_maps.kernels import Bytes, Doubles, Floats, Ints, Longs, kernel
from pseudo_maps.proposals.filters import rgb_to_luv

BORDER_WIDTH_PX = 4
"""A superpixel belongs to a side of the frame when it has a pixel in the outermost 4 rows or columns there."""


@dataclass(frozen=True, slots=True)
class RegionGraph:
    """Touching superpixels, and where in the image their common boundary runs."""

    region_count: int
    """S."""
    edges: Ints
    """(E, 2) int32, ``edges[:, 0] < edges[:, 1]``, in lexicographic order."""
    crossing_edge: Ints
    """(C,) int32: the edge that each crossing belongs to; horizontal crossings first, both in raster order."""
    crossing_pixel: Longs
    """(C,) int64: flat index into the step map: ``y * (W-1) + x`` for horizontal crossings (from (y, x) to (y, x+1)),
    ``y * W + x`` for vertical ones (from (y, x) to (y+1, x))."""
    horizontal_count: int
    """Number of horizontal crossings."""
    labels: Ints
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
    # Each region has a linked list of its edges to regions of larger number: about three on average.
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


def build_region_graph(labels: Ints, *, region_count: int) -> RegionGraph:
    """All pairs of 4-neighbouring superpixels of a (H, W) int32 label map with values 0..S-1."""
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
        # Insertion sort: for about ten values it takes half the time of numba's sort.
        for item in range(first + 1, last):
            value = sorted_values[item]
            place = item
            while place > first and sorted_values[place - 1] > value:
                sorted_values[place] = sorted_values[place - 1]
                place -= 1
            sorted_values[place] = value
        percentiles[group] = sorted_values[first + int(fraction * (last - first - 1) + 0.5)]
    return percentiles


def crossing_percentiles(graph: RegionGraph, values: Floats, *, percent: float) -> Floats:
    """Percentile (0..100) of the values found along each edge, (E,) float32.

    ``values`` are one or several arrays (C,) float32 in the order of the crossings, concatenated. Of n sorted values
    the percentile is the one at ``floor(percent / 100 * (n - 1) + 0.5)``, never an interpolation.
    """
    copies, rest = divmod(len(values), max(len(graph.crossing_edge), 1))
    if rest:
        raise ValueError(f"expected a multiple of {len(graph.crossing_edge)} crossings, found {len(values)} values")
    groups = np.tile(graph.crossing_edge, copies)
    return _grouped_percentiles(groups, values, len(graph.edges), percent / 100.0)


@kernel
def _boxes(labels: Ints, region_count: int) -> Ints:
    height, width = labels.shape
    boxes = np.empty((region_count, 4), dtype=np.int32)
    boxes[:, 0] = width
    boxes[:, 1] = height
    boxes[:, 2] = -1
    boxes[:, 3] = -1
    for y in range(height):
        # Only the ends of a run can widen its box, and rows come from top to bottom.
        for x in range(width):
            region = labels[y, x]
            if x == 0 or labels[y, x - 1] != region:
                boxes[region, 0] = min(boxes[region, 0], x)
                boxes[region, 1] = min(boxes[region, 1], y)
                boxes[region, 3] = y
            if x == width - 1 or labels[y, x + 1] != region:
                boxes[region, 2] = max(boxes[region, 2], x)
    return boxes


def region_geometry(labels: Ints, *, region_count: int) -> tuple[Ints, Ints]:
    """Boxes and touched sides of the superpixels of a (H, W) label map with values 0..S-1.

    Boxes are (S, 4) int32 ``x0, y0, x1, y1`` in pixels, 0-based, inclusive: ``0 <= x0 <= x1 < W``; sides a (S,) int32
    bit mask: 1 top, 2 bottom, 4 left, 8 right, by the outermost ``BORDER_WIDTH_PX`` pixels.
    """
    height, width = labels.shape
    boxes = _boxes(labels, region_count)
    x0, y0, x1, y1 = boxes.T
    top, bottom = y0 < BORDER_WIDTH_PX, y1 >= height - BORDER_WIDTH_PX
    left, right = x0 < BORDER_WIDTH_PX, x1 >= width - BORDER_WIDTH_PX
    return boxes, (top * 1 + bottom * 2 + left * 4 + right * 8).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFeatures:
    """Size, position and colour of every superpixel, from which weightings are computed."""

    area_px: Longs
    """(S,) int64 > 0: pixels of each superpixel."""
    centre_xy: Doubles
    """(S, 2) float64 in 0..1: mean position of the pixels' centres as fractions of the frame's width and height."""
    side_px: Longs
    """(S, 4) int64: pixels in the outermost row or column, at the top, bottom, left and right."""
    luv: Floats
    """(S, 3) float32: Luv of the mean RGB colour, in about 0..1."""
    boxes_xyxy: Ints
    """(S, 4) int32 ``x0, y0, x1, y1`` in pixels, 0-based, inclusive."""
    frame_distance: Floats
    """(S,) float32: geodesic distance to the nearest superpixel at the frame; 0 for those."""


@kernel
def _sums(labels: Ints, rgb_hwc: Bytes, region_count: int) -> tuple[Longs, Longs]:
    height, width = labels.shape
    # Pixels, sum of x, of y, of R, G and B.
    sums = np.zeros((region_count, 6), dtype=np.int64)
    sides = np.zeros((region_count, 4), dtype=np.int64)
    for y in range(height):
        x = 0
        # Runs of one label, about 10 pixels long, are summed in registers: half the time of summing in memory.
        while x < width:
            region, start = labels[y, x], x
            red = green = blue = 0
            while x < width and labels[y, x] == region:
                red += rgb_hwc[y, x, 0]
                green += rgb_hwc[y, x, 1]
                blue += rgb_hwc[y, x, 2]
                x += 1
            sums[region, 0] += x - start
            sums[region, 1] += (x - start) * (start + x - 1) // 2
            sums[region, 2] += (x - start) * y
            sums[region, 3] += red
            sums[region, 4] += green
            sums[region, 5] += blue
    for x in range(width):
        sides[labels[0, x], 0] += 1
        sides[labels[height - 1, x], 1] += 1
    for y in range(height):
        sides[labels[y, 0], 2] += 1
        sides[labels[y, width - 1], 3] += 1
    return sums, sides


def region_features(labels: Ints, rgb_hwc: Bytes, *, boxes_xyxy: Ints, frame_distance: Floats) -> RegionFeatures:
    """Features of the S superpixels of a label map (H, W) with every value 0..S-1, and its image (H, W, 3) uint8.

    ``boxes_xyxy[S, 4]`` comes from ``region_geometry``, ``frame_distance[S]`` is the geodesic distance to the frame.
    ValueError when the image is of another size than the label map.
    """
    if rgb_hwc.shape != (*labels.shape, 3):
        raise ValueError(f"an image of shape {rgb_hwc.shape} does not fit a label map of shape {labels.shape}")
    height, width = labels.shape
    sums, side_px = _sums(labels, rgb_hwc, len(boxes_xyxy))
    area_px = sums[:, 0].copy()
    means = sums[:, 1:] / area_px[:, None]
    mean_rgb = np.rint(means[:, 2:]).astype(np.uint8)
    return RegionFeatures(
        area_px=area_px,
        centre_xy=(means[:, :2] + 0.5) / (width, height),
        side_px=side_px,
        luv=np.ascontiguousarray(rgb_to_luv(mean_rgb[None])[:, 0].T),
        boxes_xyxy=boxes_xyxy,
        frame_distance=frame_distance,
    )
