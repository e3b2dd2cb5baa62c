import pytest
import torch

from training.networks.normalisation import IMAGENET_MEAN, IMAGENET_STD, Normalisation


def test_each_channel_has_its_own_constants() -> None:
    images = torch.tensor([0.485, 0.456, 1.0], dtype=torch.float64).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    result = Normalisation()(images)
    assert result.shape == (2, 3, 4, 5) and result.dtype == torch.float64
    assert result[:, :2].abs().max() < 1e-7
    torch.testing.assert_close(result[:, 2], torch.full((2, 4, 5), (1 - 0.406) / 0.225, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_equals_torchvisions_transform_and_stores_nothing(dtype: torch.dtype) -> None:
    from torchvision.transforms.functional import normalize

    images = torch.rand(2, 3, 6, 7).to(dtype)
    module = Normalisation()
    assert module(images).dtype == dtype
    torch.testing.assert_close(module(images), normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD)))
    assert module.state_dict() == {}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\), expected \(B, 3, H, W\)"),
        (torch.zeros(1, 8, 8, 3), r"expected \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "divide uint8 by 255"),
    ],
)
def test_what_is_no_image_is_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalisation()(images)
