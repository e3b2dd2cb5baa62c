import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.filters import rgb_to_luv
from pseudo_maps.proposals.region_graph import (
    BORDER_WIDTH_PX,
    RegionGraph,
    build_region_graph,
    crossing_percentiles,
    region_features,
    region_geometry,
)

Ints = npt.NDArray[np.int32]
Pixel = tuple[int, int]

side = st.integers(1, 14)
seed = st.integers(0, 10_000)


def random_labels(height: int, width: int, seed: int) -> tuple[Ints, int]:
    """Labels 0..S-1, all used, in no order and in any number of pieces."""
    rng = np.random.default_rng(seed)
    wanted = rng.integers(1, 9, (height, width)) if seed % 2 else rng.integers(1, 99, (height, width))
    found, labels = np.unique(wanted, return_inverse=True)
    return labels.reshape(height, width).astype(np.int32), len(found)


def pixel_pairs(labels: Ints) -> tuple[list[tuple[Pixel, Pixel]], list[tuple[Pixel, Pixel]]]:
    """Pairs of neighbouring pixels with different labels, in raster order: side by side, one above the other."""
    height, width = labels.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    across = [((y, x), (y, x + 1)) for y, x in pixels if x + 1 < width]
    down = [((y, x), (y + 1, x)) for y, x in pixels if y + 1 < height]
    return [p for p in across if labels[p[0]] != labels[p[1]]], [p for p in down if labels[p[0]] != labels[p[1]]]


def pixel_pair_of(graph: RegionGraph, crossing: int, width: int) -> tuple[Pixel, Pixel]:
    flat = int(graph.crossing_pixel[crossing])
    if crossing < graph.horizontal_count:
        y, x = divmod(flat, width - 1)
        return (y, x), (y, x + 1)
    y, x = divmod(flat, width)
    return (y, x), (y + 1, x)


def test_hand_made_graph() -> None:
    graph = build_region_graph(np.array([[0, 0, 1], [2, 0, 1]], dtype=np.int32), region_count=3)
    assert graph.edges.tolist() == [[0, 1], [0, 2]]
    assert graph.horizontal_count == 3
    # (0,1)-(0,2), (1,0)-(1,1), (1,1)-(1,2), then (0,0)-(1,0)
    assert graph.crossing_pixel.tolist() == [1, 2, 3, 0]
    assert graph.crossing_edge.tolist() == [0, 1, 0, 1]


@given(side, side, seed)
@settings(max_examples=120, deadline=None)
def test_equals_the_set_of_touching_pairs(height: int, width: int, seed: int) -> None:
    labels, region_count = random_labels(height, width, seed)
    graph = build_region_graph(labels, region_count=region_count)
    across, down = pixel_pairs(labels)
    touching = {tuple(sorted((int(labels[a]), int(labels[b])))) for a, b in across + down}
    assert [tuple(edge) for edge in graph.edges.tolist()] == sorted(touching)
    assert graph.region_count == region_count and graph.horizontal_count == len(across)
    assert graph.edges.dtype == graph.crossing_edge.dtype == np.int32
    assert [pixel_pair_of(graph, c, width) for c in range(len(graph.crossing_pixel))] == across + down
    for edge, (a, b) in zip(graph.crossing_edge, across + down, strict=True):
        assert sorted((labels[a], labels[b])) == graph.edges[edge].tolist()


@pytest.mark.parametrize("shape", [(1, 1), (4, 5)])
def test_one_region_has_no_edges(shape: tuple[int, int]) -> None:
    graph = build_region_graph(np.zeros(shape, dtype=np.int32), region_count=1)
    assert graph.edges.shape == (0, 2) and graph.horizontal_count == 0
    assert graph.crossing_edge.shape == graph.crossing_pixel.shape == (0,)
    assert crossing_percentiles(graph, np.zeros(0, np.float32), percent=50).shape == (0,)


# --- percentiles


@given(
    side,
    side,
    seed,
    st.integers(1, 3),
    st.sampled_from([0.0, 25.0, 50.0, 65.0, 100.0]),
    st.sampled_from([4, 1 << 20]),
)
@settings(max_examples=100, deadline=None)
def test_percentiles_equal_sorted_lists(
    height: int, width: int, seed: int, copies: int, percent: float, levels: int
) -> None:
    labels, region_count = random_labels(height, width, seed)
    graph = build_region_graph(labels, region_count=region_count)
    crossings = len(graph.crossing_edge)
    values = np.random.default_rng(seed).integers(0, levels, copies * crossings).astype(np.float32) / np.float32(levels)
    lists: list[list[float]] = [[] for _ in graph.edges]
    for place, value in enumerate(values.tolist()):
        lists[graph.crossing_edge[place % crossings]].append(value)
    expected = [sorted(found)[math.floor(percent / 100 * (len(found) - 1) + 0.5)] for found in lists]
    before = values.copy()
    percentiles = crossing_percentiles(graph, values, percent=percent)
    assert percentiles.dtype == np.float32 and percentiles.tolist() == expected
    assert np.array_equal(values, before)


@pytest.mark.parametrize(
    ("percent", "count", "place"), [(50, 2, 1), (50, 3, 1), (50, 4, 2), (25, 2, 0), (25, 3, 1), (25, 4, 1), (25, 6, 1)]
)
def test_percentile_takes_an_element_never_between(percent: float, count: int, place: int) -> None:
    # The places are floor(percent / 100 * (count - 1) + 0.5), worked out by hand.
    labels = np.repeat(np.array([[0, 1]], dtype=np.int32), count, axis=0)
    graph = build_region_graph(labels, region_count=2)
    values = np.arange(count, dtype=np.float32)[::-1].copy()
    assert crossing_percentiles(graph, values, percent=percent).tolist() == [place]


def test_percentiles_refuse_a_wrong_number_of_values() -> None:
    graph = build_region_graph(np.array([[0, 1, 2]], dtype=np.int32), region_count=3)
    with pytest.raises(ValueError, match=r"expected a multiple of 2 crossings, found 3 values"):
        crossing_percentiles(graph, np.zeros(3, np.float32), percent=25)


# --- boxes and sides


@given(side, side, seed)
@settings(max_examples=100, deadline=None)
def test_geometry_equals_rasterised_regions(height: int, width: int, seed: int) -> None:
    labels, region_count = random_labels(height, width, seed)
    boxes, sides = region_geometry(labels, region_count=region_count)
    assert boxes.dtype == np.int32 and sides.dtype == np.int32
    for region in range(region_count):
        mask = labels == region
        rows, columns = np.nonzero(mask)
        assert boxes[region].tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
        touched = mask[:4].any() + 2 * mask[-4:].any() + 4 * mask[:, :4].any() + 8 * mask[:, -4:].any()
        assert sides[region] == touched


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        ((10, 10), 0),
        ((3, 10), 1),
        ((4, 10), 0),
        ((16, 10), 2),
        ((15, 10), 0),
        ((10, 3), 4),
        ((10, 4), 0),
        ((10, 17), 8),
        ((10, 16), 0),
        ((0, 0), 5),
        ((19, 20), 10),
    ],
)
def test_the_outermost_four_pixels_belong_to_a_side(pixel: Pixel, expected: int) -> None:
    assert BORDER_WIDTH_PX == 4
    labels = np.zeros((20, 21), dtype=np.int32)
    labels[pixel] = 1
    _, sides = region_geometry(labels, region_count=2)
    assert sides.tolist() == [15, expected]


# --- features


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_equals_means_over_each_region_by_itself(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Runs of equal labels as well as single pixels.
    labels = np.sort(rng.integers(0, 6, (height, width)), axis=int(rng.integers(0, 2)))
    labels = np.unique(labels, return_inverse=True)[1].reshape(height, width).astype(np.int32)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    count = int(labels.max()) + 1
    boxes, _ = region_geometry(labels, region_count=count)
    distance = rng.random(count, dtype=np.float32)
    found = region_features(labels, rgb, boxes_xyxy=boxes, frame_distance=distance)
    for region in range(count):
        y, x = np.nonzero(labels == region)
        assert found.area_px[region] == len(y)
        centre = [(x + 0.5).mean() / width, (y + 0.5).mean() / height]
        np.testing.assert_allclose(found.centre_xy[region], centre, rtol=1e-12)
        sides = [(y == 0).sum(), (y == height - 1).sum(), (x == 0).sum(), (x == width - 1).sum()]
        assert found.side_px[region].tolist() == sides
        mean_rgb = np.rint(rgb[y, x].sum(axis=0) / len(y)).astype(np.uint8)
        assert np.array_equal(found.luv[region], rgb_to_luv(mean_rgb[None, None])[:, 0, 0])
    assert np.array_equal(found.boxes_xyxy, boxes) and np.array_equal(found.frame_distance, distance)


def test_an_image_of_another_size_is_refused() -> None:
    labels = np.zeros((4, 5), np.int32)
    boxes, _ = region_geometry(labels, region_count=1)
    with pytest.raises(ValueError, match=r"shape \(5, 4, 3\) does not fit a label map of shape \(4, 5\)"):
        region_features(labels, np.zeros((5, 4, 3), np.uint8), boxes_xyxy=boxes, frame_distance=np.zeros(1, np.float32))
