"""Ordered, bounded parallel map over worker processes."""

import functools
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar

from pseudo_maps.processes import StopWatch, describe_limits, end_with_parent, fork_server, prepare_worker_process

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")

_WAITING_PER_WORKER = 3
"""Pieces of work handed out ahead per worker: enough that none waits, few enough that memory stays small."""
_POLL_S = 5.0
"""Between two looks at processes whose result is waited for."""


def _start_worker() -> None:
    """Prepare a new process: it ends with its parent, leaves Ctrl-C to it, and computes with one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    prepare_worker_process()


def map_in_order(function: Callable[[_Work], _Result], work: Iterable[_Work], *, jobs: int) -> Iterator[_Result]:
    """Results of ``function`` over ``work``, in order.

    ``function`` is picklable and small: it is sent with every piece of work. The pieces are picklable too and drawn
    only a few ahead of the results, in this process. ``jobs`` is the number of worker processes; with 1 everything
    happens in this process. RuntimeError when a worker died or is stopped; what was finished before has been yielded.
    """
    if jobs == 1:
        yield from map(function, work)
        return
    called = function.func if isinstance(function, functools.partial) else function
    try:
        pool = ProcessPoolExecutor(jobs, mp_context=fork_server(called.__module__), initializer=_start_worker)
    except OSError as error:
        raise RuntimeError(f"no worker processes ({error}): {describe_limits()}; give --jobs 1") from error
    waiting: deque[Future[_Result]] = deque()
    try:
        for piece in work:
            waiting.append(pool.submit(function, piece))
            if len(waiting) > jobs * _WAITING_PER_WORKER:
                yield _result(waiting.popleft(), pool)
        while waiting:
            yield _result(waiting.popleft(), pool)
    except BaseException as error:
        # Their results are of no more use, and one that is stopped would never end.
        for process in _processes(pool):
            os.kill(process, signal.SIGKILL)
        if sys.version_info < (3, 11, 7):
            # Nobody reads what the pool's thread still sends them, and it would wait for ever; later versions close
            # the reader themselves (https://github.com/python/cpython/issues/94777).
            with suppress(OSError):
                pool._call_queue._reader.close()  # type: ignore[attr-defined]
        if isinstance(error, BrokenProcessPool):
            raise RuntimeError("a worker process died: killed, or out of memory") from error
        raise
    finally:
        # Not future.cancel(): up to Python 3.11.2 a pool may then wait for ever for what it never handed out
        # (https://github.com/python/cpython/issues/94440).
        pool.shutdown(cancel_futures=True)


def _result(future: "Future[_Result]", pool: ProcessPoolExecutor) -> _Result:
    """The result, once it is there; RuntimeError where a worker is stopped."""
    watch = StopWatch()
    while True:
        try:
            return future.result(timeout=_POLL_S)
        except TimeoutError:
            if future.done():
                # Its own.
                return future.result()
            watch.look(_processes(pool))


def _processes(pool: ProcessPoolExecutor) -> list[int]:
    """Ids of the processes that have not ended; the executor has no public name for them before Python 3.14."""
    return [process.pid for process in list((pool._processes or {}).values()) if process.is_alive() and process.pid]
