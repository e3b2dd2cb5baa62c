"""Processes killed while they save leave whole checkpoints."""

import signal
from pathlib import Path

import torch

from tests.command_calls import start_program
from tests.counts import full
from tests.training.run_folder.checkpoint_writer import WEIGHTS
from tests.training.train_program import import_once
from training.run_folder.checkpoints import CheckpointFolder

IN_THE_MIDDLE = 0
MOMENTS = (IN_THE_MIDDLE, *range(1, 25, full(5, 1)))
"""Three checkpoints, six or seven calls of the file system each."""


def test_killed_writers_leave_whole_checkpoints(tmp_path: Path) -> None:
    import_once()
    folder, leftovers = CheckpointFolder(tmp_path, keep_last=2), []
    folder.save(0, {})
    committed = 0
    for moment in MOMENTS:
        writer = start_program("tests.training.run_folder.checkpoint_writer", tmp_path, committed + 1, moment)
        text, _ = writer.communicate()
        assert writer.returncode in (-signal.SIGKILL, -signal.SIGXFSZ), text
        committed = max([committed, *map(int, text.split())])
        leftovers.append(len(list(tmp_path.glob(".*.tmp"))))
        found = folder.latest()
        assert found is not None
        # The last step reported, or the one after it, whose report the kill has cut off.
        assert found.step in (committed, committed + 1), moment
        if found.step:
            assert found.state["step"] == found.step
            assert torch.equal(found.state["weights"], torch.full((WEIGHTS,), float(found.step)))
        committed = found.step
    assert leftovers[0] == 1
    # The next save removes what killed ones left.
    folder.save(committed + 1, {})
    assert not list(tmp_path.glob(".*.tmp"))
    assert len(folder.steps()) == 2
