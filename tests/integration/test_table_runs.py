"""``wsol-pipeline table`` as a user runs it: a run that fails, interrupted, resumed, finished, with other settings."""

import json
from pathlib import Path

import pytest
from click.testing import Result

from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.steps import StepRecord
from pipelines.pipeline_cli import main
from tests.command_calls import invoke, sigterm_when
from tests.integration.prep_command import propose
from training.config import TrainConfig
from training.networks.model import LocalizationModel
from training.run_folder.checkpoints import save_checkpoint

# Two epochs of two steps, with a checkpoint after each: there is a moment to stop at.
TABLE = (
    "--archs alexnet-gap --rows ours --seeds 0 --protocol cam --input-size 64 --batch-size 4 --epochs 2 --workers 0 "
    "--checkpoint-minutes 0 --keep-last 1 --device cpu --jobs 1 --bootstrap-samples 10"
)
NAME = "alexnet-gap ours seed 0"


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_torch_thread: None) -> tuple[object, ...]:
    """Options that name a data set, its maps and a folder for the table; F is read from ``f.pt``, which is none yet."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = make_clsloc_dataset(tmp_path / "data", classes=2, train_per_class=4, val_per_class=2, size_px=(64, 80))
    for split in ("train", "val"):
        assert propose(data, tmp_path / "maps", split=split).exit_code == 0
    weights = tmp_path / "f.pt"
    weights.write_text("no weights")
    folders = ("--data", data, "--maps", tmp_path / "maps", "--out", tmp_path / "out")
    return (*folders, "--perceptual-weights", weights, *TABLE.split())


def write_network(path: Path) -> None:
    """A checkpoint of a small network with random weights, to stand for F."""
    model = LocalizationModel("alexnet-gap", 2, batch_norm=True, decoder=False)
    save_checkpoint(path, {"model": model.state_dict(), "config": TrainConfig(classes=2).as_json(), "step": 1})


def table(*words: object) -> Result:
    return invoke(main, "table", *words, prog_name="wsol-pipeline")


def lines_of_logs(out: Path) -> list[str]:
    """Every line that was run, of all runs."""
    logs = sorted(out.rglob("*.log"))
    return [line for log in logs for line in log.read_text().splitlines() if line.startswith("$ ")]


def test_failed_interrupted_resumed_finished(inputs: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = out / "alexnet-gap" / "ours" / "seed-0"

    # F has no weights: the run fails, and is named with the reason that wsol-train gave.
    result = table(*inputs)
    assert result.exit_code == 1
    reason = StepRecord(run / "table-run.json").failure(f"training of {NAME}") or ""
    assert "f.pt" in reason
    assert f"wsol-pipeline: error: 1 of 3 runs failed: {NAME}: {reason}" in result.output
    text = (out / "table.md").read_text()
    assert f"- {NAME}: failed: {reason}" in text and "2 of 3 runs are finished" in text

    # Mended, and stopped by SIGTERM while it trains: that is no failure.
    write_network(tmp_path / "f.pt")
    with sigterm_when(lambda: any(run.glob("checkpoint-*.pt"))):
        result = table(*inputs)
    assert result.exit_code == 143, result.output
    assert "wsol-pipeline: stopped by SIGTERM; the same command resumes" in result.output
    assert StepRecord(run / "table-run.json").failure(f"training of {NAME}") is None
    assert not (run / "evaluation" / "metrics.json").exists()

    # The same command resumes: what is finished stays.
    result = table(*inputs)
    assert result.exit_code == 0, result.output
    assert "2 of 3 runs are finished; 1 to do on cpu" in result.output
    assert "at step " in (run / "train.log").read_text(), "not resumed"
    text = (out / "table.md").read_text()
    assert "All 3 runs are finished" in text
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert [result["localizer"] for result in metrics["results"]] == ["cam", "saliency", "cam*saliency"]
    assert f"| Ours (cam) | {100 * metrics['results'][0]['gt_known_loc']['rate']:.2f} |" in text
    pseudo = json.loads((out / "pseudo-map" / "evaluation" / "metrics.json").read_text())
    assert f"| pseudo-map (no training) | {100 * pseudo['results'][0]['gt_known_loc']['rate']:.2f} |" in text

    # Given again it runs nothing, and writes the same bytes.
    before, ran = {path.name: path.read_bytes() for path in out.glob("table.*")}, lines_of_logs(out)
    result = table(*inputs)
    assert result.exit_code == 0 and "3 of 3 runs are finished; 0 to do" in result.output
    assert {path.name: path.read_bytes() for path in out.glob("table.*")} == before

    # Asked for with other settings it runs and writes nothing, and names what differs.
    result = table(*inputs, "--epochs", 3)
    assert result.exit_code == 1
    refusal = f"{run} was made with other settings (--epochs: 2 stored, 3 now); use another --out"
    assert result.output == f"wsol-pipeline: error: {refusal}. Nothing was run, and the tables are unchanged\n"
    assert {path.name: path.read_bytes() for path in out.glob("table.*")} == before
    assert lines_of_logs(out) == ran
