"""Geodesic distances on the superpixel graph, and farthest point seeds.

Legend: S superpixels; E edges; N source sets.

Source: Kraehenbuehl and Koltun, "Geodesic object proposals", ECCV 2014, sections 3 and 4, and the authors' release 1.3.
"""

from dataclasses import dataclass

import numpy as np

from pseudo_maps.kernels import Bools, Floats, Ints, kernel

CENTRE_ROUNDS = 3
"""Searches for the geodesic centre: each starts at the region farthest from the previous start."""
COST_BIAS = np.float32(2e-3)
"""Least cost of a step, so that distances grow inside flat regions too."""


@dataclass(frozen=True, slots=True)
class CostGraph:
    """Neighbour lists: region ``s`` has the neighbours ``neighbours[starts[s]:starts[s + 1]]``, in ascending order."""

    starts: Ints
    """(S+1,) int32."""
    neighbours: Ints
    """(2E,) int32."""
    costs: Floats
    """(2E,) float32 > 0: cost of the step to each neighbour."""


def geodesic_costs(edge_weights: Floats) -> Floats:
    """Step costs ``w**3 + 0.002`` of edges with boundary strengths ``w``, both (E,) float32."""
    # Not as numpy's power, which rounds differently on different CPUs.
    weights = edge_weights.astype(np.float64)
    return (weights * weights * weights).astype(np.float32) + COST_BIAS


@kernel
def _neighbour_lists(edges: Ints, costs: Floats, region_count: int) -> tuple[Ints, Ints, Floats]:
    starts = np.zeros(region_count + 1, dtype=np.int32)
    for edge in range(edges.shape[0]):
        starts[edges[edge, 0] + 1] += 1
        starts[edges[edge, 1] + 1] += 1
    for region in range(region_count):
        starts[region + 1] += starts[region]
    filled = starts[:-1].copy()
    neighbours = np.empty(2 * edges.shape[0], dtype=np.int32)
    sorted_costs = np.empty(2 * edges.shape[0], dtype=np.float32)
    # Edges are in lexicographic order: filling in the smaller neighbours first keeps every list sorted.
    for end in range(1, -1, -1):
        for edge in range(edges.shape[0]):
            region, other = edges[edge, end], edges[edge, 1 - end]
            neighbours[filled[region]] = other
            sorted_costs[filled[region]] = costs[edge]
            filled[region] += 1
    return starts, neighbours, sorted_costs


def build_cost_graph(edges: Ints, costs: Floats, *, region_count: int) -> CostGraph:
    """Neighbour lists of a graph given by ``edges[E, 2]`` in lexicographic order and their ``costs[E]``."""
    return CostGraph(*_neighbour_lists(edges, costs, region_count))


@kernel
def _sift_up(heap_keys: Floats, heap_nodes: Ints, place: int) -> None:
    key, node = heap_keys[place], heap_nodes[place]
    while place > 0:
        parent = (place - 1) >> 1
        if heap_keys[parent] <= key:
            break
        heap_keys[place], heap_nodes[place] = heap_keys[parent], heap_nodes[parent]
        place = parent
    heap_keys[place], heap_nodes[place] = key, node


@kernel
def _sift_down(heap_keys: Floats, heap_nodes: Ints, size: int) -> None:
    key, node = heap_keys[0], heap_nodes[0]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap_keys[child + 1] < heap_keys[child]:
            child += 1
        if heap_keys[child] >= key:
            break
        heap_keys[place], heap_nodes[place] = heap_keys[child], heap_nodes[child]
        place = child
    heap_keys[place], heap_nodes[place] = key, node


@kernel
def _relax_from(
    source: int, distances: Floats, starts: Ints, neighbours: Ints, costs: Floats, heap_keys: Floats, heap_nodes: Ints
) -> None:
    """Lower ``distances[S]`` in place by the paths that start at ``source`` (Dijkstra, lazy deletion)."""
    distances[source] = 0
    heap_keys[0], heap_nodes[0] = np.float32(0), source
    size = 1
    while size > 0:
        key, node = heap_keys[0], heap_nodes[0]
        size -= 1
        heap_keys[0], heap_nodes[0] = heap_keys[size], heap_nodes[size]
        if size > 1:
            _sift_down(heap_keys, heap_nodes, size)
        if key > distances[node]:
            continue
        for item in range(starts[node], starts[node + 1]):
            other = neighbours[item]
            candidate = key + costs[item]
            if candidate < distances[other]:
                distances[other] = candidate
                heap_keys[size], heap_nodes[size] = candidate, other
                _sift_up(heap_keys, heap_nodes, size)
                size += 1


@kernel
def _seeds(starts: Ints, neighbours: Ints, costs: Floats, count: int) -> Ints:
    region_count = starts.shape[0] - 1
    # A region enters the heap at most once per incident step.
    heap_keys = np.empty(neighbours.shape[0] + 1, dtype=np.float32)
    heap_nodes = np.empty(neighbours.shape[0] + 1, dtype=np.int32)
    largest = np.zeros(region_count, dtype=np.float32)
    node = 0
    for _ in range(CENTRE_ROUNDS):
        distances = np.full(region_count, np.float32(np.inf), dtype=np.float32)
        _relax_from(node, distances, starts, neighbours, costs, heap_keys, heap_nodes)
        largest = np.maximum(largest, distances)
        node = int(np.argmax(distances))
    seeds = np.empty(count, dtype=np.int32)
    seeds[0] = np.argmin(largest)
    distances = np.full(region_count, np.float32(np.inf), dtype=np.float32)
    used = 1
    while True:
        _relax_from(seeds[used - 1], distances, starts, neighbours, costs, heap_keys, heap_nodes)
        farthest = np.argmax(distances)
        if used == count or distances[farthest] <= 0:
            break
        seeds[used] = farthest
        used += 1
    return seeds[:used]


def farthest_point_seeds(graph: CostGraph, *, count: int) -> Ints:
    """Seeds (N,) int32, N <= count, each the region farthest from those before; the first is the centre.

    The centre is the region whose largest distance to three mutually far regions is smallest. Of equally far regions
    the lowest index wins. N < count when every region is a seed.
    """
    if count < 1:
        raise ValueError(f"expected at least 1 seed, found {count}")
    return _seeds(graph.starts, graph.neighbours, graph.costs, count)


@kernel
def _sweep_distances(distances: Floats, starts: Ints, neighbours: Ints, costs: Floats) -> None:
    region_count = distances.shape[0]
    # A row is visited again only when a neighbour's row has changed since; clock values tell.
    changed_at = np.zeros(region_count, dtype=np.int64)
    seen_at = np.full(region_count, -1, dtype=np.int64)
    clock = 0
    forward = True
    active = True
    while active:
        active = False
        for step in range(region_count):
            region = step if forward else region_count - 1 - step
            clock += 1
            for item in range(starts[region], starts[region + 1]):
                other = neighbours[item]
                if changed_at[other] < seen_at[region]:
                    continue
                # Two plain loops over the whole row: more than half of the neighbours change nothing and stop after
                # the first, and a conditional store would compile to masked stores (slow on AMD).
                cost = costs[item]
                shorter = np.int32(0)
                for column in range(distances.shape[1]):
                    shorter |= np.int32(distances[other, column] + cost < distances[region, column])
                if shorter:
                    for column in range(distances.shape[1]):
                        distances[region, column] = np.minimum(
                            distances[region, column], distances[other, column] + cost
                        )
                    changed_at[region] = clock
                    active = True
            seen_at[region] = clock
        forward = not forward


def distances_from_sets(graph: CostGraph, sources: Bools) -> Floats:
    """Shortest path distances ``[S, N]`` float32 from N source sets ``sources[S, N]`` bool; infinite if unreachable.

    Gauss-Seidel sweeps over the regions, forward and backward, until nothing changes. Superpixels are in raster order,
    so few sweeps suffice, and the inner loop over the sets is vectorised. Bit-identical to Dijkstra's algorithm, since
    float32 addition is monotone.
    """
    distances = np.where(sources, np.float32(0), np.float32(np.inf)).astype(np.float32, order="C")
    _sweep_distances(distances, graph.starts, graph.neighbours, graph.costs)
    return distances
