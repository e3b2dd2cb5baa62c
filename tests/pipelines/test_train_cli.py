"""The contract of ``wsol-train``: choices, defaults, what the options change, and what bad usage does."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from pipelines.train_cli import main
from tests.command_calls import invoke
from tests.integration.prep_command import subprocess_run
from tests.pipelines.test_prep_cli import plain
from tests.training.training_runs import make_colour_folders
from training.config import CropConfig, OptimiserConfig, ScheduleConfig, TrainConfig, TrainRunConfig, recipe
from training.loss_config import LossConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_colour_folders(tmp_path_factory.mktemp("colours"), train=2, val=1)


def train(*words: object) -> Result:
    return invoke(main, *words, prog_name="wsol-train")


# --- help


def test_help_does_not_import_torch() -> None:
    program = (
        "import sys, pipelines.train_cli as cli\n"
        "try:\n    cli.main(['-h'], prog_name='wsol-train')\n"
        "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    found = subprocess_run(program)
    assert (found.returncode, found.stderr) == (0, "False\n")
    assert found.stdout.startswith("Usage: wsol-train")


# --- what the options change


class Built(Exception):
    """Ends a command where it has put its configuration together."""


@pytest.fixture
def configured(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call with options; gives the arguments that ``build_trainer`` gets."""
    caught: dict[str, Any] = {}

    def catch(train_split: Any, val_split: Any, **arguments: Any) -> None:
        caught.update(arguments, train=train_split, val=val_split)
        raise Built

    monkeypatch.setattr("pipelines.jobs.training.build_trainer", catch)

    def call(*words: object) -> dict[str, Any]:
        with pytest.raises(Built):
            train("--data", data, "--out", tmp_path / "run", "--maps", tmp_path, "--device", "cpu", *words)
        return caught

    return call


def test_the_paper_s_recipe_for_the_classes_that_are_there(configured: Any) -> None:
    given = configured("--recipe", "paper")
    assert given["config"].as_json() == {**recipe("paper").as_json(), "classes": 3}
    assert (given["run"], given["limit"], given["on_missing"]) == (TrainRunConfig(), None, "refuse")
    assert given["perceptual_weights"] == "imagenet"
    assert (given["train"].split, given["val"].split) == ("train", "val")
    assert configured()["config"].as_json() == {**recipe("default").as_json(), "classes": 3}, "ours is the default"


THIRDS = (1 / 3, 2 / 3)
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("--arch googlenet-gap", {"arch": "googlenet-gap"}),
    ("--arch timm:x --output-stride 16", {"arch": "timm:x", "output_stride": 16}),
    ("--no-batch-norm", {"batch_norm": False}),
    ("--init imagenet", {"init": "imagenet"}),
    ("--method gap", {"method": "gap", "loss": LossConfig(use_map=False, use_triplet=False)}),
    ("--method has", {"method": "has", "loss": LossConfig(use_map=False, use_triplet=False)}),
    ("--no-map-loss", {"loss": LossConfig(use_map=False)}),
    ("--no-triplet-loss", {"loss": LossConfig(use_triplet=False)}),
    ("--no-map-loss --no-triplet-loss", {"loss": LossConfig(use_map=False, use_triplet=False)}),
    ("--cam-map-weight 2", {"loss": LossConfig(cam_map_weight=2.0)}),
    (
        "--no-map-loss --no-triplet-loss --cam-map-weight 2",
        {"loss": LossConfig(use_map=False, use_triplet=False, cam_map_weight=2.0)},
    ),
    ("--map-ignore 0.25 0.75", {"loss": LossConfig(map_ignore=(0.25, 0.75))}),
    ("--pooling saliency", {"pooling": "saliency"}),
    ("--map-loss bce --map-weight 2", {"loss": LossConfig(map_kind="bce", map_weight=2.0)}),
    (
        "--triplet-sign as-printed --triplet-weight 3 --triplet-margin 0.5 --area-weight 0.25",
        {"loss": LossConfig(triplet_sign="as-printed", triplet_weight=3.0, triplet_margin=0.5, area_weight=0.25)},
    ),
    (
        "--triplet-scale image --area-weight 1",
        {"loss": LossConfig(triplet_scale="image", area_weight=1.0)},
    ),
    ("--class-weighting balanced", {"loss": LossConfig(class_weighting="balanced")}),
    ("--input-size 112", {"crop": CropConfig(input_size=112, resize=128)}),
    ("--crop resized-crop --crop-scale 0.3", {"crop": CropConfig(kind="resized-crop", scale=(0.3, 1.0))}),
    ("--epochs 3 --batch-size 8 --accumulation 2", {"epochs": 3, "batch_size": 8, "accumulation": 2}),
    (
        "--optimiser sgd --lr 0.1 --weight-decay 0.001",
        {"optimiser": OptimiserConfig(name="sgd", lr=0.1, weight_decay=0.001)},
    ),
    (
        "--schedule step --warmup-epochs 1",
        {"schedule": ScheduleConfig(kind="step", warmup_epochs=1.0, milestones=THIRDS)},
    ),
    ("--schedule cosine", {"schedule": ScheduleConfig(kind="cosine")}),
    ("--clip-norm 5", {"clip_norm": 5.0}),
    ("--clip-norm 0", {"clip_norm": None}),
    ("--precision bf16", {"precision": "bf16"}),
    ("--seed 20261123", {"seed": 20261123}),
]


@pytest.mark.parametrize(("words", "changes"), CHANGES, ids=[words for words, _ in CHANGES])
def test_an_option_changes_its_values_and_no_others(configured: Any, words: str, changes: dict[str, Any]) -> None:
    expected = TrainConfig(**{"classes": 3, **changes})
    assert configured("--recipe", "paper", *words.split())["config"] == expected


def test_options_change_our_recipe_too(configured: Any) -> None:
    config = configured("--schedule", "step", "--warmup-epochs", 0, "--clip-norm", 0, "--lr", 0.5)["config"]
    assert config.schedule == ScheduleConfig(kind="step", milestones=THIRDS, final_fraction=0.01)
    assert config.clip_norm is None
    assert config.optimiser == OptimiserConfig(name="adamw", lr=0.5, weight_decay=0.05)


def test_without_map_losses_our_recipe_has_none_on_the_cam_unless_asked_for(configured: Any) -> None:
    assert configured()["config"].loss == LossConfig(cam_map_weight=4.0)
    assert configured("--no-triplet-loss")["config"].loss == LossConfig(use_triplet=False, cam_map_weight=4.0)
    assert configured("--no-map-loss")["config"].loss == LossConfig(use_map=False)
    config = configured("--no-map-loss", "--cam-map-weight", 3)["config"]
    assert config.loss == LossConfig(use_map=False, cam_map_weight=3.0)


def test_what_does_not_decide_the_result(configured: Any) -> None:
    words = "--workers 0 --checkpoint-minutes 0.5 --keep-last 7 --log-every 3 --compile --tensorboard --limit 2"
    given = configured(*words.split(), "--on-missing", "skip", "--perceptual-weights", "random", "--recipe", "paper")
    assert given["run"] == TrainRunConfig(
        workers=0, checkpoint_minutes=0.5, keep_last=7, log_every=3, compile="on", tensorboard=True
    )
    assert (given["limit"], given["on_missing"], given["perceptual_weights"]) == (2, "skip", "random")
    assert given["config"].as_json() == {**recipe("paper").as_json(), "classes": 3}


def test_maps_choose_the_images_of_every_method(configured: Any, tmp_path: Path) -> None:
    """Methods without the map loss leave out the same images."""
    for words in ((), ("--method", "gap"), ("--no-map-loss",)):
        assert configured(*words)["maps"] == tmp_path


# --- bad usage is exit 2, bad data exit 1, both in one line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--arch vgg", "--arch"),
        ("--method cam", "--method"),
        ("--recipe ours", "--recipe"),
        ("--epochs 0", "--epochs"),
        ("--batch-size none", "--batch-size"),
        ("--input-size 32", "--input-size"),
        ("--crop-scale 0", "--crop-scale"),
        ("--map-weight -1", "--map-weight"),
        ("--seed -1", "--seed"),
        ("--keep-last 0", "--keep-last"),
        ("--maps no/such/folder", "--maps"),
        ("--method gap --no-map-loss", "--method gap has no map loss and no triplet loss to switch off"),
        ("--method has --no-triplet-loss", "--method has has no map loss and no triplet loss to switch off"),
        ("--method saliency", "the map loss needs --maps FOLDER; make it with wsol-prep proposals"),
        ("--no-map-loss --no-triplet-loss --cam-map-weight 4", "the map loss needs --maps FOLDER"),
        ("--no-map-loss --no-triplet-loss --pooling pseudo-map", "--pooling pseudo-map needs --maps FOLDER"),
        ("--cam-map-weight -1", "--cam-map-weight"),
        ("--map-ignore 0.5 1.5", "--map-ignore"),
        ("--learning-rate 1", "--learning-rate"),
    ],
)
def test_bad_usage_names_the_option(data: Path, tmp_path: Path, words: str, named: str) -> None:
    found = train("--data", data, "--out", tmp_path / "run", "--device", "cpu", *words.split())
    assert found.exit_code == 2
    assert named in plain(found.output)
    assert "Traceback" not in found.output
    assert not (tmp_path / "run").exists()


def test_data_and_out_are_required(data: Path) -> None:
    assert "--out" in train("--data", data).output and train("--data", data).exit_code == 2
    assert "--data" in train().output


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--lr 0", "lr: expected a finite number above 0, found 0.0"),
        ("--lr nan", "lr: expected a finite number above 0, found nan"),
        ("--weight-decay -1", "weight_decay: expected a finite number of at least 0, found -1.0"),
        ("--warmup-epochs -1", "warmup_epochs: expected a finite number of at least 0, found -1.0"),
        ("--clip-norm -1", "clip_norm: expected above 0"),
        ("--triplet-margin -1", "triplet_margin: expected a finite number of at least 0, found -1.0"),
        ("--method gap --area-weight 1", "area_weight is 1.0"),
        (f"--seed {2**63}", "seed: expected 0 <= seed < 2**63"),
        ("--device cuda:77", "--device cuda:77"),
        ("--device abacus", "abacus"),
        ("--method gap --batch-size 32", "6 images"),
        ("--no-map-loss --perceptual-weights no/such.pth", "no/such.pth: no such file; expected --perceptual-weights"),
    ],
)
def test_values_that_cannot_work_are_one_line(
    data: Path, tmp_path: Path, words: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    out = tmp_path / "run"
    small = ("--input-size", 64, "--workers", 0)
    # The map loss is off where no maps are given.
    method = () if "--method" in words or "--no-map-loss" in words else ("--no-map-loss",)
    found = train("--data", data, "--out", out, *small, *method, *words.split())
    assert found.exit_code == 1
    *_, last = found.output.strip().splitlines()
    assert last.startswith("wsol-train: error: ") and named in last
    assert "Traceback" not in found.output
    assert not out.exists()


def test_weights_that_cannot_be_downloaded_say_which_file_to_put_where(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_arguments: object, **_others: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", no_network)
    found = train("--data", data, "--out", tmp_path / "run", "--device", "cpu", "--no-map-loss")
    assert found.exit_code == 1
    assert "no network" in found.output and "--perceptual-weights PATH" in found.output
    assert re.search(r"resnet50-[0-9a-f]+\.pth", found.output)
    assert str(tmp_path / "hub") in found.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["saliency", "gap"])
def test_a_folder_without_maps_names_it(data: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "maps").mkdir()
    words = ("--maps", tmp_path / "maps", "--perceptual-weights", "random", "--device", "cpu")
    found = train("--data", data, "--out", tmp_path / "run", "--method", method, *words)
    assert found.exit_code == 1
    assert str(tmp_path / "maps") in found.output
    assert "Traceback" not in found.output


def test_debug_shows_the_traceback(data: Path, tmp_path: Path) -> None:
    found = train("--data", data, "--out", tmp_path / "run", "--method", "gap", "--lr", "0", "--debug")
    assert found.exit_code == 1
    assert "Traceback" in found.output


def test_a_data_set_without_validation_images_is_refused(tmp_path: Path) -> None:
    root = make_colour_folders(tmp_path / "data", train=1, val=1)
    os.rename(root / "val", root / "test")
    found = train("--data", root, "--out", tmp_path / "run", "--method", "gap", "--device", "cpu")
    assert found.exit_code == 1
    assert "val" in found.output
