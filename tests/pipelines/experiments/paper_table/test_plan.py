"""What the runs of a plan are, which words they are made with, and when a folder may be gone on with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.experiments.paper_table.plan import TableRun
from pseudo_maps.shards.manifest import manifest_path
from tests.pipelines.table_runs import make_plan, runs_by_name, setting, write_finished

ROWS = ("gap", "has", "no-map", "no-triplet", "ours")


def words_after(run: TableRun, option: str) -> str | None:
    words = run.training_words
    return words[words.index(option) + 1] if option in words else None


def test_every_row_arch_and_seed_has_a_folder_seeds_outside(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, archs=("googlenet-gap", "alexnet-gap"), rows=ROWS, seeds=(3, 1))
    runs = list(runs_by_name(plan).values())
    assert [run.name for run in runs[:2]] == ["baseline", "pseudo-map"]
    assert [(run.seed, run.arch, run.row) for run in runs[2:]] == [
        (seed, arch, row) for seed in (3, 1) for arch in ("googlenet-gap", "alexnet-gap") for row in ROWS
    ]
    for run in runs[2:]:
        assert run.folder == tmp_path / "out" / run.arch / run.row / f"seed-{run.seed}"
        assert words_after(run, "--arch") == run.arch and words_after(run, "--seed") == str(run.seed)
        assert words_after(run, "--out") == str(run.folder) == run.evaluation_words[1]


def test_options_go_to_the_rows_that_have_what_they_are_for(tmp_path: Path) -> None:
    runs = runs_by_name(make_plan(tmp_path, rows=ROWS, seeds=(0,)))
    has = {
        option: [row for row in ROWS if option in runs[f"alexnet-gap {row} seed 0"].training_words]
        for option in ("--maps", "--map-weight", "--triplet-margin", "--area-weight", "--epochs", "--workers")
    }
    assert has == {
        "--maps": ["no-triplet", "ours"],
        "--map-weight": ["no-triplet", "ours"],
        "--triplet-margin": ["no-map", "ours"],
        "--area-weight": ["no-map", "no-triplet", "ours"],
        "--epochs": list(ROWS),
        "--workers": list(ROWS),
    }


def test_rows_without_the_map_loss_skip_the_images_that_the_others_skip(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, rows=ROWS, seeds=(0,))
    skipping = replace(plan, training={**plan.training, "on_missing": setting("--on-missing", "skip", "refuse")})
    for row in ROWS:
        run = runs_by_name(skipping)[f"alexnet-gap {row} seed 0"]
        assert words_after(run, "--maps") == str(plan.maps) and words_after(run, "--on-missing") == "skip"
        assert run.training["--on-missing"] == "skip" and "maps" in run.training
    refusing = runs_by_name(plan)["alexnet-gap gap seed 0"]
    assert "--on-missing" not in refusing.training and "maps" not in refusing.training


def test_each_run_is_scored_with_its_localizers_under_all_protocols(tmp_path: Path) -> None:
    runs = runs_by_name(make_plan(tmp_path, rows=ROWS, seeds=(0,)))
    for row, names in (("gap", ["cam"]), ("has", ["grad-cam", "cam"]), ("ours", ["cam", "saliency", "cam*saliency"])):
        words = runs[f"alexnet-gap {row} seed 0"].evaluation_words
        assert [words[place + 1] for place, word in enumerate(words) if word == "--localizer"] == names
    for run in runs.values():
        words = run.evaluation_words
        assert [words[place + 1] for place, word in enumerate(words) if word == "--protocol"] == ["cam", "wsoleval-v1"]
        assert words[words.index("--boxes") + 1] == "first"
        assert ("--workers" in words) == bool(run.row)
        steps = run.steps(device="cuda:1")
        assert [step.program for step in steps] == ["wsol-train", "wsol-eval"][not run.row :]
        assert all((step.words[-2:] == ("--device", "cuda:1")) == bool(run.row) for step in steps)


def test_a_folder_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    name = "alexnet-gap ours seed 1"
    run = runs_by_name(plan)[name]
    assert run.refusal() is None
    write_finished(run, correct=100)
    assert run.is_finished and run.steps(device="cpu") == [] and run.refusal() is None
    other = {**plan.training, "epochs": setting("--epochs", 8), "workers": setting("--workers", 9)}
    refused = runs_by_name(replace(plan, training=other))[name]
    assert refused.refusal() == (
        f"{run.folder} was made with other settings (--epochs: 7 stored, 8 now); use another --out"
    )
    gap = runs_by_name(replace(plan, training={**plan.training, "map_weight": setting("--map-weight", 3.0)}))
    assert gap["alexnet-gap gap seed 1"].refusal() is None
    assert "--map-weight: 2.0 stored, 3.0 now" in (gap[name].refusal() or "")


def test_another_evaluation_of_the_same_training_is_refused_until_the_old_one_is_gone(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    name = "alexnet-gap gap seed 0"
    run = runs_by_name(plan)[name]
    write_finished(run, correct=100)
    other = runs_by_name(replace(plan, protocols=("cam",)))[name]
    assert 'protocols: ["cam", "wsoleval-v1"] stored, ["cam"] now' in (other.refusal() or "")
    run.metrics_file.unlink()
    run.metrics_file.parent.rmdir()
    assert other.refusal() is None
    assert [step.program for step in other.steps(device="cpu")] == ["wsol-eval"]


def test_maps_weights_and_images_are_told_apart_by_content(tmp_path: Path) -> None:
    weights, maps = tmp_path / "f.pt", tmp_path / "maps"
    maps.mkdir()
    weights.write_bytes(b"one")
    manifest_path(maps, "train").write_text("one")
    plan = make_plan(tmp_path)
    plan = replace(
        plan, training={**plan.training, "perceptual_weights": setting("--perceptual-weights", str(weights))}
    )
    name = "alexnet-gap ours seed 0"
    write_finished(runs_by_name(plan)[name], correct=100)
    weights.write_bytes(b"two")
    assert "--perceptual-weights: " in (runs_by_name(replace(plan))[name].refusal() or "")
    weights.write_bytes(b"one")
    manifest_path(maps, "train").write_text("two")
    assert "(maps: " in (runs_by_name(replace(plan))[name].refusal() or "")
    manifest_path(maps, "train").write_text("one")
    assert runs_by_name(replace(plan))[name].refusal() is None
    fewer = replace(plan.train, records=plan.train.records[1:])
    assert 'train_images: "10 images' in (runs_by_name(replace(plan, train=fewer))[name].refusal() or "")


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    run = runs_by_name(make_plan(tmp_path))["alexnet-gap gap seed 0"]
    run.folder.mkdir(parents=True)
    (run.folder / "checkpoint-00000001.pt").touch()
    assert "was not made by wsol-pipeline table" in (run.refusal() or "")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_record_names_its_file(tmp_path: Path, content: str) -> None:
    run = runs_by_name(make_plan(tmp_path))["alexnet-gap gap seed 0"]
    write_finished(run, correct=100)
    (run.folder / "table-run.json").write_text(content)
    with pytest.raises(ValueError, match=r"table-run\.json: expected"):
        run.refusal()


def test_an_evaluation_with_a_journal_is_not_finished(tmp_path: Path) -> None:
    run = runs_by_name(make_plan(tmp_path))["alexnet-gap gap seed 0"]
    write_finished(run, correct=100)
    (run.metrics_file.parent / "journal").mkdir()
    assert not run.is_finished
    assert [step.program for step in run.steps(device="cpu")] == ["wsol-eval"]
    assert json.loads((run.folder / "table-run.json").read_text())["training"]["--epochs"] == 7
