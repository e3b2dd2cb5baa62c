"""The fixed network F of section 2.3: images, whole or masked, to semantic feature vectors.

Shapes: B batch, H W pixels, n features (2048 for ResNet-50).
"""

import copy
from typing import Self

from torch import Tensor, nn

from training.networks.normalisation import Normalisation
from training.networks.parts import Encoder, EncoderFeatures, conv_units


class PerceptualNetwork(nn.Module):
    """A network without its last layer, fixed: no gradient to its weights, but one to its input.

    The paper's is ResNet-50; any encoder can take its place. The trunk is copied, and batch norm of our own encoders is
    folded into the convolutions (in float64), which saves passes over the activations. Always in evaluation mode.
    Channels-last input and weights stay channels-last throughout. Not a part of the trained model: its weights are in
    no checkpoint.
    """

    features: int
    """n in equations (6) and (7)."""

    def __init__(self, trunk: Encoder) -> None:
        super().__init__()
        self.features = trunk.feature_channels
        self.normalisation = Normalisation(trunk.mean, trunk.std)
        self.trunk = copy.deepcopy(trunk)
        for unit in conv_units(self.trunk).values():
            unit.fold()
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode whatever ``mode`` is."""
        return self

    def forward(self, images01_bchw: Tensor) -> Tensor:
        """``images01[B, 3, H, W]`` in 0..1, already masked where they shall be, to pooled features ``[B, n]``.

        The trunk's normalisation is applied here, after the masking of equations (3) and (4): a masked pixel is
        black, not mean grey.
        """
        encoded: EncoderFeatures = self.trunk(self.normalisation(images01_bchw))
        return encoded.features.mean(dim=(2, 3))
