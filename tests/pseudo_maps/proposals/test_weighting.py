import numpy as np
import numpy.typing as npt
import pytest

from pseudo_maps.proposals.objectness import objectness_weights
from pseudo_maps.proposals.saliency_cues import combined_saliency
from pseudo_maps.proposals.weighting import objectness_saliency, uniform_saliency
from tests.pseudo_maps.proposals.test_objectness import grid_features, square

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
