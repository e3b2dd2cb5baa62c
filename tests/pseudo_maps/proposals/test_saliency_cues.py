import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest

from pseudo_maps.proposals.region_features import RegionFeatures
from pseudo_maps.proposals.saliency_cues import (
    CENTRE_SIGMA,
    COLOUR_NOISE,
    colour_share,
    combined_saliency,
    frame_contrast,
    stretched,
)
from tests.pseudo_maps.proposals.test_objectness import grid_features


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


def test_colour_share_of_one_colour_is_the_mean() -> None:
    regions = grid_features(np.full((3, 3, 3), 70, np.uint8))
    np.testing.assert_allclose(colour_share(np.arange(9.0), regions), np.full(9, 4.0))


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
    assert found[0] == pytest.approx(math.exp(-2 * (4 / 9) ** 2 / (2 * CENTRE_SIGMA**2)))
