"""Folders of a user that are called as our packages, in the folder where a command starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_calls import REPOSITORY


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a package ``training`` that is not ours."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("")
    return tmp_path


def python(place: Path, *words: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=place, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_command_refuses_to_start_and_names_both_places(place: Path) -> None:
    done = python(place, "-m", "pipelines.train_cli", "--version")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"wsol: error: the package 'training' is {place / 'training' / '__init__.py'}, expected ")
    assert str(REPOSITORY / "training") in line and 'torchrun ... "$(command -v wsol-train)"' in line
    # Of the processes of torchrun one says so.
    done = python(place, "-m", "pipelines.train_cli", "--version", RANK="1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_python_raises_an_import_error(place: Path) -> None:
    done = python(place, "-c", "import pipelines")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: the package 'training' is ")


def test_the_program_is_not_shadowed(place: Path) -> None:
    """As pip installs it, and as torchrun starts it by its path."""
    program = place / "bin" / "wsol-train"
    program.parent.mkdir()
    program.write_text("from pipelines.train_cli import main\nmain()\n")
    done = python(place, program, "--version")
    assert (done.returncode, done.stderr) == (0, "")
