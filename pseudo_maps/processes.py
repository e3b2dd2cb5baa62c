"""Worker processes: their number, start, threads and memory, and their end together with the parent process."""

import ctypes
import fcntl
import multiprocessing
import os
import resource
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from pathlib import Path

import cv2

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_HEAP_BLOCK = 32 << 20
"""Largest value that glibc accepts; the arrays of an image are 1 to 8 MB."""
_KEPT_FREE_BYTES = 256 << 20

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps shared memory and semaphores; 64 MB in a container unless it is told otherwise."""
STOPPED_PATIENCE_S = 30.0
"""A process stopped for as long is not about to be continued."""

_CLOCK_TOLERANCE_S = 60.0
"""The clocks of a file server and a host may differ; a process id is not given again that quickly."""


def worker_count(jobs: int) -> int:
    """Processes that ``--jobs`` means: -1 is one for each core that this process may use; ValueError for 0 and < -1."""
    if jobs == 0 or jobs < -1:
        raise ValueError(f"--jobs {jobs}: expected a number of at least 1, or -1 for all cores")
    return len(os.sched_getaffinity(0)) if jobs == -1 else jobs


def prepare_worker_process() -> None:
    """Make OpenCV compute with one thread and glibc keep freed memory; results do not depend on it.

    joblib's backends leave OpenCV's pool at all cores. Each image needs about 50 MB of arrays of a few MB, which would
    otherwise go back to the system and come again page by page: 29 of 66 ms an image on a virtual machine.
    """
    cv2.setNumThreads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)


def fork_server(*modules: str) -> ForkServerContext:
    """Start processes as forks of one server, in which the modules are imported already.

    The server starts with the first call and ends with this process; in later calls ``modules`` have no effect. It has
    used neither threads nor a GPU, of which a fork of this process would have unusable copies.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    # First, because its start unblocks Ctrl-C.
    resource_tracker.ensure_running()
    # Ctrl-C is for this process, also while the server imports.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # Like ``python -P``: a folder of the user's that has the name of a module is not imported.
    safe_path = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if safe_path is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = safe_path
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def end_with_parent(lifeline: int | None = None, *, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal as soon as its parent process is gone.

    ``lifeline`` is the reading end of a pipe, passed on by the parent, which holds the writing end and never writes; it
    is closed here. By default the pipe that multiprocessing gives its processes; nothing happens in a process that has
    none. The kernel closes the writing end with the parent, however that ends; ``PR_SET_PDEATHSIG`` would fire at the
    end of the *thread* that started this process. SIGKILL also ends a process that is stopped or in compiled code.
    """
    pipe = lifeline
    if pipe is None:
        parent = multiprocessing.parent_process()
        if parent is None:
            return
        pipe = parent.sentinel
    # Opened anew, because whom to signal is a property of the open file, which other processes may have as well.
    own = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY)
    if lifeline is not None:
        os.close(lifeline)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETSIG, by)
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([own], [], [], 0)[0]:
        os.kill(os.getpid(), by)


def is_running(process: int, *, since_s: float | None = None) -> bool:
    """Whether this host has a process of that id that has not ended (a zombie has).

    With ``since_s``, in seconds since 1970, one that began later does not count: it only has the same id.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    try:
        fields = _stat_fields(process)
    except OSError:
        # Hidden from other users (hidepid), or it has just ended.
        return True
    # proc(5): field 3 is the state; field 22 the start, in clock ticks after that of the system.
    began_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] not in "ZX" and (since_s is None or began_s <= since_s + _CLOCK_TOLERANCE_S)


def _stat_fields(process: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; the second, a name in parentheses, may itself hold spaces."""
    return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()


def describe_limits() -> str:
    """What processes that work for one another need of this machine: its shared memory, and the files it may open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        space = os.statvfs(SHARED_MEMORY)
    except OSError as error:
        return f"{SHARED_MEMORY}: {error.strerror}, ulimit -n {files}"
    free, total = (blocks * space.f_frsize / 1e6 for blocks in (space.f_bavail, space.f_blocks))
    read_only = ", read-only" if space.f_flag & os.ST_RDONLY else ""
    return f"{SHARED_MEMORY} has {free:.0f} of {total:.0f} MB free{read_only}, ulimit -n {files}"


class StopWatch:
    """Notices processes that are stopped while their results are waited for."""

    def __init__(self, *, patience_s: float = STOPPED_PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._since: dict[int, float] = {}

    def look(self, processes: Iterable[int]) -> None:
        """To be called while waiting; RuntimeError that names one that has been stopped all the time for too long."""
        now_s, before = time.monotonic(), self._since
        self._since = {}
        for process in processes:
            with suppress(OSError):
                # By SIGSTOP, Ctrl-Z or a debugger.
                if _stat_fields(process)[0] in "Tt":
                    self._since[process] = before.get(process, now_s)
        for process, since_s in self._since.items():
            if now_s - since_s >= self._patience_s:
                raise RuntimeError(
                    f"worker process {process} is stopped, and its results are missing; run the same command again"
                )
