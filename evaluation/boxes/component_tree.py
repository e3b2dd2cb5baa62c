"""Contours of all threshold levels of a grey map in one pass over its sorted pixels.

Thresholding a map of 256 grey levels gives 255 nested binary masks, whose components form a tree (max-tree: Salembier
et al., IEEE TIP 1998). Here it is built by union-find over the pixels in falling order (Najman and Couprie, IEEE TIP
2006), with the connectivity of contour following (Suzuki and Abe, 1985): 8 neighbours in the foreground, 4 in holes.

Legend: H W rows and columns, L = 255 levels; at level k the pixels strictly above k are foreground. N contours,
p pixels of a frame with a rim of one pixel, v grey values.
Boxes are ``x0, y0, x1, y1`` of the pixels that a contour runs through, 0-based: ``0 <= x0 <= x1 < W``.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.boxes.hole_filling import flood
from pseudo_maps.kernels import Bytes, Ints, Longs, kernel

LEVELS = 255
"""Levels 0..254; at level 255 an 8-bit map has no foreground."""

_NONE = -1


def _neighbour_tables() -> tuple[Bytes, Ints]:
    """For every set of neighbours: what a pixel adds to twice the polygon area (256,), and whom to join (256, 4).

    Neighbours are bits, clockwise from the north. A polygon through pixel centres covers a square of 2x2 pixels
    wholly when four of them are set, half when three are, else not at all. So a pixel adds half a square wherever
    at least two of the other three are set. Neighbours that touch each other are one component already, so one bit
    of each such group is enough; -1 ends the list.
    """
    area2_m = np.zeros(256, dtype=np.uint8)
    joins_m4 = np.full((256, 4), _NONE, dtype=np.int32)
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


_AREA2, _JOINS = _neighbour_tables()


class LevelContours(NamedTuple):
    """Contours with the levels at which each stands unchanged, in no particular order."""

    boxes_n4: npt.NDArray[np.int64]
    """(N, 4) box of each contour."""
    first_level_n: npt.NDArray[np.int64]
    """(N,) its lowest level."""
    last_level_n: npt.NDArray[np.int64]
    """(N,) its highest level, itself included."""


def largest_level_contours(grey_hw: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Box of the contour with the largest polygon area at every level, (L, 4); -1 without foreground.

    The area is that of the polygon through the centres of the contour's pixels, as ``cv2.contourArea`` gives it: a
    line has none. Of equal areas the contour counts whose first pixel, row by row, comes last: ``cv2.findContours``
    lists it first. ``grey_hw`` is (H, W) uint8 with pixels.

    The largest contour never lies inside a hole and is never a hole's, because the outer contour round it is
    larger. So holes are filled first, at all levels at once: a pixel becomes the least value that a walk from the
    border to it, over 4 neighbours, has to climb to. Components of the filled map have no holes, and their polygon
    area is a sum over 2x2 squares of pixels that grows pixel by pixel.
    """
    water = flood(grey_hw)
    largest_l4: npt.NDArray[np.int64] = _largest(
        water.order, water.starts_v, water.row_bits, len(water.grey_p), _AREA2, _JOINS
    )
    return largest_l4


def all_level_contours(grey_hw: npt.NDArray[np.uint8]) -> LevelContours:
    """Boxes of all contours of a map (H, W) uint8 at every level, those round holes too.

    A hole's contour runs through the foreground pixels round it, so its box is one pixel wider on each side than
    the hole.
    """
    water = flood(grey_hw)
    frame_px, raised = len(water.grey_p), water.raised
    if len(raised) == 0:
        return LevelContours(*_outer(water.order, water.starts_v, water.row_bits, frame_px, _JOINS))
    raised = raised[np.argsort(water.grey_p[raised], kind="stable")]
    # The flood's order, sorted again by the values before filling.
    order = water.order[np.argsort(water.grey_p[water.order], kind="stable")]
    starts_v = np.append(0, np.cumsum(np.bincount(grey_hw.ravel(), minlength=256)))
    outer = _outer(order, starts_v, water.row_bits, frame_px, _JOINS)
    holes = _holes(raised, water.grey_p, water.filled_p, water.row_bits)
    return LevelContours(*(np.concatenate(parts) for parts in zip(outer, holes, strict=True)))


@kernel
def _root(parent_p: Ints, pixel: int) -> Any:
    while parent_p[pixel] != pixel:
        parent_p[pixel] = parent_p[parent_p[pixel]]
        pixel = parent_p[pixel]
    return pixel


@kernel
def _present_neighbours(present_p: Bytes, pixel: int, stride: int) -> Any:
    above, below = pixel - stride, pixel + stride
    return (
        present_p[above]
        | present_p[above + 1] << 1
        | present_p[pixel + 1] << 2
        | present_p[below + 1] << 3
        | present_p[below] << 4
        | present_p[below - 1] << 5
        | present_p[pixel - 1] << 6
        | present_p[above - 1] << 7
    )


@kernel
def _cover(box_p4: Ints, root: int, x0: int, y0: int, x1: int, y1: int) -> Any:
    """Widen the box of a component to hold another; whether it changed."""
    changed = x0 < box_p4[root, 0] or y0 < box_p4[root, 1] or x1 > box_p4[root, 2] or y1 > box_p4[root, 3]
    box_p4[root, 0] = min(box_p4[root, 0], x0)
    box_p4[root, 1] = min(box_p4[root, 1], y0)
    box_p4[root, 2] = max(box_p4[root, 2], x1)
    box_p4[root, 3] = max(box_p4[root, 3], y1)
    return changed


@kernel
def _largest(order: Ints, starts_v: Longs, row_bits: int, frame_px: int, area2_m: Bytes, joins_m4: Ints) -> Any:
    stride = 1 << row_bits
    offsets = np.array([-stride, 1 - stride, 1, stride + 1, stride, stride - 1, -1, -1 - stride], dtype=np.int32)
    present_p = np.zeros(frame_px, dtype=np.uint8)
    parent_p = np.empty(frame_px, dtype=np.int32)
    area2_p = np.empty(frame_px, dtype=np.int32)
    first_p = np.empty(frame_px, dtype=np.int32)
    box_p4 = np.empty((frame_px, 4), dtype=np.int32)
    changed_at_p = np.full(frame_px, _NONE, dtype=np.int32)
    changed = np.empty(order.size, dtype=np.int32)
    roots = np.empty(order.size, dtype=np.int32)
    root_count = 0
    best, best_area2 = _NONE, _NONE
    largest_l4 = np.full((255, 4), _NONE, dtype=np.int64)
    for level in range(254, -1, -1):
        changed_count = 0
        for position in range(starts_v[level + 1], starts_v[level + 2]):
            pixel = order[position]
            y = (pixel >> row_bits) - 1
            x = (pixel & (stride - 1)) - 1
            present = _present_neighbours(present_p, pixel, stride)
            present_p[pixel] = 1
            parent_p[pixel] = pixel
            if present == 0:
                root = pixel
                area2_p[root] = 0
                first_p[root] = pixel
                box_p4[root, 0], box_p4[root, 1], box_p4[root, 2], box_p4[root, 3] = x, y, x, y
                roots[root_count] = root
                root_count += 1
            else:
                root = _root(parent_p, pixel + offsets[joins_m4[present, 0]])
                for join in range(1, 4):
                    if joins_m4[present, join] == _NONE:
                        break
                    other = _root(parent_p, pixel + offsets[joins_m4[present, join]])
                    if other != root:
                        if area2_p[other] > area2_p[root]:
                            root, other = other, root
                        parent_p[other] = root
                        area2_p[root] += area2_p[other]
                        first_p[root] = min(first_p[root], first_p[other])
                        _cover(box_p4, root, box_p4[other, 0], box_p4[other, 1], box_p4[other, 2], box_p4[other, 3])
                parent_p[pixel] = root
                area2_p[root] += area2_m[present]
                if pixel < first_p[root]:
                    first_p[root] = pixel
                _cover(box_p4, root, x, y, x, y)
            if changed_at_p[root] != level:
                changed_at_p[root] = level
                changed[changed_count] = root
                changed_count += 1
        # Areas only grow, so the largest of a level has just changed or is the largest of the level above.
        top_area2 = _NONE
        for index in range(changed_count):
            if parent_p[changed[index]] == changed[index]:
                top_area2 = max(top_area2, area2_p[changed[index]])
        if top_area2 > best_area2:
            best, best_area2 = _last_found(changed, changed_count, parent_p, area2_p, first_p, top_area2), top_area2
        elif top_area2 == best_area2 and top_area2 != _NONE:
            root_count = _keep_roots(roots, root_count, parent_p)
            best = _last_found(roots, root_count, parent_p, area2_p, first_p, top_area2)
        if best != _NONE:
            for side in range(4):
                largest_l4[level, side] = box_p4[best, side]
    return largest_l4


@kernel
def _keep_roots(roots: Ints, count: int, parent_p: Ints) -> Any:
    kept = 0
    for index in range(count):
        if parent_p[roots[index]] == roots[index]:
            roots[kept] = roots[index]
            kept += 1
    return kept


@kernel
def _last_found(components: Ints, count: int, parent_p: Ints, area2_p: Ints, first_p: Ints, area2: int) -> Any:
    """The component of the wanted area whose first pixel comes last: findContours lists it first."""
    found = _NONE
    for index in range(count):
        root = components[index]
        if parent_p[root] == root and area2_p[root] == area2 and (found == _NONE or first_p[root] > first_p[found]):
            found = root
    return found


@kernel
def _outer(order: Ints, starts_v: Longs, row_bits: int, frame_px: int, joins_m4: Ints) -> Any:
    """Boxes of all components of the foreground with their first and last level."""
    stride = 1 << row_bits
    offsets = np.array([-stride, 1 - stride, 1, stride + 1, stride, stride - 1, -1, -1 - stride], dtype=np.int32)
    present_p = np.zeros(frame_px, dtype=np.uint8)
    parent_p = np.empty(frame_px, dtype=np.int32)
    size_p = np.empty(frame_px, dtype=np.int32)
    box_p4 = np.empty((frame_px, 4), dtype=np.int32)
    # The contour under which a component was last noted, and the level at which it last changed.
    contour_p = np.full(frame_px, _NONE, dtype=np.int32)
    changed_at_p = np.full(frame_px, _NONE, dtype=np.int32)
    changed = np.empty(order.size, dtype=np.int32)
    # A pixel changes the box of one component, so there are no more contours than pixels.
    boxes_n4 = np.empty((order.size, 4), dtype=np.int64)
    first_n = np.empty(order.size, dtype=np.int64)
    last_n = np.empty(order.size, dtype=np.int64)
    contours = 0
    for level in range(254, -1, -1):
        changed_count = 0
        for position in range(starts_v[level + 1], starts_v[level + 2]):
            pixel = order[position]
            y = (pixel >> row_bits) - 1
            x = (pixel & (stride - 1)) - 1
            present = _present_neighbours(present_p, pixel, stride)
            present_p[pixel] = 1
            parent_p[pixel] = pixel
            if present == 0:
                root, grown = pixel, True
                size_p[root] = 1
                box_p4[root, 0], box_p4[root, 1], box_p4[root, 2], box_p4[root, 3] = x, y, x, y
            else:
                grown = False
                root = _root(parent_p, pixel + offsets[joins_m4[present, 0]])
                for join in range(1, 4):
                    if joins_m4[present, join] == _NONE:
                        break
                    other = _root(parent_p, pixel + offsets[joins_m4[present, join]])
                    if other != root:
                        if size_p[other] > size_p[root]:
                            root, other = other, root
                            # What was noted of the smaller one does not hold for the larger one.
                            grown = False
                        parent_p[other] = root
                        size_p[root] += size_p[other]
                        grown |= _cover(
                            box_p4, root, box_p4[other, 0], box_p4[other, 1], box_p4[other, 2], box_p4[other, 3]
                        )
                        if contour_p[other] != _NONE:
                            first_n[contour_p[other]] = level + 1
                parent_p[pixel] = root
                size_p[root] += 1
                grown |= _cover(box_p4, root, x, y, x, y)
            if grown and changed_at_p[root] != level:
                changed_at_p[root] = level
                changed[changed_count] = root
                changed_count += 1
        for index in range(changed_count):
            root = changed[index]
            if parent_p[root] == root:
                if contour_p[root] != _NONE:
                    first_n[contour_p[root]] = level + 1
                contour_p[root] = contours
                for side in range(4):
                    boxes_n4[contours, side] = box_p4[root, side]
                first_n[contours], last_n[contours] = 0, level
                contours += 1
    return boxes_n4[:contours], first_n[:contours], last_n[:contours]


@kernel
def _holes(order: Ints, grey_p: Bytes, filled_p: Bytes, row_bits: int) -> Any:
    """Boxes round all holes with their first and last level.

    A pixel lies in a hole from its own value on until the water reaches it. So the order holds only the pixels that
    filling changes, and all pixels of a hole are reached at the same level.
    """
    stride = 1 << row_bits
    parent_p = np.full(grey_p.size, _NONE, dtype=np.int32)
    size_p = np.empty(grey_p.size, dtype=np.int32)
    box_p4 = np.empty((grey_p.size, 4), dtype=np.int32)
    contour_p = np.full(grey_p.size, _NONE, dtype=np.int32)
    changed_at_p = np.full(grey_p.size, _NONE, dtype=np.int32)
    changed = np.empty(order.size, dtype=np.int32)
    boxes_n4 = np.empty((order.size, 4), dtype=np.int64)
    first_n = np.empty(order.size, dtype=np.int64)
    last_n = np.empty(order.size, dtype=np.int64)
    contours = 0
    position = 0
    for level in range(255):
        changed_count = 0
        while position < order.size and grey_p[order[position]] == level:
            pixel = order[position]
            position += 1
            y = (pixel >> row_bits) - 1
            x = (pixel & (stride - 1)) - 1
            root, grown = pixel, True
            parent_p[pixel] = pixel
            size_p[root] = 1
            box_p4[root, 0], box_p4[root, 1], box_p4[root, 2], box_p4[root, 3] = x - 1, y - 1, x + 1, y + 1
            for neighbour in (pixel - stride, pixel + stride, pixel - 1, pixel + 1):
                if parent_p[neighbour] == _NONE:
                    continue
                other = _root(parent_p, neighbour)
                if other != root:
                    if size_p[other] > size_p[root]:
                        root, other = other, root
                        grown = False
                    parent_p[other] = root
                    size_p[root] += size_p[other]
                    grown |= _cover(
                        box_p4, root, box_p4[other, 0], box_p4[other, 1], box_p4[other, 2], box_p4[other, 3]
                    )
                    if contour_p[other] != _NONE:
                        last_n[contour_p[other]] = level - 1
            if grown and changed_at_p[root] != level:
                changed_at_p[root] = level
                changed[changed_count] = root
                changed_count += 1
        for index in range(changed_count):
            root = changed[index]
            if parent_p[root] == root:
                if contour_p[root] != _NONE:
                    last_n[contour_p[root]] = level - 1
                contour_p[root] = contours
                for side in range(4):
                    boxes_n4[contours, side] = box_p4[root, side]
                first_n[contours], last_n[contours] = level, filled_p[root] - 1
                contours += 1
    return boxes_n4[:contours], first_n[:contours], last_n[:contours]
