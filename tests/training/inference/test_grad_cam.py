"""Grad-CAM against values made by hand."""

import pytest
import torch
from torch import Tensor

from training.inference.grad_cam import grad_cam

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_grad_cam_by_hand() -> None:
    # Score of class 1: the square of channel 0's sum minus 2 x channel 1's first pixel; class 0 is not asked for.
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 1.0]]]])

    def score(maps: Tensor) -> Tensor:
        wanted = maps[:, 0].sum(dim=(1, 2)) ** 2 - 2 * maps[:, 1, 0, 0]
        return torch.stack([100 * maps.sum(dim=(1, 2, 3)), wanted], dim=1)

    # Gradients: channel 0 is 6 everywhere, channel 1 is -2 and 0, mean -1. 6*1 - 3 = 3, 6*2 - 1 = 11.
    assert torch.equal(grad_cam(features, score, torch.tensor([1])), torch.tensor([[[3.0, 11.0]]]))
    # Positive features that only speak against the class leave nothing.
    against = grad_cam(features, lambda maps: -maps.mean(dim=(2, 3)), torch.tensor([0]))
    assert torch.equal(against, torch.zeros(1, 1, 2))


def test_grad_cam_leaves_the_features_alone() -> None:
    features = torch.rand(2, 3, 4, 4)
    before = features.clone()
    with torch.no_grad():
        found = grad_cam(features, lambda maps: maps.sum(dim=(2, 3)), torch.tensor([0, 2]))
    assert torch.equal(features, before) and not features.requires_grad and not found.requires_grad
    torch.testing.assert_close(found, features[[0, 1], [0, 2]])


@pytest.mark.parametrize(
    ("features", "classes"),
    [
        (torch.rand(2, 3, 4), torch.tensor([0, 1])),
        (torch.rand(2, 3, 4, 4), torch.tensor([0])),
        (torch.rand(2, 3, 4, 4), torch.tensor([0, 1], dtype=torch.int32)),
    ],
)
def test_grad_cam_of_other_shapes_is_refused(features: Tensor, classes: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, C, h, w\) with \(B,\) int64"):
        grad_cam(features, lambda maps: maps.mean(dim=(2, 3)), classes)
    with pytest.raises(ValueError, match=r"scores of shape \(2,\), expected \(2, K\)"):
        grad_cam(torch.rand(2, 3, 4, 4), lambda maps: maps.mean(dim=(1, 2, 3)), torch.tensor([0, 1]))
