"""What the tests of ``wsol-prep`` share: calls of the command, and what a folder holds."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from click.testing import Result

from pipelines.prep_cli import main
from tests.command_calls import REPOSITORY, StartedProgram, invoke, run_program, start_program

VAL = "Data/CLS-LOC/val"
QUICK = ("--working-size", "48", "--map-size", "32")
"""Makes a map in 15 ms."""


def prep(*words: object) -> Result:
    return invoke(main, *words, prog_name="wsol-prep")


def propose(data: Path, out: Path, *words: object, split: str = "val") -> Result:
    return prep("proposals", "--data", data, "--split", split, "--out", out, *QUICK, *words)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def log_text(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "logs").iterdir()))


def val_id(number: int) -> str:
    return f"synthetic_val_{number:08d}"


@cache
def import_map_making() -> None:
    """Have forked programs find what makes maps imported, those of test modules too."""
    assert run_program("pipelines.prep_cli", "--version").returncode == 0


def start_prep(*words: object) -> StartedProgram:
    """Begin the command as a program in a process group of its own, which its workers share."""
    return start_program("pipelines.prep_cli", *words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def subprocess_run(program: str, *words: object, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    """A Python program, from nothing."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def error_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith(("wsol-prep: error", "Traceback"))]


def damage(shard: Path, *, length: int | None = None) -> None:
    """Change one byte in the middle of a shard, or cut it to a length."""
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.chmod(0o644)
    shard.write_bytes(content[:length])
