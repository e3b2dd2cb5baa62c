"""The commands of a pipeline, and ``wsol-pipeline run`` and ``init`` as far as they need no training."""

from pathlib import Path

import pytest
from click.testing import Result

from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.pipeline_file import read_pipeline_file
from pipelines.experiments.pipeline_plan import pipeline_steps, wanted_steps
from pipelines.pipeline_cli import main
from tests.command_calls import invoke
from tests.command_parsing import refusal

TWO_RUNS = """\
out = "results"
[data]
root = "data"
layout = "clsloc"
[proposals]
preset = "b650"
[training]
epochs = 2
[training.gap]
method = "gap"
[training.ours]
[evaluation]
protocol = ["cam"]
flip = true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(TWO_RUNS)
    return path


def pipeline(*words: object) -> Result:
    return invoke(main, *words, prog_name="wsol-pipeline")


def test_the_commands_of_a_file_with_two_runs(file: Path, tmp_path: Path) -> None:
    lines = [step.line.replace(str(tmp_path), "HERE") for step in pipeline_steps(read_pipeline_file(file))]
    data = "--data HERE/data --layout clsloc"
    alone = "--task-index 0 --task-count 1 --preset b650"
    results = "HERE/results/evaluation"
    assert lines == [
        f"wsol-prep proposals {data} --split train --out HERE/results/maps {alone}",
        f"wsol-prep proposals {data} --split val --out HERE/results/maps {alone}",
        f"wsol-eval maps HERE/results/maps {data} --out {results}/maps --jobs -1 --protocol cam",
        f"wsol-train {data} --maps HERE/results/maps --out HERE/results/runs/gap --resume --epochs 2 --method gap",
        f"wsol-eval run HERE/results/runs/gap {data} --out {results}/gap --protocol cam --flip",
        f"wsol-train {data} --maps HERE/results/maps --out HERE/results/runs/ours --resume --epochs 2",
        f"wsol-eval run HERE/results/runs/ours {data} --out {results}/ours --protocol cam --flip",
        f"wsol-eval report {results}/gap {results}/ours {results}/maps --out HERE/results/report.html "
        "--training HERE/results/runs/gap --training HERE/results/runs/ours",
    ]


def test_the_commands_are_taken_by_the_programs(file: Path) -> None:
    for step in pipeline_steps(read_pipeline_file(file)):
        assert refusal(step.program, step.arguments) is None


@pytest.mark.parametrize(
    ("wanted", "stages"),
    [
        ({}, "p p e t e t e r"),
        ({"until": "proposals"}, "p p"),
        ({"until": "training"}, "p p t t"),
        ({"until": "evaluation"}, "p p e t e t e"),
        ({"until": "report"}, "p p e t e t e r"),
        ({"only": "proposals"}, "p p"),
        ({"only": "training"}, "t t"),
        ({"only": "evaluation"}, "e e e"),
        ({"only": "report"}, "r"),
    ],
)
def test_the_steps_that_are_wanted(file: Path, wanted: dict[str, str], stages: str) -> None:
    steps = wanted_steps(pipeline_steps(read_pipeline_file(file)), **wanted)
    assert " ".join(step.stage[0] for step in steps) == stages


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_clsloc_dataset(tmp_path / "data", classes=1, train_per_class=1, val_per_class=1, size_px=(64, 64))


def test_a_dry_run_prints_the_commands_and_makes_nothing(file: Path, data: Path, tmp_path: Path) -> None:
    result = pipeline("run", file, "--dry-run", "--only", "training")
    assert result.exit_code == 0 and not (tmp_path / "results").exists()
    assert [line.split()[0] for line in result.output.splitlines()] == ["wsol-train", "wsol-train"]


def test_a_mistake_in_the_file_is_one_line_and_exit_1(file: Path) -> None:
    file.write_text(TWO_RUNS.replace("epochs", "epoches"))
    result = pipeline("run", file)
    assert result.exit_code == 1
    assert result.output == (
        f"wsol-pipeline: error: {file}: [training] epoches: no option of wsol-train; did you mean epochs?\n"
    )


@pytest.mark.parametrize("words", [["--until", "report", "--only", "report"], ["--until", "prep"], ["--jobs", "2"]])
def test_bad_usage_is_exit_2(file: Path, words: list[str]) -> None:
    assert pipeline("run", file, *words).exit_code == 2
    assert pipeline("run", file.parent / "nothing.toml").exit_code == 2


def test_init_writes_a_file_that_run_takes_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    assert pipeline("init", path).exit_code == 0
    assert list(read_pipeline_file(path).runs) == ["gap", "ours"]
    path.write_text("mine")
    result = pipeline("init", path)
    assert result.exit_code == 1 and result.output.count("\n") == 1 and "left unchanged" in result.output
    assert path.read_text() == "mine"
