"""The configuration of a run: the paper's recipe, ours, what is refused, and how two are compared."""

import ast
import inspect
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudo_maps.files import differences
from training.config import (
    METHODS,
    RECIPES,
    CropConfig,
    OptimiserConfig,
    Recipe,
    ScheduleConfig,
    TrainConfig,
    TrainRunConfig,
    changed,
    recipe,
    setting_differences,
)
from training.loss_config import LossConfig
from training.networks.registry import ARCHITECTURES

NO_SALIENCY = LossConfig(use_map=False, use_triplet=False)


def test_the_paper_s_recipe_is_section_2_5() -> None:
    config = recipe("paper")
    assert config.optimiser == OptimiserConfig(name="adam", lr=1e-2, weight_decay=0.0)
    assert config.schedule == ScheduleConfig(kind="constant", warmup_steps=0, warmup_epochs=0.0)
    assert (config.batch_size, config.accumulation, config.epochs) == (32, 1, 100)
    assert config.crop == CropConfig(kind="crop", input_size=224, resize=256, flip_probability=0.5)
    assert config.init == "random"
    assert config.clip_norm is None
    assert config.method == "saliency"
    assert (config.loss.use_map, config.loss.use_triplet) == (True, True)
    loss = config.loss
    assert (loss.classification_weight, loss.map_weight, loss.triplet_weight, loss.area_weight) == (1, 1, 1, 0)
    assert (loss.map_kind, loss.triplet_sign, loss.triplet_margin, loss.class_weighting) == ("l2", "text", None, "none")


def test_our_recipe_changes_the_optimisation_and_adds_the_map_loss_on_the_cam() -> None:
    paper, ours = recipe("paper"), recipe("default")
    assert ours.optimiser == OptimiserConfig(name="adamw", lr=1e-3, weight_decay=0.05)
    assert ours.schedule == ScheduleConfig(kind="cosine", warmup_epochs=2.0, final_fraction=0.01)
    assert ours.clip_norm == 1.0
    assert (paper.loss.cam_map_weight, ours.loss) == (0, replace(paper.loss, cam_map_weight=4.0))
    assert replace(ours, optimiser=paper.optimiser, schedule=paper.schedule, clip_norm=None, loss=paper.loss) == paper


def test_every_recipe_can_be_had_and_others_are_refused() -> None:
    assert tuple(RECIPES) == ("paper", "default")
    for name in RECIPES:
        assert isinstance(recipe(name), TrainConfig)
    with pytest.raises(ValueError, match=r"recipe: expected one of paper, default, found 'ours'"):
        recipe("ours")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arch": "vgg"}, "arch: expected one of alexnet-gap, .*found 'vgg'"),
        ({"method": "cam"}, "method: expected one of gap, has, saliency, found 'cam'"),
        ({"precision": "fp16"}, "precision: expected one of fp32, bf16, found 'fp16'"),
        ({"classes": 0}, "classes: expected at least 1, found 0"),
        ({"epochs": 0}, "epochs: expected at least 1, found 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, found 0"),
        ({"accumulation": -1}, "accumulation: expected at least 1, found -1"),
        ({"clip_norm": 0.0}, "clip_norm: expected above 0, found 0.0"),
        ({"clip_norm": math.nan}, "clip_norm: expected above 0, found nan"),
        ({"output_stride": 9}, "output_stride: expected 8, 16 or 32, found 9"),
        ({"seed": -1}, r"seed: expected 0 <= seed < 2\*\*63, found -1"),
        ({"seed": 2**63}, r"seed: expected 0 <= seed < 2\*\*63"),
        ({"method": "gap"}, "method gap: expected no map loss and no triplet loss"),
        ({"method": "has", "loss": LossConfig(use_map=False)}, "method has: expected no map loss"),
        ({"method": "gap", "loss": replace(NO_SALIENCY, cam_map_weight=1.0)}, "method gap: expected no map loss"),
        ({"pooling": "max"}, "pooling: expected one of gap, saliency, pseudo-map, found 'max'"),
        ({"method": "has", "loss": NO_SALIENCY, "pooling": "pseudo-map"}, "pooling pseudo-map: expected gap, because"),
        ({"loss": NO_SALIENCY, "pooling": "saliency"}, "pooling saliency: expected the map loss or the triplet loss"),
    ],
)
def test_values_without_a_meaning_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (LossConfig, {"map_weight": -1.0}, "map_weight: .*found -1.0"),
        (LossConfig, {"cam_map_weight": -1.0}, "cam_map_weight: .*found -1.0"),
        (LossConfig, {"triplet_weight": math.nan}, "triplet_weight: .*found nan"),
        (LossConfig, {"classification_weight": math.inf}, "classification_weight: .*found inf"),
        (LossConfig, {"triplet_margin": -0.5}, "triplet_margin: .*found -0.5"),
        (LossConfig, {"map_kind": "l1"}, "map_kind: expected one of l2, mse, bce, found 'l1'"),
        (LossConfig, {"triplet_sign": "minus"}, "triplet_sign: expected one of"),
        (LossConfig, {"map_ignore": (0.5, 0.5)}, "map_ignore: expected 0 <= LOW < HIGH <= 1, found 0.5 and 0.5"),
        (LossConfig, {"triplet_scale": "batch"}, "triplet_scale: expected one of none, image"),
        (LossConfig, {"class_weighting": "sqrt"}, "class_weighting: expected one of none, balanced"),
        (LossConfig, {"area_weight": 0.1, "use_map": False, "use_triplet": False}, "no saliency is predicted"),
        (CropConfig, {"kind": "zoom"}, "kind: expected one of crop, .*found 'zoom'"),
        (CropConfig, {"input_size": 300}, r"input_size: expected 1 to resize \(256\), found 300"),
        (CropConfig, {"input_size": 0}, "input_size: .*found 0"),
        (CropConfig, {"scale": (0.0, 1.0)}, "scale"),
        (CropConfig, {"scale": (0.5, 0.4)}, "scale"),
        (CropConfig, {"ratio": (2.0, 1.0)}, "ratio"),
        (CropConfig, {"flip_probability": 1.5}, "flip_probability: .*found 1.5"),
        (OptimiserConfig, {"name": "lion"}, "expected one of adam, adamw, sgd, found 'lion'"),
        (OptimiserConfig, {"lr": 0.0}, "lr: .*found 0.0"),
        (OptimiserConfig, {"lr": math.inf}, "lr: .*found inf"),
        (OptimiserConfig, {"weight_decay": -1.0}, "weight_decay: .*found -1.0"),
        (OptimiserConfig, {"momentum": 1.0}, "momentum: .*found 1.0"),
        (OptimiserConfig, {"betas": (0.9, 1.0)}, "betas: .*found 1.0"),
        (ScheduleConfig, {"kind": "linear"}, "expected one of constant, step, cosine, found 'linear'"),
        (ScheduleConfig, {"warmup_steps": -1}, "warmup_steps: .*found -1"),
        (ScheduleConfig, {"warmup_epochs": math.nan}, "warmup_epochs: .*found nan"),
        (ScheduleConfig, {"warmup_steps": 1, "warmup_epochs": 1.0}, "give only one"),
        (ScheduleConfig, {"kind": "step", "milestones": (0.8, 0.5)}, "rising"),
        (ScheduleConfig, {"kind": "step", "milestones": (0.5, 1.0)}, "between 0 and 1"),
        (ScheduleConfig, {"gamma": 0.0}, "gamma: .*found 0.0"),
        (ScheduleConfig, {"final_fraction": 1.5}, "final_fraction: .*found 1.5"),
    ],
)
def test_nested_values_without_a_meaning_are_refused(config: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**values)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("method", METHODS)
def test_every_architecture_goes_with_every_method(arch: str, method: str) -> None:
    loss = LossConfig() if method == "saliency" else NO_SALIENCY
    assert TrainConfig(arch=arch, method=method, loss=loss).arch == arch


def test_the_stored_configuration_is_plain_and_survives_a_checkpoint(tmp_path: Path) -> None:
    config = recipe("default")
    config = replace(
        config,
        schedule=ScheduleConfig(kind="step", milestones=(1 / 3, 2 / 3)),
        maps={"method": "geodesic", "proposals": {"seeds": (1, 2), "none": None}},
    )
    plain = config.as_json()
    assert plain["schedule"]["milestones"] == [1 / 3, 2 / 3]
    assert plain["maps"] == {"method": "geodesic", "proposals": {"seeds": [1, 2], "none": None}}
    assert plain["crop"]["scale"] == [0.08, 1.0]
    torch.save(plain, tmp_path / "plain.pt")
    back = torch.load(tmp_path / "plain.pt", weights_only=True)
    assert back == plain
    assert differences(back, config.as_json()) == []


def test_differences_name_the_innermost_values() -> None:
    stored = TrainConfig(maps={"method": "geodesic", "old": 1}).as_json()
    own = TrainConfig(
        seed=2, optimiser=OptimiserConfig(lr=0.5), maps={"method": "selective-search", "new": {"mode": "fast"}}
    ).as_json()
    assert differences(stored, own) == [
        "optimiser.lr: 0.01 stored, 0.5 now",
        "seed: 0 stored, 2 now",
        'maps.method: "geodesic" stored, "selective-search" now',
        'maps.new: nothing stored, {"mode": "fast"} now',
        "maps.old: 1 stored, nothing now",
    ]


def test_settings_stored_before_a_field_was_added_have_its_default() -> None:
    stored = TrainConfig().as_json()
    del stored["loss"]["cam_map_weight"], stored["loss"]["triplet_scale"], stored["pooling"]
    assert setting_differences(stored, TrainConfig()) == []
    asked = TrainConfig(loss=LossConfig(cam_map_weight=4.0))
    assert setting_differences(stored, asked) == ["loss.cam_map_weight: 0.0 stored, 4.0 now"]
    assert len(setting_differences({}, TrainConfig())) > 10


def test_no_maps_differ_from_some() -> None:
    without, some = TrainConfig().as_json(), TrainConfig(maps={"method": "geodesic"}).as_json()
    assert 'maps.method: nothing stored, "geodesic" now' in differences(without, some)
    assert 'maps.method: "geodesic" stored, nothing now' in differences(some, without)


def test_types_of_json_are_told_apart_where_they_matter() -> None:
    stored, own = TrainConfig().as_json(), TrainConfig(clip_norm=1.0).as_json()
    assert differences(stored, own) == ["clip_norm: nothing stored, 1.0 now"]


def test_the_configuration_imports_no_torch() -> None:
    code = "import sys, training.config, training.inference.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "config", [LossConfig, CropConfig, OptimiserConfig, ScheduleConfig, TrainConfig, TrainRunConfig]
)
def test_every_setting_is_described(config: type) -> None:
    """Options take their help texts from these docstrings."""
    (body,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(body, ast.ClassDef)
    for statement, following in pairwise(body.body):
        if isinstance(statement, ast.AnnAssign) and "Config" not in ast.unparse(statement.annotation):
            assert isinstance(following, ast.Expr), ast.unparse(statement)
            assert isinstance(following.value, ast.Constant), ast.unparse(statement)


def test_a_recipe_is_a_complete_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = TrainConfig(loss=LossConfig(map_kind="bce", area_weight=0.5, cam_map_weight=2.0, class_weighting="balanced"))
    monkeypatch.setitem(RECIPES, "mine", Recipe("bce", mine))
    assert recipe("mine") == recipe("mine", method="saliency") == mine
    baseline = recipe("mine", method="gap")
    assert baseline.loss == LossConfig(use_map=False, use_triplet=False, class_weighting="balanced")
    assert replace(baseline, method="saliency", loss=mine.loss) == mine


def test_changes_reach_nested_fields_and_leave_the_rest() -> None:
    config = recipe("default")
    found = changed(config, {"epochs": 3, "loss.map_weight": 4.0, "loss.map_kind": "mse", "schedule.kind": "step"})
    assert found.schedule == replace(config.schedule, kind="step", milestones=(1 / 3, 2 / 3))
    assert found == replace(
        config, epochs=3, loss=replace(config.loss, map_weight=4.0, map_kind="mse"), schedule=found.schedule
    )
    assert changed(found, {"schedule.kind": "cosine"}).schedule == config.schedule
    assert changed(config, {}) == config


@pytest.mark.parametrize(("side_px", "resize"), [(224, 256), (64, 73), (96, 110)])
def test_the_short_side_keeps_its_proportion(side_px: int, resize: int) -> None:
    assert CropConfig().at_input_size(side_px) == CropConfig(input_size=side_px, resize=resize)
