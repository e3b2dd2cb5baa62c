"""Turns shard tasks into reports on the workers of a running dask scheduler, whatever becomes of the workers."""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import distributed

__all__ = ["WORKER_WAIT_S", "run_on_dask"]

WORKER_WAIT_S = 600.0
"""Seconds without any worker after which the run is given up; a batch system may take minutes to start one."""
CONNECT_LIMIT_S = 15.0
_LOOK_INTERVAL_S = 1.0
_AHEAD = 2
"""Tasks given to the scheduler for each thread of a worker: one at work and one to begin at once. A task holds the
records of a whole shard (about 200 KB), so not all are given at the start."""


def run_on_dask(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    scheduler: str,
    max_losses: int,
    on_event: Callable[..., None],
    connect_limit_s: float = CONNECT_LIMIT_S,
    worker_wait_s: float = WORKER_WAIT_S,
) -> Generator[Any]:
    """Results of ``function`` over ``tasks``, each as soon as it is there, in no particular order.

    Parameters
    ----------
    scheduler
        Address of the scheduler.
    max_losses
        How many times one after the other, without a result in between, dask may give up a task because its workers
        died (it tries four workers each time).
    on_event
        Called with keywords when that happens.
    connect_limit_s
        Seconds to wait for the scheduler's first answer.
    worker_wait_s
        Seconds to wait while the scheduler has no worker.

    Raises
    ------
    RuntimeError
        No scheduler answers, there is no worker for too long, or workers die again and again.
    """
    try:
        client = distributed.Client(scheduler, timeout=connect_limit_s)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"no dask scheduler answers at {scheduler} ({error})") from error
    with client:
        waiting, futures = deque(tasks), dict[distributed.Future, Any]()
        losses = 0
        worker_seen_s = time.monotonic()
        while waiting or futures:
            threads = sum(_threads(client).values())
            if threads:
                worker_seen_s = time.monotonic()
            elif time.monotonic() - worker_seen_s > worker_wait_s:
                raise RuntimeError(
                    f"the dask scheduler at {scheduler} has had no worker for {worker_wait_s:g} s; what is finished is "
                    "kept. Start workers (dask worker ADDRESS), then the same command goes on"
                )
            while waiting and len(futures) < _AHEAD * threads:
                task = waiting.popleft()
                # pure=False: the same task given again is done again, not answered from memory.
                futures[client.submit(function, task, pure=False)] = task
            for future in _wait_for_some(list(futures)):
                task = futures.pop(future)
                failure = future.exception() if future.status == "error" else None
                if future.status == "finished":
                    losses = 0
                    yield future.result()
                elif failure is None or isinstance(failure, distributed.KilledWorker):
                    losses += 1
                    reason = f"dask gave up a task: {failure or future.status}".splitlines()[0]
                    on_event(event="lost-worker", error=reason, losses=losses)
                    if losses >= max_losses:
                        raise RuntimeError(
                            f"dask's workers died {losses} times without finishing anything in between; what is "
                            "finished is kept. Do they have enough memory?"
                        ) from failure
                    waiting.append(task)
                else:
                    raise failure


def _threads(client: distributed.Client) -> dict[str, int]:
    """Threads of each worker; none while the scheduler does not answer."""
    try:
        return dict(client.nthreads())
    except (OSError, TimeoutError):
        return {}


def _wait_for_some(futures: list[distributed.Future]) -> list[distributed.Future]:
    """Those of the futures that are done, after a wait of a second if none is."""
    if not futures:
        time.sleep(_LOOK_INTERVAL_S)
        return []
    try:
        done = distributed.wait(futures, timeout=_LOOK_INTERVAL_S, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return []
    return list(done)
