"""The classifier C: encoder features to class scores and class activation maps (sections 2.1 and 2.2).

Shapes: B batch, K classes, k classes asked for, C channels, H W pixels, h w rows and columns of a feature map.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHT_STD = 0.01
"""Deviation of the random class weights (the CAM release): first scores near 0, first loss near ln K."""
_LEAST_WEIGHT = 1e-6
"""Added to the weight of every position in a weighted mean, which is the plain mean where all weights are 0."""


def normalised_cam(cam_bhw: Tensor) -> Tensor:
    """(B, h, w) in 0..1: activation maps ``cam[B, h, w]`` clipped at 0 and divided by their maximum, image by image.

    A map without a positive value gives zeros, and no gradient.
    """
    positive_bhw = cam_bhw.relu()
    peak_b11 = positive_bhw.amax(dim=(1, 2), keepdim=True)
    return positive_bhw / peak_b11.clamp(min=torch.finfo(cam_bhw.dtype).tiny)


def weighted_mean(features_bchw: Tensor, weights_bhw: Tensor) -> Tensor:
    """(B, C), at least float32: mean of ``features[B, C, h, w]`` over positions, weighted by ``weights[B, H, W]``.

    The weights are at least 0. They are averaged over areas to h w, and get no gradient.
    """
    size = (features_bchw.shape[2], features_bchw.shape[3])
    weights_b1hw = weights_bhw.detach().to(torch.promote_types(weights_bhw.dtype, torch.float32))[:, None]
    if weights_b1hw.shape[2:] != size:
        weights_b1hw = functional.interpolate(weights_b1hw, size=size, mode="area")
    weights_b1hw = weights_b1hw + _LEAST_WEIGHT
    return (features_bchw * weights_b1hw).sum(dim=(2, 3)) / weights_b1hw.sum(dim=(2, 3))


class BatchDropout(nn.Module):
    """Dropout over (B, C), drawn for a whole batch of which these are some rows.

    So a row's draw depends on torch's random seed and the row's place in the batch, not on how many processes and
    gradient accumulation steps the batch is divided among.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.first = 0
        """Place of the first row."""
        self.of: int | None = None
        """Rows of the whole batch; None: those given are all."""

    def forward(self, values_bc: Tensor) -> Tensor:
        """The same with about a share ``p`` of the values 0 and the others larger in turn; unchanged at test time."""
        if not self.training or self.p == 0:
            return values_bc
        rows, channels = values_bc.shape
        drawn_bc = torch.rand((self.of or rows, channels), device=values_bc.device)[self.first : self.first + rows]
        return values_bc * (drawn_bc >= self.p) / (1 - self.p)


class GapClassifier(nn.Module):
    """Classifier C: global pooling by the mean, plain or weighted, dropout and one linear layer of ``classes`` scores.

    ValueError below one class, or for a probability of dropout outside ``0 <= dropout < 1``.
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"{classes} classes, expected at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout {dropout}, expected 0 <= dropout < 1")
        self.dropout = BatchDropout(dropout)
        self.linear = nn.Linear(channels, classes)
        nn.init.normal_(self.linear.weight, std=WEIGHT_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features_bchw: Tensor, weights_bhw: Tensor | None = None) -> Tensor:
        """``features[B, C, h, w]`` to scores (before softmax) ``[B, K]``; ``weights[B, H, W]`` as in weighted_mean."""
        pooled_bc = features_bchw.mean(dim=(2, 3)) if weights_bhw is None else weighted_mean(features_bchw, weights_bhw)
        scores: Tensor = self.linear(self.dropout(pooled_bc))
        return scores

    def class_activation_maps(self, features_bchw: Tensor, classes_bk: Tensor | None = None) -> Tensor:
        """(B, k, h, w) weighted sums of the feature maps, one for each class asked for, or (B, K, h, w).

        Without the bias, so the mean over h and w of a map, weighted where that of the features is, is the score minus
        the bias. May be negative; no scaling is done. ``features[B, C, h, w]`` are the encoder's, ``classes[B, k]``
        int64 with ``0 <= class < K``, else ValueError.
        Source: Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, equation (2).
        """
        weights_kc = self.linear.weight
        if classes_bk is None:
            return torch.einsum("bchw,kc->bkhw", features_bchw, weights_kc)
        if classes_bk.dim() != 2 or classes_bk.shape[0] != features_bchw.shape[0] or classes_bk.dtype != torch.int64:
            raise ValueError(
                f"classes of shape {tuple(classes_bk.shape)} and dtype {classes_bk.dtype}, "
                f"expected (B, k) int64 with B = {features_bchw.shape[0]}"
            )
        return torch.einsum("bchw,bkc->bkhw", features_bchw, weights_kc[classes_bk])
