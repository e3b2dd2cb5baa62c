import heapq
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pseudo_maps.proposals.superpixels import (
    SWEEP_ROUNDS,
    chamfer_labels,
    connected_labels,
    geodesic_superpixels,
    lattice_centres,
    move_to_means,
    reseed,
)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

side = st.integers(1, 12)
seed = st.integers(0, 10_000)
FOUR_NEIGHBOURS = ndimage.generate_binary_structure(2, 1)


def random_steps(height: int, width: int, seed: int, *, levels: int = 0) -> tuple[Floats, Floats]:
    """Positive step costs; with ``levels`` multiples of 1/64, whose sums are exact and often tie."""
    rng = np.random.default_rng(seed)
    shapes = ((height, width - 1), (height - 1, width))
    if levels:
        steps = [rng.integers(1, levels + 1, shape).astype(np.float32) / np.float32(64) for shape in shapes]
    else:
        steps = [rng.random(shape, dtype=np.float32) + np.float32(0.001) for shape in shapes]
    return steps[0], steps[1]


# --- what each step does, word by word and pixel by pixel


def slow_lattice(height: int, width: int, count: int) -> list[list[int]]:
    columns = math.ceil(math.sqrt(count * width * math.sqrt(3) / (2 * height)))
    rows = math.ceil(count / columns)
    return [
        [
            math.floor((2 * j + 1) * height / (2 * rows)),
            math.floor((4 * i + 1 + 2 * (j % 2)) * width / (4 * columns)),
        ]
        for j in range(rows)
        for i in range(columns)
    ]


def slow_reseed(centres: list[list[int]], step_x: Floats, step_y: Floats) -> list[list[int]]:
    height, width = step_x.shape[0], step_y.shape[1]
    moved = []
    for y0, x0 in centres:
        best, place = math.inf, [y0, x0]
        for y in range(y0 - 2, y0 + 3):
            for x in range(x0 - 2, x0 + 3):
                if not (0 <= y < height and 0 <= x < width):
                    continue
                cost = np.float32(0)
                if width > 1:
                    cost += step_x[y, min(x, width - 2)] + step_x[y, max(x - 1, 0)]
                if height > 1:
                    cost += step_y[min(height - 2, y), x] + step_y[max(y - 1, 0), x]
                cost += np.float32(0.01) * np.sqrt(np.float32((y - y0) ** 2 + (x - x0) ** 2))
                if cost < best:
                    best, place = cost, [y, x]
        moved.append(place)
    return moved


def slow_chamfer(centres: list[list[int]], step_x: Floats, step_y: Floats, rounds: int) -> tuple[Ints, Floats]:
    height, width = step_x.shape[0], step_y.shape[1]
    distances = np.full((height, width), np.inf, dtype=np.float32)
    labels = np.full((height, width), -1, dtype=np.int32)
    for k, (y, x) in enumerate(centres):
        distances[y, x], labels[y, x] = 0, k

    def relax(y: int, x: int, from_y: int, from_x: int, step: np.float32) -> None:
        if distances[y, x] > distances[from_y, from_x] + step:
            distances[y, x] = distances[from_y, from_x] + step
            labels[y, x] = labels[from_y, from_x]

    raster = [(y, x) for y in range(height) for x in range(width)]
    for _ in range(rounds):
        for y, x in raster:
            if x > 0:
                relax(y, x, y, x - 1, step_x[y, x - 1])
            if y > 0:
                relax(y, x, y - 1, x, step_y[y - 1, x])
        for y, x in reversed(raster):
            if x > 0:
                relax(y, x - 1, y, x, step_x[y, x - 1])
            if y > 0:
                relax(y - 1, x, y, x, step_y[y - 1, x])
    return labels, distances


def exact_distances(centres: list[list[int]], step_x: Floats, step_y: Floats) -> Floats:
    """Dijkstra over the 4-neighbour grid, in float32."""
    height, width = step_x.shape[0], step_y.shape[1]
    distances = np.full((height, width), np.inf, dtype=np.float32)
    heap: list[tuple[np.float32, int, int]] = [(np.float32(0), y, x) for y, x in centres]
    for _, y, x in heap:
        distances[y, x] = 0
    while heap:
        distance, y, x = heapq.heappop(heap)
        if distance > distances[y, x]:
            continue
        steps = []
        if x > 0:
            steps.append((y, x - 1, step_x[y, x - 1]))
        if x + 1 < width:
            steps.append((y, x + 1, step_x[y, x]))
        if y > 0:
            steps.append((y - 1, x, step_y[y - 1, x]))
        if y + 1 < height:
            steps.append((y + 1, x, step_y[y, x]))
        for to_y, to_x, step in steps:
            if distance + step < distances[to_y, to_x]:
                distances[to_y, to_x] = distance + step
                heapq.heappush(heap, (distance + step, to_y, to_x))
    return distances


def slow_means(centres: list[list[int]], labels: Ints) -> list[list[int]]:
    moved = []
    for k, centre in enumerate(centres):
        rows, columns = np.nonzero(labels == k)
        if len(rows) == 0:
            moved.append(list(centre))
        else:
            moved.append([math.floor(rows.mean() + 0.5), math.floor(columns.mean() + 0.5)])
    return moved


def slow_connected(labels: Ints) -> Ints:
    keep = np.zeros(labels.shape, dtype=np.bool_)
    for label in np.unique(labels):
        components, _ = ndimage.label(labels == label, structure=FOUR_NEIGHBOURS)
        sizes = np.bincount(components.ravel())[1:]
        # scipy numbers components in raster order of their first pixel, and argmax takes the first of equals.
        keep |= components == 1 + np.argmax(sizes)
    cleaned = np.where(keep, labels, -1)
    first = tuple(np.argwhere(keep)[0])
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            if keep[y, x]:
                continue
            if (y, x) < first:
                cleaned[y, x] = labels[first]
            else:
                cleaned[y, x] = cleaned[y, x - 1] if x > 0 else cleaned[y - 1, 0]
    order = {label: number for number, label in enumerate(dict.fromkeys(cleaned.ravel().tolist()))}
    return np.array([order[label] for label in cleaned.ravel().tolist()], dtype=np.int32).reshape(labels.shape)


def slow_superpixels(step_x: Floats, step_y: Floats, count: int, rounds: int) -> Ints:
    height, width = step_x.shape[0], step_y.shape[1]
    centres = slow_reseed(slow_lattice(height, width, count), step_x, step_y)
    labels, _ = slow_chamfer(centres, step_x, step_y, 4)
    for _ in range(rounds - 1):
        centres = slow_reseed(slow_means(centres, labels), step_x, step_y)
        labels, _ = slow_chamfer(centres, step_x, step_y, 4)
    return slow_connected(labels)


def assert_is_segmentation(labels: Ints, label_count: int) -> None:
    flat = labels.ravel().tolist()
    assert list(dict.fromkeys(flat)) == list(range(label_count))  # contiguous, in order of first appearance
    for label in range(label_count):
        _, components = ndimage.label(labels == label, structure=FOUR_NEIGHBOURS)
        assert components == 1, f"label {label} has {components} components"


# --- lattice


def test_lattice_of_the_published_size() -> None:
    centres = lattice_centres(375, 500, count=1000)
    assert centres.shape == (34 * 30, 2) and centres.dtype == np.int32
    assert len(np.unique(centres[:, 0])) == 30
    # floor(1 * 500 / 136), floor(375 / 60); odd rows are shifted by half a cell: floor(3 * 500 / 136)
    assert centres[0].tolist() == [6, 3] and centres[34].tolist() == [18, 11]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 300))
@settings(max_examples=150, deadline=None)
def test_lattice_follows_the_formula_and_stays_inside(height: int, width: int, count: int) -> None:
    centres = lattice_centres(height, width, count=count)
    assert centres.tolist() == slow_lattice(height, width, count)
    assert len(centres) >= count
    assert (centres >= 0).all() and (centres < (height, width)).all()


# --- moving the centres


@given(side, side, st.integers(1, 8), seed, st.sampled_from([1, 2, 8]))
@settings(max_examples=80, deadline=None)
def test_reseed_takes_the_flattest_pixel(height: int, width: int, count: int, seed: int, levels: int) -> None:
    step_x, step_y = random_steps(height, width, seed, levels=levels)
    centres = np.random.default_rng(seed).integers(0, (height, width), (count, 2)).astype(np.int32)
    expected = slow_reseed(centres.tolist(), step_x, step_y)
    reseed(centres, step_x, step_y, height, width)
    assert centres.tolist() == expected


@given(side, side, st.integers(1, 6), seed)
@settings(max_examples=60, deadline=None)
def test_means_are_rounded_half_up_and_empty_labels_stay(height: int, width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, (height, width)).astype(np.int32)
    centres = rng.integers(0, (height, width), (count + 1, 2)).astype(np.int32)
    expected = slow_means(centres.tolist(), labels)
    move_to_means(centres, labels)
    assert centres.tolist() == expected
    assert centres[count].tolist() == expected[count]


# --- geodesic Voronoi cells


@given(side, side, st.integers(1, 6), seed, st.sampled_from([0, 1, 3]))
@settings(max_examples=60, deadline=None)
def test_sweeps_follow_the_specification(height: int, width: int, count: int, seed: int, levels: int) -> None:
    # levels=1 is a uniform image, where every choice is a tie.
    step_x, step_y = random_steps(height, width, seed, levels=levels)
    centres = np.random.default_rng(seed).integers(0, (height, width), (count, 2)).astype(np.int32)
    labels, distances = chamfer_labels(centres, step_x, step_y, height, width, SWEEP_ROUNDS)
    slow_labels, slow_distances = slow_chamfer(centres.tolist(), step_x, step_y, 4)
    assert np.array_equal(labels, slow_labels)
    assert distances.tobytes() == slow_distances.tobytes()
    assert (labels >= 0).all() and np.isfinite(distances).all()


@given(side, side, st.integers(1, 5), seed)
@settings(max_examples=60, deadline=None)
def test_many_sweeps_give_shortest_paths(height: int, width: int, count: int, seed: int) -> None:
    step_x, step_y = random_steps(height, width, seed)
    centres = np.unique(np.random.default_rng(seed).integers(0, (height, width), (count, 2)), axis=0).astype(np.int32)
    labels, distances = chamfer_labels(centres, step_x, step_y, height, width, height * width)
    assert distances.tobytes() == exact_distances(centres.tolist(), step_x, step_y).tobytes()
    alone = np.stack([exact_distances([centre], step_x, step_y) for centre in centres.tolist()])
    # The label names a centre from which that distance is reached.
    assert np.array_equal(np.take_along_axis(alone, labels[None].astype(np.int64), axis=0)[0], distances)


def test_the_later_of_two_centres_on_one_pixel_wins() -> None:
    step_x, step_y = random_steps(4, 4, 0)
    labels, _ = chamfer_labels(np.array([[1, 1], [1, 1]], dtype=np.int32), step_x, step_y, 4, 4, SWEEP_ROUNDS)
    assert (labels == 1).all()


# --- connectivity


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # The lone 0 in the corner has nothing to its left or above: it joins the first pixel that stays.
        ([[0, 1, 1], [1, 1, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 1, 1]]),
        # The whole first row goes: 1 and 2 live on below.
        ([[1, 2, 1], [2, 2, 2], [1, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]),
        # A scrap takes its left neighbour's label pixel by pixel, also through an overwritten pixel.
        ([[0, 1, 1, 2], [0, 1, 1, 2], [0, 2, 2, 0], [0, 1, 1, 0]], [[0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 0, 0], [0] * 4]),
        # In column 0 it takes the label above.
        ([[0, 0, 1], [1, 0, 1], [0, 0, 1]], [[0, 0, 1], [0, 0, 1], [0, 0, 1]]),
        # Of two equal components the first in raster order stays.
        ([[0, 1, 0]], [[0, 1, 1]]),
        ([[1, 0, 1]], [[0, 1, 1]]),
        # Diagonal neighbours are not connected.
        ([[0, 1], [1, 0]], [[0, 1], [0, 0]]),
        ([[3]], [[0]]),
    ],
)
def test_hand_made_clean_ups(labels: list[list[int]], expected: list[list[int]]) -> None:
    cleaned, used = connected_labels(np.array(labels, dtype=np.int32), 4)
    assert cleaned.tolist() == expected
    assert slow_connected(np.array(labels, dtype=np.int32)).tolist() == expected
    assert used == 1 + max(map(max, expected))


@given(side, side, st.integers(1, 5), seed)
@settings(max_examples=200, deadline=None)
def test_clean_up_of_random_labels(height: int, width: int, label_count: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, label_count, (height, width)).astype(np.int32)
    before = labels.copy()
    cleaned, used = connected_labels(labels, label_count)
    assert np.array_equal(labels, before)
    assert np.array_equal(cleaned, slow_connected(labels))
    assert_is_segmentation(cleaned, used)
    # Nothing is lost: every label has a largest component, which stays.
    assert used == len(np.unique(labels))


# --- the whole step


@given(side, side, st.integers(1, 40), st.integers(1, 3), seed, st.sampled_from([1, 6]))
@settings(max_examples=60, deadline=None)
def test_equals_the_slow_steps_one_after_the_other(
    height: int, width: int, count: int, rounds: int, seed: int, levels: int
) -> None:
    step_x, step_y = random_steps(height, width, seed, levels=levels)
    labels, used = geodesic_superpixels(step_x, step_y, count=count, rounds=rounds)
    assert labels.dtype == np.int32
    assert np.array_equal(labels, slow_superpixels(step_x, step_y, min(count, height * width), rounds))
    assert_is_segmentation(labels, used)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (3, 400), (400, 3), (40, 60)])
@pytest.mark.parametrize("cost", [0.0, 0.25])
def test_uniform_images_of_any_shape(shape: tuple[int, int], cost: float) -> None:
    height, width = shape
    step_x, step_y = np.full((height, width - 1), cost, np.float32), np.full((height - 1, width), cost, np.float32)
    labels, used = geodesic_superpixels(step_x, step_y, count=1000)
    assert labels.shape == shape and used <= height * width
    assert_is_segmentation(labels, used)


def test_superpixels_do_not_cross_a_strong_boundary() -> None:
    height, width = 40, 60
    step_x, step_y = np.full((height, width - 1), 0.01, np.float32), np.full((height - 1, width), 0.01, np.float32)
    step_x[:, 30] = 1
    labels, used = geodesic_superpixels(step_x, step_y, count=24)
    assert not set(labels[:, :31].ravel()) & set(labels[:, 31:].ravel())
    assert 20 <= used <= 40


def test_refuses_step_costs_of_two_images() -> None:
    with pytest.raises(ValueError, match=r"step costs of shapes \(5, 7\) and \(5, 7\)"):
        geodesic_superpixels(np.zeros((5, 7), np.float32), np.zeros((5, 7), np.float32), count=4)
