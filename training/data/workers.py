"""DataLoader of whole batches whose worker processes end with the training process, not before it."""

import atexit
import contextlib
import multiprocessing.queues
import os
import re
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from pseudo_maps.processes import SHARED_MEMORY, StopWatch, describe_limits, end_with_parent

_Batch = TypeVar("_Batch")

_POLL_S = 1.0
_CANNOT_SEND = 74
"""Exit code of a worker whose batch could not be sent (EX_IOERR)."""
_SHARE = 0.9
"""Of the free shared memory: semaphores and other programs need some."""
_LOST = re.compile(r"^DataLoader worker|^Too many open files|Too many open files$|ancdata")


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
    batch_bytes
        Largest batch. Where ``/dev/shm`` is too small for all that workers prepare, fewer are prepared ahead, and with
        less space than that there are fewer workers, which a line on stderr says; 0: unknown.
    on_wait
        Called about once a second while a batch is waited for, with the seconds waited; what it raises ends the wait.

    Notes
    -----
    No wait is for ever: RuntimeError within a minute when a worker has died, is stopped, or cannot send what it made.
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
        batch_bytes: int = 0,
        on_wait: Callable[[float], None] = lambda _waited_s: None,
    ) -> None:
        workers, prefetch_batches = _fitting(workers, prefetch_batches, batch_bytes=batch_bytes)
        self.on_wait = on_wait
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
        if self.num_workers == 0 or self._iterator is not None:
            # Nothing is started.
            return super().__iter__()
        threads = cv2.getNumThreads()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        except OSError as error:
            raise RuntimeError(f"no loader workers ({error}): {_advice()}") from error
        finally:
            cv2.setNumThreads(threads)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _get_iterator(self) -> Any:
        return super()._get_iterator() if self.num_workers == 0 else _WatchedIterator(self)


class _WatchedIterator(_MultiProcessingDataLoaderIter):
    """torch's iterator over the batches of workers, whose waits end."""

    _shutdown = True
    """Until there are workers: torch looks for it when one cannot be started."""

    def __init__(self, loader: WorkerLoader[Any]) -> None:
        self._owner = os.getpid()
        self._on_wait = loader.on_wait
        self._watch = StopWatch()
        self._waiting_since_s: float | None = None
        _ITERATORS.add(self)
        super().__init__(loader)

    def _try_get_data(self, timeout: float = _POLL_S) -> tuple[bool, Any]:
        """Whether a batch came within the time, and the batch."""
        try:
            came, batch = super()._try_get_data(min(timeout, _POLL_S))  # type: ignore[no-untyped-call]
            if came:
                self._waiting_since_s = None
            else:
                since_s = self._waiting_since_s = self._waiting_since_s or time.monotonic()
                self._watch.look(worker.pid for worker in self._workers if worker.pid)
                self._on_wait(time.monotonic() - since_s)
        except BaseException as error:
            unsent = {worker.exitcode for worker in self._workers} & {_CANNOT_SEND, -signal.SIGBUS}
            self.kill_workers()
            if unsent and isinstance(error, RuntimeError):
                raise RuntimeError(f"a loader worker cannot send its batch: {_advice()}") from error
            if isinstance(error, ConnectionError | EOFError | FileNotFoundError):
                # The files of a batch are fetched from its worker, which has ended in between.
                raise RuntimeError(f"a loader worker ended before its batch was here: {_advice()}") from error
            raise
        return came, batch

    def _shutdown_workers(self) -> None:
        """End the workers at once; torch waits five seconds for each when garbage collection has closed its queue.

        A forked process has a copy of this iterator, and leaves the workers alone.
        """
        if os.getpid() == self._owner:
            self.kill_workers()
            super()._shutdown_workers()

    def kill_workers(self) -> None:
        """End the workers in whatever state they are: torch would wait for one that is stopped."""
        if os.getpid() != self._owner:
            return
        if getattr(self, "_worker_pids_set", False):
            # torch would raise an error for each as it dies.
            signal_handling._remove_worker_pids(id(self))  # type: ignore[attr-defined]
            self._worker_pids_set = False
        for worker in getattr(self, "_workers", ()):
            worker.kill()


_ITERATORS: weakref.WeakSet[_WatchedIterator] = weakref.WeakSet()


@atexit.register
def _kill_all() -> None:
    """Before multiprocessing waits at the end of the program for workers that may be stopped."""
    for iterator in list(_ITERATORS):
        iterator.kill_workers()


@contextlib.contextmanager
def explaining_lost_workers() -> Iterator[None]:
    """Turn torch's error for a worker that died, which may come at any moment, into one line that says what to do."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if not _LOST.search(text):
            raise
        raise RuntimeError(f"a loader worker was lost ({text.partition('. ')[0]}): {_advice()}") from error


def _advice() -> str:
    return (
        f"{describe_limits()}; give fewer --workers (0: none), a smaller --batch-size, or a container more --shm-size; "
        "then the same command again"
    )


def _fitting(workers: int, prefetch_batches: int, *, batch_bytes: int) -> tuple[int, int]:
    """Workers and batches ahead of each, so that all batches on their way fit into the shared memory that is free."""
    if not workers or not batch_bytes:
        return workers, prefetch_batches
    try:
        space = os.statvfs(SHARED_MEMORY)
        free_bytes = 0 if space.f_flag & os.ST_RDONLY else space.f_bavail * space.f_frsize
    except OSError:
        free_bytes = 0
    # Processes of torchrun share it. The caller has one batch while it is given the next.
    ours = _SHARE * free_bytes / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    batches = max(0, int(ours / batch_bytes) - 2)
    fitting = min(workers, batches)
    if fitting < workers:
        print(
            f"{fitting} instead of {workers} loader workers: {describe_limits()}, a batch takes "
            f"{batch_bytes / 1e6:.0f} MB",
            file=sys.stderr,
        )
    return fitting, max(1, min(prefetch_batches, batches // fitting if fitting else 1))


def _keep_batch(batch: Any) -> Any:
    # The data set makes whole batches, so nothing is left to collate.
    return batch


def _start_worker(_worker: int) -> None:
    # A batch that cannot be sent is lost, and would be waited for for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_unsent)  # type: ignore[attr-defined]
    _heed_parent_alone()
    end_with_parent()
    # torch's own loader limits torch in its workers; OpenCV would start a pool as large as the machine in each.
    cv2.setNumThreads(1)


def _end_unsent(_error: Exception, _batch: Any) -> None:
    os._exit(_CANNOT_SEND)


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
