"""Turns images, labels and saliency maps into a trained network, and stops at any moment without loss.

Shapes: B batch of one process, K classes, H W pixels.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pseudo_maps.files import differences
from training.config import TrainConfig, TrainRunConfig
from training.data.hide_and_seek import hide_and_seek
from training.data.loading import Batch, DeviceBatch, TrainingImages, build_loader, require_whole, to_device
from training.data.sampling import EpochSampler
from training.health import HealthMonitor, TrainingDiverged
from training.losses import LossTerms, TripletFeatures, combine_losses, foreground_background
from training.networks.model import LocalizationModel, ModelOutput
from training.networks.perceptual import PerceptualNetwork
from training.processes import Processes, start_batches
from training.progress import Progress, StoppedBySignal, TrainingSummary
from training.run_folder.checkpoints import CheckpointError, CheckpointFolder
from training.run_folder.metrics_log import MetricsLog
from training.sample_panel import SHOWN_IMAGES, sample_panel
from training.schedules import build_optimiser, learning_rate, set_learning_rate
from training.validation import Validation

__all__ = ["Trainer"]

SIGNAL_CHECK_STEPS = 10
"""Steps between two questions to all processes whether one was told to stop: asking waits for the GPU."""
NAMED_UNREADABLE = 3
"""Validation images that cannot be read of which the warning tells."""


class Trainer:
    """One training run in one folder.

    Parameters
    ----------
    config
        What decides the result.
    run
        What does not.
    processes
        This process among those that train together.
    train_images, val_images
        Images; the training images carry maps when the method needs them.
    perceptual
        The frozen network F, when the triplet loss is on.
    class_weights_k
        (K,) weights of the classes, when they are balanced.
    class_names
        Names of the K classes for the checkpoints; empty: none are stored.
    initialise
        Called with the new model before it goes to the device: loads weights.
    progress
        Told what happens.

    Raises
    ------
    ValueError
        A batch size that does not divide, too few images, or F given or missing against the configuration.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: TrainRunConfig,
        *,
        out: Path,
        processes: Processes,
        train_images: TrainingImages,
        val_images: TrainingImages | None,
        perceptual: PerceptualNetwork | None = None,
        class_weights_k: Tensor | None = None,
        class_names: Sequence[str] = (),
        initialise: Callable[[LocalizationModel], None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        parts = processes.world_size * config.accumulation
        if config.batch_size % parts:
            raise ValueError(
                f"batch size {config.batch_size} does not divide into {processes.world_size} processes with "
                f"{config.accumulation} parts each"
            )
        if config.loss.use_triplet != (perceptual is not None):
            raise ValueError("the perceptual network is needed exactly when the triplet loss is on")
        self._config, self._run, self._processes, self._out = config, run, processes, out
        self._progress = progress or Progress()
        self._folder = CheckpointFolder(out, keep_last=run.keep_last)
        device = processes.device
        torch.manual_seed(config.seed)
        model = LocalizationModel(
            config.arch, config.classes, batch_norm=config.batch_norm, decoder=config.loss.needs_saliency
        )
        if initialise is not None:
            initialise(model)
        if processes.world_size > 1 and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        self.model: LocalizationModel = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: nn.Module = self.model
        self._perceptual: nn.Module | None = None
        if perceptual is not None:
            self._perceptual = perceptual.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if run.compile:
            self._network = torch.compile(self._network)  # type: ignore[assignment]
            if self._perceptual is not None:
                self._perceptual = torch.compile(self._perceptual)  # type: ignore[assignment]
        if processes.world_size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self._network = DistributedDataParallel(self._network, device_ids=ids)
        self._optimiser = build_optimiser(self.model, config=config.optimiser)
        self._class_weights_k = None if class_weights_k is None else class_weights_k.to(device)
        self._class_names = list(class_names)
        self._health = HealthMonitor(classes=config.classes)
        self._sampler = EpochSampler(
            len(train_images),
            config.batch_size // parts,
            seed=config.seed,
            rank=processes.rank,
            world_size=processes.world_size,
        )
        self._loader = build_loader(train_images, self._sampler, workers=run.workers)
        self._validation = None
        if val_images is not None:
            self._validation = Validation(
                val_images,
                batch_size=max(1, config.batch_size // processes.world_size),
                workers=run.workers,
                processes=processes,
                precision=config.precision,
            )
        self._told_unreadable: tuple[str, ...] = ()
        self._steps_per_epoch = self._sampler.batches_per_epoch // config.accumulation
        if self._steps_per_epoch < 1:
            raise ValueError(f"{len(train_images)} images do not fill one batch of {config.batch_size}")
        self._step = 0
        self._sums: dict[str, Tensor] = {}
        self._summed_steps = 0
        self._epoch_sums: dict[str, float] = {}
        self._accuracy: dict[str, float] = {}
        self._epoch_open = False
        self._images, self._images_sha256 = len(train_images), train_images.sha256()
        self._told_to_stop = ""

    # ---- the run

    def fit(self, *, resume: bool = False) -> TrainingSummary:
        """Train to the end and leave ``finished.json``.

        Parameters
        ----------
        resume
            Go on from the newest checkpoint of the folder, exactly as if nothing had happened.

        Raises
        ------
        CheckpointError
            A checkpoint of another configuration, or ``resume`` without any checkpoint that can be read.
        StoppedBySignal
            SIGTERM or SIGINT came; a checkpoint was saved.
        TrainingDiverged
            The run cannot recover; the message says what to change.
        UnreadableImageError
            A training image or its map cannot be read.
        """
        if self._processes.is_main:
            self._out.mkdir(parents=True, exist_ok=True)
        if resume:
            self._resume()
        log = (
            MetricsLog(self._out, resume_step=self._step, tensorboard=self._run.tensorboard) if self._is_main else None
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._listening_to_signals())
            stack.callback(self._progress.close)
            if log is not None:
                stack.callback(log.close)
            # A run stopped between the last step of an epoch and its end goes on with that end.
            for epoch in range((self._step - self._epoch_open) // self._steps_per_epoch, self._config.epochs):
                self._stop_if_told()
                if self._step < (epoch + 1) * self._steps_per_epoch:
                    self._train_epoch(epoch, log)
                if self._validation is not None:
                    self._accuracy = self._validate(self._validation, log)
                self._end_epoch(epoch, log)
        summary = TrainingSummary(
            epochs=self._config.epochs,
            steps=self._step,
            top1=self._accuracy.get("top1", math.nan),
            top5=self._accuracy.get("top5", math.nan),
            peak_memory_bytes=self._processes.peak_memory_bytes(),
        )
        if self._is_main:
            self._folder.mark_finished(
                {name: value for name, value in asdict(summary).items() if not math.isnan(value)}
                | {"configuration": self._config.as_json()}
                | {"images": self._images, "images_sha256": self._images_sha256}
            )
        return summary

    @property
    def _is_main(self) -> bool:
        return self._processes.is_main

    def _train_epoch(self, epoch: int, log: MetricsLog | None) -> None:
        config = self._config
        done = self._step % self._steps_per_epoch
        self._sampler.set_epoch(epoch, start_batch=done * config.accumulation)
        self._progress.start_epoch(epoch, batches=self._steps_per_epoch, done=done)
        self._network.train()
        self._epoch_open = True
        batches = start_batches(self._loader)
        last_save = time.monotonic()
        started, started_step = time.monotonic(), self._step
        for _ in range(done, self._steps_per_epoch):
            self.train_step([require_whole(next(batches)) for _ in range(config.accumulation)])
            numbers = None
            if self._step % self._run.log_every == 0 or self._step % self._steps_per_epoch == 0:
                numbers = self._collect_numbers()
                elapsed_s = time.monotonic() - started
                numbers["images_per_s"] = (self._step - started_step) * config.batch_size / max(elapsed_s, 1e-9)
                numbers["learning_rate"] = self._optimiser.param_groups[0]["lr"]
                if log is not None:
                    log.write("train", step=self._step, epoch=self._step / self._steps_per_epoch, **numbers)
            self._progress.step(config.batch_size, numbers)
            if self._step % self._steps_per_epoch == 0:
                # The epoch ends with a checkpoint of its own, after its validation.
                return
            if self._processes.world_size == 1 or self._step % SIGNAL_CHECK_STEPS == 0:
                self._stop_if_told()
                minutes = (time.monotonic() - last_save) / 60
                if self._processes.any(self._is_main and minutes >= self._run.checkpoint_minutes):
                    self.save()
                    last_save = time.monotonic()

    def train_step(self, batches: list[Batch]) -> None:
        """One step of the optimiser from ``accumulation`` batches of this process, as the loader gives them."""
        config = self._config
        rate = learning_rate(
            self._step,
            config=config.schedule,
            total_steps=config.epochs * self._steps_per_epoch,
            base_lr=config.optimiser.lr,
            steps_per_epoch=self._steps_per_epoch,
        )
        set_learning_rate(self._optimiser, rate)
        # Dropout draws from a seed of the step and process alone, so that a resumed run needs no generator's state.
        torch.manual_seed(self._place(part=0) + 1)
        self._optimiser.zero_grad(set_to_none=True)
        for part, cpu_batch in enumerate(batches):
            batch = to_device(cpu_batch, self._processes.device)
            last = part == len(batches) - 1
            with contextlib.nullcontext() if last else self._without_gradient_exchange():
                output, terms = self._forward(batch, part=part)
                (terms.total / len(batches)).backward()  # type: ignore[no-untyped-call]
            self._health.observe(
                self._step,
                losses=terms.named,
                scores_bk=output.scores.detach(),
                labels_b=batch.labels_b,
                features_bc=output.features.detach(),
                saliency_bhw=None if output.saliency is None else output.saliency.detach(),
            )
            correct = (output.scores.detach().argmax(dim=1) == batch.labels_b).float().mean()
            for name, value in {**terms.named, "top1": correct}.items():
                summed = self._sums.get(name)
                self._sums[name] = (value.float() if summed is None else summed + value.float()).detach()
        if config.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
            self._sums["gradient_norm"] = self._sums.get("gradient_norm", torch.zeros_like(norm)) + norm * len(batches)
        self._optimiser.step()
        self._summed_steps += len(batches)
        self._step += 1

    def _without_gradient_exchange(self) -> contextlib.AbstractContextManager[None]:
        if isinstance(self._network, DistributedDataParallel):
            exchange: contextlib.AbstractContextManager[None] = self._network.no_sync()
            return exchange
        return contextlib.nullcontext()

    def _forward(self, batch: DeviceBatch, *, part: int) -> tuple[ModelOutput, LossTerms]:
        """Output and losses of one batch; F(x) without gradient, F of both masked images in one call."""
        config = self._config
        images01 = batch.images01_bchw
        if config.method == "has":
            images01 = hide_and_seek(images01, generator=torch.Generator().manual_seed(self._place(part=part)))
        with torch.autocast(images01.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
            output: ModelOutput = self._network(images01)
            features = None
            if self._perceptual is not None:
                assert output.saliency is not None
                with torch.no_grad():
                    image_features = self._perceptual(images01)
                masked = torch.cat(foreground_background(images01, output.saliency))
                foreground, background = self._perceptual(masked).chunk(2)
                features = TripletFeatures(image_features, foreground, background)
            terms = combine_losses(
                output.scores,
                batch.labels_b,
                config=config.loss,
                class_weights_k=self._class_weights_k,
                saliency_bhw=output.saliency,
                target_bhw=batch.maps01_bhw,
                logits_bhw=output.saliency_logits,
                triplet_features=features,
            )
        return output, terms

    def _place(self, *, part: int) -> int:
        """A number that no other step, part or process of the run has, below 2**63, where torch's seeds end."""
        step_part = self._step * self._config.accumulation + part
        return ((self._config.seed << 40) + step_part * self._processes.world_size + self._processes.rank) % 2**63

    def _collect_numbers(self) -> dict[str, float]:
        """Means over the steps since the last call, over all processes; adds them to the epoch's sums."""
        names = sorted(self._sums)
        values = torch.stack([self._sums[name] for name in names])
        means = self._processes.add_up(values).tolist()
        count = self._summed_steps * self._processes.world_size
        for name, value in zip(names, means, strict=True):
            self._epoch_sums[name] = self._epoch_sums.get(name, 0.0) + value
        self._epoch_sums["steps"] = self._epoch_sums.get("steps", 0.0) + count
        self._sums, self._summed_steps = {}, 0
        return {name: value / count for name, value in zip(names, means, strict=True)}

    def _validate(self, validation: Validation, log: MetricsLog | None) -> dict[str, float]:
        """Accuracy over the validation images; a panel of the first ones."""

        def before_batch() -> None:
            if self._processes.world_size == 1:
                # Several processes may have different numbers of batches, so they answer after the validation.
                self._stop_if_told()
            self._progress.validate_batch()

        def draw(batch: DeviceBatch) -> None:
            assert log is not None
            shown = batch.images01_bchw[:SHOWN_IMAGES]
            log.picture("val", sample_panel(self.model, shown, batch.labels_b[:SHOWN_IMAGES]), step=self._step)

        self._progress.start_validation(batches=len(validation))
        look = draw if log is not None and self._run.tensorboard else None
        found = validation.measure(self.model, before_batch=before_batch, look=look)
        if found.unreadable and found.unreadable != self._told_unreadable:
            self._told_unreadable = found.unreadable
            named = "; ".join(found.unreadable[:NAMED_UNREADABLE])
            more = "; ..." if len(found.unreadable) > NAMED_UNREADABLE else ""
            self._progress.say(f"warning: validation images that cannot be read count as wrong: {named}{more}")
        return found.accuracy

    def _end_epoch(self, epoch: int, log: MetricsLog | None) -> None:
        steps = max(self._epoch_sums.pop("steps", 1.0), 1.0)
        means = {name: value / steps for name, value in self._epoch_sums.items()}
        self._epoch_sums = {}
        if log is not None:
            # Before the checkpoint: lines of a step without a checkpoint are written again, missing ones are not.
            train = {f"train_{name}": value for name, value in means.items()}
            log.write("epoch", step=self._step, epoch=epoch + 1, **train)
            text = f"epoch {epoch + 1}/{self._config.epochs}: loss {means.get('total', math.nan):.4f}"
            if self._accuracy:
                log.write("val", step=self._step, epoch=epoch + 1, **self._accuracy)
                text += f", val top-1 {100 * self._accuracy['top1']:.2f} %, top-5 {100 * self._accuracy['top5']:.2f} %"
                if self._accuracy.get("unreadable"):
                    text += f" ({self._accuracy['unreadable']} of {self._accuracy['images']:.0f} images unreadable)"
            self._progress.say(text)
        self._epoch_open = False
        self.save()

    # ---- stopping and going on

    def save(self) -> None:
        """Write a checkpoint of this moment; only the main process writes, all wait for it."""
        self._health.check()
        self._check_weights()
        if self._sums:
            self._collect_numbers()
        if self._is_main:
            self._folder.save(
                self._step,
                {
                    "model": self.model.state_dict(),
                    "optimiser": self._optimiser.state_dict(),
                    "config": self._config.as_json(),
                    "step": self._step,
                    "steps_per_epoch": self._steps_per_epoch,
                    "epoch_sums": dict(self._epoch_sums),
                    "accuracy": dict(self._accuracy),
                    "epoch_open": self._epoch_open,
                    "images_sha256": self._images_sha256,
                    "class_names": self._class_names,
                },
            )
        self._processes.wait()

    def _check_weights(self) -> None:
        # The losses of a step are from before its update, so they do not tell whether the update was finite.
        finite = torch.stack([torch.isfinite(weights).all() for weights in self.model.parameters()])
        if not finite.all():
            raise TrainingDiverged(
                f"step {self._step}: weights are no longer finite; lower --lr, keep --batch-norm, or use "
                "--recipe default"
            )

    def _resume(self) -> None:
        found = self._folder.latest()
        if found is None:
            raise CheckpointError(f"{self._out}: there is no checkpoint to resume from; start without --resume")
        lines = differences(found.state["config"], self._config.as_json())
        if lines:
            raise CheckpointError(f"{found.path} is of another configuration:\n  " + "\n  ".join(lines))
        if found.state["steps_per_epoch"] != self._steps_per_epoch:
            raise CheckpointError(
                f"{found.path} had {found.state['steps_per_epoch']} steps in an epoch, now there are "
                f"{self._steps_per_epoch}: the number of images or processes has changed"
            )
        if found.state["images_sha256"] != self._images_sha256:
            raise CheckpointError(f"{found.path} was trained on other images or labels, or in another order of them")
        self.model.load_state_dict(found.state["model"])
        self._optimiser.load_state_dict(found.state["optimiser"])
        self._accuracy = dict(found.state["accuracy"])
        self._step = int(found.state["step"])
        self._epoch_sums = dict(found.state["epoch_sums"])
        self._epoch_open = bool(found.state["epoch_open"])
        self._progress.say(f"resumed from {found.path} at step {self._step}")

    @contextlib.contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        def remember(number: int, _frame: FrameType | None) -> None:
            self._told_to_stop = signal.Signals(number).name

        before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop_if_told(self) -> None:
        if self._processes.any(bool(self._told_to_stop)):
            self.save()
            raise StoppedBySignal(self._told_to_stop or "SIGTERM")
