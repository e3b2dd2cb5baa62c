"""The configuration of a run: the paper's recipe, ours, what is refused, and how two are compared."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config import METHODS, RECIPES, TrainConfig, configuration_differences, recipe
from training.data.augmentation import CropConfig
from training.losses import LossConfig
from training.networks.registry import ARCHITECTURES
from training.schedules import OptimiserConfig, ScheduleConfig

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


def test_our_recipe_changes_the_optimisation_only() -> None:
    paper, ours = recipe("paper"), recipe("default")
    assert ours.optimiser == OptimiserConfig(name="adamw", lr=1e-3, weight_decay=0.05)
    assert ours.schedule == ScheduleConfig(kind="cosine", warmup_epochs=2.0, final_fraction=0.01)
    assert ours.clip_norm == 1.0
    assert replace(ours, optimiser=paper.optimiser, schedule=paper.schedule, clip_norm=None) == paper


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
        ({"init": "places"}, "init: expected one of random, imagenet, found 'places'"),
        ({"classes": 0}, "classes: expected at least 1, found 0"),
        ({"epochs": 0}, "epochs: expected at least 1, found 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, found 0"),
        ({"accumulation": -1}, "accumulation: expected at least 1, found -1"),
        ({"clip_norm": 0.0}, "clip_norm: expected above 0, found 0.0"),
        ({"clip_norm": math.nan}, "clip_norm: expected above 0, found nan"),
        ({"seed": -1}, r"seed: expected 0 <= seed < 2\*\*63, found -1"),
        ({"seed": 2**63}, r"seed: expected 0 <= seed < 2\*\*63"),
        ({"method": "gap"}, "method gap has neither map loss nor triplet loss"),
        ({"method": "has", "loss": LossConfig(use_map=False)}, "method has has neither"),
    ],
)
def test_values_without_a_meaning_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


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
    assert configuration_differences(back, config.as_json()) == []


def test_differences_name_the_innermost_values() -> None:
    stored = TrainConfig(maps={"method": "geodesic", "old": 1}).as_json()
    own = TrainConfig(
        seed=2, optimiser=OptimiserConfig(lr=0.5), maps={"method": "selective-search", "new": {"mode": "fast"}}
    ).as_json()
    assert configuration_differences(stored, own) == [
        "optimiser.lr: 0.01 there, 0.5 now",
        "seed: 0 there, 2 now",
        "maps.method: 'geodesic' there, 'selective-search' now",
        "maps.new.mode: 'nothing' there, 'fast' now",
        "maps.old: 1 there, 'nothing' now",
    ]


def test_no_maps_differ_from_some() -> None:
    without, some = TrainConfig().as_json(), TrainConfig(maps={"method": "geodesic"}).as_json()
    assert "maps.method: 'nothing' there, 'geodesic' now" in configuration_differences(without, some)
    assert "maps.method: 'geodesic' there, 'nothing' now" in configuration_differences(some, without)


def test_types_of_json_are_told_apart_where_they_matter() -> None:
    stored, own = TrainConfig().as_json(), TrainConfig(clip_norm=1.0).as_json()
    assert configuration_differences(stored, own) == ["clip_norm: None there, 1.0 now"]
