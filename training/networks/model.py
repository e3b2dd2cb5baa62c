"""Encoder, classifier and decoder in one module: images to class scores, saliency and class activation maps.

Shapes: B batch, K classes, k classes asked for, C channels, H W pixels of the input, h w rows and columns of
the features.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.networks.classifier import GapClassifier
from training.networks.decoder import SaliencyDecoder
from training.networks.normalisation import Normalisation
from training.networks.parts import EncoderFeatures
from training.networks.registry import MIN_IMAGE_SIDE_PX, build_encoder

__all__ = ["EncoderAndClassifier", "InferenceOutput", "LocalizationModel", "ModelOutput"]

_DECODER_PREFIX = "decoder."


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


class InferenceOutput(NamedTuple):
    """Output of encoder and classifier."""

    scores: Tensor
    """(B, K) before softmax."""
    activation_maps: Tensor
    """(B, K, h, w) of all classes, not scaled, no bias."""


class LocalizationModel(nn.Module):
    """Encoder, classifier and, while training, decoder.

    Encoder and classifier draw their random weights first, so they start the same with and without decoder.

    Parameters
    ----------
    arch
        A key of ``training.networks.registry.ARCHITECTURES``, else ValueError.
    classes
        Number of classes K, at least 1, else ValueError.
    batch_norm
        Batch norm in encoder and decoder, or biases.
    decoder
        Build the decoder D, which baselines and test time do not need.
    """

    def __init__(self, arch: str, classes: int, *, batch_norm: bool = True, decoder: bool = True) -> None:
        super().__init__()
        self.normalisation = Normalisation()
        self.encoder = build_encoder(arch, batch_norm=batch_norm)
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
        self, images01_bchw: Tensor, *, with_saliency: bool = True, cam_classes: Tensor | None = None
    ) -> ModelOutput:
        """Run encoder and classifier, and the decoder when there is one and it is wanted.

        Parameters
        ----------
        images01_bchw
            (B, 3, H, W) floating point in 0..1, RGB, not normalised; H and W at least 64.
        with_saliency
            False leaves the decoder out.
        cam_classes
            (B, k) int64: classes whose activation maps are wanted, from the same pass. None: no maps.

        Raises
        ------
        ValueError
            Images or classes of another shape or dtype.
        """
        encoded = _encode(images01_bchw, normalisation=self.normalisation, encoder=self.encoder)
        scores: Tensor = self.classifier(encoded.features)
        logits: Tensor | None = None
        if with_saliency and self.decoder is not None:
            height, width = images01_bchw.shape[2:]
            logits = self.decoder(encoded.features, encoded.skips, size=(height, width))
        return ModelOutput(
            scores=scores,
            features=encoded.features,
            saliency=None if logits is None else torch.sigmoid(logits),
            saliency_logits=logits,
            activation_maps=(
                None if cam_classes is None else self.classifier.class_activation_maps(encoded.features, cam_classes)
            ),
        )

    def inference_state_dict(self) -> dict[str, Tensor]:
        """The state dict without the decoder: what ``EncoderAndClassifier`` loads, and all that test time needs."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(_DECODER_PREFIX)}

    def encoder_and_classifier(self) -> "EncoderAndClassifier":
        """A copy of E and C alone, in evaluation mode (section 2.1: "the decoder [...] and [F] are discarded")."""
        return EncoderAndClassifier(self).eval()


class EncoderAndClassifier(nn.Module):
    """The model at test time, for export: copies of encoder and classifier; one tensor in, two tensors out."""

    def __init__(self, model: LocalizationModel) -> None:
        super().__init__()
        self.normalisation = copy.deepcopy(model.normalisation)
        self.encoder = copy.deepcopy(model.encoder)
        self.classifier = copy.deepcopy(model.classifier)

    def forward(self, images01_bchw: Tensor) -> InferenceOutput:
        """``images01[B, 3, H, W]`` in 0..1 to scores ``[B, K]`` and activation maps ``[B, K, h, w]``."""
        features = _encode(images01_bchw, normalisation=self.normalisation, encoder=self.encoder).features
        return InferenceOutput(self.classifier(features), self.classifier.class_activation_maps(features))


def _encode(images01_bchw: Tensor, *, normalisation: Normalisation, encoder: nn.Module) -> EncoderFeatures:
    normalised: Tensor = normalisation(images01_bchw)
    if min(normalised.shape[2:]) < MIN_IMAGE_SIDE_PX:
        raise ValueError(
            f"images of {normalised.shape[2]}x{normalised.shape[3]} pixels, "
            f"expected at least {MIN_IMAGE_SIDE_PX} rows and columns"
        )
    encoded: EncoderFeatures = encoder(normalised)
    return encoded
