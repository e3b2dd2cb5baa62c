"""Parent's side of the child process that makes maps: its start, its limits, and what its death says of an image.

A segmentation fault, an endless loop or a file that fills the memory ends the child and nothing else. The child answers
images in the order of the requests, so the image at work is always the oldest one without an answer.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Pipe
from typing import Any

from pseudo_maps.reading import LIMIT_VARIABLE
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import STATUS_TIMEOUT, MapRow

CHILD_MODULE = "pseudo_maps.runs.child_program"
"""Module that is run as the child process."""
START_LIMIT_S = 300.0
"""The first start on a machine may compile for 20 s; imports alone take 1 s, on a busy file system more."""
_ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMBA_NUM_THREADS")
}
_START_TRIES = 3
_START_PAUSE_S = 1.0
_MEMORY_POLL_S = 0.1
"""An image that takes memory at 2 GB/s is stopped 0.2 GB above the limit."""
_END_LIMIT_S = 5.0
_AHEAD = 2
"""Images that the child knows of, so that it never waits for the parent."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STDERR_BYTES = 3000
"""Of the end of what the child printed: a fatal error with the Python stack (faulthandler) has 1 to 2 KB."""


class ChildStartError(RuntimeError):
    """The child process does not start, whatever the image."""


class ChildDeath(Exception):
    """The child process ended while it worked on an image; ``status`` is crashed, timeout or out-of-memory.

    ``killed``: by a SIGKILL that this package did not send, from the kernel short of memory or from a person.
    """

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
    """The outcome for one image, good or bad, as the shard stores it."""

    row: MapRow
    chunk: bytes
    """Compressed map (``compress_map``)."""
    message: str = ""
    """What went wrong, empty when nothing did."""


class MapChild:
    """A child process that runs ``module``, and the connection to it; ChildStartError when it does not get ready."""

    def __init__(self, *, module: str = CHILD_MODULE) -> None:
        self._settings: Mapping[str, Any] | None = None
        self._image_started_s = time.monotonic()
        self._files = ExitStack()
        # In memory, so that no temporary folder can be full; appended to, so that it can be emptied now and then.
        self._stderr = self._files.enter_context(os.fdopen(os.memfd_create("map-child-stderr"), "r+b", buffering=0))
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, fcntl.fcntl(self._stderr, fcntl.F_GETFL) | os.O_APPEND)
        connection, theirs = Pipe()
        self._connection = self._files.enter_context(connection)
        lifeline, held = os.pipe()
        self._files.callback(os.close, held)
        passed = (theirs.fileno(), lifeline)
        # The module paths of this process: the child has to run the same package, also where it is not installed.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-X", "faulthandler", "-m", module, *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=passed,
                # What hangs in it is ended with it.
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path, LIMIT_VARIABLE: "inf"},
            )
        except OSError as error:
            self._files.close()
            raise ChildStartError(f"cannot start {sys.executable}: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(lifeline)
        try:
            self._receive(ImageLimits(time_s=START_LIMIT_S, memory_mb=1 << 30))
        except ChildDeath as death:
            raise ChildStartError(f"the process for the images does not start: {death.message}") from None
        except BaseException:
            self.kill()
            raise

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Send what holds for the images to come, ``child_program``'s settings, unless it holds already."""
        self._stderr.truncate(0)
        if settings != self._settings:
            self._send(settings)
            self._settings = settings

    def request(self, record: ImageRecord) -> None:
        """Ask for the map of an image. A few requests fit into the socket, so this never waits."""
        self._send(asdict(record))

    def _send(self, request: Mapping[str, Any]) -> None:
        # A child that is dead is noticed when its answer is read.
        with suppress(ConnectionError):
            # Plain ASCII: file names that are no UTF-8 (lone surrogates) come back as they were.
            self._connection.send_bytes(json.dumps(request).encode("ascii"))

    def start_clock(self) -> None:
        """Count the time of the image at work from now; an answer does so for the image after it."""
        self._image_started_s = time.monotonic()

    def receive(self, limits: ImageLimits) -> MadeImage:
        """Answer to the oldest request; ChildDeath when the process ended, by itself or for going beyond a limit."""
        head, _, chunk = self._receive(limits).partition(b"\n")
        try:
            answer = json.loads(head)
            return MadeImage(row=MapRow(**answer["row"]), chunk=chunk, message=answer["message"])
        except (ValueError, TypeError, KeyError):
            raise self._end("crashed", f"sent {head[:40]!r}, no answer") from None

    def _receive(self, limits: ImageLimits) -> bytes:
        wait_s = 0.0
        # A look at the socket always comes first: the answer may have waited for us, not we for it.
        while not self._connection.poll(wait_s):
            left_s = self._image_started_s + limits.time_s - time.monotonic()
            if left_s <= 0:
                raise self._end(STATUS_TIMEOUT, f"took longer than {limits.time_s:g} s")
            used_mb = _resident_mb(self._process.pid)
            if used_mb > limits.memory_mb:
                why = f"used {used_mb:.0f} MB, more than the limit of {limits.memory_mb} MB"
                raise self._end("out-of-memory", why)
            wait_s = min(left_s, _MEMORY_POLL_S)
        try:
            answer = self._connection.recv_bytes()
        except (EOFError, OSError):
            raise self._found_dead() from None
        self.start_clock()
        return answer

    def _end(self, status: str, message: str) -> ChildDeath:
        self.kill()
        return ChildDeath(status, message)

    def _found_dead(self) -> ChildDeath:
        try:
            code = self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return self._end("crashed", "closed its connection")
        killed = code == -signal.SIGKILL
        signal_name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
        how = f"exited with code {code}" if code >= 0 else f"was ended by {signal_name}"
        if killed:
            how += " from outside; the kernel does that when memory runs out"
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - _STDERR_BYTES))
        printed = self._stderr.read().decode(errors="replace").strip()
        self._files.close()
        return ChildDeath("crashed", f"{how}\n{printed}".rstrip(), killed=killed)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self._files.close()


class ChildPool:
    """Child processes of one worker, which run ``module``: kept from shard to shard, each used by one thread."""

    def __init__(self, module: str = CHILD_MODULE) -> None:
        self._module = module
        self._idle = deque[MapChild]()

    def close(self) -> None:
        """End the children that have nothing to do."""
        with suppress(IndexError):
            while True:
                self._idle.pop().kill()

    def make_images(
        self, records: Sequence[ImageRecord], *, settings: Mapping[str, Any], limits: ImageLimits
    ) -> Iterator[tuple[int, MadeImage | ChildDeath]]:
        """What becomes of each image, in order, with its position; the images after a death get a new child."""
        waiting, sent = deque(range(len(records))), deque[int]()
        child: MapChild | None = None
        try:
            while waiting or sent:
                if child is None:
                    child = self._take_idle() or self._start()
                    child.configure(settings)
                if not sent:
                    child.start_clock()
                while waiting and len(sent) < _AHEAD:
                    sent.append(waiting.popleft())
                    child.request(records[sent[-1]])
                outcome: MadeImage | ChildDeath
                try:
                    outcome = child.receive(limits)
                except ChildDeath as death:
                    outcome, child = death, None
                index = sent.popleft()
                if child is None:
                    waiting.extendleft(reversed(sent))
                    sent.clear()
                yield index, outcome
        finally:
            if child is not None and sent:
                # The caller left early, by Ctrl-C or a full disk: the rest is not needed.
                child.kill()
            elif child is not None:
                self._idle.append(child)

    def _take_idle(self) -> MapChild | None:
        with suppress(IndexError):
            while True:
                child = self._idle.pop()
                if child.is_alive():
                    return child
                child.kill()
        return None

    def _start(self) -> MapChild:
        for _ in range(_START_TRIES - 1):
            with suppress(ChildStartError):
                return MapChild(module=self._module)
            time.sleep(_START_PAUSE_S)
        return MapChild(module=self._module)


def _resident_mb(process_id: int) -> float:
    """Megabytes (2^20 bytes) of a process in memory, 0 when it is gone."""
    try:
        with open(f"/proc/{process_id}/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return 0.0
    return pages * _PAGE_BYTES / (1 << 20)
