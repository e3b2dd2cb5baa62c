"""Turns the words of a command line into a program that runs to its end, as a user would have typed it.

Every step is a process of its own: what it uses is free when it ends, one that dies takes nothing with it, and the
line that is shown is the line that can be typed.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import click

from pipelines.cli.terminal import EXIT_INTERRUPTED, EXIT_TERMINATED, stopped_message

__all__ = ["PROGRAMS", "StepFailed", "StepRunner", "command_line"]

PROGRAMS: Mapping[str, str] = {
    "wsol-prep": "pipelines.prep_cli",
    "wsol-train": "pipelines.train_cli",
    "wsol-eval": "pipelines.eval_cli",
}
"""Programs that can be steps, and the module that each is."""

_SIGNAL_EXIT = 128
"""A shell's exit code of a program ended by signal n is 128 + n."""
_STOPPED: Mapping[int, int] = {
    EXIT_INTERRUPTED: EXIT_INTERRUPTED,
    EXIT_TERMINATED: EXIT_TERMINATED,
    -signal.SIGINT: EXIT_INTERRUPTED,
    -signal.SIGTERM: EXIT_TERMINATED,
}
"""Exit codes of programs that were told to stop, which is no failure, and the one to end with then."""
_STARTER = "pipelines.experiments.step_program"


class StepFailed(RuntimeError):
    """A step that ended with another exit code than 0; its own message stands above, or in its log."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def command_line(program: str, words: Sequence[object]) -> str:
    """One line that a shell takes: the program and its words, quoted where needed."""
    return shlex.join([program, *map(str, words)])


class StepRunner:
    """Runs programs, one after the other or from several threads side by side.

    Used as a context manager in the main thread. SIGTERM is passed on to every program that runs, so that each ends
    in its own way (training saves a checkpoint), and then ends this one with 143. Ctrl-C reaches them by itself. When
    this one is killed they get SIGTERM too: each holds a pipe that the kernel closes with this process.

    Parameters
    ----------
    debug
        Give every program ``--debug``.
    """

    def __init__(self, *, debug: bool = False) -> None:
        self._debug = debug
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()
        self._told_to_stop = False

    def __enter__(self) -> Self:
        self._lifeline, self._held_end = os.pipe()
        self._handler_before = signal.signal(signal.SIGTERM, self._pass_on)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._told_to_stop = kind is not None or self._told_to_stop
            left = list(self._running)
        for process in left:
            process.terminate()
        for process in left:
            process.wait()
        os.close(self._lifeline)
        os.close(self._held_end)
        signal.signal(signal.SIGTERM, self._handler_before)

    def run(self, program: str, words: Sequence[object], *, log: Path | None = None) -> None:
        """Run ``program`` (a key of ``PROGRAMS``) and wait for its end.

        Parameters
        ----------
        words
            Options and arguments.
        log
            File that its output is added to; by default it goes where this program's goes.

        Raises
        ------
        StepFailed
            It ended with an error, or was ended.
        SystemExit
            With 143, after SIGTERM; or with the code of the program, when that alone was told to stop.
        """
        # -P: a folder called "training" where the user stands must not become our package.
        command = [sys.executable, "-P", "-m", _STARTER, str(self._lifeline), PROGRAMS[program], *map(str, words)]
        if self._debug:
            command.append("--debug")
        if log is None:
            code = self._wait(self._start(command, None))
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                file.write(f"$ {command_line(program, words)}\n".encode(errors="surrogateescape"))
                file.flush()
                code = self._wait(self._start(command, file.fileno()))
        if self._told_to_stop:
            sys.exit(EXIT_TERMINATED)
        if code in _STOPPED:
            click.echo(f"{program} was told to stop; the same command goes on", err=True)
            sys.exit(_STOPPED[code])
        if code:
            raise _failure(program, code, log=log)

    def _start(self, command: list[str], output: int | None) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._told_to_stop:
                sys.exit(EXIT_TERMINATED)
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(self._lifeline,)
            )
            self._running.add(process)
            return process

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The program was interrupted too, and may still be saving what it has.
            process.wait()
            raise
        finally:
            with self._lock:
                self._running.discard(process)

    def _pass_on(self, _number: int, _frame: FrameType | None) -> None:
        with self._lock:
            self._told_to_stop = True
            for process in self._running:
                process.terminate()
        waiting = ", as soon as what runs has ended" if self._running else ""
        click.echo(f"{stopped_message('SIGTERM', goes_on=True)}{waiting}", err=True)
        if not self._running:
            sys.exit(EXIT_TERMINATED)


def _failure(program: str, code: int, *, log: Path | None) -> StepFailed:
    if code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
        code = _SIGNAL_EXIT - code
        if code == _SIGNAL_EXIT + signal.SIGKILL:
            how += " (out of memory?)"
    else:
        how = f"failed with exit code {code}"
    return StepFailed(f"{program} {how}; {'its message is above' if log is None else f'see {log}'}", exit_code=code)
