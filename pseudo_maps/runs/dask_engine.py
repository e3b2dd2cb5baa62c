"""Shard tasks on the workers of a running dask scheduler, whatever becomes of the workers.

joblib's own dask backend never hears of a task that was lost with its worker and waits for ever, hence not that one.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import distributed

WORKER_NOTICE_S = 5.0
"""A wait that a person wonders about."""
WORKER_WAIT_S = 600.0
"""A batch system may take minutes to start a worker."""
CONNECT_LIMIT_S = 15.0
_WORKER_POLL_S = 1.0
_RESULT_POLL_S = 0.05
"""A look at the futures sends nothing."""
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
    notice_s: float = WORKER_NOTICE_S,
) -> Generator[Any]:
    """``engines.run_tasks`` on the workers of a scheduler.

    A loss is a task that dask gave up because four workers died of it. ``connect_limit_s`` is for the scheduler's first
    answer, ``worker_wait_s`` for a time in which it has no worker, of which an event tells after ``notice_s``.
    """
    try:
        client = distributed.Client(scheduler, timeout=connect_limit_s)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"no dask scheduler answers at {scheduler} ({error})") from error
    with client:
        waiting, futures = deque(tasks), dict[distributed.Future, Any]()
        losses, threads, noticed = 0, 0, False
        asked_s = worker_seen_s = time.monotonic() - _WORKER_POLL_S
        while waiting or futures:
            now_s = time.monotonic()
            if now_s - asked_s >= _WORKER_POLL_S:
                asked_s, threads = now_s, _threads(client)
            if threads:
                worker_seen_s, noticed = now_s, False
            elif not noticed and now_s - worker_seen_s > notice_s:
                noticed = True
                text = f"waiting for workers: the scheduler at {scheduler} has none (dask worker ADDRESS starts one)"
                on_event(event="waiting", message=text)
            elif now_s - worker_seen_s > worker_wait_s:
                raise RuntimeError(
                    f"the dask scheduler at {scheduler} has had no worker for {worker_wait_s:g} s; what is finished is "
                    "kept. Start workers (dask worker ADDRESS) and give the same command again"
                )
            while waiting and len(futures) < _AHEAD * threads:
                task = waiting.popleft()
                # pure=False: the same task given again is done again, not answered from memory.
                futures[client.submit(function, task, pure=False)] = task
            done = [future for future in futures if future.done()]
            if not done:
                time.sleep(_RESULT_POLL_S)
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


def _threads(client: distributed.Client) -> int:
    """Threads of all workers; none while the scheduler does not answer."""
    try:
        return sum(client.nthreads().values())
    except (OSError, TimeoutError):
        return 0
