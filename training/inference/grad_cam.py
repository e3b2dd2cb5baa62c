"""Grad-CAM: a localization map from features and the gradient of a class score.

Shapes: B batch, K classes, C channels, h w rows and columns of a feature map.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def grad_cam(features_bchw: Tensor, score: Callable[[Tensor], Tensor], classes_b: Tensor) -> Tensor:
    """(B, h, w), at least 0: positive part of the feature maps' sum, weighted by the mean gradients of a class score.

    Not scaled, without gradient. Behind global average pooling and a linear layer it is the class activation map
    divided by h w, clipped at 0.
    ``features[B, C, h, w]`` are of the layer that the map is made at; they are not changed and may need no gradient.
    ``score`` turns them into scores (B, K) before softmax, those of an image from that image alone; ``classes[B]``
    int64 is the class of each image. ValueError for other shapes or dtypes.

    Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization",
    ICCV 2017, equations (1) and (2).
    """
    batch = len(features_bchw)
    if features_bchw.dim() != 4 or classes_b.shape != (batch,) or classes_b.dtype != torch.int64:
        raise ValueError(
            f"features of shape {tuple(features_bchw.shape)} with classes of shape {tuple(classes_b.shape)} and dtype "
            f"{classes_b.dtype}, expected (B, C, h, w) with (B,) int64"
        )
    with torch.enable_grad():
        leaf_bchw = features_bchw.detach().requires_grad_()
        scores_bk = score(leaf_bchw)
        if scores_bk.dim() != 2 or len(scores_bk) != batch:
            raise ValueError(f"scores of shape {tuple(scores_bk.shape)}, expected ({batch}, K)")
        # The scores of one image do not depend on the others, so the gradient of the sum is that of each.
        wanted = scores_bk.gather(1, classes_b[:, None]).sum()
        (gradient_bchw,) = torch.autograd.grad(wanted, leaf_bchw)
    weights_bc11 = gradient_bchw.mean(dim=(2, 3), keepdim=True)
    return (weights_bc11 * features_bchw.detach()).sum(dim=1).relu()
