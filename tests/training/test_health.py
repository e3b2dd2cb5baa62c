import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from training.health import HealthConfig, HealthMonitor, SaturatedSaliencyWarning, TrainingDiverged

CLASSES = 4
LABELS_B = torch.tensor([0, 1, 2, 3])
CONFIG = HealthConfig(check_every_steps=5, dead_steps=10, constant_steps=20)


def monitor(**options: Any) -> HealthMonitor:
    return HealthMonitor(classes=CLASSES, config=HealthConfig(**{**vars(CONFIG), **options}))


def good_scores(step: int = 0) -> Tensor:
    return torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(step))


def observe(health: HealthMonitor, steps: range, **given: Any) -> None:
    for step in steps:
        values: dict[str, Any] = {
            "losses": {"total": torch.tensor(1.0)},
            "scores_bk": good_scores(step),
            "labels_b": LABELS_B,
        }
        health.observe(step, **{**values, **given})


def one_class_scores(step: int, *, spread: float = 0.01) -> Tensor:
    """Class 2 for every image, while the scores do depend on the image."""
    return good_scores(step) * spread + torch.tensor([0.0, 0.0, 0.2, 0.0])


def test_a_healthy_run_goes_on() -> None:
    health = monitor()
    observe(
        health, range(100), features_bc=torch.rand(4, 3), saliency_bhw=torch.full((4, 2, 2), 0.3, dtype=torch.bfloat16)
    )
    health.check()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(bad: float) -> None:
    health = monitor()
    observe(health, range(7))
    observe(health, range(7, 8), losses={"total": torch.tensor(bad)})
    with pytest.raises(TrainingDiverged, match=rf"^step 7: .*not finite: loss total {bad}\..*--lr.*--recipe default"):
        observe(health, range(8, 100))


def test_all_broken_numbers_of_the_first_bad_step_are_named() -> None:
    health = monitor()
    losses = {"map": torch.tensor(math.nan), "classification": torch.tensor(2.0), "triplet": torch.tensor(math.inf)}
    observe(health, range(3), losses=losses, saliency_bhw=torch.full((4, 2, 2), math.nan))
    with pytest.raises(TrainingDiverged, match=r"^step 0: .*: loss map nan, loss triplet inf, saliency nan\. "):
        health.check()


def test_scores_that_are_not_finite_stop() -> None:
    health = monitor()
    scores_bk = good_scores()
    scores_bk[1, 2] = math.nan
    observe(health, range(1), scores_bk=scores_bk)
    with pytest.raises(TrainingDiverged, match=r"step 0: .*scores nan"):
        health.check()


def test_nothing_is_looked_at_between_checks() -> None:
    health = monitor(check_every_steps=1000)
    observe(health, range(999), losses={"total": torch.tensor(math.nan)})
    with pytest.raises(TrainingDiverged, match="step 0"):
        observe(health, range(999, 1000))


def test_a_change_of_losses_is_checked_and_accepted() -> None:
    health = monitor(check_every_steps=1000)
    observe(health, range(3))
    observe(health, range(3, 6), losses={"map": torch.tensor(math.nan)})
    with pytest.raises(TrainingDiverged, match=r"step 3: .*loss map nan"):
        observe(health, range(6, 9))


def test_zero_features_stop_after_enough_steps() -> None:
    health = monitor()
    observe(health, range(12), features_bc=torch.rand(4, 3, 2, 2))
    with pytest.raises(TrainingDiverged, match=r"step 21: .*all features are zero in each of 10 steps since step 12"):
        observe(health, range(12, 40), features_bc=torch.zeros(4, 3, 2, 2))


def test_equal_scores_stop_after_enough_steps() -> None:
    scores_bk = torch.tensor([[1.0, -300.0, 2.0, 0.0]]).repeat(4, 1)
    scores_bk[2, 1] += 1e-5  # rounding of another summation order
    with pytest.raises(TrainingDiverged, match="scores are the same for every image in each of 10 steps since step 0"):
        observe(monitor(), range(40), scores_bk=scores_bk)


def test_scores_that_differ_little_are_not_dead() -> None:
    scores_bk = torch.tensor([[1.0, -3.0, 2.0, 0.0]]).repeat(4, 1)
    scores_bk[2, 1] += 1e-4
    scores_bk[1, 0] = 5.0
    observe(monitor(), range(40), scores_bk=scores_bk)


def test_death_that_does_not_last_goes_on() -> None:
    health = monitor()
    for start in range(0, 100, 10):
        observe(health, range(start, start + 9), features_bc=torch.zeros(4, 3))
        observe(health, range(start + 9, start + 10), features_bc=torch.ones(4, 3))
    health.check()


def test_a_batch_of_one_image_says_nothing_about_equal_scores() -> None:
    health = monitor()
    for step in range(40):
        scores_bk = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).roll(step, dims=1)
        observe(health, range(step, step + 1), scores_bk=scores_bk, labels_b=torch.tensor([step % 4]))


def test_one_class_with_nothing_learnt_stops() -> None:
    health = monitor()
    with pytest.raises(
        TrainingDiverged,
        match=r"step 19: .*class 2 was predicted for every image of 20 steps since step 0, .*stayed at 1\.39\d\d "
        r"\(constant scores reach 1\.3863\)",
    ):
        for step in range(40):
            observe(health, range(step, step + 1), scores_bk=one_class_scores(step))


def test_one_class_for_most_of_the_time_goes_on() -> None:
    health = monitor()
    for step in range(100):
        scores_bk = good_scores(step) if step % 15 == 0 else one_class_scores(step)
        observe(health, range(step, step + 1), scores_bk=scores_bk)


def test_one_class_that_changes_goes_on() -> None:
    health = monitor()
    for step in range(100):
        observe(health, range(step, step + 1), scores_bk=one_class_scores(step).roll(step // 10, dims=1))


def test_one_class_is_right_when_all_labels_are_that_class() -> None:
    observe(monitor(), range(60), scores_bk=one_class_scores(0), labels_b=torch.full((4,), 2))


def test_one_class_while_the_loss_says_that_something_is_learnt_goes_on() -> None:
    # Class 2 always wins narrowly, but the scores of the true class rise: cross entropy about ln 2.
    scores_bk = torch.eye(4) * 20
    scores_bk[:, 2] = 20.001
    observe(monitor(), range(60), scores_bk=scores_bk)


def test_constant_scores_are_compared_with_the_labels_that_were_seen() -> None:
    # Labels 3 : 1, so constant scores reach .5623 only, far below ln 4 = 1.3863.
    labels_b = torch.tensor([2, 2, 2, 0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    scores_bk = torch.full((4, CLASSES), -20.0)
    scores_bk[:, 2] = math.log(0.75)
    scores_bk[:, 0] = math.log(0.25)
    scores_bk += torch.linspace(0, 1e-3, 4)[:, None] * torch.tensor([0.0, 0.0, 1.0, 0.0])
    with pytest.raises(TrainingDiverged, match=f"constant scores reach {entropy:.4f}"):
        observe(monitor(), range(60), scores_bk=scores_bk, labels_b=labels_b)


def test_a_stretch_that_learns_does_not_hide_one_that_does_not() -> None:
    health = monitor()
    learning_bk = torch.eye(4) * 20
    learning_bk[:, 2] = 20.001
    observe(health, range(200), scores_bk=learning_bk)
    with pytest.raises(TrainingDiverged, match="20 steps since step 200"):
        for step in range(200, 300):
            observe(health, range(step, step + 1), scores_bk=one_class_scores(step))


@pytest.mark.parametrize(("value", "side"), [(0.99, "foreground; --area-weight"), (0.01, "background; lower")])
def test_saturated_saliency_warns_once_until_it_recovers(value: float, side: str) -> None:
    health = monitor()
    saturated, normal = torch.full((4, 2, 2), value), torch.full((4, 2, 2), 0.5)
    with pytest.warns(SaturatedSaliencyWarning, match=f"step 4: the mean saliency is {value:.4f}.*{side}") as caught:
        observe(health, range(20), saliency_bhw=saturated)
    assert len(caught) == 1 and caught[0].filename == __file__
    observe(health, range(20, 25), saliency_bhw=normal)
    with pytest.warns(SaturatedSaliencyWarning, match="step 29") as caught:
        observe(health, range(25, 35), saliency_bhw=saturated)
    assert len(caught) == 1


def test_saliency_inside_the_limits_does_not_warn() -> None:
    health = monitor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        observe(health, range(5), saliency_bhw=torch.full((4, 2, 2), 0.975))
        observe(health, range(5, 10), saliency_bhw=torch.full((4, 2, 2), 0.025))


def test_checks_keep_no_graph_and_move_nothing_between(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(CLASSES, requires_grad=True)
    scores_bk = good_scores() * weight
    copies = []
    plain_cpu = Tensor.cpu

    def counted_cpu(tensor: Tensor) -> Tensor:
        copies.append(tensor)
        return plain_cpu(tensor)

    monkeypatch.setattr(Tensor, "cpu", counted_cpu)
    health = monitor()
    observe(health, range(4), losses={"total": scores_bk.sum()}, scores_bk=scores_bk)
    assert copies == []
    observe(health, range(4, 5), losses={"total": scores_bk.sum()}, scores_bk=scores_bk)
    assert len(copies) == 2
    assert not any(tensor.requires_grad for tensor in copies)


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores have shape \(4, 3\), expected \(B, 4\)"):
        observe(monitor(), range(1), scores_bk=torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check_every_steps": 0}, "check_every_steps is 0"),
        ({"dead_steps": 0}, "dead_steps is 0"),
        ({"constant_steps": -1}, "constant_steps is -1"),
        ({"saliency_low": 0.9, "saliency_high": 0.1}, "saliency limits 0.9 and 0.1"),
    ],
)
def test_limits_without_a_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HealthConfig(**options)


def test_no_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 classes"):
        HealthMonitor(classes=0)
