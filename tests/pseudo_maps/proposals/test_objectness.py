import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.objectness import BORDER_SHARE, CENTRE_SIGMA, objectness_weights
from pseudo_maps.proposals.region_features import RegionFeatures, region_features
from pseudo_maps.proposals.region_graph import region_geometry

Bools = npt.NDArray[np.bool_]


def grid_features(rgb: npt.NDArray[np.uint8], *, cell_px: int = 1) -> RegionFeatures:
    """Features of an image cut into square cells, numbered row by row."""
    height, width = rgb.shape[0] // cell_px, rgb.shape[1] // cell_px
    labels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    labels = labels.repeat(cell_px, axis=0).repeat(cell_px, axis=1)
    boxes, _ = region_geometry(labels, region_count=height * width)
    distance = np.zeros(height * width, np.float32)
    return region_features(labels, rgb, boxes_xyxy=boxes, frame_distance=distance)


def slow_weight(mask: Bools, score: float, regions: RegionFeatures) -> float:
    """The product of the six measures, region by region in Python's floats."""
    inside = [region for region, member in enumerate(mask) if member]
    outside = [region for region, member in enumerate(mask) if not member]
    if not outside:
        return 0.0
    pixels = [int(area) for area in regions.area_px]

    def mean(values: npt.NDArray[np.floating], members: list[int]) -> float:
        return sum(pixels[region] * float(values[region]) for region in members) / sum(pixels[r] for r in members)

    area = sum(pixels[region] for region in inside)
    border = sum(int(regions.side_px[region].sum()) for region in inside) / int(regions.side_px.sum())
    off_centre = sum((mean(regions.centre_xy[:, axis], inside) - 0.5) ** 2 for axis in range(2))
    x0, y0 = (min(int(regions.boxes_xyxy[region, axis]) for region in inside) for axis in (0, 1))
    x1, y1 = (max(int(regions.boxes_xyxy[region, axis]) for region in inside) for axis in (2, 3))
    contrast = math.dist(
        [mean(regions.luv[:, channel], inside) for channel in range(3)],
        [mean(regions.luv[:, channel], outside) for channel in range(3)],
    )
    return (
        area
        / sum(pixels)
        * math.exp(-border / BORDER_SHARE)
        * math.exp(-off_centre / (2 * CENTRE_SIGMA**2))
        * (area / ((x1 - x0 + 1) * (y1 - y0 + 1)))
        * contrast
        * math.sqrt(score)
    )


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(0, 30), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_equals_the_product_of_the_measures(rows: int, columns: int, cell_px: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (rows * cell_px, columns * cell_px, 3), dtype=np.uint8)
    regions = grid_features(rgb, cell_px=cell_px)
    masks = rng.random((count, rows * columns)) < rng.random((count, 1))
    masks = masks[masks.any(axis=1)]
    scores = rng.random(len(masks), dtype=np.float32)
    weights = objectness_weights(masks, scores, regions)
    assert weights.shape == (len(masks),) and weights.dtype == np.float64
    expected = [slow_weight(mask, float(score), regions) for mask, score in zip(masks, scores, strict=True)]
    # Sums are rounded to 2**-24 of the whole image, and contrasts are small differences of them.
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-7)


def square(row: int, column: int, side: int) -> Bools:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[row : row + side, column : column + side] = True
    return mask.ravel()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param(square(6, 6, 8), square(6, 10, 8), id="centred"),
        pytest.param(square(5, 5, 8), square(0, 0, 8), id="off the border"),
        pytest.param(square(6, 6, 8), square(9, 9, 2), id="large"),
        pytest.param(square(6, 6, 8), square(6, 6, 8) & (np.arange(400) % 3 > 0), id="solid"),
    ],
)
def test_more_like_an_object_weighs_more(better: Bools, worse: Bools) -> None:
    # Both differ from their surroundings by about the same colour step.
    masks, scores = np.stack([better, worse]), np.ones(2, np.float32)
    weights = []
    for mask in masks:
        rgb = np.where(mask.reshape(20, 20, 1), (180, 60, 40), (40, 90, 160)).astype(np.uint8)
        weights.append(objectness_weights(mask[None], scores[:1], grid_features(rgb))[0])
    assert weights[0] > 1.2 * weights[1] > 0


def test_contrast_and_stability_weigh_more() -> None:
    mask = square(6, 6, 8)
    strong = np.where(mask.reshape(20, 20, 1), (200, 60, 40), (40, 90, 160)).astype(np.uint8)
    weak = np.where(mask.reshape(20, 20, 1), (60, 90, 140), (40, 90, 160)).astype(np.uint8)
    masks = np.stack([mask, mask])
    by_score = objectness_weights(masks, np.float32([0.04, 0.01]), grid_features(strong))
    assert by_score[0] == pytest.approx(2 * by_score[1])
    assert by_score[0] > 2 * objectness_weights(masks, np.float32([0.04, 0.01]), grid_features(weak))[0] > 0


def test_without_contrast_or_outside_nothing_weighs() -> None:
    regions = grid_features(np.full((20, 20, 3), 90, np.uint8))
    masks = np.stack([square(6, 6, 8), square(0, 0, 20)])
    assert objectness_weights(masks, np.ones(2, np.float32), regions).max() < 1e-6
    noise = np.random.default_rng(2).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert objectness_weights(masks, np.ones(2, np.float32), grid_features(noise))[1] == 0
