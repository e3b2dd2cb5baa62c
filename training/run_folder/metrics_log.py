"""Metrics log of a run: ``metrics.jsonl`` and, when asked for, TensorBoard events."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from pseudo_maps.files import write_atomically
from training.run_folder.files import METRICS_LOG_FILE

TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """One line of JSON for each event of a run, and the same numbers for TensorBoard if asked for.

    Lines after ``resume_step``, left by a process that was killed after its last checkpoint, are dropped: the resumed
    run writes them again. ValueError when TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, resume_step: int = 0, tensorboard: bool = False) -> None:
        self._path = folder / METRICS_LOG_FILE
        self._keep_until(resume_step)
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ValueError(
                    "--tensorboard needs the extra: pip install 'saliency-aware-wsol[tensorboard]'"
                ) from None
            self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=resume_step + 1)

    def _keep_until(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError):
                # The last line of a process that was killed while writing it.
                continue
        write_atomically(self._path, "".join(line + "\n" for line in kept).encode())

    def write(self, event: str, *, step: int, **numbers: Any) -> None:
        """Append an event of a step; numbers also go to TensorBoard as ``event/name``.

        NaN and infinity, which JSON does not have, are ``null`` in the file. OSError names the file when the line
        cannot be written.
        """
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in numbers.items()
        }
        line = json.dumps({"event": event, "step": step, **finite}, allow_nan=False)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            # A failed write does not know its file.
            raise OSError(error.errno, f"{error.strerror}: a line was not written", str(self._path)) from error
        if self._writer is not None:
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{event}/{name}", float(value), step)

    def picture(self, name: str, image_chw: torch.Tensor, *, step: int) -> None:
        """Show a (3, H, W) float picture in 0..1 in TensorBoard, if that is on."""
        if self._writer is not None:
            self._writer.add_image(name, image_chw, step)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._writer is not None:
            self._writer.close()
