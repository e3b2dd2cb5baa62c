"""Calls of a click command in this process, of our programs as forks, and of Python in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pipelines.experiments.program_server import SERVER

REPOSITORY = Path(__file__).resolve().parents[1]


def invoke(command: click.Command, *words: object, prog_name: str) -> Result:
    """Exit code and output of a command; what it raises but for its exit is raised, so that a test shows where."""
    result = CliRunner().invoke(command, [str(word) for word in words], prog_name=prog_name)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_with_steps(command: click.Command, *words: object, prog_name: str) -> tuple[int, str]:
    """Exit code of a command in this process, and all that it and the programs which it runs print, in order."""
    with ExitStack() as undo:
        file = undo.enter_context(tempfile.TemporaryFile())
        for number in (1, 2):
            kept = os.dup(number)
            undo.callback(os.close, kept)
            undo.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        text = undo.enter_context(open(1, "w", buffering=1, encoding="utf-8", closefd=False))
        undo.enter_context(redirect_stdout(text))
        undo.enter_context(redirect_stderr(text))
        code = 0
        try:
            command.main([str(word) for word in words], prog_name=prog_name)
        except SystemExit as end:
            code = int(end.code or 0)
        text.flush()
        file.seek(0)
        return code, file.read().decode()


@contextmanager
def sigterm_when(met: Callable[[], bool]) -> Iterator[None]:
    """Send this process one SIGTERM as soon as a condition holds, for a command inside that handles it."""
    handler = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            if met():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGTERM, handler)


class StartedProgram:
    """A program of ours that was forked: what the tests use of ``subprocess.Popen``, with captured output as text."""

    def __init__(self, module: str, arguments: Sequence[str], *, stdout: int, stderr: int) -> None:
        self._captured: dict[int, tuple[list[str], threading.Thread]] = {}
        with ExitStack() as files:
            out = self._open(1, stdout, files)
            err = out if stderr == subprocess.STDOUT else self._open(2, stderr, files)
            # Modules of the tests are not installed.
            environment = files.enter_context(pytest.MonkeyPatch.context())
            environment.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
            self._program = SERVER.start(module, arguments, stdout=out, stderr=err, new_session=True)
        self.pid = self._program.pid

    def _open(self, number: int, where: int, files: ExitStack) -> int:
        if where == subprocess.DEVNULL:
            return files.enter_context(open(os.devnull, "wb")).fileno()
        assert where == subprocess.PIPE
        reading, writing = os.pipe()
        files.callback(os.close, writing)
        lines: list[str] = []

        def read() -> None:
            with os.fdopen(reading, encoding="utf-8") as file:
                lines.extend(file)

        # All the time: a full pipe would stop the program.
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self._captured[number] = (lines, thread)
        return writing

    @property
    def returncode(self) -> int | None:
        return self._program.returncode

    def poll(self) -> int | None:
        try:
            return self._program.wait(0)
        except TimeoutError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        return self._program.wait(timeout)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end of the program and of all that writes to its pipes; give what was printed."""
        self._program.wait(timeout)
        for _, thread in self._captured.values():
            thread.join(timeout)
            assert not thread.is_alive(), "something still writes to the output of a program that has ended"
        return self.output(1), self.output(2)

    def output(self, number: int) -> str:
        """What the program has printed so far to standard output (1) or standard error (2)."""
        return "".join(self._captured[number][0]) if number in self._captured else ""

    def send_signal(self, number: int) -> None:
        self._program.send_signal(number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_program(
    module: str, *arguments: object, stdout: int = subprocess.PIPE, stderr: int = subprocess.STDOUT
) -> StartedProgram:
    """Begin a module as a program in a process group of its own, to be signalled without this process.

    A fork of a process that has imported what it needs; ``start_python`` starts from nothing.
    """
    return StartedProgram(module, [str(one) for one in arguments], stdout=stdout, stderr=stderr)


def run_program(module: str, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Exit code and output of a module as a program (``start_program``)."""
    program = start_program(module, *arguments, stderr=subprocess.PIPE)
    stdout, stderr = program.communicate(timeout)
    return subprocess.CompletedProcess([module, *arguments], program.wait(), stdout, stderr)


def start_python(
    *words: object, stdout: int = subprocess.PIPE, stderr: int = subprocess.STDOUT
) -> subprocess.Popen[str]:
    """Begin Python with these words in a process group of its own, to be signalled without this process.

    One thread: sums in another order would be other numbers.
    """
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )
