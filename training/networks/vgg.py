"""VGG16-GAP, as in CAM (Zhou et al., CVPR 2016): VGG16 (Simonyan and Zisserman, ICLR 2015) through conv5_3.

Shapes: B batch, C channels, H W pixels of the input, h w rows and columns of a feature map.
"""

from torch import Tensor, nn

from training.networks.parts import GAP_CHANNELS, ConvUnit, Encoder, EncoderFeatures, ImportedLayer, enlarging

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 3x3 convolutions before each pooling."""


class VggEncoder(Encoder):
    """conv1_1 to conv5_3 without pool5, and a 3x3 convolution of 1024; (B, 1024, 14, 14) at 224 px."""

    published_weights = "VGG16_Weights.IMAGENET1K_V1"

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__(batch_norm=batch_norm)
        self.pool = nn.MaxPool2d(2)
        self.stages = nn.ModuleList()
        channels = 3
        for widths in _STAGES:
            units = []
            for width in widths:
                units.append(ConvUnit(channels, width, kernel=3, padding=1, batch_norm=batch_norm))
                channels = width
            self.stages.append(nn.Sequential(*units))
        self.cam_conv = ConvUnit(channels, GAP_CHANNELS, kernel=3, padding=1, batch_norm=batch_norm)
        self.feature_channels = GAP_CHANNELS
        self.skip_channels = tuple(widths[-1] for widths in reversed(_STAGES))
        self.upsampling = tuple(map(enlarging, (1, 2, 2, 2, 2)))

    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``normalised[B, 3, H, W]`` to features ``[B, 1024, h, w]`` and skips conv5_3, conv4_3, ... conv1_2."""
        found = [self.stages[0](normalised_bchw)]
        for stage in self.stages[1:]:
            found.append(stage(self.pool(found[-1])))
        return EncoderFeatures(self.cam_conv(found[-1]), tuple(reversed(found)))

    def imported_layers(self) -> dict[str, ImportedLayer]:
        """Every convolution but the CAM convolution; torchvision counts ReLUs and poolings, too."""
        found, place = {}, 0
        for stage, widths in enumerate(_STAGES):
            for unit in range(len(widths)):
                found[f"stages.{stage}.{unit}"] = ImportedLayer(f"features.{place}", None)
                place += 2
            place += 1
        return found
