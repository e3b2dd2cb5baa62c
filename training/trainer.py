"""Training loop: epochs, optimiser steps, checkpoints, and interruption at any time without loss of work.

Shapes: B batch of one process, K classes, H W pixels.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from training.class_names import NO_NAMES, ClassNames, match_classes, stored_names
from training.config import TrainConfig, TrainRunConfig, setting_differences
from training.data.loading import Batch, DeviceBatch, TrainingImages, require_whole, to_device
from training.data.sampling import EpochSampler
from training.data.workers import WorkerLoader, explaining_lost_workers
from training.health import HealthMonitor, TrainingDiverged, health_values
from training.networks.model import LocalizationModel
from training.networks.perceptual import PerceptualNetwork
from training.objective import Objective
from training.processes import Processes
from training.progress import Progress, StoppedBySignal, TrainingSummary
from training.run_folder.checkpoints import CheckpointError, CheckpointFolder
from training.run_folder.metrics_log import MetricsLog
from training.sample_panel import SHOWN_IMAGES, sample_panel
from training.schedules import build_optimiser, learning_rate, set_learning_rate
from training.step_statistics import StepStatistics, pop_means
from training.validation import Validation

SIGNAL_CHECK_STEPS = 10
"""Steps after which several processes ask one another whether a signal has arrived: asking waits for the GPU."""
SIGNAL_WAIT_S = 10.0
"""Seconds for which one of several processes, after a signal, waits for a batch before it gives up."""
NAMED_UNREADABLE = 3
"""Unreadable validation images that a warning names."""


class Trainer:
    """One training run in one folder.

    ``train_images`` carry maps when the method needs them, ``perceptual`` (the frozen network F) is given exactly when
    the triplet loss is on, and ``class_weights_k`` (K,) when classes are balanced. Checkpoints store ``class_names``,
    and one of other classes, or of another order of them, is not resumed.
    ``initialise`` loads weights into the new model before it goes to the device.

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
        class_names: ClassNames = NO_NAMES,
        initialise: Callable[[LocalizationModel], None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        parts = processes.world_size * config.accumulation
        if config.batch_size % parts:
            raise ValueError(
                f"batch size {config.batch_size} does not divide into {processes.world_size} processes with "
                f"{config.accumulation} gradient accumulation steps each"
            )
        if config.loss.use_triplet != (perceptual is not None):
            raise ValueError("the perceptual network is needed exactly when the triplet loss is on")
        self._config, self._run, self._processes, self._out = config, run, processes, out
        self._progress = progress or Progress()
        self._folder = CheckpointFolder(out, keep_last=run.keep_last)
        steps = config.epochs * (len(train_images) // config.batch_size)
        torch.manual_seed(config.seed)
        model = LocalizationModel(
            config.arch,
            config.classes,
            batch_norm=config.batch_norm,
            decoder=config.loss.needs_saliency,
            pools_by_saliency=config.pooling == "saliency",
            output_stride=config.output_stride,
        )
        if initialise is not None:
            initialise(model)
        self._objective = Objective(
            model,
            config=config,
            processes=processes,
            perceptual=perceptual,
            class_weights_k=class_weights_k,
            compiled=run.compiles(device=processes.device.type, steps=steps),
            say=self._progress.say,
        )
        self.model = self._objective.model
        self._optimiser = build_optimiser(self.model, config=config.optimiser)
        self._class_names = class_names
        self._sampler = EpochSampler(
            len(train_images),
            config.batch_size // parts,
            seed=config.seed,
            rank=processes.rank,
            world_size=processes.world_size,
        )
        self._loader = WorkerLoader(
            train_images,
            self._sampler,
            workers=run.workers,
            persistent=True,
            batch_bytes=train_images.nbytes(config.batch_size // parts),
            on_wait=self._stop_while_waiting,
        )
        self._validation = None
        if val_images is not None:
            self._validation = Validation(
                val_images,
                batch_size=max(1, config.batch_size // processes.world_size),
                workers=run.workers,
                processes=processes,
                precision=config.precision,
                on_wait=self._stop_while_waiting,
            )
        self._reported_unreadable: tuple[str, ...] = ()
        self._steps_per_epoch = self._sampler.batches_per_epoch // config.accumulation
        if self._steps_per_epoch < 1:
            raise ValueError(f"{len(train_images)} images do not fill one batch of {config.batch_size}")
        self._step = 0
        self._statistics = StepStatistics(processes, HealthMonitor(train_images.labels()))
        self._accuracy: dict[str, float] = {}
        self._epoch_open = False
        self._images = train_images.identity()
        self._signal = ""

    # ---- the run

    def fit(self, *, resume: bool = False) -> TrainingSummary:
        """Train to the end and leave ``finished.json``.

        ``resume`` continues from the newest checkpoint of the folder, to the same numbers as an uninterrupted run.

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
        log = None
        if self._is_main:
            say, board = self._progress.say, self._run.tensorboard
            log = MetricsLog(self._out, resume_step=self._step, epoch_open=self._epoch_open, tensorboard=board, say=say)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._listening_to_signals())
            stack.enter_context(explaining_lost_workers())
            stack.callback(self._progress.close)
            if log is not None:
                stack.callback(log.close)
            # A run stopped between the last step of an epoch and its end resumes with that end.
            for epoch in range((self._step - self._epoch_open) // self._steps_per_epoch, self._config.epochs):
                self._stop_if_signalled()
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
                | {"configuration": self._config.as_json(), **self._images}
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
        self._objective.train()
        self._epoch_open = True
        batches = iter(self._loader)
        last_save = time.monotonic()
        started, started_step = time.monotonic(), self._step
        for _ in range(done, self._steps_per_epoch):
            self.train_step([require_whole(next(batches)) for _ in range(config.accumulation)])
            numbers = None
            if self._step % self._run.log_every == 0 or self._step % self._steps_per_epoch == 0:
                self._statistics.collect()
                numbers = pop_means(self._statistics.since_log)
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
                self._stop_if_signalled()
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
        # All draws are functions of seed, step and an image's place in the step's batch: a resumed run needs no
        # generator's state, and any number of processes draws the same.
        seed = ((config.seed << 40) + self._step) % 2**63
        self._optimiser.zero_grad(set_to_none=True)
        rows: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        for part, cpu_batch in enumerate(batches):
            batch = to_device(cpu_batch, self._processes.device)
            # Gradients are exchanged between processes once, with those of the last part.
            last = part == len(batches) - 1
            with contextlib.nullcontext() if last else self._objective.without_gradient_exchange():
                first = (part * self._processes.world_size + self._processes.rank) * len(batch.labels_b)
                output, terms = self._objective.compute(batch, seed=seed, first=first)
                (terms.total / len(batches)).backward()  # type: ignore[no-untyped-call]
            top1 = (output.scores.detach().argmax(dim=1) == batch.labels_b).float().mean()
            watched = health_values(output.scores, batch.labels_b, output.features)
            rows.append(({**terms.named, "top1": top1}, watched))
        if config.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
            for values, _ in rows:
                values["gradient_norm"] = norm
        self._optimiser.step()
        self._step += 1
        for values, watched in rows:
            self._statistics.add(self._step, values, watched=watched)

    def _validate(self, validation: Validation, log: MetricsLog | None) -> dict[str, float]:
        """Accuracy over the validation images; a panel of the first ones."""

        def before_batch() -> None:
            if self._processes.world_size == 1:
                # Several processes may have different numbers of batches, so they answer after the validation.
                self._stop_if_signalled()
            self._progress.validate_batch()

        def draw(batch: DeviceBatch) -> None:
            assert log is not None
            shown = batch.images01_bchw[:SHOWN_IMAGES]
            log.picture("val", sample_panel(self.model, shown, batch.labels_b[:SHOWN_IMAGES]), step=self._step)

        self._progress.start_validation(batches=len(validation))
        look = draw if log is not None and self._run.tensorboard else None
        found = validation.measure(self.model, before_batch=before_batch, look=look)
        if found.unreadable and found.unreadable != self._reported_unreadable:
            self._reported_unreadable = found.unreadable
            named = "; ".join(found.unreadable[:NAMED_UNREADABLE])
            more = "; ..." if len(found.unreadable) > NAMED_UNREADABLE else ""
            self._progress.say(f"warning: validation images that cannot be read count as wrong: {named}{more}")
        return found.accuracy

    def _end_epoch(self, epoch: int, log: MetricsLog | None) -> None:
        means = pop_means(self._statistics.of_epoch)
        text = f"epoch {epoch + 1}/{self._config.epochs}: loss {means.get('total', math.nan):.4f}"
        if log is not None:
            # Before the checkpoint: lines of a step without a checkpoint are written again, missing ones are not.
            train = {f"train_{name}": value for name, value in means.items()}
            log.write("epoch", step=self._step, epoch=epoch + 1, **train)
            if self._accuracy:
                log.write("val", step=self._step, epoch=epoch + 1, **self._accuracy)
                text += f", val top-1 {100 * self._accuracy['top1']:.2f} %, top-5 {100 * self._accuracy['top5']:.2f} %"
                if self._accuracy.get("unreadable"):
                    text += f" ({self._accuracy['unreadable']} of {self._accuracy['images']:.0f} images unreadable)"
        self._epoch_open = False
        self.save()
        # Last: whoever reads the line finds the checkpoint, and a message that fails costs no epoch.
        self._progress.say(text)

    # ---- stop and resume

    def save(self) -> None:
        """Write a checkpoint of this moment; only the main process writes, all wait for it."""
        self._statistics.collect()
        self._check_weights()
        if self._is_main:
            self._folder.save(
                self._step,
                {
                    "model": self.model.state_dict(),
                    "optimiser": self._optimiser.state_dict(),
                    "config": self._config.as_json(),
                    "step": self._step,
                    "steps_per_epoch": self._steps_per_epoch,
                    "epoch_sums": dict(self._statistics.of_epoch),
                    "log_sums": dict(self._statistics.since_log),
                    "accuracy": dict(self._accuracy),
                    "epoch_open": self._epoch_open,
                    **self._images,
                    "class_wnids": list(self._class_names.wnids),
                    "class_names": list(self._class_names.words),
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
        lines = setting_differences(found.state["config"], self._config)
        if lines:
            raise CheckpointError(f"{found.path} is of another configuration:\n  " + "\n  ".join(lines))
        # Before the digest of the images, which covers the labels but cannot tell the orders.
        if self._class_names != NO_NAMES:
            stored, classes = stored_names(found.state), self._config.classes
            match = match_classes(stored, self._class_names, classes=classes, source=found.path)
            if match.columns is not None:
                raise CheckpointError(f"{found.path}: {match.note}; resume with the data set it was trained on")
        if found.state["steps_per_epoch"] != self._steps_per_epoch:
            raise CheckpointError(
                f"{found.path} had {found.state['steps_per_epoch']} steps in an epoch, now there are "
                f"{self._steps_per_epoch}: the number of images or processes has changed"
            )
        if found.state["images_sha256"] != self._images["images_sha256"]:
            raise CheckpointError(f"{found.path} was trained on other images or labels, or in another order of them")
        if found.state.get("image_bytes", self._images["image_bytes"]) != self._images["image_bytes"]:
            self._progress.say(f"warning: training image files have other sizes than when {found.path} was written")
        self.model.load_state_dict(found.state["model"])
        self._optimiser.load_state_dict(found.state["optimiser"])
        self._accuracy = dict(found.state["accuracy"])
        self._step = int(found.state["step"])
        self._statistics.of_epoch = dict(found.state["epoch_sums"])
        # Checkpoints of earlier versions have no sums between log lines.
        self._statistics.since_log = dict(found.state.get("log_sums", {}))
        self._epoch_open = bool(found.state["epoch_open"])
        self._progress.say(f"resumed from {found.path} at step {self._step}")

    @contextlib.contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        def remember(number: int, _frame: FrameType | None) -> None:
            self._signal = signal.Signals(number).name

        before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop_if_signalled(self) -> None:
        if self._processes.any(bool(self._signal)):
            self.save()
            raise StoppedBySignal(self._signal or "SIGTERM")

    def _stop_while_waiting(self, waited_s: float) -> None:
        if self._processes.world_size == 1:
            self._stop_if_signalled()
        elif self._signal and waited_s >= SIGNAL_WAIT_S:
            # The others wait for this one, so that no checkpoint can be made of all.
            raise StoppedBySignal(self._signal)
