"""Saves checkpoints, and prints the step of each that is there, until it is killed.

``python -m tests.training.run_folder.checkpoint_writer FOLDER FIRST_STEP MOMENT``: before the MOMENT-th call of the
file system, or in the middle of writing its third checkpoint when that is 0.
"""

import itertools
import resource
import signal
import sys

import torch

from tests.training.train_program import kill_this_process
from training.run_folder.checkpoints import CheckpointFolder

WEIGHTS = 100_000


def main(path: str, first_step: int, moment: int) -> None:
    folder = CheckpointFolder(path, keep_last=2)
    if moment:
        kill_this_process(moment, path)
    for step in itertools.count(first_step):
        if not moment and step == first_step + 2:
            # The signal of this limit, which Python ignores, ends the process with half of the file written.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * WEIGHTS, 2 * WEIGHTS))
        folder.save(step, {"step": step, "weights": torch.full((WEIGHTS,), float(step))})
        print(step, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
