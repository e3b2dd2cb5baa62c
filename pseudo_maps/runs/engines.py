"""Engines that run shard tasks: processes of this machine (loky), or the workers of a dask scheduler."""

import functools
import multiprocessing
import os
import select
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from pseudo_maps.processes import describe_limits

BACKENDS = {
    "loky": "processes on this machine",
    "sequential": "in this process, one after the other; for debugging",
    "dask": "the workers of the dask scheduler at --scheduler",
}
"""Name and meaning of every engine."""

MAX_LOSSES = 10
"""Enough for every worker of a machine to be lost once; a healthy task finishes within a minute."""


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    jobs: int,
    backend: str,
    scheduler: str | None = None,
    max_losses: int = MAX_LOSSES,
    on_event: Callable[..., None] = lambda **_event: None,
) -> Generator[Any]:
    """Results of ``function`` over ``tasks``, each as soon as it is ready, in no particular order.

    ``function`` is importable by the workers; a task whose worker died is run again, so calling it twice must do no
    harm. ``jobs`` is the number of loky's processes: -1 is one for each core, 1 is this process. ``on_event`` is called
    with keywords for each lost worker, and when dask has none for a while; after ``max_losses`` lost workers without a
    finished task in between the run is given up with a RuntimeError, as it is when dask gets no worker, or when shared
    memory has no room for what loky's processes need. ValueError for an unknown engine or no ``scheduler``.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, found {backend!r}")
    need_engine(backend)
    if backend == "dask":
        if scheduler is None:
            raise ValueError("backend dask: expected the address of its scheduler (--scheduler tcp://HOST:PORT)")
        from pseudo_maps.runs.dask_engine import run_on_dask

        return run_on_dask(function, tasks, scheduler=scheduler, max_losses=max_losses, on_event=on_event)
    if backend == "loky" and jobs != 1:
        _need_semaphores()
    if backend == "loky" and _loky_processes(jobs) > 1:
        return _run_on_loky(function, tasks, jobs=jobs, max_losses=max_losses, on_event=on_event)
    return (function(task) for task in tasks)


def need_engine(backend: str) -> None:
    """RuntimeError that says what to install when the engine's package is missing."""
    if backend == "dask" and find_spec("distributed") is None:
        raise RuntimeError("--backend dask needs the package distributed: pip install 'saliency-aware-wsol[dask]'")


def _need_semaphores() -> None:
    """RuntimeError where shared memory has no room for them: joblib would go on in threads, which end in an error."""
    try:
        multiprocessing.get_context("spawn").Semaphore()
    except OSError as error:
        raise RuntimeError(f"no worker processes ({error}): {describe_limits()}; give --jobs 1") from error


def _loky_processes(jobs: int) -> int:
    from joblib import effective_n_jobs, parallel_config

    with parallel_config(backend="loky"):
        return int(effective_n_jobs(jobs))


def _run_on_loky(
    function: Callable[[Any], Any], tasks: Sequence[Any], *, jobs: int, max_losses: int, on_event: Callable[..., None]
) -> Generator[Any]:
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool

    waiting = dict(enumerate(tasks))
    losses = 0
    # loky gives up all pending results of a call when one worker dies, so the rest is called for again.
    while waiting:
        # A task is a whole shard: batches of them would only delay progress.
        parallel = Parallel(jobs, "loky", return_as="generator_unordered", batch_size=1, inner_max_num_threads=1)
        results = parallel(
            delayed(_run_in_worker)(function, number, task, os.getpid()) for number, task in list(waiting.items())
        )
        try:
            for number, result in results:
                del waiting[number]
                losses = 0
                yield result
        except BrokenProcessPool as error:
            losses += 1
            on_event(event="lost-worker", error=str(error).splitlines()[0], losses=losses)
            if losses >= max_losses:
                raise RuntimeError(
                    f"a worker process died {losses} times without finishing anything in between; what is finished is "
                    "kept. Is there too little memory for --jobs?"
                ) from error
        finally:
            with warnings.catch_warnings(), suppress(AttributeError):
                # A caller that leaves early means it; joblib would advise to change the number of tasks.
                warnings.simplefilter("ignore", UserWarning)
                results.close()


def _run_in_worker(function: Callable[[Any], Any], number: int, task: Any, parent: int) -> tuple[int, Any]:
    _end_with(parent)
    # Ctrl-C reaches every process of the terminal; the submitting one ends the workers, without their tracebacks.
    with suppress(ValueError):  # Only the main thread may.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return number, function(task)


@functools.cache
def _end_with(parent: int) -> None:
    """End this process as soon as its parent has; loky's workers would wait five minutes for further tasks."""
    try:
        ended = os.pidfd_open(parent)
    except OSError:
        # No such system call (a sandbox), or the parent is gone already.
        return

    def watch() -> None:
        select.select([ended], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()
