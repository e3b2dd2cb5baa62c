import numpy as np
import pytest

from pseudo_maps.weighting import WEIGHTINGS, proposal_weights

MASKS = np.array([[True, False, True], [False, True, True]])
SCORES = np.array([0.5, 0.25], dtype=np.float32)


def test_uniform_means_equal_weights() -> None:
    assert proposal_weights(MASKS, SCORES, weighting="uniform") is None


@pytest.mark.parametrize("weighting", sorted(WEIGHTINGS))
def test_every_weighting_gives_usable_weights(weighting: str) -> None:
    weights = proposal_weights(MASKS, SCORES, weighting=weighting)
    if weights is not None:
        assert weights.shape == (2,) and weights.dtype == np.float64
        assert np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0


def test_unknown_weighting_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"weighting: expected one of uniform.*found 'median'"):
        proposal_weights(MASKS, SCORES, weighting="median")
