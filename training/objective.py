"""Objective of a batch: the networks on their device, compiled and parallel where asked for, and the losses."""

import contextlib
import typing

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.config import TrainConfig
from training.data.hide_and_seek import hide_and_seek
from training.data.loading import DeviceBatch
from training.losses import LossInputs, LossTerms, TripletFeatures, combine_losses, foreground_background
from training.networks.model import LocalizationModel, ModelOutput
from training.networks.perceptual import PerceptualNetwork
from training.processes import Processes


class Objective:
    """Computes network output and losses of a batch; moves ``model`` and the frozen ``perceptual`` F to the device.

    ``class_weights_k`` are the (K,) weights of balanced classes; ``compiled``: compile the networks with torch.compile.
    """

    def __init__(
        self,
        model: LocalizationModel,
        *,
        config: TrainConfig,
        processes: Processes,
        perceptual: PerceptualNetwork | None,
        class_weights_k: Tensor | None,
        compiled: bool,
    ) -> None:
        device, several = processes.device, processes.world_size > 1
        if several and device.type == "cuda":
            model = typing.cast(LocalizationModel, model.encoder.synchronised(model))
        self.model: LocalizationModel = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._config = config
        self._class_weights_k = None if class_weights_k is None else class_weights_k.to(device)
        self._network: nn.Module = self.model
        self._perceptual: nn.Module | None = None
        if perceptual is not None:
            self._perceptual = perceptual.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compiled:
            self._network = torch.compile(self._network)  # type: ignore[assignment]
            if self._perceptual is not None:
                self._perceptual = torch.compile(self._perceptual)  # type: ignore[assignment]
        if several:
            ids = [device.index] if device.type == "cuda" else None
            self._network = DistributedDataParallel(self._network, device_ids=ids)

    def train(self) -> None:
        """Put the network into training mode."""
        self._network.train()

    def without_gradient_exchange(self) -> contextlib.AbstractContextManager[None]:
        """Context in which a backward pass leaves its gradients in this process."""
        if isinstance(self._network, DistributedDataParallel):
            exchange: contextlib.AbstractContextManager[None] = self._network.no_sync()
            return exchange
        return contextlib.nullcontext()

    def compute(self, batch: DeviceBatch, *, seed: int, first: int) -> tuple[ModelOutput, LossTerms]:
        """Output and losses of one batch: F(x) without gradient, F of both masked images in one call.

        ``seed`` is the random seed of the optimiser's step, for the patches that Hide-and-Seek hides and for dropout;
        ``first`` the place of these images among the step's ``config.batch_size``.
        """
        config = self._config
        images01 = batch.images01_bchw
        if config.method == "has":
            generator = torch.Generator().manual_seed(seed)
            images01 = hide_and_seek(images01, generator=generator, first=first, of=config.batch_size)
        dropout = self.model.classifier.dropout
        dropout.first, dropout.of = first, config.batch_size
        torch.manual_seed(seed + 1)
        with torch.autocast(images01.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
            pooling_maps = batch.maps01_bhw if config.pooling == "pseudo-map" else None
            output: ModelOutput = self._network(images01, pooling_maps=pooling_maps)
            features = None
            if self._perceptual is not None:
                assert output.saliency is not None
                with torch.no_grad():
                    image_features, black = self._image_features(self._perceptual, images01)
                masked = torch.cat(foreground_background(images01, output.saliency))
                foreground, background = self._perceptual(masked).chunk(2)
                features = TripletFeatures(image_features, foreground, background, black)
            cam_bhw = None
            if config.loss.computes("cam_map"):
                cam_bhw = self._label_cam(output.features, batch.labels_b)
            terms = combine_losses(
                LossInputs(
                    output.scores,
                    batch.labels_b,
                    class_weights_k=self._class_weights_k,
                    saliency_bhw=output.saliency,
                    target_bhw=batch.maps01_bhw,
                    logits_bhw=output.saliency_logits,
                    triplet_features=features,
                    cam_bhw=cam_bhw,
                ),
                config=config.loss,
            )
        return output, terms

    def _image_features(self, perceptual: nn.Module, images01_bchw: Tensor) -> tuple[Tensor, Tensor | None]:
        """F of the images and, where distances are divided by those to it, of a black image, in one call."""
        if self._config.loss.triplet_scale == "none":
            return perceptual(images01_bchw), None
        features: Tensor = perceptual(torch.cat((images01_bchw, torch.zeros_like(images01_bchw[:1]))))
        return features[:-1], features[-1:]

    def _label_cam(self, features_bchw: Tensor, labels_b: Tensor) -> Tensor:
        """(B, h, w), the labels' activation maps in float32: in bfloat16 they would have steps of 1/256."""
        with torch.autocast(features_bchw.device.type, enabled=False):
            return self.model.classifier.class_activation_maps(features_bchw.float(), labels_b[:, None])[:, 0]
