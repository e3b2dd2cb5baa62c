"""Turns the name of an architecture into its encoder."""

from collections.abc import Callable

from training.networks.alexnet import AlexNetEncoder, AlexNetPlusEncoder
from training.networks.googlenet import GoogLeNetEncoder
from training.networks.parts import Encoder, EncoderFeatures
from training.networks.resnet import ResNet50Encoder

__all__ = ["ARCHITECTURES", "MIN_IMAGE_SIDE_PX", "Encoder", "EncoderFeatures", "build_encoder"]

ARCHITECTURES = {
    "alexnet-gap": "AlexNet conv1-conv5 and a 3x3 convolution of 1024; 13x13 at 224 px (the paper's)",
    "alexnet-gap-plus": "AlexNet with conv5 of 384 and two 3x3 convolutions of 512; 11x11 (the CAM release's)",
    "googlenet-gap": "GoogLeNet through inception 4e and a 3x3 convolution of 1024; 14x14 (the paper's)",
    "resnet50-gap": "ResNet-50 through layer4; 7x7, and usable as the perceptual network once trained",
}
"""One-line meaning of each architecture by name."""

MIN_IMAGE_SIDE_PX = 64
"""Smallest height and width: below 63 px AlexNet-plus has nothing left to pool."""

_BUILDERS: dict[str, Callable[..., Encoder]] = {
    "alexnet-gap": AlexNetEncoder,
    "alexnet-gap-plus": AlexNetPlusEncoder,
    "googlenet-gap": GoogLeNetEncoder,
    "resnet50-gap": ResNet50Encoder,
}


def build_encoder(arch: str, *, batch_norm: bool = True) -> Encoder:
    """Build an encoder with Kaiming-initialised weights (He et al. 2015, fan-in) from torch's global generator.

    Parameters
    ----------
    arch
        A key of ``ARCHITECTURES``.
    batch_norm
        Batch norm after every convolution, or biases. Without it these nets do not train from scratch with
        Adam at the paper's learning rate.

    Returns
    -------
    Encoder
        On the CPU, float32, in training mode.

    Raises
    ------
    ValueError
        Unknown architecture.

    Examples
    --------
    >>> encoder = build_encoder("alexnet-gap")
    >>> encoder.feature_channels, encoder.skip_channels
    (1024, (256, 256, 384, 192, 64))
    """
    if arch not in _BUILDERS:
        raise ValueError(f"architecture {arch!r}, expected one of {', '.join(ARCHITECTURES)}")
    return _BUILDERS[arch](batch_norm=batch_norm)
