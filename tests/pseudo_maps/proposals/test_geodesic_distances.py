import heapq
import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.geodesic_distances import (
    CostGraph,
    build_cost_graph,
    distances_from_sets,
    farthest_point_seeds,
    geodesic_costs,
)
from pseudo_maps.proposals.region_graph import build_region_graph

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

node_count = st.integers(1, 30)
seed = st.integers(0, 10_000)


def random_edges(nodes: int, seed: int, *, connected: bool, equal_costs: bool) -> tuple[Ints, Floats]:
    """Edges in lexicographic order, smaller end first, each pair at most once, with positive costs."""
    rng = np.random.default_rng(seed)
    wanted = rng.integers(0, nodes, (2 * nodes, 2))
    if connected:
        later = np.arange(1, nodes)
        wanted = np.concatenate([wanted, np.stack([later, rng.integers(0, later)], axis=1)]) if nodes > 1 else wanted
    wanted = np.sort(wanted[wanted[:, 0] != wanted[:, 1]], axis=1)
    edges = np.unique(wanted, axis=0).astype(np.int32).reshape(-1, 2)
    if equal_costs:
        return edges, np.full(len(edges), 0.002, np.float32)
    return edges, geodesic_costs(rng.random(len(edges), dtype=np.float32))


def neighbour_dicts(edges: Ints, costs: Floats, nodes: int) -> list[dict[int, np.float32]]:
    found: list[dict[int, np.float32]] = [{} for _ in range(nodes)]
    for (a, b), cost in zip(edges.tolist(), costs, strict=True):
        found[a][b] = found[b][a] = cost
    return found


def slow_dijkstra(neighbours: list[dict[int, np.float32]], sources: list[int]) -> Floats:
    """Textbook Dijkstra with a heap, adding in float32."""
    distances = np.full(len(neighbours), np.inf, dtype=np.float32)
    distances[sources] = 0
    heap = [(np.float32(0), source) for source in sources]
    done = set()
    while heap:
        distance, node = heapq.heappop(heap)
        if node in done:
            continue
        done.add(node)
        for other, cost in neighbours[node].items():
            if distance + cost < distances[other]:
                distances[other] = distance + cost
                heapq.heappush(heap, (distances[other], other))
    return distances


def slow_seeds(neighbours: list[dict[int, np.float32]], count: int) -> list[int]:
    """The seeds by definition: full searches from every seed so far, again and again."""
    node, largest = 0, np.zeros(len(neighbours), dtype=np.float32)
    for _ in range(3):
        distances = slow_dijkstra(neighbours, [node])
        largest = np.maximum(largest, distances)
        node = min(range(len(neighbours)), key=lambda v: (-distances[v], v))
    seeds = [min(range(len(neighbours)), key=lambda v: (largest[v], v))]
    while len(seeds) < count:
        nearest = np.min([slow_dijkstra(neighbours, [s]) for s in seeds], axis=0)
        farthest = min(range(len(neighbours)), key=lambda v: (-nearest[v], v))
        if nearest[farthest] <= 0:
            break
        seeds.append(farthest)
    return seeds


# --- costs and neighbour lists


def test_costs_are_cubes_plus_a_bias() -> None:
    weights = np.linspace(0, 1, 101, dtype=np.float32)
    costs = geodesic_costs(weights)
    assert costs.dtype == np.float32
    np.testing.assert_allclose(costs, weights.astype(np.float64) ** 3 + 2e-3, rtol=3e-7)
    assert costs[0] == np.float32(0.002)
    assert geodesic_costs(np.zeros(0, np.float32)).shape == (0,)


@given(node_count, seed)
@settings(max_examples=80, deadline=None)
def test_neighbour_lists_hold_every_edge_twice_in_order(nodes: int, seed: int) -> None:
    edges, costs = random_edges(nodes, seed, connected=False, equal_costs=False)
    graph = build_cost_graph(edges, costs, region_count=nodes)
    expected = neighbour_dicts(edges, costs, nodes)
    assert graph.starts.shape == (nodes + 1,) and graph.starts[0] == 0 and graph.starts[-1] == 2 * len(edges)
    for node in range(nodes):
        part = slice(graph.starts[node], graph.starts[node + 1])
        assert graph.neighbours[part].tolist() == sorted(expected[node])
        assert graph.costs[part].tolist() == [expected[node][other] for other in sorted(expected[node])]


# --- distances from sets


@given(node_count, st.integers(1, 7), seed, st.booleans(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_distances_equal_dijkstra_to_the_bit(
    nodes: int, sets: int, seed: int, connected: bool, equal_costs: bool
) -> None:
    edges, costs = random_edges(nodes, seed, connected=connected, equal_costs=equal_costs)
    graph = build_cost_graph(edges, costs, region_count=nodes)
    sources = np.random.default_rng(seed).random((nodes, sets)) < 0.15  # some sets stay empty
    distances = distances_from_sets(graph, sources)
    assert distances.shape == (nodes, sets) and distances.dtype == np.float32
    neighbours = neighbour_dicts(edges, costs, nodes)
    for column in range(sets):
        expected = slow_dijkstra(neighbours, np.nonzero(sources[:, column])[0].tolist())
        assert distances[:, column].tobytes() == expected.tobytes()


def test_a_path_against_the_order_of_the_nodes_is_found() -> None:
    # 0-9-1-8-2-7-3-6-4-5: every sweep can settle little of it.
    order = [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    edges = np.array(sorted(sorted(pair) for pair in itertools.pairwise(order)), dtype=np.int32)
    graph = build_cost_graph(edges, np.ones(9, np.float32), region_count=10)
    distances = distances_from_sets(graph, np.eye(10, dtype=np.bool_))
    place = np.argsort(order)
    assert np.array_equal(distances, np.abs(place[:, None] - place[None]).astype(np.float32))


def test_one_region_and_no_sets() -> None:
    alone = build_cost_graph(np.zeros((0, 2), np.int32), np.zeros(0, np.float32), region_count=1)
    assert distances_from_sets(alone, np.array([[True, False]])).tolist() == [[0, np.inf]]
    assert distances_from_sets(alone, np.zeros((1, 0), np.bool_)).shape == (1, 0)


# --- seeds


@given(node_count, st.integers(1, 40), seed, st.booleans())
@settings(max_examples=100, deadline=None)
def test_seeds_equal_the_definition(nodes: int, count: int, seed: int, equal_costs: bool) -> None:
    edges, costs = random_edges(nodes, seed, connected=True, equal_costs=equal_costs)
    graph = build_cost_graph(edges, costs, region_count=nodes)
    seeds = farthest_point_seeds(graph, count=count)
    assert seeds.dtype == np.int32
    assert seeds.tolist() == slow_seeds(neighbour_dicts(edges, costs, nodes), count)
    assert len(seeds) == min(count, nodes) == len(set(seeds.tolist()))


@pytest.fixture(scope="module")
def image_sized_graph() -> tuple[CostGraph, list[dict[int, np.float32]]]:
    """Voronoi cells of 400 random points: as many neighbours a region as superpixels have."""
    rng = np.random.default_rng(7)
    points = rng.random((400, 2)) * (90, 120)
    grid = np.moveaxis(np.mgrid[:90, :120], 0, -1)
    nearest = ((grid[:, :, None] - points) ** 2).sum(axis=-1).argmin(axis=-1)
    found, labels = np.unique(nearest, return_inverse=True)
    regions = build_region_graph(labels.reshape(90, 120).astype(np.int32), region_count=len(found))
    costs = geodesic_costs(rng.random(len(regions.edges), dtype=np.float32))
    graph = build_cost_graph(regions.edges, costs, region_count=len(found))
    return graph, neighbour_dicts(regions.edges, costs, len(found))


def test_both_on_a_graph_as_images_give_it(
    image_sized_graph: tuple[CostGraph, list[dict[int, np.float32]]],
) -> None:
    graph, neighbours = image_sized_graph
    seeds = farthest_point_seeds(graph, count=30)
    assert seeds.tolist() == slow_seeds(neighbours, 30)
    sources = np.zeros((len(neighbours), len(seeds)), dtype=np.bool_)
    sources[seeds, np.arange(len(seeds))] = True
    distances = distances_from_sets(graph, sources)
    for column, source in enumerate(seeds.tolist()):
        assert distances[:, column].tobytes() == slow_dijkstra(neighbours, [source]).tobytes()


def test_first_seed_of_a_path_is_its_middle() -> None:
    edges = np.array([[i, i + 1] for i in range(10)], dtype=np.int32)
    graph = build_cost_graph(edges, np.ones(10, np.float32), region_count=11)
    # Then the two ends, the lower index first; then the middles 2 and 3 of 0..5: both 2 away, and so on.
    assert farthest_point_seeds(graph, count=5).tolist() == [5, 0, 10, 2, 7]


@pytest.mark.parametrize("count", [0, -3])
def test_refuses_no_seeds(count: int) -> None:
    alone = build_cost_graph(np.zeros((0, 2), np.int32), np.zeros(0, np.float32), region_count=1)
    with pytest.raises(ValueError, match=rf"at least 1 seed, found {count}"):
        farthest_point_seeds(alone, count=count)
