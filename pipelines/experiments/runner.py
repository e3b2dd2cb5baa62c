"""Runner of steps: in order, or several chains of steps in parallel, each step in its own process.

What a step uses is free when it ends, one that crashes takes nothing with it, and the command that is shown is the one
that can be typed.
"""

import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import nullcontext
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import click

from pipelines.cli.terminal import EXIT_INTERRUPTED, EXIT_TERMINATED, stopped_message
from pipelines.experiments.program_server import SERVER, Program
from pipelines.experiments.steps import Chain, DataIdentity, command_line
from pseudo_maps.files import FolderBusy, folder_lock

PROGRAMS: Mapping[str, str] = {
    "wsol-prep": "pipelines.prep_cli",
    "wsol-train": "pipelines.train_cli",
    "wsol-eval": "pipelines.eval_cli",
}
"""Programs that can be steps, and their modules."""

_STOPPED: Mapping[int, int] = {
    EXIT_INTERRUPTED: EXIT_INTERRUPTED,
    EXIT_TERMINATED: EXIT_TERMINATED,
    -signal.SIGINT: EXIT_INTERRUPTED,
    -signal.SIGTERM: EXIT_TERMINATED,
}
"""Exit codes of programs that were interrupted or terminated, which is no failure, and the one to end with then."""
_RESCANS = "--retry-failed"
"""Option of a command that has something to do when images were repaired, which no record knows."""


class StepFailed(RuntimeError):
    """A step that ended with another exit code than 0; ``reason`` is the message without the name of the step."""

    def __init__(self, reason: str, *, step: str = "") -> None:
        super().__init__(f"{step}: {reason}" if step else reason)
        self.reason = reason


class StepRunner:
    """Runs programs, also from several threads; used as a context manager in the main thread.

    SIGTERM is passed on to every program that runs, so that each ends in its own way (training saves a checkpoint),
    and then ends this one with 143. Ctrl-C reaches them by itself. When this process is killed they get SIGTERM too.
    ``debug`` gives every program ``--debug``.
    """

    def __init__(self, *, debug: bool = False) -> None:
        self._debug = debug
        self._running: set[Program] = set()
        self._lock = threading.RLock()
        self._is_terminated = False

    def __enter__(self) -> Self:
        self._lifeline, self._held_end = os.pipe()
        self._handler_before = signal.signal(signal.SIGTERM, self._pass_on)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_terminated = kind is not None or self._is_terminated
            left = list(self._running)
        for process in left:
            process.send_signal(signal.SIGTERM)
        for process in left:
            process.wait()
        os.close(self._lifeline)
        os.close(self._held_end)
        signal.signal(signal.SIGTERM, self._handler_before)

    def run(self, program: str, arguments: Sequence[object], *, log: Path | None = None) -> None:
        """Run ``program`` (a key of ``PROGRAMS``), its output added to ``log`` if given, and wait for its end.

        StepFailed when it ended with an error or was killed; SystemExit when it or this program was interrupted.
        """
        options = [*map(str, arguments), *(["--debug"] if self._debug else [])]
        if log is None:
            code = self._wait(self._start(program, options, stdout=1, stderr=2))
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                file.write(f"$ {command_line(program, arguments)}\n".encode(errors="surrogateescape"))
                file.flush()
                code = self._wait(self._start(program, options, stdout=file.fileno(), stderr=file.fileno()))
        if self._is_terminated:
            sys.exit(EXIT_TERMINATED)
        if code in _STOPPED:
            click.echo(f"{program} was stopped; the same command resumes", err=True)
            sys.exit(_STOPPED[code])
        if code:
            raise StepFailed(_reason(program, code, log=log))

    def _start(self, program: str, options: Sequence[str], *, stdout: int, stderr: int) -> Program:
        with self._lock:
            if self._is_terminated:
                sys.exit(EXIT_TERMINATED)
            process = SERVER.start(PROGRAMS[program], options, stdout=stdout, stderr=stderr, lifeline=self._lifeline)
            self._running.add(process)
            if self._is_terminated:
                # SIGTERM came while this one was being started, by this very thread.
                process.send_signal(signal.SIGTERM)
            return process

    def _wait(self, process: Program) -> int:
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
            self._is_terminated = True
            for process in self._running:
                process.send_signal(signal.SIGTERM)
        waiting = ", as soon as what runs has ended" if self._running else ""
        click.echo(f"{stopped_message('SIGTERM', resumes=True)}{waiting}", err=True)
        if not self._running:
            sys.exit(EXIT_TERMINATED)


def _reason(program: str, code: int, *, log: Path | None) -> str:
    """The error message of the last call of a program in its log, or else how it ended."""
    if log is not None:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        begin = max(index for index, line in enumerate(lines) if line.startswith(f"$ {program} "))
        for mark in (f"{program}: error: ", "Error: "):
            for line in reversed(lines[begin:]):
                if line.startswith(mark):
                    return line.removeprefix(mark).strip()
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    guess = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"{program} {how}{guess}; {'its message is above' if log is None else f'see {log}'}"


def run_chain(chain: Chain, *, runner: StepRunner, data: DataIdentity, device: str | None = None) -> None:
    """Run the steps that are not finished, in order; those that use a device on ``device``.

    StepFailed at the first step that fails; SystemExit when one was interrupted or terminated. FolderBusy while another
    process runs the chain.
    """
    path = chain.record.path
    # What is finished is only read, and may lie where nobody can write.
    kept = chain.is_finished(data) and not any(_RESCANS in step.arguments for step in chain.steps)
    with nullcontext() if kept else folder_lock(path.parent, f".{path.name}.lock", wait_s=0, warn=warnings.warn):
        _run_steps(chain, runner=runner, data=data, device=device)


def _run_steps(chain: Chain, *, runner: StepRunner, data: DataIdentity, device: str | None) -> None:
    record = chain.record
    for number, step in enumerate(chain.steps, start=1):
        heading = f"[{number}/{len(chain.steps)}] {step.name}"
        input_state = step.input_state(data)
        if record.is_finished(step, input_state=input_state) and _RESCANS not in step.arguments:
            click.echo(f"{heading}: finished before, kept")
            continue
        step = step.on(device)
        # In one call: chains that run side by side must not mix their lines.
        click.echo(f"{'' if step.log else chr(10)}{heading}\n$ {step.line}")
        record.begin(step)
        try:
            if step.prepare is not None:
                step.prepare()
                input_state = step.input_state(data)
            runner.run(step.program, (*step.arguments, *step.free), log=step.log)
        except StepFailed as error:
            record.fail(step, error.reason)
            raise StepFailed(error.reason, step=step.name) from None
        record.finish(step, input_state=input_state)


def run_side_by_side(
    chains: Sequence[Chain], *, devices: Sequence[str], data: DataIdentity, debug: bool, ended: Callable[[], None]
) -> dict[str, str]:
    """Run chains in order, one at a time on each device; return the reason of each that failed, by its name.

    A device that is named twice has two chains at a time. ``ended`` is called, one call at a time, whenever a chain
    has ended. SystemExit or KeyboardInterrupt when interrupted, after every program that ran has ended.
    """
    waiting: queue.SimpleQueue[Chain] = queue.SimpleQueue()
    for chain in chains:
        waiting.put(chain)
    failures: dict[str, str] = {}
    lock = threading.Lock()

    def work(device: str, runner: StepRunner) -> None:
        while True:
            try:
                chain = waiting.get_nowait()
            except queue.Empty:
                return
            start_s = time.monotonic()
            outcome = "finished"
            try:
                run_chain(chain, runner=runner, data=data, device=device)
            except (StepFailed, FolderBusy) as error:
                failures[chain.name] = error.reason if isinstance(error, StepFailed) else str(error)
                outcome = f"failed: {failures[chain.name]}"
            with lock:
                minutes, seconds = divmod(round(time.monotonic() - start_s), 60)
                click.echo(f"{chain.name}: {outcome} ({minutes}m{seconds:02d}s)")
                ended()

    # The runner stands inside: when this ends early it first ends the programs that the threads wait for.
    with ThreadPoolExecutor(max_workers=len(devices)) as threads, StepRunner(debug=debug) as runner:
        futures = [threads.submit(work, device, runner) for device in devices]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in sorted(futures, key=lambda one: not one.done()):
            future.result()
    return failures
