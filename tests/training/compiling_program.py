"""One of two processes that train, of which the second cannot compile: what it said, as a line of JSON."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests.training.training_runs import HURRIED, Interrupt, crash, make_trainer, saliency, tiny_networks
from training.processes import start_processes


def refuse(*_inputs: object) -> None:
    raise RuntimeError("no compiler")


if __name__ == "__main__":
    data, out, *losses = sys.argv[1:]
    group = start_processes("cpu")
    torch.compile = lambda part, **_: part if group.is_main else refuse  # type: ignore[assignment]
    said = Interrupt(0, crash)
    config = replace(saliency(use_triplet=not losses), epochs=1)
    with tiny_networks():
        run = replace(HURRIED, compile="on")
        make_trainer(Path(data), Path(out), config, run=run, processes=group, progress=said).fit()
    group.stop()
    print(json.dumps(said.said))
