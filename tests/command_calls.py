"""Calls of a click command in this process, and of Python in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import click
from click.testing import CliRunner, Result

REPOSITORY = Path(__file__).resolve().parents[1]


def invoke(command: click.Command, *words: object, prog_name: str) -> Result:
    """Exit code and output of a command; what it raises but for its exit is raised, so that a test shows where."""
    result = CliRunner().invoke(command, [str(word) for word in words], prog_name=prog_name)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


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
