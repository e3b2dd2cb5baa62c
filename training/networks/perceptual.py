"""The fixed network F of section 2.3: images, whole or masked, to semantic feature vectors.

Shapes: B batch, H W pixels, n features (2048 for ResNet-50).
"""

import copy
import zipfile
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from training.networks.normalisation import Normalisation
from training.networks.parts import Encoder, EncoderFeatures, ImportedLayer, conv_units


class PerceptualNetwork(nn.Module):
    """A network without its last layer, fixed: no gradient to its weights, but one to its input.

    The paper's is ResNet-50; any encoder can take its place, or a ``ProgramTrunk``. The trunk is copied, and batch norm
    of our own encoders is folded into the convolutions (in float64), which saves passes over the activations. Always in
    evaluation mode. Channels-last input and weights stay channels-last throughout, but for a program. Not a part of the
    trained model: its weights are in no checkpoint.
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


class ProgramTrunk(Encoder):
    """Any network as a program of ``torch.export``: one input, images (B, 3, H, W) RGB in 0..1, and one output.

    The normalisation is inside, as in the programs of ``wsol-eval export``. The output is features (B, n), or a map
    (B, n, h, w), whose mean over h and w is taken. B has to be dynamic, H and W may be fixed. A program is code: read
    none that you do not trust. ValueError for a file that holds no program, or one of another output.
    """

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, path: Path) -> None:
        super().__init__(batch_norm=False)
        self._path = path
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path}: no such file, or not a program that torch.export.save wrote")
        try:
            self._program = torch.export.load(str(path))
            outputs = [node.meta["val"] for node in next(reversed(self._program.graph.nodes)).args[0]]
        except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: not a program that torch.export.save wrote ({error})") from error
        shapes = [tuple(output.shape) for output in outputs]
        if len(shapes) != 1 or len(shapes[0]) not in (2, 4):
            raise ValueError(f"{path}: outputs of shapes {shapes}, expected one: (B, n), or (B, n, h, w)")
        self.feature_channels, self.skip_channels, self.upsampling = int(shapes[0][1]), (), ()
        # Not submodules: programs refuse train(), and their graphs count on the layout in which they were traced.
        self._on: dict[torch.device, Any] = {}

    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        """``images01[B, 3, H, W]`` to the output as ``[B, n, h, w]``, on the images' device; no skips.

        ValueError for images that the program does not take, and where it lets no gradient through.
        """
        device = normalised_bchw.device
        if device not in self._on:
            self._on[device] = self._moved(device)
        try:
            output: Tensor = self._on[device](normalised_bchw.contiguous())
        except AssertionError as error:
            shape = tuple(normalised_bchw.shape)
            raise ValueError(f"{self._path}: takes no images of shape {shape}: {error}") from error
        if normalised_bchw.requires_grad and torch.is_grad_enabled() and not output.requires_grad:
            raise ValueError(f"{self._path}: lets no gradient through to the images; export it outside torch.no_grad")
        return EncoderFeatures(output if output.dim() == 4 else output[:, :, None, None], ())

    def imported_layers(self) -> dict[str, ImportedLayer]:
        """None."""
        return {}

    def _moved(self, device: torch.device) -> Any:
        program = self._program
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(device))
        module = program.module()
        return module.requires_grad_(False)
