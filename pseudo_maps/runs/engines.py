"""Turns a list of shard tasks into reports of finished shards, on as many processes or machines as asked for."""

import os
import signal
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

__all__ = ["BACKENDS", "MAX_LOSSES", "need_engine", "run_tasks"]

BACKENDS = {
    "loky": "processes on this machine",
    "sequential": "in this process, one after the other; for debugging",
    "dask": "the workers of the dask scheduler at --scheduler",
    "ray": "a ray cluster, by way of joblib",
    "spark": "a Spark cluster, by way of joblib",
}
"""Name and meaning of every engine that can be asked for."""

_NEEDED_PACKAGES = {
    "dask": ("distributed", "saliency-aware-wsol[dask]"),
    "ray": ("ray", "ray"),
    "spark": ("joblibspark", "joblibspark"),
}
"""Engine, the module it needs, and what to install for it."""

MAX_LOSSES = 10
"""Enough for every worker of a machine to be lost once; a task of a shard that is well takes a minute."""


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    jobs: int,
    backend: str,
    scheduler: str | None = None,
    max_losses: int = MAX_LOSSES,
    on_event: Callable[..., None] | None = None,
) -> Generator[Any]:
    """Results of ``function`` over ``tasks``, each as soon as it is there, in no particular order.

    Parameters
    ----------
    function
        Importable by the workers. It may be called again for a task whose worker died, and must bear with that.
    jobs
        Number of processes; -1 is one for each core. dask and the clusters decide themselves.
    backend
        A key of ``BACKENDS``.
    scheduler
        Address of the dask scheduler, ``tcp://HOST:PORT``.
    max_losses
        Workers lost without a finished task in between before the run is given up.
    on_event
        Called with keywords when workers were lost.

    Raises
    ------
    ValueError
        Unknown engine, or dask without a scheduler.
    RuntimeError
        The engine's package is not installed, workers die again and again, or dask has none.

    Notes
    -----
    loky gives up all pending results of a call when one worker dies, so the call is repeated with the tasks that have
    no result. joblib's own dask backend never hears of a task that failed with its worker and waits for ever, which is
    why dask is spoken to directly. ray and spark give their results at the end only.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, found {backend!r}")
    need_engine(backend)
    note = on_event if on_event is not None else _ignore
    if backend == "dask":
        if scheduler is None:
            raise ValueError("backend dask: expected the address of its scheduler (--scheduler tcp://HOST:PORT)")
        from pseudo_maps.runs.dask_engine import run_on_dask

        return run_on_dask(function, tasks, scheduler=scheduler, max_losses=max_losses, on_event=note)
    if backend in ("ray", "spark"):
        _register(backend)
    return _run_with_joblib(function, tasks, jobs=jobs, backend=backend, max_losses=max_losses, on_event=note)


def _ignore(**_event: object) -> None:
    pass


def need_engine(backend: str) -> None:
    """RuntimeError that says what to install when the engine's package is missing."""
    if backend in _NEEDED_PACKAGES:
        module, wanted = _NEEDED_PACKAGES[backend]
        if find_spec(module) is None:
            raise RuntimeError(f"--backend {backend} needs the package {module}: pip install '{wanted}'")


def _register(backend: str) -> None:
    if backend == "ray":
        from ray.util.joblib import register_ray

        register_ray()
    else:
        from joblibspark import register_spark

        register_spark()


def _run_with_joblib(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    jobs: int,
    backend: str,
    max_losses: int,
    on_event: Callable[..., None],
) -> Generator[Any]:
    waiting = dict(enumerate(tasks))
    losses = 0
    while waiting:
        try:
            for number, result in _run_once(function, waiting, jobs=jobs, backend=backend):
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


def _run_once(
    function: Callable[[Any], Any], tasks: dict[int, Any], *, jobs: int, backend: str
) -> Generator[tuple[int, Any]]:
    loky = backend == "loky"
    threads = {"inner_max_num_threads": 1} if loky else {}
    with joblib.parallel_config(backend=backend, n_jobs=jobs, **threads):
        # A task is a whole shard: batches of them would only delay progress.
        way = "generator_unordered" if loky or backend == "sequential" else "list"
        parallel = joblib.Parallel(return_as=way, batch_size=1)
        call, submitter = joblib.delayed(_run_task), os.getpid()
        # A copy, as the caller strikes off what is done.
        results = parallel(call(function, number, task, submitter=submitter) for number, task in list(tasks.items()))
        try:
            for result in results:  # noqa: UP028 - not `yield from`, which would close the results outside the filter below.
                yield result
        finally:
            with warnings.catch_warnings(), suppress(AttributeError):
                # A caller that leaves early means it; joblib would advise to change the number of tasks.
                warnings.simplefilter("ignore", UserWarning)
                results.close()


def _run_task(function: Callable[[Any], Any], number: int, task: Any, *, submitter: int) -> tuple[int, Any]:
    # Ctrl-C reaches every process of the terminal; the submitting one ends the workers, without their tracebacks.
    # With one job joblib runs the tasks in the submitting process itself, which has to hear it.
    if os.getpid() != submitter:
        with suppress(ValueError):  # Only the main thread may; where a worker uses others, no terminal is near.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    return number, function(task)
