"""Encoder, classifier and decoder in one module: images to class scores, saliency and class activation maps.

Shapes: B batch, K classes, k classes asked for, C channels, H W pixels of the input, h w rows and columns of
the features.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.networks.classifier import GapClassifier
from training.networks.decoder import SaliencyDecoder
from training.networks.normalisation import Normalisation
from training.networks.parts import EncoderFeatures
from training.networks.registry import MIN_IMAGE_SIDE_PX, build_encoder


class ModelOutput(NamedTuple):
    """Output of the model; None where it was not asked for."""

    scores: Tensor
    """(B, K) before softmax."""
    features: Tensor
    """(B, C, h, w) after ReLU: f in section 2.2."""
    saliency: Tensor | None
    """(B, H, W) in 0..1: D(x) of equation (2). At least float32."""
    saliency_logits: Tensor | None
    """(B, H, W), of which ``saliency`` is the sigmoid; for binary cross entropy. At least float32."""
    activation_maps: Tensor | None
    """(B, k, h, w), not scaled, no bias."""


class LocalizationModel(nn.Module):
    """Encoder, classifier and, while training, decoder.

    Encoder and classifier draw their random weights first, so they start the same with and without decoder.

    ``arch`` is a name of ``training.networks.registry``, ``classes`` the number K, at least 1, else ValueError.
    ``batch_norm``: batch norm in encoder and decoder, or biases. ``decoder``: build the decoder D, which
    baselines and test time do not need, unless ``pools_by_saliency``: then its map weights the features of the
    classifier, without gradient to D. ``output_stride``: see ``build_encoder``.
    """

    def __init__(
        self,
        arch: str,
        classes: int,
        *,
        batch_norm: bool = True,
        decoder: bool = True,
        pools_by_saliency: bool = False,
        output_stride: int | None = None,
    ) -> None:
        super().__init__()
        if pools_by_saliency and not decoder:
            raise ValueError("pooling by the saliency needs the decoder, which this network is without")
        self.pools_by_saliency = pools_by_saliency
        self.encoder = build_encoder(arch, batch_norm=batch_norm, output_stride=output_stride)
        self.normalisation = Normalisation(self.encoder.mean, self.encoder.std)
        self.classifier = GapClassifier(self.encoder.feature_channels, classes, self.encoder.dropout)
        self.decoder = (
            SaliencyDecoder(
                self.encoder.feature_channels,
                self.encoder.skip_channels,
                upsampling=self.encoder.upsampling,
                batch_norm=batch_norm,
            )
            if decoder
            else None
        )

    def forward(
        self,
        images01_bchw: Tensor,
        *,
        with_saliency: bool = True,
        cam_classes: Tensor | None = None,
        pooling_maps: Tensor | None = None,
    ) -> ModelOutput:
        """Run encoder and classifier on ``images01[B, 3, H, W]``, and the decoder when there is one and it is wanted.

        Images are floating point RGB in 0..1, not normalised; H and W at least 64. ``cam_classes[B, k]`` int64 are the
        classes whose activation maps are wanted, from the same pass; ``pooling_maps[B, H, W]``, at least 0, weight the
        features of the classifier. ValueError for other shapes or dtypes.
        """
        normalised: Tensor = self.normalisation(images01_bchw)
        height, width = normalised.shape[2:]
        if min(height, width) < MIN_IMAGE_SIDE_PX:
            raise ValueError(
                f"images of {height}x{width} pixels, expected at least {MIN_IMAGE_SIDE_PX} rows and columns"
            )
        encoded: EncoderFeatures = self.encoder(normalised)
        # Before the decoder where possible: the order decides the last bits of gradients of features that are a skip.
        scores: Tensor | None = None
        if not self.pools_by_saliency:
            scores = self.classifier(encoded.features, pooling_maps)
        logits: Tensor | None = None
        if self.decoder is not None and (with_saliency or self.pools_by_saliency):
            logits = self.decoder(encoded.features, encoded.skips, size=(height, width))
        saliency = None if logits is None else torch.sigmoid(logits)
        if scores is None:
            scores = self.classifier(encoded.features, saliency)
        return ModelOutput(
            scores=scores,
            features=encoded.features,
            saliency=saliency,
            saliency_logits=logits,
            activation_maps=(
                None if cam_classes is None else self.classifier.class_activation_maps(encoded.features, cam_classes)
            ),
        )
