"""Means of steps: they do not depend on when the sums are looked at, and nothing waits for the device between."""

import random

import pytest
import torch
from torch import Tensor

from tests.training.training_runs import ALONE
from training.health import HealthMonitor, TrainingDiverged, health_values
from training.processes import Processes
from training.step_statistics import StepStatistics, pop_means

WATCHED = health_values(torch.eye(2), torch.tensor([0, 1]), torch.ones(2, 1, 1, 1))


def statistics(processes: Processes = ALONE) -> StepStatistics:
    return StepStatistics(processes, HealthMonitor([0, 1]))


def values(step: int) -> dict[str, Tensor]:
    drawn = torch.rand(2, generator=torch.Generator().manual_seed(step))
    return {"total": drawn[0], "classification": drawn[1] * 1e6}


def test_means_do_not_depend_on_when_the_sums_are_looked_at() -> None:
    found = []
    for seed in range(5):
        looks, own = random.Random(seed), statistics()
        for step in range(173):
            own.add(step, values(step), watched=WATCHED)
            if seed and looks.random() < 0.3:
                own.collect()
                # A checkpoint stores the sums, and another process takes them over.
                stored, own = dict(own.of_epoch), statistics()
                own.of_epoch = stored
        own.collect()
        found.append(pop_means(own.of_epoch))
        assert own.of_epoch == {}
    assert found == [found[0]] * 5
    assert list(found[0]) == ["classification", "total"]
    exact = sum(float(values(step)["total"]) for step in range(173)) / 173
    assert found[0]["total"] == exact


def test_sums_since_the_last_line_start_anew() -> None:
    own = statistics()
    for step, value in enumerate((1.0, 3.0, 10.0)):
        own.add(step, {"total": torch.tensor(value)}, watched=WATCHED)
        own.collect()
        if step == 1:
            assert pop_means(own.since_log) == {"total": 2.0}
    assert pop_means(own.since_log) == {"total": 10.0}
    assert pop_means(own.of_epoch) == {"total": 14 / 3}


def test_nothing_is_copied_from_the_device_between(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: copies.append(tensor.shape) or [[0.0] * tensor.shape[1]])
    own = statistics()
    for step in range(10):
        own.add(step, values(step), watched=WATCHED)
    assert copies == []


def test_the_queue_is_bounded_and_the_monitor_sees_every_step() -> None:
    own = statistics()
    with pytest.raises(TrainingDiverged, match=r"step 3: .*total nan"):
        for step in range(100):
            total = torch.tensor(float("nan") if step == 3 else 1.0)
            own.add(step, {"total": total}, watched=WATCHED)
    assert step == 49


def test_every_process_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Processes(rank=0, world_size=2, device=torch.device("cpu"))
    monkeypatch.setattr(Processes, "gather", lambda self, rows: [rows, rows * 3])
    own = statistics(two)
    own.add(0, {"total": torch.tensor(1.0)}, watched=WATCHED)
    own.add(1, {"total": torch.tensor(2.0)}, watched=WATCHED)
    own.collect()
    assert pop_means(own.of_epoch) == {"total": (1 + 3 + 2 + 6) / 4}
