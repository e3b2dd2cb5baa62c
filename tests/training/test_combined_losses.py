"""The whole objective of a batch: which terms are in it, with which factors, and what each needs."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_losses import (
    CAM_BHW,
    CAM_TARGET_BHW,
    FEATURES,
    LABELS_B,
    SALIENCY_BHW,
    SCORES_BK,
    TARGET_BHW,
    random,
)
from training import losses
from training.loss_config import LossConfig
from training.losses import LossInputs, TripletFeatures, combine_losses


def test_full_objective_by_hand() -> None:
    config = LossConfig(classification_weight=2.0, map_weight=3.0, triplet_weight=0.5, area_weight=4.0)
    found = combine_losses(
        LossInputs(
            SCORES_BK,
            LABELS_B,
            saliency_bhw=SALIENCY_BHW,
            target_bhw=TARGET_BHW,
            triplet_features=FEATURES,
        ),
        config=config,
    )
    classification = (math.log(2) + math.log(4)) / 2
    expected = {
        "classification": classification,
        "map": 0.375,
        "triplet": -5.0,
        "d_pos": 1.5,
        "d_neg": 6.5,
        "mean_saliency": 0.375,
        "total": 2 * classification + 3 * 0.375 - 0.5 * 5.0 + 4 * 0.375,
    }
    assert {name: value.item() for name, value in found.named.items()} == pytest.approx(expected)
    assert found.total.item() == pytest.approx(expected["total"])


def test_default_is_the_plain_sum_and_only_the_total_has_a_gradient() -> None:
    saliency_bhw = SALIENCY_BHW.clone().requires_grad_()
    found = combine_losses(
        LossInputs(
            SCORES_BK,
            LABELS_B,
            saliency_bhw=saliency_bhw,
            target_bhw=TARGET_BHW,
            triplet_features=FEATURES,
        ),
        config=LossConfig(),
    )
    parts = [found.named[name] for name in ("classification", "map", "triplet")]
    assert found.total.item() == pytest.approx(sum(part.item() for part in parts))
    assert found.total.requires_grad
    assert not any(value.requires_grad for value in found.named.values())


@pytest.mark.parametrize(
    ("switches", "names"),
    [
        ({"use_map": False}, {"classification", "triplet", "d_pos", "d_neg", "mean_saliency", "total"}),
        ({"use_triplet": False}, {"classification", "map", "mean_saliency", "total"}),
    ],
)
def test_a_term_that_is_off_needs_nothing_and_is_not_named(switches: dict[str, bool], names: set[str]) -> None:
    config = LossConfig(**switches)  # type: ignore[arg-type]
    given: dict[str, Any] = {"target_bhw": TARGET_BHW} if config.use_map else {"triplet_features": FEATURES}
    found = combine_losses(LossInputs(SCORES_BK, LABELS_B, saliency_bhw=SALIENCY_BHW, **given), config=config)
    assert set(found.named) == names


def test_the_map_loss_of_the_cam_needs_no_saliency() -> None:
    config = LossConfig(use_map=False, use_triplet=False, cam_map_weight=4.0, map_kind="mse")
    assert config.needs_maps and not config.needs_saliency
    inputs = LossInputs(SCORES_BK, LABELS_B, target_bhw=CAM_TARGET_BHW, cam_bhw=CAM_BHW)
    found = combine_losses(inputs, config=config)
    assert set(found.named) == {"classification", "cam_map", "total"}
    assert found.named["cam_map"].item() == pytest.approx(2.5625 / 8)
    assert found.total.item() == pytest.approx(found.named["classification"].item() + 4 * 2.5625 / 8)


def test_both_off_is_the_classification_loss_to_the_bit() -> None:
    scores_bk = random(7, 5).float().requires_grad_()
    labels_b = torch.arange(7) % 5
    broken_bhw = torch.full((7, 2, 2), math.nan)
    found = combine_losses(
        LossInputs(
            scores_bk,
            labels_b,
            saliency_bhw=broken_bhw,
            target_bhw=broken_bhw,
            triplet_features=TripletFeatures(broken_bhw[:, 0], broken_bhw[:, 0], broken_bhw[:, 0]),
        ),
        config=LossConfig(use_map=False, use_triplet=False),
    )
    plain = torch.nn.functional.cross_entropy(scores_bk, labels_b)
    assert torch.equal(found.total, plain)
    assert set(found.named) == {"classification", "total"}
    (gradient,) = torch.autograd.grad(found.total, scores_bk)
    assert torch.equal(gradient, torch.autograd.grad(plain, scores_bk)[0])


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (LossConfig(), {}, "saliency_bhw is None"),
        (LossConfig(), {"saliency_bhw": SALIENCY_BHW}, "target_bhw is None"),
        (LossConfig(use_map=False), {"saliency_bhw": SALIENCY_BHW}, "triplet_features is None"),
        (LossConfig(use_map=False, use_triplet=False, cam_map_weight=1.0), {}, "cam_bhw is None"),
        (LossConfig(class_weighting="balanced"), {}, "found none with class_weighting balanced"),
        (LossConfig(), {"class_weights_k": torch.ones(2)}, r"found \(2,\) with class_weighting none"),
    ],
)
def test_missing_inputs_are_named(config: LossConfig, given: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine_losses(LossInputs(SCORES_BK, LABELS_B, **given), config=config)  # type: ignore[arg-type]


def test_balanced_weights_reach_the_loss() -> None:
    config = LossConfig(use_map=False, use_triplet=False, class_weighting="balanced")
    found = combine_losses(LossInputs(SCORES_BK, LABELS_B, class_weights_k=torch.tensor([0.0, 2.0])), config=config)
    assert found.total.item() == pytest.approx(math.log(4))


def test_a_term_is_one_function_and_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Extended(LossConfig):
        contrast_weight: float = 0.0

    def _contrast(inputs: LossInputs, _config: LossConfig) -> dict[str, Tensor]:
        assert inputs.saliency_bhw is not None
        return {"contrast": inputs.saliency_bhw.amax(dim=(1, 2)).mean(), "lowest": inputs.saliency_bhw.amin()}

    monkeypatch.setattr(losses, "_TERMS", dict(losses._TERMS))
    losses._loss_term(_contrast)
    inputs = LossInputs(SCORES_BK, LABELS_B, saliency_bhw=SALIENCY_BHW, target_bhw=TARGET_BHW)
    without, added = (
        combine_losses(inputs, config=Extended(use_triplet=False, contrast_weight=weight)) for weight in (0.0, 2.0)
    )
    assert set(added.named) - set(without.named) == {"contrast", "lowest"}
    assert added.total.item() == pytest.approx(without.total.item() + 2 * (0.9 + 1.0) / 2)
