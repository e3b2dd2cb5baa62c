"""DataLoader of whole batches whose worker processes end with the training process, not before it."""

import os
import signal
import threading
from collections.abc import Iterable
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from pseudo_maps.processes import end_with_parent

_Batch = TypeVar("_Batch")


class WorkerLoader(DataLoader[_Batch]):
    """Loader of a data set whose ``__getitems__`` makes whole batches; gives the same ones for any number of workers.

    Parameters
    ----------
    dataset, batches
        Makes a batch of a list of keys; the lists of keys, such as an ``EpochSampler``.
    workers
        Processes, one thread each; 0 works in this process.
    prefetch_batches
        Batches that each worker prepares ahead.
    pin_memory
        Copy batches to page-locked memory, so that they can go to the device while it computes; None: with CUDA only.
    persistent
        Keep the workers, started at the first iteration, for all iterations.
    """

    def __init__(
        self,
        dataset: Dataset[_Batch],
        batches: Iterable[list[Any]],
        *,
        workers: int,
        prefetch_batches: int = 4,
        pin_memory: bool | None = None,
        persistent: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_keep_batch,
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            persistent_workers=persistent and workers > 0,
            prefetch_factor=prefetch_batches if workers > 0 else None,
            # Without one of its own, each iteration would take a number from torch's global generator, and a resumed
            # run, which starts iterations at other moments, would see other dropout masks.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Any:
        """Start the workers, if they are not there: with SIGTERM blocked and without a pool of threads.

        A forked worker cannot end OpenCV's threads of its parent: it would wait for them for ever.
        """
        if self.num_workers == 0:
            return super().__iter__()
        threads = cv2.getNumThreads()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(threads)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _keep_batch(batch: Any) -> Any:
    # The data set makes whole batches, so nothing is left to collate.
    return batch


def _start_worker(_worker: int) -> None:
    _heed_parent_alone()
    end_with_parent()
    # torch's own loader limits torch in its workers; OpenCV would start a pool as large as the machine in each.
    cv2.setNumThreads(1)


def _heed_parent_alone() -> None:
    """Ignore SIGINT, and SIGTERM unless the parent process sends it.

    SLURM sends SIGTERM, and a terminal SIGINT, to every process of a job. A worker that obeyed would be missed by the
    training process before that has written its checkpoint.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked, not ignored: at the end of the program the parent still ends its workers by SIGTERM.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_by_parent, daemon=True).start()


def _end_by_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
