"""``wsol-train`` with small networks, in this process, as a program, and as a program that kills itself.

``python -m tests.training.train_program MOMENT FOLDER WORDS...``: SIGKILL when the file system is asked for the
MOMENT-th time for something in FOLDER: to open a file for reading, writing or syncing, to rename or to remove one.
"""

import contextlib
import functools
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from torch.distributed import TCPStore

from pipelines.train_cli import main
from tests.command_calls import StartedProgram, invoke, start_program
from tests.training.training_runs import tiny_networks

NEVER = 0
_MOMENTS = ("open", "os.rename", "os.remove")


def train(*words: object) -> Result:
    """Exit code and output of the command, in this process."""
    with tiny_networks():
        return invoke(main, *words, prog_name="wsol-train")


def start(*words: object, kill_at: int = NEVER, folder: Path = Path()) -> StartedProgram:
    """Begin the command as a fork of a process that has imported PyTorch."""
    import_once()
    return start_program(__name__, kill_at, folder, *words)


@contextlib.contextmanager
def start_two(module: str, *words: object) -> Iterator[tuple[list[StartedProgram], TCPStore]]:
    """Two processes of a module that find each other as those of torchrun do, and where they meet."""
    import_once()
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = []
    for rank in ("0", "1"):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2")):
                patch.setenv(name, value)
            patch.setenv("MASTER_ADDR", "127.0.0.1")
            patch.setenv("MASTER_PORT", str(store.port))
            # The one above: a port that is free now might not be when the first process takes it.
            patch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
            processes.append(start_program(module, *words))
    yield processes, store


@functools.cache
def import_once() -> None:
    program = start_program("pipelines.train_cli", "--help")
    text, _ = program.communicate()
    assert program.returncode == 0, text


def kill_this_process(moment: int, folder: str) -> None:
    """SIGKILL just before the file system is asked for the ``moment``-th time for something in a folder."""
    moments = itertools.count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _MOMENTS and str(arguments[0]).startswith(folder) and next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    _moment, _folder, *_words = sys.argv[1:]
    if int(_moment) != NEVER:
        kill_this_process(int(_moment), _folder)
    with tiny_networks():
        main(_words, prog_name="wsol-train")
