"""AlexNet encoders with the fully connected layers replaced, as in CAM (Zhou et al., CVPR 2016).

The widths are torchvision's (Krizhevsky 2014, 64/192/384/256/256), so its ImageNet weights fit. What differs
from Krizhevsky et al. 2012 and from the release of CAM (96/256/384/384/384): those widths, no grouped
convolutions, no local response normalisation, batch norm as an option.

Shapes: B batch, C channels, H W pixels of the input, h w rows and columns of a feature map.
"""

from torch import Tensor, nn

from training.networks.parts import (
    GAP_CHANNELS,
    ConvUnit,
    Encoder,
    EncoderFeatures,
    ImportedLayer,
    Upsampling,
    enlarging,
)

PLUS_CONV5_CHANNELS = 384
PLUS_CHANNELS = 512
PLUS_DROPOUT = 0.5
"""conv5, conv6 and conv7, and dropout of ``deploy_alexnetplusCAM_imagenet.prototxt`` in the CAM release."""

_SAME = enlarging(1)
_UNDO_POOL5 = Upsampling(kernel=3, stride=1, padding=0)
_UNDO_POOL = Upsampling(kernel=3, stride=2, padding=0)
"""The geometry of AlexNet's poolings, which are not padded: 13 to 27 and 27 to 55 without resizing."""

_TORCHVISION_INDEX = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
"""Place of each convolution in torchvision's ``AlexNet.features``."""


class _AlexNetTrunk(Encoder):
    """conv1 to conv5 of AlexNet; what comes after conv5 is the subclass's."""

    published_weights = "AlexNet_Weights.IMAGENET1K_V1"

    def __init__(self, *, conv5_channels: int, batch_norm: bool) -> None:
        super().__init__(batch_norm=batch_norm)
        self.conv1 = ConvUnit(3, 64, kernel=11, stride=4, padding=2, batch_norm=batch_norm)
        self.conv2 = ConvUnit(64, 192, kernel=5, padding=2, batch_norm=batch_norm)
        self.conv3 = ConvUnit(192, 384, kernel=3, padding=1, batch_norm=batch_norm)
        self.conv4 = ConvUnit(384, 256, kernel=3, padding=1, batch_norm=batch_norm)
        self.conv5 = ConvUnit(256, conv5_channels, kernel=3, padding=1, batch_norm=batch_norm)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.skip_channels = (conv5_channels, 256, 384, 192, 64)

    def run_trunk(self, normalised_bchw: Tensor) -> tuple[Tensor, ...]:
        """``normalised[B, 3, H, W]`` to the outputs of conv5, conv4, conv3 (13x13), conv2 (27x27), conv1 (55x55)."""
        conv1 = self.conv1(normalised_bchw)
        conv2 = self.conv2(self.pool(conv1))
        conv3 = self.conv3(self.pool(conv2))
        conv4 = self.conv4(conv3)
        return self.conv5(conv4), conv4, conv3, conv2, conv1

    def imported_layers(self) -> dict[str, ImportedLayer]:
        """conv1 to conv5 where the widths agree; torchvision has no batch norm in AlexNet."""
        found = {name: ImportedLayer(f"features.{index}", None) for name, index in _TORCHVISION_INDEX.items()}
        if self.skip_channels[0] == PLUS_CONV5_CHANNELS:
            del found["conv5"]
        return found


class AlexNetEncoder(_AlexNetTrunk):
    """AlexNet-GAP: conv1 to conv5 without pool5, and a 3x3 convolution of 1024; (B, 1024, 13, 13) at 224 px."""

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__(conv5_channels=256, batch_norm=batch_norm)
        self.cam_conv = ConvUnit(256, GAP_CHANNELS, kernel=3, padding=1, batch_norm=batch_norm)
        self.feature_channels = GAP_CHANNELS
        self.upsampling = (_SAME, _SAME, _SAME, _UNDO_POOL, _UNDO_POOL)

    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``normalised[B, 3, H, W]`` to features ``[B, 1024, h, w]`` and skips conv5, conv4, conv3, conv2, conv1."""
        skips = self.run_trunk(normalised_bchw)
        return EncoderFeatures(self.cam_conv(skips[0]), skips)


class AlexNetPlusEncoder(_AlexNetTrunk):
    """The AlexNet net of the CAM release: wider conv5, pool5 with stride 1, and two 3x3 convolutions of 512.

    (B, 512, 11, 11) at 224 px; the classifier behind it uses dropout 0.5.
    """

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__(conv5_channels=PLUS_CONV5_CHANNELS, batch_norm=batch_norm)
        self.pool5 = nn.MaxPool2d(3, stride=1)
        self.conv6 = ConvUnit(PLUS_CONV5_CHANNELS, PLUS_CHANNELS, kernel=3, padding=1, batch_norm=batch_norm)
        self.conv7 = ConvUnit(PLUS_CHANNELS, PLUS_CHANNELS, kernel=3, padding=1, batch_norm=batch_norm)
        self.feature_channels = PLUS_CHANNELS
        self.upsampling = (_UNDO_POOL5, _SAME, _SAME, _UNDO_POOL, _UNDO_POOL)
        self.dropout = PLUS_DROPOUT

    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``normalised[B, 3, H, W]`` to features ``[B, 512, h, w]`` and skips conv5, conv4, conv3, conv2, conv1."""
        skips = self.run_trunk(normalised_bchw)
        return EncoderFeatures(self.conv7(self.conv6(self.pool5(skips[0]))), skips)
