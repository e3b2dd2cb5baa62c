import numpy as np
import pytest

from pseudo_maps.weighting import WEIGHTINGS, superpixel_saliency

MASKS = np.array([[True, False, True, False], [False, False, True, True], [True, False, True, False]])


def test_uniform_is_the_plain_mean() -> None:
    saliency = superpixel_saliency(MASKS, weighting="uniform")
    assert saliency.dtype == np.float32
    np.testing.assert_array_equal(saliency, np.float32([2 / 3, 0, 1, 1 / 3]))


@pytest.mark.parametrize("weighting", sorted(WEIGHTINGS))
def test_every_weighting_gives_shares(weighting: str) -> None:
    saliency = superpixel_saliency(MASKS, weighting=weighting)
    assert saliency.shape == (4,) and (saliency >= 0).all() and (saliency <= 1).all()
    assert saliency[2] == 1 and saliency[1] == 0
    np.testing.assert_array_equal(superpixel_saliency(MASKS[:0], weighting=weighting), np.zeros(4))


def test_unknown_weighting_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"weighting: expected one of uniform.*found 'median'"):
        superpixel_saliency(MASKS, weighting="median")
