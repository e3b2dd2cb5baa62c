"""Normalisation of images by ImageNet's mean and standard deviation.

Shapes: B batch, H W pixels.
"""

import torch
from torch import Tensor, nn

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Normalisation", "normalise"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ILSVRC train, on the scale 0..1; the values torchvision's weights expect."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue over ILSVRC train, on the scale 0..1 (torchvision)."""


class Normalisation(nn.Module):
    """``normalise`` with its constants kept on the model's device; no entry in the state dict.

    The constants are buffers because a tensor made in every forward pass would cost a copy from the host,
    and a wait, on each call.
    """

    mean_c11: Tensor
    std_c11: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_c11", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std_c11", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images01_bchw: Tensor) -> Tensor:
        """``images01[B, 3, H, W]`` in 0..1 to the same shape and dtype, zero-centred; errors as ``normalise``."""
        _check_images(images01_bchw)
        dtype = images01_bchw.dtype
        return (images01_bchw - self.mean_c11.to(dtype)) / self.std_c11.to(dtype)


def normalise(images01_bchw: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation, channel by channel.

    Parameters
    ----------
    images01_bchw
        (B, 3, H, W) floating point in 0..1, RGB. Masked pixels are 0, so masking comes first.

    Returns
    -------
    Tensor
        Same shape, dtype and device; differentiable.

    Raises
    ------
    ValueError
        Another number of dimensions or channels, or integers.

    Examples
    --------
    >>> [round(value, 3) for value in normalise(torch.zeros(1, 3, 1, 1)).flatten().tolist()]
    [-2.118, -2.036, -1.804]
    """
    _check_images(images01_bchw)
    mean_c11 = images01_bchw.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    std_c11 = images01_bchw.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return (images01_bchw - mean_c11) / std_c11


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images of shape {tuple(images.shape)}, expected (B, 3, H, W) in RGB order")
    if not images.is_floating_point():
        raise ValueError(f"images of dtype {images.dtype}, expected floating point in 0..1: divide uint8 by 255")
