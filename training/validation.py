"""Validation: top-1 and top-5 accuracy, counted over all processes.

Shapes: B images of a batch, N validation images.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from pseudo_maps.reading import raise_system_error
from training.config import Precision
from training.data.loading import DeviceBatch, TrainingImages, to_device
from training.data.sampling import EpochSampler
from training.data.workers import WorkerLoader
from training.networks.model import LocalizationModel
from training.processes import Processes

TOP_K = 5


class ValidationResult(NamedTuple):
    """Result of a validation, the same in every process."""

    accuracy: dict[str, float]
    """``top1`` and ``top5`` in 0..1; ``images``: N; ``unreadable``: how many of them cannot be read."""
    unreadable: tuple[str, ...]
    """What is wrong with each image that cannot be read; its file alone where another process found it."""


class Validation:
    """All N validation images, shared among the processes, in batches of B in each process.

    At most one of the ``workers`` is used: more would wait, awake, between two validations. ``on_wait`` is that of the
    loader.
    """

    def __init__(
        self,
        images: TrainingImages,
        *,
        batch_size: int,
        workers: int,
        processes: Processes,
        precision: Precision,
        on_wait: Callable[[float], None] = lambda _waited_s: None,
    ) -> None:
        self._images, self._processes, self._precision = images, processes, precision
        sampler = EpochSampler(
            len(images),
            batch_size,
            seed=0,
            rank=processes.rank,
            world_size=processes.world_size,
            shuffle=False,
            drop_last=False,
        )
        self._loader = WorkerLoader(
            images,
            sampler,
            workers=min(workers, 1),
            persistent=True,
            batch_bytes=images.nbytes(batch_size),
            on_wait=on_wait,
        )

    def __len__(self) -> int:
        """Batches of this process."""
        return len(self._loader)

    @torch.no_grad()
    def measure(
        self,
        model: LocalizationModel,
        *,
        before_batch: Callable[[], None],
        look: Callable[[DeviceBatch], None] | None = None,
    ) -> ValidationResult:
        """Top-1 and top-5 accuracy over all images, each counted once; the model is put into evaluation mode.

        An image that cannot be read counts as wrong, as it does for ``wsol-eval``: the accuracy is always of all N.
        ``before_batch`` is called before every batch of this process and may raise to end the validation; ``look`` is
        shown the first batch.
        """
        model.eval()
        device = self._processes.device
        hits = torch.zeros(2, dtype=torch.float64, device=device)
        unreadable_n = torch.zeros(len(self._images), device=device)
        reasons: dict[int, str] = {}
        for cpu_batch in self._loader:
            before_batch()
            raise_system_error(cpu_batch.unreadable.values())
            for position, error in cpu_batch.unreadable.items():
                unreadable_n[position] = 1
                reasons[position] = str(error)
            if not len(cpu_batch.labels_b):
                continue
            batch = to_device(cpu_batch, device)
            if look is not None:
                look(batch)
                look = None
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._precision == "bf16"):
                scores = model(batch.images01_bchw, with_saliency=False).scores
            best = scores.topk(min(TOP_K, scores.shape[1]), dim=1).indices
            hits_bk = best == batch.labels_b[:, None]
            hits[0] += hits_bk[:, 0].sum()
            hits[1] += hits_bk.any(dim=1).sum()
        top1, top5 = self._processes.add_up(hits).tolist()
        positions = self._processes.add_up(unreadable_n).nonzero().flatten().tolist()
        images = float(len(self._images))
        return ValidationResult(
            accuracy={"top1": top1 / images, "top5": top5 / images, "images": images, "unreadable": len(positions)},
            unreadable=tuple(reasons.get(position) or self._images.path(position) for position in positions),
        )
