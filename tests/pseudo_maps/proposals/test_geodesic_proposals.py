import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pseudo_maps.proposals import PRESETS, ProposalConfig, Proposals, propose, propose_from_boundaries
from pseudo_maps.proposals.boundaries import boundaries_from_pixel_map, boundaries_from_step_maps
from pseudo_maps.proposals.geodesic_config import WEIGHTINGS
from pseudo_maps.proposals.geodesic_distances import build_cost_graph, geodesic_costs
from pseudo_maps.proposals.geodesic_proposals import geodesic_masks
from pseudo_maps.proposals.region_graph import build_region_graph, region_geometry
from tests.pseudo_maps.proposals.test_geodesic_distances import neighbour_dicts, slow_dijkstra, slow_seeds
from tests.pseudo_maps.proposals.test_level_sets import slow_keep, slow_level_sets

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

SMALL = ProposalConfig(superpixels=150, seeds=20, levels=5, max_iou=0.8)


@pytest.fixture
def opencv_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def disc_image(height: int = 120, width: int = 160) -> tuple[Bytes, Bools]:
    """A coloured disc on noisy ground, and where it is."""
    y, x = np.mgrid[:height, :width]
    inside = (y - height // 2) ** 2 + (x - width // 2) ** 2 < (min(height, width) // 4) ** 2
    noise = np.random.default_rng(5).integers(0, 25, (height, width, 3))
    return (np.where(inside[..., None], (180, 50, 30), (30, 90, 140)) + noise).astype(np.uint8), inside


@pytest.fixture(scope="module")
def disc_proposals() -> Proposals:
    return propose(disc_image()[0], config=SMALL)


def drawn(proposals: Proposals) -> Bools:
    """Every proposal as pixels, (P, H, W)."""
    return np.stack([mask[proposals.labels] for mask in proposals.masks])


def best_overlap(proposals: Proposals, truth: Bools) -> float:
    pixels = drawn(proposals)
    return float(((pixels & truth).sum(axis=(1, 2)) / (pixels | truth).sum(axis=(1, 2))).max())


def assert_sound(proposals: Proposals, shape: tuple[int, int], max_iou: float) -> None:
    labels, masks, scores = proposals.labels, proposals.masks, proposals.scores
    region_count = masks.shape[1]
    assert labels.shape == shape and labels.dtype == np.int32
    assert np.array_equal(np.unique(labels), np.arange(region_count))
    for region, part in enumerate(ndimage.find_objects(labels + 1)):
        assert ndimage.label(labels[part] == region)[1] == 1, f"superpixel {region} is not connected"
    assert masks.dtype == np.bool_ and scores.dtype == np.float32 and len(masks) == len(scores) >= 1
    assert masks.any(axis=1).all()
    assert np.isfinite(scores).all() and (np.diff(scores) <= 0).all() and scores.min() >= 0
    counts = masks.astype(np.int64)
    shared = counts @ counts.T
    sizes = counts.sum(axis=1)
    overlaps = shared / (sizes[:, None] + sizes - shared)
    np.fill_diagonal(overlaps, 0)
    assert overlaps.max() <= max_iou
    for weighting in WEIGHTINGS:
        saliency = proposals.average(weighting=weighting)
        assert saliency.shape == shape and saliency.dtype == np.float32
        assert saliency.min() >= 0 and saliency.max() <= 1 and saliency.max() > 0  # false for NaN too
    boxes = proposals.boxes_xyxy
    assert boxes.shape == (len(masks), 4)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] < shape[::-1]).all() and (boxes[:, :2] <= boxes[:, 2:]).all()


# --- masks from a graph


def slow_masks(
    edges: npt.NDArray[np.int32],
    costs: npt.NDArray[np.float32],
    sides: npt.NDArray[np.int32],
    config: ProposalConfig,
) -> tuple[Bools, list[float]]:
    """Sections 4 to 7 of the algorithm, set by set, from the plain-Python oracles of the single steps."""
    region_count = len(sides)
    neighbours = neighbour_dicts(edges, costs, region_count)
    seeds = slow_seeds(neighbours, config.seeds)

    def from_background(kind: int) -> npt.NDArray[np.float32]:
        if kind == 0:
            return np.zeros(region_count, dtype=np.float32)
        return slow_dijkstra(neighbours, np.nonzero(sides & kind)[0].tolist())

    found: list[tuple[Bools, np.float32]] = []
    options: dict[str, Any] = {"levels": config.levels, "max_iou": config.max_iou}
    for seed in seeds:
        for kind in (0, 15):
            field = slow_dijkstra(neighbours, [seed]) - from_background(kind)
            found += slow_level_sets(field, min_size=0, max_size=0.75, **options)
    if config.seed_proposals:
        found += [(np.arange(region_count) == seed, np.float32(1e-3)) for seed in seeds]
    for kind in range(16):
        found += slow_level_sets(-from_background(kind), min_size=0.1, max_size=1, **options)
    ranked = sorted(range(len(found)), key=lambda i: (-float(found[i][1]), i))
    masks = np.array([found[i][0] for i in ranked])
    kept = slow_keep(masks, Fraction(str(config.max_iou)))
    return masks[kept], [float(found[ranked[k]][1]) for k in kept]


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 8),
    st.integers(1, 7),
    st.sampled_from([0.7, 0.8, 0.85]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_masks_equal_the_specification(
    rows: int, columns: int, seeds: int, levels: int, max_iou: float, seed_proposals: bool, flat: bool, seed: int
) -> None:
    # Superpixels are 3x3 pixels, so that the outer four pixels belong to the two outer rows of superpixels.
    labels = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns).repeat(3, axis=0).repeat(3, axis=1)
    regions = build_region_graph(labels, region_count=rows * columns)
    rng = np.random.default_rng(seed)
    weights = np.full(len(regions.edges), 0.3) if flat else rng.random(len(regions.edges))
    costs = geodesic_costs(weights.astype(np.float32))
    _, sides = region_geometry(labels, region_count=rows * columns)
    config = ProposalConfig(seeds=seeds, levels=levels, max_iou=max_iou, seed_proposals=seed_proposals)
    graph = build_cost_graph(regions.edges, costs, region_count=rows * columns)
    masks, scores, frame_distance = geodesic_masks(graph, sides, config=config)
    expected_masks, expected_scores = slow_masks(regions.edges, costs, sides, config)
    assert scores.tolist() == expected_scores
    at_frame = np.nonzero(sides)[0].tolist()
    from_frame = slow_dijkstra(neighbour_dicts(regions.edges, costs, rows * columns), at_frame)
    assert np.array_equal(frame_distance, from_frame)
    assert masks.shape[1] == rows * columns
    assert np.array_equal(masks, expected_masks.reshape(-1, rows * columns))


# --- the whole way on any image


def pictures(shape: tuple[int, int]) -> dict[str, Bytes]:
    rng = np.random.default_rng(shape[0] * 7919 + shape[1])
    noise = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return {
        "black": np.zeros((*shape, 3), np.uint8),
        "white": np.full((*shape, 3), 255, np.uint8),
        "grey": noise[..., :1].repeat(3, axis=2),
        "noise": noise,
    }


@pytest.mark.parametrize("kind", ["black", "white", "grey", "noise"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (2, 1), (2, 2), (1, 40), (40, 1), (5, 7), (3, 700), (700, 3), (24, 31), (90, 70)]
)
def test_any_image_has_sound_proposals(shape: tuple[int, int], kind: str) -> None:
    config = ProposalConfig(seeds=20, levels=3, max_iou=0.8, working_size=700)
    assert_sound(propose(pictures(shape)[kind], config=config), shape, 0.8)


@pytest.mark.parametrize(
    ("shape", "working"), [((3, 2000), (1, 500)), ((2000, 3), (500, 1)), ((900, 1200), (375, 500))]
)
def test_large_images_are_shrunk_first(shape: tuple[int, int], working: tuple[int, int]) -> None:
    assert_sound(propose(pictures(shape)["noise"], config=PRESETS["b650"]), working, 0.8)


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("superpixels", [1, 2, 30, 5000])
def test_any_number_of_superpixels(superpixels: int, rounds: int) -> None:
    config = dataclasses.replace(SMALL, superpixels=superpixels, rounds=rounds)
    proposals = propose(disc_image(40, 50)[0], config=config)
    assert_sound(proposals, (40, 50), config.max_iou)
    assert proposals.masks.shape[1] <= 2000


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("shape", [(1, 7), (40, 48), (40, 50)])
def test_a_uniform_image_has_the_proposals_of_no_boundary(shape: tuple[int, int], level: int) -> None:
    # Seven and fifty columns leave some over behind vectorised filters, whose rounding may differ.
    height, width = shape
    nothing = (np.zeros((height, width - 1), np.float32), np.zeros((height - 1, width), np.float32))
    expected = propose_from_boundaries(boundaries_from_step_maps(nothing, nothing), config=SMALL)
    found = propose(np.full((height, width, 3), level, np.uint8), config=SMALL)
    assert np.array_equal(found.labels, expected.labels)
    assert np.array_equal(found.masks, expected.masks) and np.array_equal(found.scores, expected.scores)


def test_the_object_is_among_the_proposals_and_stands_out(disc_proposals: Proposals) -> None:
    _, inside = disc_image()
    assert best_overlap(disc_proposals, inside) > 0.9
    saliency = disc_proposals.average()
    assert saliency[inside].mean() > 1.3 * saliency[~inside].mean()


def test_an_outline_drawn_by_any_detector_becomes_a_proposal() -> None:
    inside = np.zeros((90, 120), dtype=np.bool_)
    inside[20:60, 30:95] = True
    thick = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(np.float32)
    boundaries = boundaries_from_pixel_map(thick * np.float32(0.9))
    image = np.where(inside[..., None], (200, 60, 40), (60, 90, 120)).astype(np.uint8)
    proposals = propose_from_boundaries(boundaries, config=SMALL, rgb_hwc=image)
    assert_sound(proposals, inside.shape, SMALL.max_iou)
    assert best_overlap(proposals, inside) > 0.85


def test_only_the_seed_proposals_can_be_left_out() -> None:
    image, _ = disc_image()
    config = dataclasses.replace(SMALL, seed_proposals=False)
    without = propose(image, config=config)
    with_them = propose(image, config=SMALL)
    assert np.array_equal(without.labels, with_them.labels)
    assert (with_them.masks.sum(axis=1) == 1).sum() == SMALL.seeds
    assert not (without.masks.sum(axis=1) == 1).any()


# --- what is made of proposals


def test_average_equals_the_mean_of_drawn_masks(disc_proposals: Proposals) -> None:
    expected = drawn(disc_proposals).mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(disc_proposals.average(), expected, rtol=1e-7)
    assert expected.std() > 0.03  # not just flat


def test_boxes_equal_those_of_drawn_masks(disc_proposals: Proposals) -> None:
    boxes = disc_proposals.boxes_xyxy
    assert boxes.dtype == np.int32
    for box, pixels in zip(boxes.tolist(), drawn(disc_proposals), strict=True):
        rows, columns = np.nonzero(pixels)
        assert box == [columns.min(), rows.min(), columns.max(), rows.max()]


def test_no_proposals_give_an_empty_map_and_no_boxes() -> None:
    config = dataclasses.replace(SMALL, seed_proposals=False)
    proposals = propose(np.zeros((1, 1, 3), np.uint8), config=config)
    assert proposals.masks.shape == (0, 1) and proposals.scores.shape == (0,)
    assert proposals.average().tolist() == [[0]] and proposals.boxes_xyxy.shape == (0, 4)


def test_unknown_weighting_is_refused(disc_proposals: Proposals) -> None:
    with pytest.raises(ValueError, match="weighting: expected one of"):
        disc_proposals.average(weighting="none")


def test_weighting_by_objectness_needs_the_image_and_finds_the_object(disc_proposals: Proposals) -> None:
    _, inside = disc_image()
    plain, weighted = disc_proposals.average(), disc_proposals.average(weighting="objectness")
    assert weighted[inside].mean() / weighted[~inside].mean() > 2 * plain[inside].mean() / plain[~inside].mean()
    nothing = (np.zeros((8, 8), np.float32), np.zeros((7, 9), np.float32))
    without_image = propose_from_boundaries(boundaries_from_step_maps(nothing, nothing), config=SMALL)
    with pytest.raises(ValueError, match="weighting 'objectness' needs the image"):
        without_image.average(weighting="objectness")


# --- the same input gives the same bytes


def test_the_result_is_the_same_every_time(opencv_threads: None) -> None:
    image, _ = disc_image(200, 310)
    results = set()
    for threads in (1, 1, 2, 4):
        cv2.setNumThreads(threads)
        proposals = propose(image, config=PRESETS["b650"])
        parts = (proposals.labels, proposals.masks, proposals.scores, proposals.boxes_xyxy, proposals.average())
        results.add(b"".join(part.tobytes() for part in parts))
    assert len(results) == 1


def test_layout_and_permissions_of_the_image_do_not_matter() -> None:
    image, _ = disc_image(60, 80)
    expected = propose(image, config=SMALL)
    frozen = np.asfortranarray(image)
    frozen.flags.writeable = False
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    for same in (frozen, flipped):
        found = propose(same, config=SMALL)
        assert np.array_equal(found.labels, expected.labels) and np.array_equal(found.masks, expected.masks)
        assert np.array_equal(found.scores, expected.scores)


# --- bad input


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((4, 5, 1), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5, 3), np.int64),
        np.zeros((1, 4, 5, 3), np.uint8),
    ],
)
def test_refuses_what_is_no_image(image: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"expected a \(H, W, 3\) uint8 RGB image, found shape .* and type"):
        propose(image, config=SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundaries": "canny"}, "boundaries: expected one of .*found 'canny'"),
        ({"superpixels": 0}, "superpixels: expected at least 1, found 0"),
        ({"rounds": 0}, "rounds: expected at least 1"),
        ({"seeds": -1}, "seeds: expected at least 1, found -1"),
        ({"levels": 0}, "levels: expected at least 1"),
        ({"working_size": 0}, "working_size: expected at least 1"),
        ({"max_iou": 0.0}, r"max_iou: expected 0 < max_iou < 1, found 0\.0"),
        ({"max_iou": 1.01}, "max_iou: expected"),
        ({"max_iou": float("nan")}, "max_iou: expected"),
    ],
)
def test_configuration_is_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProposalConfig(**options)


def test_presets_are_those_of_the_release() -> None:
    chosen = {name: (c.seeds, c.levels, c.max_iou) for name, c in PRESETS.items()}
    assert chosen == {
        "b650": (130, 5, 0.80),
        "b1100": (150, 7, 0.85),
        "b2200": (200, 10, 0.90),
        "b4400": (300, 15, 0.90),
    }
    for config in PRESETS.values():
        assert (config.superpixels, config.rounds, config.seed_proposals) == (1000, 1, True)
