"""Turns planned runs into finished ones: ``wsol-train`` and ``wsol-eval``, as many at a time as there are devices."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import click

from pipelines.experiments.paper_table.plan import TableRun
from pipelines.experiments.steps import StepFailed, StepRunner, command_line

__all__ = ["examine_folders", "make_runs", "show_lines"]


def examine_folders(runs: Sequence[TableRun]) -> tuple[dict[str, str], dict[str, str]]:
    """Tell which folders cannot be used, by name of the run with the reason.

    Returns
    -------
    refused
        Runs whose folders hold results of other settings, or of another program.
    damaged
        Runs whose record of the settings cannot be read.
    """
    refused: dict[str, str] = {}
    damaged: dict[str, str] = {}
    for run in runs:
        try:
            reason = run.refusal()
        except ValueError as error:
            damaged[run.name] = str(error)
        else:
            if reason is not None:
                refused[run.name] = reason
    return refused, damaged


def show_lines(runs: Sequence[TableRun], *, devices: Sequence[str]) -> None:
    """Print the lines that ``make_runs`` would run; of several devices the one is named that a run would get in turn.

    Runs that are finished are named.
    """
    waiting = [run for run in runs if not run.is_finished]
    for run in runs:
        if run.is_finished:
            click.echo(f"# {run.name}: finished")
    for index, run in enumerate(waiting):
        for step in run.steps(device=devices[index % len(devices)]):
            click.echo(command_line(step.program, step.words))


def make_runs(
    runs: Sequence[TableRun], *, devices: Sequence[str], debug: bool, finished: Callable[[], None]
) -> dict[str, str]:
    """Train and evaluate what is not finished yet.

    Parameters
    ----------
    runs
        In order; those whose folders hold other settings must not be among them.
    devices
        One run at a time on each; a device that is named twice has two.
    debug
        Give every program ``--debug``.
    finished
        Called, one call at a time, whenever a run has ended.

    Returns
    -------
    dict
        By name of each run that failed the reason; the others went on.

    Raises
    ------
    SystemExit
        With 143 after SIGTERM, or with the code of a program that was told to stop: those that ran have saved what
        they had.
    KeyboardInterrupt
        After Ctrl-C.
    """
    waiting: queue.SimpleQueue[TableRun] = queue.SimpleQueue()
    todo = [run for run in runs if not run.is_finished]
    for run in todo:
        waiting.put(run)
    click.echo(f"{len(runs) - len(todo)} of {len(runs)} runs are finished; {len(todo)} to do on {', '.join(devices)}")
    failures: dict[str, str] = {}
    lock = threading.Lock()

    def work(device: str, runner: StepRunner) -> None:
        while True:
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            start_s = time.monotonic()
            reason = _make(run, device=device, runner=runner)
            with lock:
                minutes, seconds = divmod(round(time.monotonic() - start_s), 60)
                click.echo(f"{run.name}: {f'failed: {reason}' if reason else 'finished'} ({minutes}m{seconds:02d}s)")
                if reason is not None:
                    failures[run.name] = reason
                finished()

    # The runner stands inside: when this ends early it first ends the programs that the threads wait for.
    with ThreadPoolExecutor(max_workers=len(devices)) as threads, StepRunner(debug=debug) as runner:
        futures = [threads.submit(work, device, runner) for device in devices]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in sorted(futures, key=lambda one: not one.done()):
            future.result()
    return failures


def _make(run: TableRun, *, device: str, runner: StepRunner) -> str | None:
    """Run the steps of a run; the reason when one fails."""
    run.write_record()
    run.write_failure(None)
    for step in run.steps(device=device):
        click.echo(f"$ {command_line(step.program, step.words)}")
        try:
            runner.run(step.program, step.words, log=step.log)
        except StepFailed as error:
            reason = _reason(step.log, program=step.program) or str(error)
            run.write_failure(reason)
            return reason
    return None


def _reason(log: Path, *, program: str) -> str | None:
    """What a program said last about its failure, from what this call of it left in the log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    begin = max(index for index, line in enumerate(lines) if line.startswith(f"$ {program} "))
    for mark in (f"{program}: error: ", "Error: "):
        for line in reversed(lines[begin:]):
            if line.startswith(mark):
                return line.removeprefix(mark).strip()
    return None
