"""Terminal output of every command: errors, signals, version and progress."""

import contextlib
import errno
import io
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

import click
from tqdm import tqdm

from pseudo_maps import __version__
from pseudo_maps.reading import read_limit_s

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
DEFAULT_COLUMNS = 80
DEFAULT_ROWS = 24
"""Size of a terminal that does not state its own."""
LOG_INTERVAL_S = 30.0
"""Seconds between two progress lines when the output is not a terminal."""

_OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_Command = TypeVar("_Command", bound=Callable[..., Any])


class _LossyFile(io.FileIO):
    """Standard output or error: what cannot be written (full disk, reader gone) is lost, and ``failure`` says why."""

    failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Write all of it, or lose it."""
        try:
            # None: somebody has made it non-blocking, and it is full.
            while (written := super().write(content)) is None:
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self.failure = error
            return memoryview(content).nbytes


@contextlib.contextmanager
def _lossy_output() -> Iterator[None]:
    """Let no message, bar or table that cannot be written end the work.

    When standard output lacks something, the program says so at its end and exits with 1, unless its reader has gone:
    ``head`` wants no more.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Closed: the next file to be opened, such as a shard, would get this number and the messages.
            os.open(os.devnull, os.O_RDWR)
    files = {name: _LossyFile(number, "w", closefd=False) for number, name in ((1, "stdout"), (2, "stderr"))}
    with contextlib.ExitStack() as undo:
        for name, file in files.items():
            before = getattr(sys, name)
            # Another stream is that of a notebook or a test, which wants to see what is printed.
            if before is getattr(sys, f"__{name}__"):
                encoding = before.encoding if before else "utf-8"
                # A file may have a name that the terminal cannot show.
                errors = before.errors if before and before.errors != "strict" else "backslashreplace"
                setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, line_buffering=True))
                undo.callback(setattr, sys, name, before)
                undo.callback(getattr(sys, name).flush)
        try:
            yield
        except SystemExit as end:
            sys.stdout.flush()
            lost = files["stdout"].failure
            if lost is None or lost.errno == errno.EPIPE or end.code:
                raise
            click.echo(f"Error: standard output lacks something: {lost.strerror}; all other work is done", err=True)
            sys.exit(EXIT_FAILED)


class SingleCommand(click.Command):
    """A command that ends with a clear message on stderr when its work failed, and a traceback on --debug."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the program; what it cannot print does not end its work."""
        with _lossy_output():
            return super().main(*arguments, **options)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the words of the command; exit 2 for bad usage, which one process of torchrun explains."""
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            if not _is_first_to_fail():
                sys.exit(error.exit_code)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 1 when its work failed, 130 when it was interrupted."""
        try:
            # Here for its error.
            read_limit_s()
            return super().invoke(ctx)
        except click.UsageError as error:
            if not _is_first_to_fail():
                ctx.exit(error.exit_code)
            raise
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            # click's own control flow derives from RuntimeError.
            if isinstance(error, click.exceptions.Exit | click.exceptions.Abort):
                raise
            if ctx.find_root().meta.get("debug"):
                traceback.print_exc()
            if not _is_first_to_fail():
                ctx.exit(EXIT_FAILED)
            # Python's own MemoryError has no text.
            reason = f"out of memory: {error}".rstrip(": ") if isinstance(error, MemoryError) else error
            click.echo(f"{ctx.find_root().info_name}: error: {reason}", err=True)
            ctx.exit(EXIT_FAILED)
        except KeyboardInterrupt:
            _say_stopped("SIGINT", resumes=False)
            ctx.exit(EXIT_INTERRUPTED)


def _is_first_to_fail() -> bool:
    """Whether no other process of the same torchrun on this machine has failed before; true without torchrun.

    The first error is the cause, and those of the others are the same or follow from it.
    """
    # torchrun gives every process a file in a folder of its own, beside those of the others, which it removes.
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not report:
        return True
    try:
        (Path(report).parents[1] / "wsol-has-failed").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


class CommandGroup(SingleCommand, click.Group):
    """A group of commands whose failures are clear messages."""


def _remember_debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().meta["debug"] = True


def common_options(command: _Command) -> _Command:
    """Give a command ``--debug`` and ``--version``."""
    debug = click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of an error.",
    )
    version = click.version_option(__version__, package_name="saliency-aware-wsol", message="%(version)s")
    return debug(version(command))


def say_notes(notes: Iterable[str]) -> None:
    """Print what a user should know of the data, each once."""
    for note in dict.fromkeys(notes):
        click.echo(f"{_program()}warning: {note}", err=True)


def wants_debug() -> bool:
    """Whether the running command was given ``--debug``."""
    return bool(click.get_current_context().find_root().meta.get("debug"))


def opencv_clash() -> str | None:
    """A warning that names the OpenCV packages when several are installed over each other, else ``None``."""
    found = []
    for name in _OPENCV_PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if len(found) < 2:
        return None
    return (
        f"these packages overwrite each other's cv2: {', '.join(found)}. Uninstall all of them, then install "
        "opencv-contrib-python-headless alone"
    )


def stopped_message(signal_name: str, *, resumes: bool) -> str:
    """Message of every program that a signal has ended; ``resumes`` as in ``ending_on_signals``."""
    return f"{_program()}stopped by {signal_name}{'; the same command resumes' if resumes else ''}"


def _program() -> str:
    """Name of the running program and a colon, before its messages; empty outside of any."""
    context = click.get_current_context(silent=True)
    return "" if context is None else f"{context.find_root().info_name}: "


@contextlib.contextmanager
def ending_on_signals(*, resumes: bool = True) -> Iterator[None]:
    """Let SIGTERM (SLURM, a shutdown) end the program as Ctrl-C does, with its clean-up and a message.

    Exit code 143 after SIGTERM, 130 after Ctrl-C. With ``resumes`` the message adds that the same command resumes.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        _say_stopped("SIGTERM", resumes=resumes)
        sys.exit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        _say_stopped("SIGINT", resumes=resumes)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_stopped(signal_name: str, *, resumes: bool) -> None:
    # After the bar, or the ^C that a terminal shows.
    click.echo(f"\n{stopped_message(signal_name, resumes=resumes)}", err=True)


def bar_width() -> dict[str, Any]:
    """Arguments that tell tqdm how wide its bar is: as the terminal, whenever it changes.

    A terminal made by a program (``docker run -t``, ``script``) may state a width of 0, at which tqdm shows nothing.
    """
    try:
        stated = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        # No terminal, or no file at all, as in a notebook.
        stated = 0
    return {"dynamic_ncols": True} if stated else {"ncols": DEFAULT_COLUMNS, "nrows": DEFAULT_ROWS}


class Progress:
    """A bar with images/s and remaining time on a terminal, a line now and then in a file."""

    def __init__(self, total: int | None = None, *, label: str, unit: str = "image") -> None:
        self._total, self._label, self._unit = total, label, unit
        self._done = self._earlier = 0
        self._notes: dict[str, int] = {}
        self._start = self._last_line = time.monotonic()
        # disable=None: no bar where stderr is not a terminal.
        self._bar = tqdm(total=total, desc=label, unit=f" {unit}", disable=None, **bar_width())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, count: int, *, earlier: bool = False, **notes: int) -> None:
        """Count ``count`` more units as done and add to the numbers shown beside them.

        What was done ``earlier``, or by another run, does not count for the rate.
        """
        self._done += count
        self._earlier += count if earlier else 0
        for name, value in notes.items():
            self._notes[name] = self._notes.get(name, 0) + value
        if not self._bar.disable:
            self._bar.set_postfix(self._notes, refresh=False)
            if earlier:
                self._bar.n, self._bar.initial = self._bar.n + count, self._bar.initial + count
                self._bar.last_print_n += count
            self._bar.update(0 if earlier else count)
            return
        now = time.monotonic()
        total = self._total if self._total is not None else self._done
        if now - self._last_line >= LOG_INTERVAL_S or self._done == total:
            self._last_line = now
            rate = (self._done - self._earlier) / max(now - self._start, 1e-9)
            remaining_s = (total - self._done) / max(rate, 1e-9)
            notes_text = "".join(f", {value} {name}" for name, value in self._notes.items())
            print(
                f"{self._label}: {self._done}/{total} {self._unit}s, {rate:.1f}/s, "
                f"{duration(remaining_s)} left{notes_text}",
                file=sys.stderr,
                flush=True,
            )

    @staticmethod
    def say(text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(f"{_program()}{text}", file=sys.stderr)

    def reach(self, done: int, total: int) -> None:
        """Tell how many units are done and how many there are, for work that finds out its size itself."""
        self._total = self._bar.total = total
        self.advance(done - self._done)


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds: ``1h05m``, ``4m30s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
