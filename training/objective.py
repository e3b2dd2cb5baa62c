"""Objective of a batch: the networks on their device, parallel and compiled if requested, and the losses."""

import contextlib
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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

GRAPH_IMAGES = 64
"""Images up to which a compiled step is captured as CUDA graphs: an H200 waits for kernel launches with 32, not 256."""
TRIAL_STEPS = 3
"""Steps on trial after compilation: with CUDA graphs the first warms up, the second is captured, the third replayed."""


class _MaskedFeatures(nn.Module):
    """F(x) without gradient, and F of both masked images in one call; with ``black``, F of a black image too."""

    def __init__(self, perceptual: PerceptualNetwork, *, black: bool) -> None:
        super().__init__()
        self.perceptual = perceptual
        self.black = black

    def forward(self, images01_bchw: Tensor, saliency_bhw: Tensor) -> TripletFeatures:
        """Features (B, n) of ``images01[B, 3, H, W]`` and of what ``saliency[B, H, W]`` makes of them."""
        with torch.no_grad():
            # A black image in the same call: a batch of one would cost as many kernels.
            whole = torch.cat((images01_bchw, torch.zeros_like(images01_bchw[:1]))) if self.black else images01_bchw
            features = self.perceptual(whole)
        foreground, background = self.perceptual(torch.cat(foreground_background(images01_bchw, saliency_bhw))).chunk(2)
        count = len(images01_bchw)
        return TripletFeatures(features[:count], foreground, background, features[count:] if self.black else None)


class Objective:
    """Computes network output and losses of a batch; moves ``model`` and the frozen ``perceptual`` F to the device.

    ``class_weights_k`` are the (K,) weights of balanced classes. ``compiled``: the first batch compiles network, F and
    losses with torch.compile, or F alone where that fails or several processes train, or nothing; ``say`` is told.
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
        say: Callable[[str], None],
    ) -> None:
        device, several = processes.device, processes.world_size > 1
        if several and device.type == "cuda":
            model = typing.cast(LocalizationModel, model.encoder.synchronised(model))
        self.model: LocalizationModel = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._config, self._processes, self._say = config, processes, say
        self._class_weights_k = None if class_weights_k is None else class_weights_k.to(device)
        self._network: nn.Module = self.model
        self._features: nn.Module | None = None
        if perceptual is not None:
            perceptual = perceptual.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if config.precision == "bf16":
                _round_weights(perceptual)
            self._features = _MaskedFeatures(perceptual, black=config.loss.triplet_scale != "none")
        self._losses: Callable[..., LossTerms] = self._combine
        self._to_compile, self._graphs = compiled, False
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
        """Output and losses of one batch.

        ``seed`` is the random seed of the optimiser's step, for the patches that Hide-and-Seek hides and for dropout;
        ``first`` the place of these images among the step's ``config.batch_size``.
        """
        if self._to_compile:
            self._to_compile = False
            self._compile(batch, first=first)
        config = self._config
        images01 = batch.images01_bchw
        if config.method == "has":
            generator = torch.Generator().manual_seed(seed)
            images01 = hide_and_seek(images01, generator=generator, first=first, of=config.batch_size)
        dropout = self.model.classifier.dropout
        dropout.first, dropout.of = first, config.batch_size
        torch.manual_seed(seed + 1)
        with self._forward_pass():
            pooling_maps = batch.maps01_bhw if config.pooling == "pseudo-map" else None
            output: ModelOutput = self._network(images01, pooling_maps=pooling_maps)
            features = None
            if self._features is not None:
                assert output.saliency is not None
                features = self._features(images01, output.saliency)
            terms = self._losses(output, batch.labels_b, batch.maps01_bhw, features)
        return output, terms

    def _combine(
        self, output: ModelOutput, labels_b: Tensor, target_bhw: Tensor | None, features: TripletFeatures | None
    ) -> LossTerms:
        config = self._config.loss
        return combine_losses(
            LossInputs(
                output.scores,
                labels_b,
                class_weights_k=self._class_weights_k,
                saliency_bhw=output.saliency,
                target_bhw=target_bhw,
                logits_bhw=output.saliency_logits,
                triplet_features=features,
                cam_bhw=self._label_cam(output.features, labels_b) if config.computes("cam_map") else None,
            ),
            config=config,
        )

    def _label_cam(self, features_bchw: Tensor, labels_b: Tensor) -> Tensor:
        """(B, h, w), the labels' activation maps in float32: in bfloat16 they would have steps of 1/256."""
        with torch.autocast(features_bchw.device.type, enabled=False):
            return self.model.classifier.class_activation_maps(features_bchw.float(), labels_b[:, None])[:, 0]

    @contextlib.contextmanager
    def _forward_pass(self) -> Iterator[None]:
        if self._graphs:
            # What the graphs of the step before gave may be overwritten now.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        bf16 = self._config.precision == "bf16"
        with torch.autocast(self._processes.device.type, dtype=torch.bfloat16, enabled=bf16):
            yield

    # ---- compilation

    def _compile(self, batch: DeviceBatch, *, first: int) -> None:
        """Compile all, or F alone, or nothing: whatever survives a few steps of ``batch``, which leave no trace.

        With several processes F alone: their networks wait for one another, and would wait for one that cannot compile.
        """
        plain = (self._network, self._features, self._losses)
        network, features, losses = plain
        trials: dict[str, tuple[Callable[[], Iterable[Any]], Callable[[], Tensor]]] = {}
        if self._processes.world_size == 1:
            on_cuda = self._processes.device.type == "cuda"
            self._graphs = on_cuda and self._config.accumulation == 1 and len(batch.labels_b) <= GRAPH_IMAGES
            trials["the training step"] = (
                lambda: map(self._compiled, plain),
                lambda: self.compute(batch, seed=0, first=first)[1].total,
            )
        if features is not None:
            trials["the frozen network"] = (
                lambda: (network, self._compiled(features), losses),
                lambda: self._features_on_trial(batch.images01_bchw),
            )
        if trials:
            graphs = " for CUDA graphs" if self._graphs else ""
            self._say(f"compiling {next(iter(trials))}{graphs}: the first step takes longer")
        for what, (parts, loss) in trials.items():
            reason = ""
            try:
                self._network, self._features, self._losses = parts()
                self._try(loss)
            except Exception as error:
                # An error that is not the compiler's comes again without it.
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                reason = f"{type(error).__name__}: {' '.join(lines[:1])}"
            if not self._processes.any(bool(reason)):
                return
            self._say(f"warning: --compile: {what} cannot be compiled: {reason or 'see another process'}")
        self._network, self._features, self._losses = plain
        self._graphs = False
        why = "" if trials else ": with several processes only F is compiled, and this run has none"
        self._say(f"warning: --compile: the run continues uncompiled{why}")

    def _compiled(self, part: Any) -> Any:
        # Sizes are fixed: F, called with two, would otherwise be compiled for any. Dropout is drawn as without.
        options = {"fallback_random": True, "triton.cudagraphs": self._graphs}
        return None if part is None else torch.compile(part, dynamic=False, options=options)  # type: ignore[arg-type]

    def _features_on_trial(self, images01_bchw: Tensor) -> Tensor:
        """A scalar of what F makes of any saliency."""
        assert self._features is not None
        with self._forward_pass():
            found = self._features(images01_bchw, images01_bchw.mean(dim=1).requires_grad_())
            scalar: Tensor = (found.foreground - found.background).sum()
        return scalar

    def _try(self, loss: Callable[[], Tensor]) -> None:
        """Forward and backward passes that leave no trace in the model."""
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            for _ in range(TRIAL_STEPS):
                with warnings.catch_warnings():
                    # The compiler looks at gradients of what has none, and warns of that.
                    warnings.simplefilter("ignore")
                    loss().backward()  # type: ignore[no-untyped-call]
                self.model.zero_grad(set_to_none=True)
        finally:
            self.model.zero_grad(set_to_none=True)
            for buffer, before in buffers:
                buffer.copy_(before)


def _round_weights(network: nn.Module) -> None:
    """What autocast does in every call to the weights of convolutions and linear layers, once: fixed ones stay so."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
