"""Normalisation of images by mean and standard deviation.

Shapes: B batch, H W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ILSVRC train, on the scale 0..1; the values torchvision's weights expect."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue over ILSVRC train, on the scale 0..1 (torchvision)."""


class Normalisation(nn.Module):
    """Subtracts a mean and divides by a standard deviation of each channel; no entry in the state dict.

    The constants are buffers because a tensor made in every forward pass would cost a copy from the host,
    and a wait, on each call.
    """

    mean_c11: Tensor
    std_c11: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean_c11", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std_c11", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images01_bchw: Tensor) -> Tensor:
        """``images01[B, 3, H, W]`` floating point RGB in 0..1 to the same shape and dtype, zero-centred.

        Masked pixels are 0, so masking comes first. ValueError for another shape, or integers.
        """
        if images01_bchw.dim() != 4 or images01_bchw.shape[1] != 3:
            raise ValueError(f"images of shape {tuple(images01_bchw.shape)}, expected (B, 3, H, W) in RGB order")
        dtype = images01_bchw.dtype
        if not dtype.is_floating_point:
            raise ValueError(f"images of dtype {dtype}, expected floating point in 0..1: divide uint8 by 255")
        return (images01_bchw - self.mean_c11.to(dtype)) / self.std_c11.to(dtype)
