"""``benchmarks/triplet_optimum.py``: its masks, and whose loss is lowest."""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.triplet_optimum import AREA_WEIGHTS, SCALES, candidates, winners


def test_masks_by_hand() -> None:
    names, masks = candidates(np.array([[0.25, 0.25, 0.5, 0.75]]), side=32)
    assert names == ["everything", "the boxes", *["grown"] * 2, *["shrunk"] * 2, *["shifted"] * 4, "nothing"]
    # 8 x 16 pixels, grown to 10 x 20 and 12 x 24, shrunk to 6 x 12 and 4 x 8, and shifted by a third.
    areas = [32 * 32, 8 * 16, 10 * 20, 12 * 24, 6 * 12, 4 * 8, *[8 * 16] * 4, 0]
    assert masks.sum(dim=(1, 2)).tolist() == areas
    assert [int(mask.any(dim=0).nonzero()[0]) for mask in masks[6:10]] == [5, 11, 8, 8]
    assert [int(mask.any(dim=1).nonzero()[0]) for mask in masks[6:10]] == [8, 8, 3, 13]


def test_the_lowest_loss_by_hand() -> None:
    """F is 2 x brightness: of a white image a mask of area a has d_pos = 4 (1 - a)^2 and d_neg = 4 (2 a - 1)^2."""

    class Brightness(nn.Module):
        def forward(self, images01_bchw: Tensor) -> Tensor:
            return 2 * images01_bchw.mean(dim=(1, 2, 3))[:, None]

    masks = torch.zeros(3, 4, 4)
    masks[0], masks[1, :2] = 1, 1
    found = dict(winners(torch.ones(3, 4, 4), masks, perceptual=Brightness()))
    # Losses -4, 1, 0 and areas 1, 1/2, 0; divided by the distance 4 to black: -1, 1/4, 0.
    assert [found["none", weight] for weight in AREA_WEIGHTS] == [0] * 6
    # With a factor of 1 everything and nothing cost the same.
    assert [found["image", weight] for weight in AREA_WEIGHTS] == [0, 0, 0, 0, 0, 2]
    assert list(found) == [(scale, weight) for scale in SCALES for weight in AREA_WEIGHTS]
