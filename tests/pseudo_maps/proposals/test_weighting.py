import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.region_graph import RegionFeatures, region_features, region_geometry
from pseudo_maps.proposals.weighting import (
    BORDER_SHARE,
    COLOUR_NOISE,
    PROPOSAL_CENTRE_SIGMA,
    SALIENCY_CENTRE_SIGMA,
    colour_share,
    combined_saliency,
    frame_contrast,
    objectness_saliency,
    objectness_weights,
    stretched,
    uniform_saliency,
)

# --- objectness of proposals


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
        * math.exp(-off_centre / (2 * PROPOSAL_CENTRE_SIGMA**2))
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


# --- cues of superpixels


@pytest.fixture
def disc_regions() -> RegionFeatures:
    """Features of 20x20 single pixels: a red disc on blue, both noisy."""
    y, x = np.mgrid[:20, :20]
    inside = (y - 9.5) ** 2 + (x - 9.5) ** 2 < 36
    noise = np.random.default_rng(1).integers(0, 12, (20, 20, 3))
    rgb = (np.where(inside[..., None], (190, 50, 40), (40, 80, 170)) + noise).astype(np.uint8)
    distance = np.where(inside, 1, 0.1).astype(np.float32).ravel()
    return dataclasses.replace(grid_features(rgb), frame_distance=distance)


@pytest.mark.parametrize(
    ("values", "expected"), [([2, 4, 3], [0, 1, 0.5]), ([7, 7], [0, 0]), ([0], [0]), ([-1, 1], [0, 1])]
)
def test_stretched_spans_zero_to_one(values: list[float], expected: list[float]) -> None:
    assert stretched(np.array(values, dtype=np.float64)).tolist() == expected


def slow_frame_contrast(regions: RegionFeatures) -> npt.NDArray[np.float64]:
    """Pixel by pixel: numpy's covariance of the colours along a side, one solved system a region."""
    distances = []
    for side in range(4):
        along = np.repeat(regions.luv, regions.side_px[:, side], axis=0).astype(np.float64)
        covariance = np.cov(along.T, bias=True) + COLOUR_NOISE**2 * np.eye(3)
        differences = regions.luv - along.mean(axis=0)
        found = np.array([math.sqrt(d @ np.linalg.solve(covariance, d)) for d in differences])
        distances.append(found / found.max())
    summed = np.sum(distances, axis=0) - np.max(distances, axis=0)
    contrast: npt.NDArray[np.float64] = (summed - summed.min()) / (summed.max() - summed.min())
    return contrast


def test_frame_contrast_equals_mahalanobis_distances(disc_regions: RegionFeatures) -> None:
    found = frame_contrast(disc_regions)
    np.testing.assert_allclose(found, slow_frame_contrast(disc_regions), atol=1e-9)
    inside = disc_regions.frame_distance == 1
    assert found[inside].min() > found[~inside].max()


def test_a_side_covered_by_the_object_does_not_hide_it() -> None:
    rgb = np.full((12, 12, 3), (40, 80, 170), np.uint8)
    rgb[6:, :] = (190, 50, 40)
    rgb[6:, :3] = rgb[6:, 9:] = rgb[0, 0]
    found = frame_contrast(grid_features(rgb)).reshape(12, 12)
    assert found[8, 5] == 1 and found[2, 5] == 0


def test_colour_share_is_the_mean_over_equal_colours() -> None:
    # Two colours of two regions each; areas 1, 3, 2, 2 through side-free features.
    regions = RegionFeatures(
        area_px=np.array([1, 3, 2, 2]),
        centre_xy=np.full((4, 2), 0.5),
        side_px=np.ones((4, 4), np.int64),
        luv=np.float32([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.8, 0.2, 0.3], [0.8, 0.2, 0.3]]),
        boxes_xyxy=np.zeros((4, 4), np.int32),
        frame_distance=np.zeros(4, np.float32),
    )
    found = colour_share(np.array([1.0, 0.0, 0.5, 0.25]), regions)
    np.testing.assert_allclose(found, [0.25, 0.25, 0.375, 0.375])


def test_combined_keeps_the_object_and_fades_to_the_corners(disc_regions: RegionFeatures) -> None:
    inside = disc_regions.frame_distance == 1
    shapes = np.where(inside, 0.6, 0.2)
    found = combined_saliency(shapes, disc_regions)
    assert found.min() >= 0 and found.max() <= 1
    assert found[inside].min() > 2 * found[~inside].max()
    # Doubling or shifting the mean of the proposals changes nothing.
    np.testing.assert_allclose(combined_saliency(2 * shapes + 0.1, disc_regions), found, atol=1e-12)


def test_the_centre_is_a_gaussian_on_the_position() -> None:
    regions = grid_features(np.full((9, 9, 3), 70, np.uint8))
    # One corner and the middle equally salient, the rest not.
    mean = np.zeros(81)
    mean[[0, 40]] = 1
    found = combined_saliency(mean, regions)
    assert found[40] == 1
    assert found[0] == pytest.approx(math.exp(-2 * (4 / 9) ** 2 / (2 * SALIENCY_CENTRE_SIGMA**2)))


# --- saliency


MASKS = np.array([[True, False, True, False], [False, False, True, True], [True, False, True, False]])


def test_uniform_is_the_plain_mean() -> None:
    saliency = uniform_saliency(MASKS)
    assert saliency.dtype == np.float32
    np.testing.assert_array_equal(saliency, np.float32([2 / 3, 0, 1, 1 / 3]))
    np.testing.assert_array_equal(uniform_saliency(MASKS[:0]), np.zeros(4, np.float32))


def noisy_square() -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(3).integers(0, 20, (20, 20, 3))
    return (np.where(square(6, 6, 8).reshape(20, 20, 1), (180, 60, 40), (40, 90, 160)) + noise).astype(np.uint8)


def test_objectness_is_the_weighted_mean_then_the_cues() -> None:
    regions = grid_features(noisy_square())
    rng = np.random.default_rng(4)
    masks = np.concatenate([rng.random((30, 400)) < rng.random((30, 1)), square(6, 6, 8)[None]])
    scores = rng.random(31, dtype=np.float32)
    weights = objectness_weights(masks, scores, regions)
    mean = np.average(masks.astype(np.float64), axis=0, weights=weights)
    saliency = objectness_saliency(masks, scores, regions)
    assert saliency.shape == (400,) and saliency.dtype == np.float32
    np.testing.assert_allclose(saliency, combined_saliency(mean, regions), atol=1e-5)
    assert np.array_equal(saliency, objectness_saliency(masks.copy(), scores.copy(), regions))


def test_the_object_stands_out_more_than_in_the_plain_mean() -> None:
    inside = square(6, 6, 8)
    # The object once, and eight grounds that reach the frame and cover half of it.
    grounds = np.stack([~inside & square(row, column, 14) for row in (0, 6) for column in (0, 6)] * 2)
    masks = np.concatenate([grounds, inside[None]])
    regions = grid_features(noisy_square())
    uniform = uniform_saliency(masks)
    saliency = objectness_saliency(masks, np.ones(9, np.float32), regions)
    assert uniform[inside].mean() < uniform[~inside].mean()
    assert saliency[inside].mean() > 3 * saliency[~inside].mean()


@pytest.mark.parametrize("count", [0, 3])
def test_where_nothing_stands_out_objectness_is_the_plain_mean(count: int) -> None:
    # The whole frame has no outside, so its weight is zero.
    masks = np.ones((count, 400), dtype=np.bool_)
    saliency = objectness_saliency(masks, np.ones(count, np.float32), grid_features(noisy_square()))
    assert np.array_equal(saliency, uniform_saliency(masks))
    assert saliency.max() == (count > 0)
