"""Architectures by name: one row for each. Imports no torch until an encoder is built."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from training.networks.parts import Encoder

MIN_IMAGE_SIDE_PX = 64
"""Smallest height and width of an image: below 63 px AlexNet-plus has nothing left to pool."""


class Architecture(NamedTuple):
    """Meaning of an architecture in one line, and ``module:class`` of its encoder."""

    meaning: str
    encoder: str


ARCHITECTURES = {
    "alexnet-gap": Architecture(
        "AlexNet conv1-conv5 and a 3x3 convolution of 1024; 13x13 at 224 px (the paper's)",
        "training.networks.alexnet:AlexNetEncoder",
    ),
    "alexnet-gap-plus": Architecture(
        "AlexNet with conv5 of 384 and two 3x3 convolutions of 512; 11x11 (the CAM release's)",
        "training.networks.alexnet:AlexNetPlusEncoder",
    ),
    "googlenet-gap": Architecture(
        "GoogLeNet through inception 4e and a 3x3 convolution of 1024; 14x14 (the paper's)",
        "training.networks.googlenet:GoogLeNetEncoder",
    ),
    "resnet50-gap": Architecture(
        "ResNet-50 through layer4; 7x7, and usable as the perceptual network once trained",
        "training.networks.resnet:ResNet50Encoder",
    ),
}
"""Every architecture by name."""


def encoder_class(arch: str) -> "type[Encoder]":
    """Class of an architecture's encoder; ValueError for an unknown name."""
    if arch not in ARCHITECTURES:
        raise ValueError(f"architecture {arch!r}, expected one of {', '.join(ARCHITECTURES)}")
    found: type[Encoder] = resolve_name(ARCHITECTURES[arch].encoder)
    return found


def build_encoder(arch: str, *, batch_norm: bool = True) -> "Encoder":
    """Encoder with Kaiming-initialised weights (He et al. 2015, fan-in) from torch's global generator, on the CPU.

    Without batch norm these nets do not train from scratch with Adam at the paper's learning rate. ValueError for an
    unknown name.
    """
    return encoder_class(arch)(batch_norm=batch_norm)
