"""Progress of a training run: what it reports, how it ends early, and its summary."""

from collections.abc import Mapping
from dataclasses import dataclass


class StoppedBySignal(RuntimeError):
    """The run was interrupted by SIGTERM or SIGINT, saved a checkpoint and can be resumed."""


class Progress:
    """Receiver of a trainer's reports; this one ignores them."""

    def start_epoch(self, epoch: int, *, batches: int, done: int) -> None:
        """An epoch (counted from 0) of ``batches`` steps begins after ``done`` of them."""

    def step(self, images: int, numbers: Mapping[str, float] | None) -> None:
        """A step of ``images`` images is done; numbers come with every log line."""

    def start_validation(self, *, batches: int) -> None:
        """A validation of ``batches`` batches begins."""

    def validate_batch(self) -> None:
        """A batch of the validation begins."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def close(self) -> None:
        """Nothing more follows: the run is over, or has failed."""


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """Summary of a finished run."""

    epochs: int
    steps: int
    top1: float
    """Top-1 accuracy on the validation images after the last epoch, 0..1; NaN without any."""
    top5: float
    """Top-5 accuracy likewise."""
    peak_memory_bytes: int
    """Largest GPU memory in use, 0 on a CPU."""
