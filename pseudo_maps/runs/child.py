"""Turns images into maps in a child process, and the death of that process into a fact about one image.

A segmentation fault, an endless loop or a file that fills the memory ends the child and nothing else. The child does
its images in the order of the requests, so the image at work is always the oldest one without an answer.
"""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.frames import FrameBuffer, encode_frame, header_of
from pseudo_maps.shards import MapRow

__all__ = [
    "CHILD_MODULE",
    "ChildDeath",
    "ChildStartError",
    "ImageDeath",
    "ImageLimits",
    "MadeImage",
    "MapChild",
    "end_idle_children",
    "make_images",
]

CHILD_MODULE = "pseudo_maps.runs.child_program"
"""Module that is run as the child process."""

# The module paths of this process: the child has to run the same package, also where it is not installed. Ctrl-C and
# what a scheduler sends to all processes of a job are heard by the parent, which ends the child.
_BOOTSTRAP = """
import json, runpy, signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
module, path = sys.argv[1:3]
sys.path[:] = json.loads(path)
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
_ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMBA_NUM_THREADS")
}
START_LIMIT_S = 300.0
"""The first start on a machine may compile for 20 s; imports alone take 1 s, on a busy file system more."""
_START_TRIES = 3
_START_PAUSE_S = 1.0
_MEMORY_POLL_S = 0.1
"""An image that takes memory at 2 GB/s is stopped 0.2 GB above the limit."""
_END_LIMIT_S = 5.0
_KILL_GRACE_S = 0.2
"""A child that was killed from outside may have been the first of a whole run to be killed; that does not count."""
_AHEAD = 2
"""Images that the child knows of, so that it never waits for the parent."""
_NO_MEMORY_LIMIT_MB = 1 << 30
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READ_BYTES = 1 << 18
_STDERR_BYTES = 3000
"""Of the end of what the child printed: a fatal error with the Python stack (faulthandler) has 1 to 2 KB."""


class ChildStartError(RuntimeError):
    """The child process does not start, which is no image's fault."""


class ChildDeath(Exception):
    """The child process has ended although it was asked for an image; ``status`` is a key of ``outcomes.DEATHS``."""

    def __init__(self, status: str, message: str, *, killed: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.killed = status, message, killed


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What one image may cost."""

    time_s: float = 300.0
    """Seconds; a usual image takes 0.1."""
    memory_mb: int = 4096
    """Resident megabytes (2^20 bytes) of the whole child, of which libraries take about 200."""

    def __post_init__(self) -> None:
        if not self.time_s > 0 or self.memory_mb < 1:
            raise ValueError(f"expected limits above 0, found {self.time_s} s and {self.memory_mb} MB")


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeImage:
    """What became of one image."""

    index: int
    """Its number among the images asked for."""
    row: MapRow
    """What the shard's table says of it."""
    chunk: bytes
    """Compressed map (``compress_map``)."""
    message: str
    """What went wrong, empty when nothing did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDeath:
    """The child ended while it worked on this image."""

    index: int
    """Its number among the images asked for."""
    status: str
    """A key of ``outcomes.DEATHS``."""
    message: str
    """How the child ended, and the end of what it printed."""
    killed: bool
    """By a SIGKILL that was not ours: the kernel short of memory, or a person, who is no fault of the image."""


class MapChild:
    """One child process and the pipes to it.

    Parameters
    ----------
    module
        Module that is run.

    Raises
    ------
    ChildStartError
        The process cannot be started or ends before it is ready.
    """

    def __init__(self, *, module: str = CHILD_MODULE) -> None:
        self.module = module
        self._settings: Mapping[str, Any] | None = None
        self._buffer = FrameBuffer()
        self._image_started_s = time.monotonic()
        self._memory_checked_s = 0.0
        self._files = ExitStack()
        # In memory, so that no temporary folder can be full; appended to, so that it can be emptied now and then.
        self._stderr = self._files.enter_context(os.fdopen(os.memfd_create("map-child-stderr"), "r+b", buffering=0))
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, fcntl.fcntl(self._stderr, fcntl.F_GETFL) | os.O_APPEND)
        lifeline, held = os.pipe()
        self._files.callback(os.close, held)
        path = json.dumps([entry or os.getcwd() for entry in sys.path])
        command = [sys.executable, "-P", "-X", "faulthandler", "-c", _BOOTSTRAP, module, path, str(lifeline)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=(lifeline,),
                env={**os.environ, **_ONE_THREAD},
                bufsize=0,
            )
        except OSError as error:
            self._files.close()
            raise ChildStartError(f"cannot start {sys.executable}: {error.strerror}") from error
        finally:
            os.close(lifeline)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests = self._files.enter_context(self._process.stdin)
        self._results = self._files.enter_context(self._process.stdout)
        self._poll = select.poll()
        self._poll.register(self._results, select.POLLIN)
        try:
            self.receive(ImageLimits(time_s=START_LIMIT_S, memory_mb=_NO_MEMORY_LIMIT_MB))
        except ChildDeath as death:
            raise ChildStartError(f"the process for the images does not start: {death.message}") from None
        except BaseException:
            self.kill()
            raise

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Say what holds for the images to come; nothing is sent when it holds already."""
        self._stderr.truncate(0)
        if settings != self._settings:
            self._send(settings)
            self._settings = settings

    def request(self, index: int, record: ImageRecord) -> None:
        """Ask for the map of an image. A few requests fit into the pipe, so this never waits."""
        self._send({"make": index, "record": header_of(record)})

    def _send(self, header: Mapping[str, Any]) -> None:
        # A child that is dead says so on the other pipe.
        with suppress(BrokenPipeError):
            self._requests.write(encode_frame(header))

    def start_clock(self) -> None:
        """Count the time of the image at work from now; an answer does so for the image after it."""
        self._image_started_s = time.monotonic()

    def receive(self, limits: ImageLimits) -> tuple[dict[str, Any], bytes]:
        """Wait for the next answer.

        Raises
        ------
        ChildDeath
            The process has ended, by itself or because the image at work went beyond a limit.
        """
        while True:
            try:
                frame = self._buffer.next_frame()
            except ValueError as error:
                raise self._end("crashed", f"sent {error}") from None
            if frame is not None:
                self.start_clock()
                return frame
            left_s = self._image_started_s + limits.time_s - time.monotonic()
            if self._poll.poll(1000 * min(max(left_s, 0.0), _MEMORY_POLL_S)):
                data = os.read(self._results.fileno(), _READ_BYTES)
                if not data:
                    raise self._found_dead()
                self._buffer.feed(data)
            elif left_s <= 0:
                # Only after a look into the pipe: the answer may have waited for us, not we for it.
                raise self._end("timeout", f"took longer than {limits.time_s:g} s")
            self._check_memory(limits)

    def _check_memory(self, limits: ImageLimits) -> None:
        now_s = time.monotonic()
        if now_s - self._memory_checked_s < _MEMORY_POLL_S:
            return
        self._memory_checked_s = now_s
        used_mb = _resident_mb(self._process.pid)
        if used_mb > limits.memory_mb:
            raise self._end("out-of-memory", f"used {used_mb:.0f} MB, more than the limit of {limits.memory_mb} MB")

    def _end(self, status: str, message: str) -> ChildDeath:
        self.kill()
        return ChildDeath(status, message)

    def _found_dead(self) -> ChildDeath:
        try:
            code = self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return self._end("crashed", "closed its pipe")
        killed = code == -signal.SIGKILL
        how = f"exited with code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"
        if killed:
            how += " from outside; the kernel does that when memory runs out"
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - _STDERR_BYTES))
        said = self._stderr.read().decode(errors="replace").strip()
        self._files.close()
        return ChildDeath("crashed", f"{how}\n{said}".rstrip(), killed=killed)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self._files.close()

    def close(self) -> None:
        """Let the process end by closing its input; it has to be idle."""
        self._requests.close()
        try:
            self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._files.close()


_idle: list[MapChild] = []
_idle_lock = Lock()


def end_idle_children() -> None:
    """End the child processes that this process keeps for the next shard."""
    while True:
        with _idle_lock:
            if not _idle:
                return
            child = _idle.pop()
        child.close()


def _start_child(module: str, *, reuse: bool) -> MapChild:
    """A child that runs ``module``: where wanted one that has nothing to do, else a new one."""
    while reuse and (child := _take_idle(module)) is not None:
        if child.is_alive():
            return child
        child.close()
    for _ in range(_START_TRIES - 1):
        with suppress(ChildStartError):
            return MapChild(module=module)
        time.sleep(_START_PAUSE_S)
    return MapChild(module=module)


def _take_idle(module: str) -> MapChild | None:
    with _idle_lock:
        found = next((child for child in _idle if child.module == module), None)
        if found is not None:
            _idle.remove(found)
        return found


def make_images(
    images: Sequence[tuple[int, ImageRecord]],
    *,
    settings: Mapping[str, Any],
    limits: ImageLimits,
    module: str = CHILD_MODULE,
    alone: bool = False,
) -> Iterator[MadeImage | ImageDeath]:
    """What becomes of each image, in order; after a death the images behind it go on in a new child.

    Parameters
    ----------
    images
        Numbers and records.
    settings
        ``configure``, ``root`` and ``boundary_model`` as ``serving`` wants them.
    limits
        What one image may cost.
    module
        Module that is run as the child process.
    alone
        Give every image a child of its own, in which no other image can have broken anything.

    Raises
    ------
    ChildStartError
        No child process can be started.
    """
    waiting, sent = deque(images), deque[tuple[int, ImageRecord]]()
    child: MapChild | None = None
    try:
        while waiting or sent:
            if child is None:
                child = _start_child(module, reuse=not alone)
                child.configure(settings)
            if not sent:
                child.start_clock()
            while waiting and len(sent) < (1 if alone else _AHEAD):
                sent.append(waiting.popleft())
                child.request(*sent[-1])
            try:
                head, chunk = child.receive(limits)
            except ChildDeath as death:
                child = None
                index, _ = sent.popleft()
                waiting.extendleft(reversed(sent))
                sent.clear()
                if death.killed:
                    time.sleep(_KILL_GRACE_S)
                yield ImageDeath(index=index, status=death.status, message=death.message, killed=death.killed)
                continue
            index, _ = sent.popleft()
            assert head["made"] == index, "the child answers in the order of the requests"
            if alone:
                child.close()
                child = None
            yield MadeImage(index=index, row=MapRow(**head["row"]), chunk=chunk, message=head["message"])
    finally:
        if child is not None and sent:
            # Left early, by Ctrl-C or a full disk: whatever it still does is for nobody.
            child.kill()
        elif child is not None:
            with _idle_lock:
                _idle.append(child)


def _resident_mb(process_id: int) -> float:
    """Megabytes (2^20 bytes) of a process in memory, 0 when it is gone."""
    try:
        with open(f"/proc/{process_id}/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return 0.0
    return pages * _PAGE_BYTES / (1 << 20)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
