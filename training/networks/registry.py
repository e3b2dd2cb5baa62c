"""Architectures by name: one row for each, or ``timm:NAME``. Imports no torch until an encoder is built."""

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
    "vgg16-gap": Architecture(
        "VGG16 through conv5_3 and a 3x3 convolution of 1024; 14x14",
        "training.networks.vgg:VggEncoder",
    ),
    "resnet50-gap": Architecture(
        "ResNet-50 through layer4; 7x7, and usable as the perceptual network once trained",
        "training.networks.resnet:ResNet50Encoder",
    ),
}
"""Every architecture by name."""


TIMM_PREFIX = "timm:"
"""Begins the name of every network of timm."""


def check_arch(arch: str) -> None:
    """ValueError for a name that is neither in ``ARCHITECTURES`` nor ``timm:NAME``; timm itself is not asked."""
    if arch not in ARCHITECTURES and not arch.startswith(TIMM_PREFIX):
        raise ValueError(f"arch: expected one of {', '.join(ARCHITECTURES)}, {TIMM_PREFIX}NAME, found {arch!r}")


def encoder_class(arch: str) -> "type[Encoder]":
    """Class of the encoder of a name in ``ARCHITECTURES``; ValueError for another one."""
    check_arch(arch)
    found: type[Encoder] = resolve_name(ARCHITECTURES[arch].encoder)
    return found


def build_encoder(arch: str, *, batch_norm: bool = True, output_stride: int | None = None) -> "Encoder":
    """Encoder with random weights from torch's global generator, on the CPU.

    Those of a network of timm are timm's, of the others Kaiming's (He et al. 2015, fan-in), which without batch norm do
    not train from scratch with Adam at the paper's learning rate. ``output_stride``: pixels of the input from one
    position of the features to the next, None: the network's own. ValueError for an unknown name, or a stride that the
    network does not have.
    """
    if arch.startswith(TIMM_PREFIX):
        timm_encoder = resolve_name("training.networks.timm_networks:TimmEncoder")
        encoder: Encoder = timm_encoder(
            arch.removeprefix(TIMM_PREFIX), batch_norm=batch_norm, output_stride=output_stride
        )
        return encoder
    found = encoder_class(arch)
    if output_stride is None:
        return found(batch_norm=batch_norm)
    if output_stride not in found.output_strides:
        allowed = ", ".join(map(str, found.output_strides)) or "none, because it has only its own"
        raise ValueError(f"output_stride: {arch} allows {allowed}; found {output_stride}")
    return found(batch_norm=batch_norm, output_stride=output_stride)  # type: ignore[call-arg]
