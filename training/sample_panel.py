"""Picture of a few images above their saliency and class activation maps, for TensorBoard.

Shapes: n images, H W pixels.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from training.networks.model import LocalizationModel

SHOWN_IMAGES = 8
"""Images beside each other on a panel."""


@torch.no_grad()
def sample_panel(model: LocalizationModel, images01_nchw: Tensor, labels_n: Tensor) -> Tensor:
    """Picture (3, rows * H, n * W) float32 in 0..1, on the CPU: images, saliency of a decoder, activation maps.

    The activation map is that of the image's own class, clipped at 0 and divided by its maximum. The model is
    expected in evaluation mode.
    """
    output = model(images01_nchw, cam_classes=labels_n[:, None])
    assert output.activation_maps is not None
    enlarged = interpolate(output.activation_maps.float(), size=images01_nchw.shape[2:], mode="bilinear")
    maps_n1hw = enlarged.clamp(min=0)
    maps_n1hw = maps_n1hw / maps_n1hw.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    rows = [images01_nchw.float()]
    if output.saliency is not None:
        rows.append(output.saliency.float()[:, None].expand(-1, 3, -1, -1))
    rows.append(maps_n1hw.expand(-1, 3, -1, -1))
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).cpu()
