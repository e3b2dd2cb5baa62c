import math
from typing import Any

import pytest
import torch
from torch import nn

from training.config import OptimiserConfig, ScheduleConfig
from training.schedules import build_optimiser, learning_rate, set_learning_rate


def rates(config: ScheduleConfig, *, total_steps: int, base_lr: float = 1.0, **given: int) -> list[float]:
    return [
        learning_rate(step, config=config, total_steps=total_steps, base_lr=base_lr, **given)
        for step in range(total_steps + 1)
    ]


def test_default_is_the_papers_constant_rate() -> None:
    assert rates(ScheduleConfig(), total_steps=3, base_lr=OptimiserConfig().lr) == [1e-2] * 4


def test_warmup_rises_to_the_full_rate() -> None:
    assert rates(ScheduleConfig(warmup_steps=4), total_steps=6, base_lr=2.0) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]


def test_warmup_in_epochs_is_the_same_in_steps() -> None:
    by_epochs = rates(ScheduleConfig(warmup_epochs=1.5), total_steps=9, steps_per_epoch=4)
    assert by_epochs == rates(ScheduleConfig(warmup_steps=6), total_steps=9)
    with pytest.raises(ValueError, match=r"1\.5 epochs needs steps_per_epoch of at least 1, found None"):
        rates(ScheduleConfig(warmup_epochs=1.5), total_steps=9)


def test_steps_drop_at_parts_of_the_run() -> None:
    config = ScheduleConfig(kind="step", milestones=(0.5, 0.8), gamma=0.5, warmup_steps=2)
    assert rates(config, total_steps=10) == [0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_cosine_by_hand() -> None:
    half = math.sqrt(0.5)
    expected = [0.5, 1.0, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2, 0.0]
    assert rates(ScheduleConfig(kind="cosine", warmup_steps=2), total_steps=6) == pytest.approx(expected)
    config = ScheduleConfig(kind="cosine", final_fraction=0.2)
    assert rates(config, total_steps=2, base_lr=10.0) == pytest.approx([10.0, 6.0, 2.0])


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_a_run_shorter_than_its_warmup_only_warms_up(kind: Any) -> None:
    assert rates(ScheduleConfig(kind=kind, warmup_steps=8), total_steps=2) == [0.125, 0.25, 0.375]
    assert rates(ScheduleConfig(kind=kind, warmup_steps=2), total_steps=2) == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(("step", "total_steps"), [(-1, 5), (6, 5), (0, 0)])
def test_steps_outside_the_run_are_refused(step: int, total_steps: int) -> None:
    with pytest.raises(ValueError, match=f"step {step} of {total_steps}"):
        learning_rate(step, config=ScheduleConfig(), total_steps=total_steps, base_lr=1.0)


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.LayerNorm([4, 2, 2]), nn.Linear(2, 5))


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_only_weights_decay(name: Any, kind: type) -> None:
    model = small_model()
    optimiser = build_optimiser(model, config=OptimiserConfig(name=name, lr=0.1, weight_decay=0.01))
    assert type(optimiser) is kind
    decayed, kept = optimiser.param_groups
    assert [group["weight_decay"] for group in (decayed, kept)] == [0.01, 0.0]
    assert [group["lr"] for group in (decayed, kept)] == [0.1, 0.1]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(parameter)] for parameter in decayed["params"]] == ["0.weight", "4.weight"]
    assert [names[id(parameter)] for parameter in kept["params"]] == [
        "0.bias",
        "1.weight",
        "1.bias",
        "3.weight",
        "3.bias",
        "4.bias",
    ]


def test_constants_reach_the_optimiser() -> None:
    adam = build_optimiser(small_model(), config=OptimiserConfig(betas=(0.8, 0.95)))
    assert adam.param_groups[0]["betas"] == (0.8, 0.95) and adam.param_groups[0]["lr"] == 1e-2
    sgd = build_optimiser(small_model(), config=OptimiserConfig(name="sgd", momentum=0.5))
    assert sgd.param_groups[1]["momentum"] == 0.5


def test_frozen_and_shared_parameters() -> None:
    model = small_model()
    model[0].weight.requires_grad_(False)
    model.append(model[4])
    optimiser = build_optimiser(model, config=OptimiserConfig())
    found = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    assert len(found) == len({id(parameter) for parameter in found}) == 7
    assert not any(parameter is model[0].weight for parameter in found)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter"):
        build_optimiser(model, config=OptimiserConfig())


def test_a_model_of_normalisations_only_has_one_group() -> None:
    optimiser = build_optimiser(nn.BatchNorm1d(3), config=OptimiserConfig(weight_decay=0.1))
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.0]


def test_a_new_rate_changes_the_next_step() -> None:
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    optimiser = build_optimiser(model, config=OptimiserConfig(name="sgd", lr=1.0, momentum=0.0))
    set_learning_rate(optimiser, 0.25)
    model(torch.tensor([[2.0]])).sum().backward()
    optimiser.step()
    assert (model.weight.item(), model.bias.item()) == (0.5, -0.25)
