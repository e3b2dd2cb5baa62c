"""Processes killed while they save leave whole checkpoints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 25

_KILLED_WRITERS = """
import json, os, random, signal, sys, time, warnings
import torch
from training.run_folder.checkpoints import CheckpointFolder
warnings.simplefilter("error")
torch.set_num_threads(1)
draws = random.Random(1)
folder = CheckpointFolder(sys.argv[1], keep_last=2)
report = {"states": [], "leftovers": 0}
next_step = 1
for trial in range(int(sys.argv[2])):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        for step in range(next_step, next_step + 100_000):
            folder.save(step, {"step": step, "weights": torch.full((1_000_000,), float(step))})
            os.write(writing, b"%d\\n" % step)
    os.close(writing)
    with os.fdopen(reading) as ledger:
        committed = [int(ledger.readline())]
        time.sleep(draws.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        committed += [int(line) for line in ledger]
    found = folder.latest()
    weights = found.state["weights"]
    whole = found.state["step"] == found.step and bool((weights == found.step).all()) and len(weights) == 1_000_000
    report["states"].append([whole, found.step, committed[-1], len(folder.steps())])
    report["leftovers"] += len(list(folder.path(0).parent.glob(".*.tmp")))
    next_step = found.step + 1
print(json.dumps(report))
"""


@pytest.mark.slow
def test_killed_writers_leave_whole_checkpoints(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _KILLED_WRITERS, str(tmp_path / "run"), str(KILLS)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert len(report["states"]) == KILLS
    for whole, step, committed, kept in report["states"]:
        assert whole
        # The last step reported, or the one after it, whose report the kill may have cut off.
        assert step in (committed, committed + 1)
        assert 1 <= kept <= 3
    # Otherwise no kill fell into a write, and the test has shown nothing.
    assert report["leftovers"] >= 1
