"""A run that cannot recover is stopped, and one that can is not."""

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from training.health import (
    HealthLimits,
    HealthMonitor,
    SaturatedSaliencyWarning,
    TrainingDiverged,
    health_values,
)

LABELS_B = torch.tensor([0, 1, 2, 3])
CLASSES = 4
LIMITS = HealthLimits(dead_steps=10, constant_steps=20, saturated_steps=5)
FEATURES = torch.ones(4, 3, 2, 2)


def monitor(labels: Tensor = LABELS_B) -> HealthMonitor:
    return HealthMonitor(labels.tolist(), limits=LIMITS)


def good_scores(step: int = 0) -> Tensor:
    return torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(step))


def one_class_scores(step: int, *, spread: float = 0.01) -> Tensor:
    """Class 2 for every image, while the scores do depend on the image."""
    return good_scores(step) * spread + torch.tensor([0.0, 0.0, 0.2, 0.0])


def note(
    health: HealthMonitor,
    steps: range,
    *,
    scores_bk: Tensor | None = None,
    labels_b: Tensor = LABELS_B,
    features_bchw: Tensor = FEATURES,
    **losses: float,
) -> None:
    for step in steps:
        values = health_values(good_scores(step) if scores_bk is None else scores_bk, labels_b, features_bchw)
        health.note(step, {"total": 1.0, **losses, **{name: float(value) for name, value in values.items()}})


def test_a_healthy_run_continues() -> None:
    note(monitor(), range(100), mean_saliency=0.3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(bad: float) -> None:
    health = monitor()
    note(health, range(7))
    with pytest.raises(TrainingDiverged, match=rf"^step 7: .*not finite: total {bad}\..*--lr.*--recipe default"):
        note(health, range(7, 8), total=bad)


def test_all_broken_numbers_of_the_step_are_named() -> None:
    with pytest.raises(TrainingDiverged, match=r"^step 3: .*: map nan, triplet inf, mean_saliency nan\. "):
        note(monitor(), range(3, 4), map=math.nan, triplet=math.inf, mean_saliency=math.nan)


def test_scores_that_are_not_finite_stop() -> None:
    scores_bk = good_scores()
    scores_bk[1, 2] = math.nan
    with pytest.raises(TrainingDiverged, match=r"step 0: .*cross entropy nan"):
        note(monitor(), range(1), scores_bk=scores_bk)


def test_zero_features_stop_after_enough_steps() -> None:
    health = monitor()
    note(health, range(12))
    with pytest.raises(TrainingDiverged, match=r"step 21: .*all features are zero in each of 10 steps since step 12"):
        note(health, range(12, 40), features_bchw=torch.zeros(4, 3, 2, 2))


def test_equal_scores_stop_after_enough_steps() -> None:
    scores_bk = torch.tensor([[1.0, -300.0, 2.0, 0.0]]).repeat(4, 1)
    scores_bk[2, 1] += 1e-5  # rounding of another summation order
    with pytest.raises(TrainingDiverged, match="scores are the same for every image in each of 10 steps since step 0"):
        note(monitor(), range(40), scores_bk=scores_bk)


def test_scores_that_differ_little_are_not_dead() -> None:
    scores_bk = torch.tensor([[1.0, -3.0, 2.0, 0.0]]).repeat(4, 1)
    scores_bk[2, 1] += 1e-4
    scores_bk[1, 0] = 5.0
    note(monitor(), range(40), scores_bk=scores_bk)


def test_zero_features_that_do_not_last_are_no_reason_to_stop() -> None:
    health = monitor()
    for start in range(0, 100, 10):
        note(health, range(start, start + 9), features_bchw=torch.zeros(4, 3, 1, 1))
        note(health, range(start + 9, start + 10))


def test_a_batch_of_one_image_says_nothing_about_equal_scores() -> None:
    health = monitor()
    for step in range(40):
        scores_bk = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).roll(step, dims=1)
        note(health, range(step, step + 1), scores_bk=scores_bk, labels_b=torch.tensor([step % 4]))


def test_one_class_with_nothing_learnt_stops() -> None:
    health = monitor()
    with pytest.raises(
        TrainingDiverged,
        match=r"step 19: .*class 2 was predicted for every image of 20 steps since step 0, .*stayed at 1\.39\d\d "
        r"\(constant scores reach 1\.3863\)",
    ):
        for step in range(40):
            note(health, range(step, step + 1), scores_bk=one_class_scores(step))


@pytest.mark.parametrize("changing", [False, True])
def test_one_class_for_most_of_the_time_continues(changing: bool) -> None:
    health = monitor()
    for step in range(100):
        scores_bk = one_class_scores(step)
        if changing:
            scores_bk = scores_bk.roll(step // 10, dims=1)
        elif step % 15 == 0:
            scores_bk = good_scores(step)
        note(health, range(step, step + 1), scores_bk=scores_bk)


def test_one_class_is_right_when_all_labels_are_that_class() -> None:
    labels_b = torch.full((4,), 2)
    note(monitor(labels_b), range(60), scores_bk=one_class_scores(0), labels_b=labels_b)


def test_one_class_while_the_loss_says_that_something_is_learnt_continues() -> None:
    # Class 2 always wins narrowly, but the scores of the true class rise: cross entropy about ln 2.
    scores_bk = torch.eye(4) * 20
    scores_bk[:, 2] = 20.001
    health = monitor()
    note(health, range(200), scores_bk=scores_bk)
    # That it learnt once does not hide that it does no longer.
    with pytest.raises(TrainingDiverged, match="20 steps since step 200"):
        for step in range(200, 300):
            note(health, range(step, step + 1), scores_bk=one_class_scores(step))


def test_constant_scores_are_compared_with_the_labels() -> None:
    # Labels 3 : 1, so constant scores reach .5623 only, far below ln 4 = 1.3863.
    labels_b = torch.tensor([2, 2, 2, 0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    scores_bk = torch.full((4, CLASSES), -20.0)
    scores_bk[:, 2] = math.log(0.75)
    scores_bk[:, 0] = math.log(0.25)
    scores_bk += torch.linspace(0, 1e-3, 4)[:, None] * torch.tensor([0.0, 0.0, 1.0, 0.0])
    with pytest.raises(TrainingDiverged, match=f"constant scores reach {entropy:.4f}"):
        note(monitor(labels_b), range(60), scores_bk=scores_bk, labels_b=labels_b)


@pytest.mark.parametrize(("value", "side"), [(0.99, "foreground; --area-weight"), (0.01, "background; lower")])
def test_saturated_saliency_warns_once_until_it_recovers(value: float, side: str) -> None:
    health = monitor()
    with pytest.warns(SaturatedSaliencyWarning, match=f"step 4: the mean saliency is {value:.4f}.*{side}") as caught:
        note(health, range(20), mean_saliency=value)
    assert len(caught) == 1
    note(health, range(20, 25), mean_saliency=0.5)
    with pytest.warns(SaturatedSaliencyWarning, match="step 29") as caught:
        note(health, range(25, 35), mean_saliency=value)
    assert len(caught) == 1


def test_saliency_inside_the_limits_does_not_warn() -> None:
    health = monitor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note(health, range(10), mean_saliency=0.975)
        note(health, range(10, 20), mean_saliency=0.025)


def test_the_values_keep_no_graph() -> None:
    scores_bk: Any = good_scores().requires_grad_()
    assert not any(value.requires_grad for value in health_values(scores_bk, LABELS_B, FEATURES).values())
