"""Sampling order: batches of image positions, shuffled, split over ranks, resumable.

Everything is computed from (seed, epoch), so a resumed run and a run on another number of processes see the same
images in the same steps.

Shapes: N images, B images of a batch on one rank, R ranks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

_PERMUTATION_STREAM = 0
_IMAGE_STREAM = 1
"""Highest word of the Philox counter: the order of an epoch and the images' own draws never share numbers."""

_UINT64_MAX = 2**64 - 1


class SampleKey(NamedTuple):
    """What a loader worker needs to make one sample: workers live longer than an epoch, so it travels along."""

    epoch: int
    """Epoch that the sample is drawn in, at least 0."""
    position: int
    """Position of the image in the records, ``0 <= position < N``."""


def counter_generator(*, seed: int, epoch: int, position: int) -> np.random.Generator:
    """Random numbers that depend on the three arguments alone, each ``0 <= value < 2**64``, else ValueError.

    Philox, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): key
    (seed, epoch), counter (0, 0, position, 1). Other arguments give streams that never meet, because an image uses far
    less than 2**128 numbers.
    """
    return np.random.Generator(_philox(seed, epoch, position, _IMAGE_STREAM))


def permutation(count: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """(N,) int64 order of an epoch, for ``0 <= seed, epoch < 2**64``, else ValueError.

    Sorts raw Philox output, which is the same in every version of numpy (``Generator.permutation`` promises
    that for no two versions), so that a resumed run keeps its order after an update.
    """
    raw = _philox(seed, epoch, 0, _PERMUTATION_STREAM).random_raw(count)
    return np.argsort(raw, kind="stable").astype(np.int64, copy=False)


def _philox(seed: int, epoch: int, position: int, stream: int) -> np.random.Philox:
    for name, value in (("seed", seed), ("epoch", epoch), ("position", position)):
        if not 0 <= value <= _UINT64_MAX:
            raise ValueError(f"{name} {value}, expected 0 <= {name} < 2**64")
    # Arrays, because numpy makes floats of a list that holds a number above 2**63.
    key, counter = (np.array(parts, dtype=np.uint64) for parts in ([seed, epoch], [0, 0, position, stream]))
    return np.random.Philox(key=key, counter=counter)


class EpochSampler(Sampler[list[SampleKey]]):
    """Batches of one rank in one epoch, the first one until ``set_epoch``; a batch sampler for torch's ``DataLoader``.

    Batch k of all ranks together is batch k of one process with ``batch_size * world_size``, rank after rank,
    so averaging gradients over ranks equals training alone with the larger batch.

    Parameters
    ----------
    count, batch_size
        N images, B of a batch on one rank.
    seed, shuffle
        Random seed of the order; without ``shuffle`` the order of the records.
    drop_last
        Leave out the last ``N mod (B R)`` images of an epoch: every rank gets the same number of full batches, which
        training needs. Off, for evaluation: every image exactly once over all ranks; the last batches are shorter, and
        a rank for which no image is left has one batch less.

    Raises
    ------
    ValueError
        A number outside its range, or fewer images than one batch on every rank while ``drop_last`` is on.

    Examples
    --------
    >>> sampler = EpochSampler(5, 2, seed=0, shuffle=False, drop_last=False, rank=0, world_size=2)
    >>> [[key.position for key in batch] for batch in sampler]
    [[0, 1], [4]]
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        if count < 1 or batch_size < 1 or world_size < 1:
            raise ValueError(
                f"{count} images in batches of {batch_size} on {world_size} processes, expected at least 1 of each"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank}, expected 0 <= rank < world size {world_size}")
        if drop_last and count < batch_size * world_size:
            raise ValueError(
                f"{count} images do not fill one batch of {batch_size} on each of {world_size} processes: use a "
                f"batch size of at most {count // world_size}, or fewer processes"
            )
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._shuffle = shuffle
        self._drop_last = drop_last
        self.set_epoch(0)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this rank in a whole epoch."""
        full, rest = divmod(self._count, self._batch_size * self._world_size)
        return full + (not self._drop_last and self._rank < rest)

    def set_epoch(self, epoch: int, *, start_batch: int = 0) -> None:
        """Choose epoch and first batch of the next iteration; ValueError when one is out of its range."""
        if not 0 <= epoch <= _UINT64_MAX:
            raise ValueError(f"epoch {epoch}, expected 0 <= epoch < 2**64")
        if not 0 <= start_batch <= self.batches_per_epoch:
            raise ValueError(f"start batch {start_batch}, expected 0 <= start batch <= {self.batches_per_epoch}")
        self._epoch = epoch
        self._start_batch = start_batch

    def __len__(self) -> int:
        return self.batches_per_epoch - self._start_batch

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._batches(self._epoch, range(self._start_batch, self.batches_per_epoch))

    def _batches(self, epoch: int, numbers: range) -> Iterator[list[SampleKey]]:
        order = permutation(self._count, seed=self._seed, epoch=epoch) if self._shuffle else np.arange(self._count)
        together = self._batch_size * self._world_size
        for number in numbers:
            of_all_ranks = order[number * together : (number + 1) * together]
            # A full batch gives each rank B in a row; what is left at the end is spread evenly, first ranks first.
            mine = np.array_split(of_all_ranks, self._world_size)[self._rank]
            yield [SampleKey(epoch, position) for position in mine.tolist()]
