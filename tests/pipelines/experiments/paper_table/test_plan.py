"""The runs of a plan, the arguments of their commands, and when a folder may be resumed."""

from pathlib import Path

import pytest

from pipelines.experiments.paper_table.plan import TableRun
from pseudo_maps.shards.manifest import manifest_path
from tests.pipelines.table_runs import make_plan, runs_by_name, write_finished

ROWS = ("gap", "has", "no-map", "no-triplet", "ours", "ours-cam", "cam-map")


def value_of(arguments: tuple[str, ...], option: str) -> str | None:
    return arguments[arguments.index(option) + 1] if option in arguments else None


def values_of(arguments: tuple[str, ...], option: str) -> list[str]:
    return [arguments[place + 1] for place, one in enumerate(arguments) if one == option]


def typed(run: TableRun) -> tuple[str, ...]:
    """All arguments of the training."""
    return (*run.steps[0].arguments, *run.steps[0].free)


def test_every_row_arch_and_seed_has_a_folder_seeds_outside(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, archs=("googlenet-gap", "timm:x"), rows=ROWS, seeds=(3, 1))
    runs = list(runs_by_name(plan).values())
    assert [run.name for run in runs[:2]] == ["baseline", "pseudo-map"]
    assert [(run.seed, run.arch, run.row) for run in runs[2:]] == [
        (seed, arch, row) for seed in (3, 1) for arch in ("googlenet-gap", "timm:x") for row in ROWS
    ]
    for run in runs[2:]:
        assert run.folder == tmp_path / "out" / run.arch.replace(":", "-") / run.row / f"seed-{run.seed}"
        assert value_of(typed(run), "--arch") == run.arch and value_of(typed(run), "--seed") == str(run.seed)
        assert value_of(typed(run), "--out") == str(run.folder) == run.steps[1].arguments[1]


def test_options_go_to_the_rows_that_have_what_they_are_for(tmp_path: Path) -> None:
    given = {"perceptual-weights": "random", "map-loss": "mse", "cam-map-weight": 2.0, "map-ignore": (0.25, 0.75)}
    runs = runs_by_name(make_plan(tmp_path, rows=ROWS, seeds=(0,), **given))
    options = (
        "--maps",
        "--map-loss",
        "--map-ignore",
        "--map-weight",
        "--triplet-margin",
        "--perceptual-weights",
        "--area-weight",
    )
    has = {
        option: [row for row in ROWS if option in typed(runs[f"alexnet-gap {row} seed 0"])]
        for option in (*options, "--epochs", "--workers")
    }
    assert has == {
        "--maps": ["no-triplet", "ours", "ours-cam", "cam-map"],
        "--map-loss": ["no-triplet", "ours", "ours-cam", "cam-map"],
        "--map-ignore": ["no-triplet", "ours", "ours-cam", "cam-map"],
        "--map-weight": ["no-triplet", "ours", "ours-cam"],
        "--triplet-margin": ["no-map", "ours", "ours-cam"],
        "--perceptual-weights": ["no-map", "ours", "ours-cam"],
        "--area-weight": ["no-map", "no-triplet", "ours", "ours-cam"],
        "--epochs": list(ROWS),
        "--workers": list(ROWS),
    }
    # The last one counts: that of the command line in the rows that are not in the paper.
    weights = [values_of(typed(runs[f"alexnet-gap {row} seed 0"]), "--cam-map-weight") for row in ROWS]
    assert weights == [[], [], [], ["0"], ["0"], ["4.0", "2.0"], ["4.0", "2.0"]]


def test_rows_without_the_map_loss_skip_the_images_that_the_others_skip(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, rows=ROWS, seeds=(0,), **{"on-missing": "skip"})
    for row in ROWS:
        run = runs_by_name(plan)[f"alexnet-gap {row} seed 0"]
        assert value_of(typed(run), "--maps") == str(plan.maps) and value_of(typed(run), "--on-missing") == "skip"
        assert run.steps[0].settings["--on-missing"] == "skip" and "maps" in run.steps[0].settings
    refusing = runs_by_name(make_plan(tmp_path, rows=ROWS, seeds=(0,)))["alexnet-gap gap seed 0"].steps[0]
    assert "--on-missing" not in refusing.settings and "maps" not in refusing.settings


def test_each_run_is_scored_with_its_localizers_under_all_protocols(tmp_path: Path) -> None:
    runs = runs_by_name(make_plan(tmp_path, rows=ROWS, seeds=(0,)))
    for row, names in (("gap", ["cam"]), ("has", ["grad-cam", "cam"]), ("ours", ["cam", "saliency", "cam*saliency"])):
        assert values_of(runs[f"alexnet-gap {row} seed 0"].steps[1].arguments, "--localizer") == names
    for run in runs.values():
        *_, evaluation = run.steps
        assert values_of(evaluation.arguments, "--protocol") == ["cam", "wsoleval-v1"]
        assert value_of(evaluation.arguments, "--boxes") == "first"
        assert ("--workers" in evaluation.free) == bool(run.row)
        assert [step.program for step in run.steps] == ["wsol-train", "wsol-eval"][not run.row :]
        assert all(
            step.line.endswith(" --device cuda:1") == bool(run.row) for step in (s.on("cuda:1") for s in run.steps)
        )


def test_a_folder_is_resumed_with_its_own_settings_alone(tmp_path: Path) -> None:
    name = "alexnet-gap ours seed 1"
    run = runs_by_name(make_plan(tmp_path))[name]
    assert run.refusal() is None
    write_finished(run, correct=100)
    assert run.has_results and run.refusal() is None
    assert "workers" not in "".join(run.recorded("training"))
    refused = runs_by_name(make_plan(tmp_path, epochs=8, workers=9))[name].refusal()
    assert refused and "made with other settings (--epochs: 7 " in refused and "--workers" not in refused
    write_finished(runs_by_name(make_plan(tmp_path))["alexnet-gap gap seed 1"], correct=100)
    others = runs_by_name(make_plan(tmp_path, **{"map-weight": 3.0}))
    assert others["alexnet-gap gap seed 1"].refusal() is None
    assert "--map-weight: 2.0" in (others[name].refusal() or "")


def test_another_evaluation_of_the_same_training_is_refused_until_the_old_one_is_gone(tmp_path: Path) -> None:
    name = "alexnet-gap gap seed 0"
    run = runs_by_name(make_plan(tmp_path))[name]
    write_finished(run, correct=100)
    reordered = runs_by_name(make_plan(tmp_path, protocols=("wsoleval-v1", "cam")))[name]
    assert reordered.refusal() is None
    other = runs_by_name(make_plan(tmp_path, protocols=("cam",)))[name]
    assert "protocol.wsoleval-v1" in (other.refusal() or "")
    run.metrics_file.unlink()
    assert other.refusal() is None and other.is_trained and not other.has_results


def test_maps_weights_and_images_are_told_apart_by_content(tmp_path: Path) -> None:
    weights, maps = tmp_path / "f.pt", tmp_path / "maps"
    maps.mkdir()
    weights.write_bytes(b"one")
    manifest_path(maps, "train").write_text("one")

    def refusal() -> str:
        plan = make_plan(tmp_path, **{"perceptual-weights": str(weights)})
        return runs_by_name(plan)["alexnet-gap ours seed 0"].refusal() or ""

    plan = make_plan(tmp_path, **{"perceptual-weights": str(weights)})
    write_finished(runs_by_name(plan)["alexnet-gap ours seed 0"], correct=100)
    assert refusal() == ""
    weights.write_bytes(b"two")
    assert "--perceptual-weights: " in refusal()
    weights.write_bytes(b"one")
    manifest_path(maps, "train").write_text("two")
    assert "(maps: " in refusal()
    manifest_path(maps, "train").write_text("one")
    assert refusal() == ""
    other = make_plan(tmp_path, **{"perceptual-weights": str(weights), "limit": 9})
    assert "train_images: " in (runs_by_name(other)["alexnet-gap ours seed 0"].refusal() or "")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_results_without_a_record_of_their_settings_are_refused(tmp_path: Path, content: str | None) -> None:
    name = "alexnet-gap gap seed 0"
    run = runs_by_name(make_plan(tmp_path))[name]
    write_finished(run, correct=100)
    run.record.path.unlink()
    if content is not None:
        run.record.path.write_text(content)
    refusal = runs_by_name(make_plan(tmp_path))[name].refusal() or ""
    assert str(run.folder) in refusal and "was not made by wsol-pipeline table" in refusal
