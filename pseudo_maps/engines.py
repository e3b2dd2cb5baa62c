"""Turns a list of shard tasks into reports of finished shards, on as many processes as asked for."""

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib

__all__ = ["BACKENDS", "run_tasks"]

BACKENDS = {
    "loky": "processes on this machine",
    "sequential": "in this process, one after the other; for debugging",
}
"""Name and meaning of every joblib backend that can be asked for."""


def run_tasks(function: Callable[[Any], Any], tasks: Sequence[Any], *, jobs: int, backend: str) -> Iterator[Any]:
    """Results of ``function`` over ``tasks``, each as soon as it is there, in no particular order.

    ``function`` must be importable by the workers and must neither raise nor end its process: with loky a dead
    worker loses every pending result of the call. Each worker computes with one thread.

    Raises
    ------
    ValueError
        Unknown backend.
    joblib.externals.loky.process_executor.TerminatedWorkerError
        A worker died.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, found {backend!r}")
    threads = {"inner_max_num_threads": 1} if backend == "loky" else {}
    with joblib.parallel_config(backend=backend, n_jobs=jobs, **threads):
        # A task is a whole shard: batches of them would only delay progress.
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        call, submitter = joblib.delayed(_run_task), os.getpid()
        results = parallel(call(function, task, submitter=submitter) for task in tasks)
        try:
            for result in results:  # noqa: UP028 - not `yield from`, which would close the results outside the filter below.
                yield result
        finally:
            with warnings.catch_warnings():
                # A caller that leaves early means it; joblib would advise to change the number of tasks.
                warnings.simplefilter("ignore", UserWarning)
                results.close()


def _run_task(function: Callable[[Any], Any], task: Any, *, submitter: int) -> Any:
    # Ctrl-C reaches every process of the terminal; the submitting one ends the workers, without their tracebacks.
    # With one job joblib runs the tasks in the submitting process itself, which has to hear it.
    if os.getpid() != submitter:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return function(task)
