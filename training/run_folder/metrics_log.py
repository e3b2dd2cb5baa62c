"""Metrics log of a run: ``metrics.jsonl`` and, if requested, TensorBoard events."""

import contextlib
import functools
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pseudo_maps.files import write_atomically
from training.run_folder.files import METRICS_LOG_FILE

TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """One line of JSON for each event of a run, and the same numbers for TensorBoard if asked for.

    Lines after ``resume_step``, left by a process that was killed after its last checkpoint, are dropped: the resumed
    run writes them again; with ``epoch_open`` those of the epoch that ends with that step too. No training ends for its
    log: ``say`` is told, once for each reason, of damaged lines, which are dropped, and of what cannot be read or
    written. ValueError when TensorBoard is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resume_step: int = 0,
        epoch_open: bool = False,
        tensorboard: bool = False,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._path = folder / METRICS_LOG_FILE
        self._say = functools.cache(say)
        with self._warning_of_failures():
            self._keep_until(resume_step, epoch_open=epoch_open)
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ValueError(
                    "--tensorboard needs the extra: pip install 'saliency-aware-wsol[tensorboard]'"
                ) from None
            with self._warning_of_failures():
                self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=resume_step + 1)

    @contextlib.contextmanager
    def _warning_of_failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._say(f"warning: {self._path}: {error.strerror}; the log lacks lines, the checkpoints are not affected")

    def _keep_until(self, step: int, *, epoch_open: bool) -> None:
        if not self._path.exists():
            return
        lines = self._path.read_bytes().split(b"\n")
        kept, damaged = [], []
        for number, line in enumerate(lines, start=1):
            try:
                event = json.loads(line)
                again = epoch_open and event["step"] == step and event["event"] in ("epoch", "val")
                if event["step"] <= step and not again:
                    kept.append(line + b"\n")
            except (ValueError, KeyError, TypeError, RecursionError):
                # The last line may be of a process that was killed while writing it.
                damaged += [number] if number < len(lines) else []
        if damaged:
            self._say(f"warning: {self._path}: damaged lines are dropped: {len(damaged)}, the first is {damaged[0]}")
        write_atomically(self._path, b"".join(kept))

    def write(self, event: str, *, step: int, **numbers: Any) -> None:
        """Append an event of a step; numbers also go to TensorBoard as ``event/name``.

        NaN and infinity, which JSON does not have, are ``null`` in the file.
        """
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in numbers.items()
        }
        line = json.dumps({"event": event, "step": step, **finite}, allow_nan=False) + "\n"
        with self._warning_of_failures(), self._path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            left = line.encode()
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                # The next line must not stick to half of this one.
                file.truncate(before)
                raise
        if self._writer is not None:
            with self._warning_of_failures():
                for name, value in numbers.items():
                    if isinstance(value, int | float):
                        self._writer.add_scalar(f"{event}/{name}", float(value), step)

    def picture(self, name: str, image_chw: torch.Tensor, *, step: int) -> None:
        """Show a (3, H, W) float picture in 0..1 in TensorBoard, if that is on."""
        if self._writer is not None:
            with self._warning_of_failures():
                self._writer.add_image(name, image_chw, step)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._writer is not None:
            with self._warning_of_failures():
                self._writer.close()
