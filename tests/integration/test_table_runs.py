"""``wsol-pipeline table`` as a user runs it: stopped, with a failing run, gone on with, finished, asked otherwise."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.pipeline_cli import main
from pipelines.synthetic import make_clsloc_dataset
from pipelines.train_cli import main as train_program
from tests.integration.prep_command import REPOSITORY, propose

SHORT = "--input-size 64 --batch-size 4 --workers 0 --device cpu"
TABLE = f"{SHORT} --archs alexnet-gap --rows gap,ours --seeds 0 --protocol cam --jobs 1 --bootstrap-samples 10"
NAMES = ("baseline", "pseudo-map", "alexnet-gap gap seed 0", "alexnet-gap ours seed 0")
PROGRAM = "from pipelines.pipeline_cli import main; main(prog_name='wsol-pipeline')"


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_torch_thread: None) -> tuple[object, ...]:
    """Options that name a data set, its maps and a folder for the table; a checkpoint for F lies in ``f.pt``."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    data = make_clsloc_dataset(tmp_path / "data", classes=2, train_per_class=4, val_per_class=2, size_px=(64, 80))
    for split in ("train", "val"):
        assert propose(data, tmp_path / "maps", split=split).exit_code == 0
    words = ("--data", data, "--out", tmp_path / "f", "--method", "gap", "--epochs", 1, *SHORT.split())
    assert CliRunner().invoke(train_program, [str(word) for word in words]).exit_code == 0
    (checkpoint,) = (tmp_path / "f").glob("checkpoint-*.pt")
    checkpoint.rename(tmp_path / "f.pt")
    return ("--data", data, "--maps", tmp_path / "maps", "--out", tmp_path / "out", *TABLE.split())


def table(*words: object) -> Result:
    result = CliRunner().invoke(main, ["table", *map(str, words)], prog_name="wsol-pipeline")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def logged(folder: Path, program: str) -> int:
    """How often a program was started in a run's folder."""
    log = folder / ("train.log" if program == "wsol-train" else "evaluation.log")
    return log.read_text().count(f"$ {program} ") if log.exists() else 0


@pytest.mark.slow
def test_stopped_failed_gone_on_finished(inputs: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    gap, ours = out / "alexnet-gap" / "gap" / "seed-0", out / "alexnet-gap" / "ours" / "seed-0"
    broken, good = tmp_path / "broken.pt", tmp_path / "f.pt"
    broken.write_text("no weights")
    often = ("--epochs", 2, "--checkpoint-minutes", 0)

    # Stopped by SIGTERM while the first network trains.
    words = ["table", *map(str, (*inputs, *often, "--perceptual-weights", broken))]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not any(gap.glob("checkpoint-*.pt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "told to stop" in said and "Traceback" not in said
    # What was finished before is in the table already, and what was stopped is no failure.
    text = (out / "table.md").read_text()
    assert "2 of 4 runs are finished" in text and "failed" not in text
    assert not (gap / "evaluation" / "metrics.json").exists() and not (gap / "failure.txt").exists()

    # Gone on with; the other network cannot be trained with such weights, which stops nothing else.
    result = table(*inputs, *often, "--perceptual-weights", broken)
    assert result.exit_code == 1
    assert "wsol-pipeline: error: 1 of 4 runs failed: alexnet-gap ours seed 0: " in result.output
    reason = (ours / "failure.txt").read_text().strip()
    assert "broken.pt" in reason
    text = (out / "table.md").read_text()
    assert f"- alexnet-gap ours seed 0: failed: {reason}" in text and "3 of 4 runs are finished" in text
    assert (logged(out / "baseline", "wsol-eval"), logged(gap, "wsol-eval")) == (1, 1)

    # The mended run goes on, the finished ones stay.
    result = table(*inputs, *often, "--perceptual-weights", good)
    assert result.exit_code == 0, result.output
    assert "3 of 4 runs are finished; 1 to do on cpu" in result.output
    assert not (ours / "failure.txt").exists()
    text = (out / "table.md").read_text()
    assert "All 4 runs are finished" in text
    metrics = json.loads((ours / "evaluation" / "metrics.json").read_text())
    assert [result["localizer"] for result in metrics["results"]] == ["cam", "saliency", "cam*saliency"]
    assert f"| {100 * metrics['results'][0]['gt_known_loc']['rate']:.2f} |" in text
    assert json.loads((gap / "finished.json").read_text())["epochs"] == 2

    # Given again it runs nothing, and writes the same bytes.
    before = {path.name: path.read_bytes() for path in out.glob("table.*")}
    started = [logged(folder, program) for folder in (gap, ours) for program in ("wsol-train", "wsol-eval")]
    result = table(*inputs, *often, "--perceptual-weights", good)
    assert result.exit_code == 0 and "4 of 4 runs are finished; 0 to do" in result.output
    assert {path.name: path.read_bytes() for path in out.glob("table.*")} == before

    # Asked for with other settings it touches nothing, and names what differs.
    result = table(*inputs, "--epochs", 3, "--perceptual-weights", good)
    assert result.exit_code == 1
    assert f"alexnet-gap gap seed 0: not run: {gap} was made with other settings (--epochs: 2 there, 3 now)" in (
        result.output
    )
    assert "2 of 4 runs failed" in result.output
    assert "failed: " in (out / "table.md").read_text()
    assert started == [logged(folder, program) for folder in (gap, ours) for program in ("wsol-train", "wsol-eval")]
