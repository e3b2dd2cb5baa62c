"""Turns shard tasks into reports on the workers of a running dask scheduler, whatever becomes of the workers."""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import distributed

__all__ = ["WORKER_WAIT_S", "run_on_dask"]

WORKER_WAIT_S = 600.0
"""Seconds without any worker after which the run is given up; a batch system may take minutes to start one."""
CONNECT_LIMIT_S = 15.0
_LOOK_INTERVAL_S = 1.0
"""Seconds between two questions to the scheduler after its workers."""
_POLL_INTERVAL_S = 0.05
"""Seconds between two looks at the futures, which asks nobody."""
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
        losses, threads = 0, 0
        looked_s = worker_seen_s = time.monotonic() - _LOOK_INTERVAL_S
        while waiting or futures:
            now_s = time.monotonic()
            if now_s - looked_s >= _LOOK_INTERVAL_S:
                looked_s, threads = now_s, sum(_threads(client).values())
            if threads:
                worker_seen_s = now_s
            elif now_s - worker_seen_s > worker_wait_s:
                raise RuntimeError(
                    f"the dask scheduler at {scheduler} has had no worker for {worker_wait_s:g} s; what is finished is "
                    "kept. Start workers (dask worker ADDRESS), then the same command goes on"
                )
            while waiting and len(futures) < _AHEAD * threads:
                task = waiting.popleft()
                # pure=False: the same task given again is done again, not answered from memory.
                futures[client.submit(function, task, pure=False)] = task
            done = [future for future in futures if future.done()]
            if not done:
                time.sleep(_POLL_INTERVAL_S)
            for future in done:
                task = futures.pop(future)
                try:
                    # A result that is lost with its worker is made again, by a worker that there has to be.
                    result = future.result(timeout=worker_wait_s)
                except (distributed.KilledWorker, CancelledError, TimeoutError) as error:
                    losses += 1
                    reason = f"dask gave up a task: {error!r}".splitlines()[0]
                    on_event(event="lost-worker", error=reason, losses=losses)
                    if losses >= max_losses:
                        raise RuntimeError(
                            f"dask's workers died {losses} times without finishing anything in between; what is "
                            "finished is kept. Do they have enough memory?"
                        ) from error
                    waiting.append(task)
                else:
                    losses = 0
                    yield result


def _threads(client: distributed.Client) -> dict[str, int]:
    """Threads of each worker; none while the scheduler does not answer."""
    try:
        return dict(client.nthreads())
    except (OSError, TimeoutError):
        return {}
