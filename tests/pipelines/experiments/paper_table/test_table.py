"""The contract of ``wsol-pipeline table``: options, defaults, what is passed on, and what bad usage does."""

import re
from pathlib import Path

import pytest
from click.testing import Result

from pipelines.datasets import open_dataset
from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.paper_table.options import EVALUATION_OPTIONS, TRAINING_OPTIONS
from pipelines.pipeline_cli import main
from tests.command_calls import invoke
from tests.pipelines.jobs.test_training import make_maps
from tests.pipelines.test_command_options import described


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("table") / "data"
    return make_clsloc_dataset(root, classes=1, train_per_class=3, val_per_class=2, size_px=(64, 64))


def table(*words: object) -> Result:
    return invoke(main, "table", *words, prog_name="wsol-pipeline")


def lines(data: Path, out: Path, *words: object) -> list[str]:
    result = table("--data", data, "--maps", data, "--out", out, "--device", "cpu", "--dry-run", *words)
    assert result.exit_code == 0, result.output
    assert not out.exists()
    return result.output.splitlines()


def test_what_is_passed_on_means_the_same_there() -> None:
    """An option that both programs have must have one default and take one kind of value."""
    both = EVALUATION_OPTIONS.keys() & TRAINING_OPTIONS.keys()
    assert both == {"limit", "precision", "workers"}
    for key in both:
        assert described(TRAINING_OPTIONS[key]) == described(EVALUATION_OPTIONS[key]), key
        assert TRAINING_OPTIONS[key].decides == EVALUATION_OPTIONS[key].decides, key


def test_a_dry_run_shows_every_line_and_makes_nothing(data: Path, tmp_path: Path) -> None:
    shown = lines(data, tmp_path / "out", "--seeds", "4")
    # The maps of val are not there, so the pseudo maps cannot be scored.
    assert len(shown) == 1 + 2 * 7 * 2
    out = tmp_path / "out" / "alexnet-gap" / "no-triplet" / "seed-4"
    assert (
        f"wsol-train --data {data} --out {out} --arch alexnet-gap --method saliency --no-triplet-loss "
        f"--cam-map-weight 0 --seed 4 --maps {data} --resume --device cpu"
    ) in shown
    assert (
        f"wsol-eval run {out} --data {data} --out {out}/evaluation --name 'alexnet-gap no-triplet seed 4' "
        "--protocol cam --protocol wsoleval-v1 --localizer cam --localizer saliency --localizer 'cam*saliency' "
        "--device cpu"
    ) in shown


def test_lists_are_joined_by_commas_or_given_one_by_one(data: Path, tmp_path: Path) -> None:
    words = (
        "--archs",
        "googlenet-gap",
        "--archs",
        "alexnet-gap,googlenet-gap",
        "--rows",
        "ours, gap",
        "--seeds",
        "2,0",
    )
    shown = [line for line in lines(data, tmp_path / "out", *words) if line.startswith("wsol-train")]
    folders = [re.search(r"--out \S*/out/(\S+)", line)[1] for line in shown]  # type: ignore[index]
    assert folders == [
        f"{arch}/{row}/seed-{seed}"
        for seed in (2, 0)
        for arch in ("googlenet-gap", "alexnet-gap")
        for row in ("gap", "ours")
    ]


def test_options_reach_the_programs_they_are_of(data: Path, tmp_path: Path) -> None:
    words = "--epochs 3 --no-batch-norm --compile --limit 2 --precision fp32 --workers 0 --boxes first --jobs 1"
    shown = lines(data, tmp_path / "out", "--archs", "alexnet-gap", "--rows", "gap", "--seeds", 0, *words.split())
    baseline, train, evaluation = shown
    for argument in (
        "--no-batch-norm",
        "--epochs 3",
        "--precision fp32",
        "--workers 0",
        "--compile on",
        "--limit 2",
        "--resume",
    ):
        assert f" {argument} " in train
    for argument in ("--boxes first", "--limit 2", "--jobs 1"):
        assert f" {argument}" in evaluation and f" {argument}" in baseline
    for argument in ("--precision fp32", "--workers 0"):
        assert f" {argument} " in evaluation and argument not in baseline


def test_array_tasks_share_the_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lines(data, tmp_path / "out", "--seeds", "0")
    parts = [lines(data, tmp_path / "out", "--seeds", 0, "--task-index", i, "--task-count", 3) for i in range(3)]
    assert sorted(line for part in parts for line in part) == sorted(whole)
    assert all(len(part) > 4 for part in parts)
    for name, value in (("ID", 1), ("MIN", 0), ("MAX", 2)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert lines(data, tmp_path / "out", "--seeds", "0") == parts[1]


def test_an_array_that_slurm_tells_wrong_is_no_bad_usage(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "one")
    result = table("--data", data, "--maps", data, "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 1 and "SLURM_ARRAY_TASK_" in result.output
    assert result.output.startswith("wsol-pipeline: error: ") and result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--archs vgg", "'vgg' is not one of"),
        ("--rows gap,theirs", "'theirs' is not one of"),
        ("--seeds 0,one", "'one' is not a valid integer"),
        ("--seeds -1", "-1 is not in the range"),
        ("--seeds ,", "expected at least one, found none"),
        ("--only-report --dry-run", "cannot be combined"),
        ("--task-index 3 --task-count 3", "expected 0 <= index"),
        ("--device gpu", "'gpu'"),
    ],
)
def test_bad_usage_exits_with_2(data: Path, tmp_path: Path, words: str, message: str) -> None:
    result = table("--data", data, "--maps", data, "--out", tmp_path / "out", *words.split())
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_the_report_alone_names_what_is_missing_and_runs_nothing(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = table("--data", data, "--maps", data, "--out", out, "--only-report", "--seeds", 7)
    assert (result.exit_code, result.output) == (0, f"{out}: table.md, table.csv, table.html\n")
    assert {path.name for path in out.iterdir()} == {"table.md", "table.csv", "table.html"}
    assert "- googlenet-gap has seed 7: missing" in (out / "table.md").read_text()


def test_images_without_a_map_end_the_table_before_the_first_training(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ids = [record.image_id for record in open_dataset(data, split="train").records]
    maps = make_maps(tmp_path / "maps", ids, failed=(ids[1],))
    words = ("--data", data, "--maps", maps, "--out", out, "--device", "cpu", "--seeds", 0)
    result = table(*words)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("wsol-pipeline: error: 1 of 3 images have no usable map: ")
    assert "--on-missing skip leaves these images out" in result.stderr
    assert not out.exists()
