import math

import numpy as np
import pytest

from evaluation.boxes.geometry import FRAME_PX
from evaluation.metrics.baselines import SQUARE_SIDE, centred_gaussian_map, centred_square_box


def test_centred_gaussian_is_the_formula() -> None:
    found = centred_gaussian_map()
    x, y = 30, 190
    values = [math.exp(-((a - 111.5) ** 2 + (b - 111.5) ** 2) / (2 * 56**2)) for a, b in ((x, y), (0, 0))]
    peak = math.exp(-(0.5**2 + 0.5**2) / (2 * 56**2))
    assert found.shape == (224, 224) and found.dtype == np.float64
    assert found[y, x] == pytest.approx((values[0] - values[1]) / (peak - values[1]), abs=1e-12)
    assert found.min() == 0 and found.max() == 1 == found[111, 112]


def test_centred_square_has_its_share_of_the_frame_and_equal_margins() -> None:
    x0, y0, x1, y1 = centred_square_box().tolist()
    assert (x0, y0, x1, y1) == (28, 28, 195, 195)
    assert x1 - x0 + 1 == SQUARE_SIDE * FRAME_PX == 168
    assert x0 == FRAME_PX - 1 - x1
