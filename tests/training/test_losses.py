import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from training.losses import (
    TripletFeatures,
    area_penalty,
    balanced_class_weights,
    cam_map_loss,
    classification_loss,
    foreground_background,
    map_loss,
    triplet_loss,
)

SCORES_BK = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]], dtype=torch.float64)
LABELS_B = torch.tensor([0, 1])
"""Probabilities of the labels: 1/2 and 1/4."""
SALIENCY_BHW = torch.tensor([[[0.5, 0.5], [0.1, 0.9]], [[1.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
TARGET_BHW = torch.tensor([[[0.2, 0.1], [0.1, 0.9]], [[0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
"""Differences .3 and .4 in the first image (norm .5), 1 in the second (norm 1); H W = 4."""
FEATURES = TripletFeatures(
    image=torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
    foreground=torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
    background=torch.tensor([[4.0, 4.0], [1.0, 0.0]]),
)
"""d_pos by image: 4/2 = 2 and 2/2 = 1; d_neg: 25/2 = 12.5 and 1/2 = .5."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cross_entropy_by_hand() -> None:
    expected = (math.log(2) + math.log(4)) / 2
    assert classification_loss(SCORES_BK, LABELS_B).item() == pytest.approx(expected, rel=1e-12)


def test_class_weights_are_divided_by_the_batch() -> None:
    weights_k = torch.tensor([3.0, 0.5])
    expected = (3 * math.log(2) + 0.5 * math.log(4)) / 2
    found = classification_loss(SCORES_BK, LABELS_B, class_weights_k=weights_k)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert found.dtype == torch.float64


def test_a_batch_of_weightless_classes_gives_zero_and_no_gradient() -> None:
    scores_bk = SCORES_BK.clone().requires_grad_()
    loss = classification_loss(scores_bk, torch.tensor([1, 1]), class_weights_k=torch.tensor([2.0, 0.0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert torch.equal(scores_bk.grad, torch.zeros(2, 2, dtype=torch.float64))


def test_a_label_outside_the_classes_is_refused() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        classification_loss(SCORES_BK, torch.tensor([0, -1]))


def test_balanced_weights_by_hand() -> None:
    # n = 6, K = 4: 6 / (4 * 3), 6 / (4 * 1), none, 6 / (4 * 2).
    weights_k = balanced_class_weights([0, 0, 0, 1, 3, 3], 4)
    assert weights_k.tolist() == [0.5, 1.5, 0.0, 0.75]
    assert weights_k.dtype == torch.float32
    assert torch.equal(balanced_class_weights(torch.tensor([1, 0, 1, 0]), 2), torch.ones(2))


def test_balanced_weights_give_every_class_the_same_part() -> None:
    labels_b = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
    weights_k = balanced_class_weights(labels_b, 3).double()
    part_k = torch.stack([weights_k[labels_b][labels_b == k].sum() for k in range(3)]) / len(labels_b)
    torch.testing.assert_close(part_k, torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([], 3, "0 labels of 3 classes"),
        ([0], 0, "1 labels of 0 classes"),
        ([0, -1], 3, "from -1 to 0, expected 0 to 2"),
        ([0, 3], 3, "from 0 to 3, expected 0 to 2"),
    ],
)
def test_balanced_weights_refuse(labels: list[int], classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        balanced_class_weights(labels, classes)


@pytest.mark.parametrize(("kind", "expected"), [("l2", (0.25 + 0.5) / 2), ("mse", (0.25 + 1.0) / 8)])
def test_map_loss_by_hand(kind: Any, expected: float) -> None:
    assert map_loss(SALIENCY_BHW, TARGET_BHW, kind=kind).item() == pytest.approx(expected, rel=1e-12)


def enlarged(maps_bhw: Tensor) -> Tensor:
    return maps_bhw.repeat_interleave(3, dim=1).repeat_interleave(2, dim=2)


def test_l2_does_not_depend_on_the_resolution() -> None:
    once = map_loss(SALIENCY_BHW, TARGET_BHW)
    torch.testing.assert_close(map_loss(enlarged(SALIENCY_BHW), enlarged(TARGET_BHW)), once)


def test_l2_gradient_is_zero_where_the_maps_are_equal() -> None:
    saliency_bhw = SALIENCY_BHW.clone()
    saliency_bhw[0] = TARGET_BHW[0]
    saliency_bhw.requires_grad_()
    map_loss(saliency_bhw, TARGET_BHW).backward()  # type: ignore[no-untyped-call]
    gradient = saliency_bhw.grad
    assert gradient is not None
    assert torch.equal(gradient[0], torch.zeros(2, 2, dtype=torch.float64))
    # Norm 1 along the first pixel, over sqrt(4) pixels and 2 images.
    assert gradient[1].tolist() == [[0.25, 0.0], [0.0, 0.0]]


def test_l2_gradient_is_finite_for_tiny_differences() -> None:
    saliency_bhw = torch.full((1, 2, 2), 1e-30, requires_grad=True)
    map_loss(saliency_bhw, torch.zeros(1, 2, 2)).backward()  # type: ignore[no-untyped-call]
    assert saliency_bhw.grad is not None and saliency_bhw.grad.isfinite().all()


def test_bce_by_hand_and_at_saturation() -> None:
    logits_bhw = torch.tensor([[[0.0, math.log(3.0)]]], dtype=torch.float64)
    target_bhw = torch.tensor([[[0.3, 0.8]]], dtype=torch.float64)
    expected = (math.log(2) - 0.8 * math.log(0.75) - 0.2 * math.log(0.25)) / 2
    found = map_loss(logits_bhw.sigmoid(), target_bhw, kind="bce", logits_bhw=logits_bhw)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    saturated_bhw = torch.full((1, 1, 2), 200.0)
    found = map_loss(saturated_bhw.sigmoid(), torch.zeros(1, 1, 2), kind="bce", logits_bhw=saturated_bhw)
    assert found.item() == 200.0


CAM_BHW = torch.tensor([[[-3.0, 2.0], [4.0, 0.0]], [[-1.0, 0.0], [-5.0, -2.0]]], dtype=torch.float64)
"""Clipped and divided by the maximum: 0, 1/2, 1, 0, and nothing."""
CAM_TARGET_BHW = torch.tensor([[[0.25, 0.0], [1.0, 0.5]], [[1.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
"""Differences of 1/4, 1/2, 0 and 1/2 in the first image (norm 3/4), of 1, 1, 0 and 0 in the second."""


@pytest.mark.parametrize(
    ("kind", "expected"), [("l2", (0.375 + math.sqrt(2) / 2) / 2), ("mse", (0.0625 + 0.25 + 0.25 + 2) / 8)]
)
def test_the_map_loss_of_activation_maps_by_hand(kind: Any, expected: float) -> None:
    assert cam_map_loss(CAM_BHW, CAM_TARGET_BHW, kind=kind).item() == pytest.approx(expected, rel=1e-12)
    # A pseudo map is larger than an activation map.
    assert cam_map_loss(CAM_BHW, enlarged(CAM_TARGET_BHW), kind=kind).item() == pytest.approx(expected, rel=1e-12)


def test_binary_cross_entropy_of_activation_maps_stays_half_a_grey_level_from_0_and_1() -> None:
    low, high = math.log(0.5 / 255), math.log(254.5 / 255)
    # Of the target's part at the map's values 0, 1/2, 1 and 0, then of a map that is 0 everywhere.
    first = [0.25 * low + 0.75 * high, math.log(0.5), high, 0.5 * low + 0.5 * high]
    expected = -(sum(first) + 2 * low + 2 * high) / 8
    assert cam_map_loss(CAM_BHW, CAM_TARGET_BHW, kind="bce").item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Counted are 0.25, 0 and 1 of the first target, which the map misses by 1/4, 1/2 and 0, and all of the second.
        ("l2", (math.sqrt(0.3125 / 3) + math.sqrt(0.5)) / 2),
        ("mse", (0.3125 / 3 + 0.5) / 2),
    ],
)
def test_pixels_between_two_values_do_not_count(kind: Any, expected: float) -> None:
    found = cam_map_loss(CAM_BHW, enlarged(CAM_TARGET_BHW), kind=kind, ignore=(0.25, 0.75))
    assert found.item() == pytest.approx(expected, rel=1e-12)
    cam01_bhw = torch.tensor([[[0.0, 0.5], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    assert map_loss(cam01_bhw, CAM_TARGET_BHW, kind=kind, ignore=(0.25, 0.75)).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["l2", "mse", "bce"])
def test_ignored_pixels_have_no_gradient_and_an_image_of_them_no_loss(kind: Any) -> None:
    saliency_bhw = random(3, 4, 4).requires_grad_()
    target_bhw = torch.stack([random(4, 4, seed=1), torch.full((4, 4), 0.5), random(4, 4, seed=2)])
    options: dict[str, Any] = {"kind": kind, "logits_bhw": saliency_bhw}
    loss = map_loss(saliency_bhw, target_bhw, ignore=(0.4, 0.6), **options)
    (gradient_bhw,) = torch.autograd.grad(loss, saliency_bhw)
    ignored_bhw = (target_bhw > 0.4) & (target_bhw < 0.6)
    assert 0 < int(ignored_bhw[0].sum()) and torch.equal(gradient_bhw == 0, ignored_bhw)
    # Image by image: the mean over the pixels that are left, as if the image were these alone.
    parts = [
        map_loss(s[kept][None, None], t[kept][None, None], kind=kind, logits_bhw=s[kept][None, None])
        for s, t, kept in zip(saliency_bhw, target_bhw, ~ignored_bhw, strict=True)
        if kept.any()
    ]
    torch.testing.assert_close(loss, sum(parts) / 3)
    torch.testing.assert_close(
        map_loss(saliency_bhw, target_bhw.round(), ignore=(0.4, 0.6), **options),
        map_loss(saliency_bhw, target_bhw.round(), **options),
    )


def test_targets_are_averaged_over_the_areas_of_the_activation_map() -> None:
    """Against loops, where 5 and 7 pixels do not divide into 3 and 2: an area is every pixel that it touches."""
    cam_bhw, target_bhw = random(2, 3, 2), random(2, 5, 7, seed=1)
    small_bhw = torch.zeros(2, 3, 2, dtype=torch.float64)
    for y, x in ((y, x) for y in range(3) for x in range(2)):
        rows = slice(math.floor(y * 5 / 3), math.ceil((y + 1) * 5 / 3))
        columns = slice(math.floor(x * 7 / 2), math.ceil((x + 1) * 7 / 2))
        small_bhw[:, y, x] = target_bhw[:, rows, columns].mean(dim=(1, 2))
    expected = map_loss(cam_bhw / cam_bhw.amax(dim=(1, 2), keepdim=True), small_bhw)
    assert cam_map_loss(cam_bhw, target_bhw).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("kind", ["l2", "mse", "bce"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_of_an_activation_map_is_left_alone(kind: Any, dtype: torch.dtype) -> None:
    """The gradient has no part along the map; a map without a positive value has none at all."""
    cam_bhw = torch.stack([random(3, 3) - 0.3, -random(3, 3), torch.zeros(3, 3)]).to(dtype).requires_grad_()
    target_bhw = random(3, 6, 6, seed=1).to(dtype)
    loss = cam_map_loss(cam_bhw, target_bhw, kind=kind)
    torch.testing.assert_close(cam_map_loss(1e-3 * cam_bhw, target_bhw, kind=kind), loss)
    (gradient_bhw,) = torch.autograd.grad(loss, cam_bhw)
    assert gradient_bhw[0].abs().amax() > 1e-3
    assert float((gradient_bhw[0] * cam_bhw[0].relu()).sum().detach()) == pytest.approx(0, abs=1e-6)
    assert torch.equal(gradient_bhw[1:], torch.zeros(2, 3, 3, dtype=dtype))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cam_map_loss(CAM_BHW, CAM_TARGET_BHW[:1]), r"one pixel of the activation maps and targets .*\(2,\)"),
        (lambda: map_loss(SALIENCY_BHW, TARGET_BHW[:, :1]), r"\(2, 2, 2\) and \(2, 1, 2\)"),
        (lambda: map_loss(SALIENCY_BHW, TARGET_BHW, kind="l1"), "expected one of l2, mse, bce, found 'l1'"),
        (lambda: map_loss(SALIENCY_BHW, TARGET_BHW, kind="bce"), "bce needs logits_bhw"),
        (
            lambda: map_loss(SALIENCY_BHW, TARGET_BHW, kind="bce", logits_bhw=SALIENCY_BHW[:1]),
            r"logits and target have shapes \(1, 2, 2\)",
        ),
        (lambda: foreground_background(random(2, 3, 2, 2), SALIENCY_BHW[:1]), r"\(2, 2, 2\) and \(1, 2, 2\)"),
        (lambda: triplet_loss(random(2, 3, 1), random(2, 3, 1), random(2, 3, 1)), "pool them first"),
        (lambda: triplet_loss(random(2, 3), random(2, 1), random(2, 3)), "image and foreground"),
        (lambda: triplet_loss(random(2, 3), random(2, 3), random(1, 3)), "image and background"),
        (lambda: triplet_loss(*FEATURES[:3], FEATURES.image), "features of one image and of the black one"),
        (lambda: triplet_loss(*FEATURES, sign="plus"), "one of text, as-printed, found 'plus'"),
        (lambda: triplet_loss(*FEATURES, margin=-1.0), "margin of the triplet loss is -1.0"),
    ],
)
def test_inputs_without_a_meaning_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_foreground_and_background_by_hand() -> None:
    images_bchw = torch.tensor([0.2, 0.4, 0.8], dtype=torch.float64)[None, :, None, None].expand(2, 3, 2, 2)
    foreground, background = foreground_background(images_bchw, SALIENCY_BHW)
    assert foreground[0, :, 1, 1].tolist() == pytest.approx([0.18, 0.36, 0.72])
    assert background[0, :, 1, 1].tolist() == pytest.approx([0.02, 0.04, 0.08])
    torch.testing.assert_close(foreground + background, images_bchw)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (2 - 12.5 + 1 - 0.5) / 2),
        ({"sign": "text"}, -5.0),
        ({"sign": "as-printed"}, 5.0),
        ({"margin": 0.0}, 0.25),
        ({"margin": 1.0}, 0.75),
        ({"sign": "as-printed", "margin": 0.25}, 10.75 / 2),
    ],
)
def test_triplet_loss_by_hand(options: dict[str, Any], expected: float) -> None:
    found = triplet_loss(*FEATURES, **options)
    assert (found.loss.item(), found.d_pos.item(), found.d_neg.item()) == (expected, 1.5, 6.5)


def test_triplet_distances_divided_by_the_distance_to_black_by_hand() -> None:
    # Distances of the images to black: 4/2 = 2 and 1/2.
    found = triplet_loss(*FEATURES[:3], torch.tensor([[1.0, 0.0]]))
    assert (found.d_pos.item(), found.d_neg.item()) == ((1 + 2) / 2, (6.25 + 1) / 2)
    assert found.loss.item() == 1.5 - 3.625
    # Any scale of the features gives the same; a black image counts with its features' size.
    larger = triplet_loss(*(30 * features for features in FEATURES[:3]), torch.tensor([[30.0, 0.0]]))
    torch.testing.assert_close(larger, found)
    black = torch.tensor([[2.0, 2.0]])
    noise = triplet_loss(black, black + 1e-6, black - 1e-6, black)
    assert 0 < noise.d_pos.item() < noise.d_neg.item() < 1e-5
    assert triplet_loss(0 * black, 0 * black, 0 * black, 0 * black).loss.item() == 0


def test_triplet_loss_of_2048_features_follows_the_formula() -> None:
    features_x, features_f, features_b = (random(3, 2048, seed=seed) for seed in range(3))
    d_pos = sum(math.fsum(((x - f) ** 2).tolist()) for x, f in zip(features_x, features_f, strict=True)) / 2048 / 3
    d_neg = sum(math.fsum(((f - b) ** 2).tolist()) for f, b in zip(features_f, features_b, strict=True)) / 2048 / 3
    found = triplet_loss(features_x, features_f, features_b)
    assert found.d_pos.item() == pytest.approx(d_pos, rel=1e-12)
    assert found.d_neg.item() == pytest.approx(d_neg, rel=1e-12)
    assert found.loss.item() == pytest.approx(d_pos - d_neg, rel=1e-9)


def test_text_sign_pulls_the_foreground_to_the_image_and_pushes_the_background_away() -> None:
    image, foreground, background = (features.double().requires_grad_() for features in FEATURES[:3])
    triplet_loss(image, foreground, background).loss.backward()  # type: ignore[no-untyped-call]
    assert background.grad is not None
    # A descent step moves the background along its difference from the foreground, away from it.
    assert ((-background.grad) * (background - foreground)).sum(dim=1).gt(0).all()


def test_area_is_the_mean_saliency() -> None:
    assert area_penalty(SALIENCY_BHW).item() == pytest.approx(3.0 / 8)


GRADIENT_CASES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "classification": (lambda scores: classification_loss(scores, LABELS_B), (SCORES_BK,)),
    "weighted": (
        lambda scores: classification_loss(scores, LABELS_B, class_weights_k=torch.tensor([3.0, 0.5])),
        (SCORES_BK,),
    ),
    "l2": (lambda saliency: map_loss(saliency, random(2, 3, 3, seed=1)), (random(2, 3, 3),)),
    "mse": (lambda saliency: map_loss(saliency, random(2, 3, 3, seed=1), kind="mse"), (random(2, 3, 3),)),
    "bce": (
        lambda logits: map_loss(logits.sigmoid(), random(2, 3, 3, seed=1), kind="bce", logits_bhw=logits),
        (random(2, 3, 3) * 8 - 4,),
    ),
    **{
        f"cam {kind}": (
            lambda cam, kind=kind: cam_map_loss(cam, random(2, 6, 6, seed=1), kind=kind),
            (random(2, 3, 3) - 0.3,),
        )
        for kind in ("l2", "mse", "bce")
    },
    **{
        f"{kind} of some pixels": (
            lambda maps, kind=kind: map_loss(
                maps, random(2, 3, 3, seed=1), kind=kind, logits_bhw=maps, ignore=(0.3, 0.6)
            ),
            (random(2, 3, 3),),
        )
        for kind in ("l2", "mse", "bce")
    },
    "foreground": (
        lambda images, saliency: torch.cat(foreground_background(images, saliency)),
        (random(2, 3, 2, 2), SALIENCY_BHW),
    ),
    "triplet": (lambda x, f, b: triplet_loss(x, f, b).loss, tuple(random(2, 5, seed=s) for s in range(3))),
    "as printed": (
        lambda x, f, b: triplet_loss(x, f, b, sign="as-printed").loss,
        tuple(random(2, 5, seed=s) for s in range(3)),
    ),
    "scaled": (
        lambda f, b: triplet_loss(random(2, 5, seed=2), f, b, random(1, 5, seed=3)).loss,
        tuple(random(2, 5, seed=s) for s in range(2)),
    ),
    "hinge": (
        lambda x, f, b: triplet_loss(x, f, b, margin=0.3).loss,
        tuple(random(2, 5, seed=s) for s in range(3)),
    ),
    "area": (area_penalty, (SALIENCY_BHW,)),
}


@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_gradients(name: str) -> None:
    function, inputs = GRADIENT_CASES[name]
    leaves = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    assert torch.autograd.gradcheck(function, leaves)


def test_bfloat16_inputs_are_reduced_in_float32() -> None:
    # 257 x 1/256 needs nine bits of mantissa: a bfloat16 mean or sum would be rounded to 256 or 258.
    ones = torch.full((1, 1, 257), 1 / 256, dtype=torch.bfloat16)
    assert area_penalty(ones).item() == 1 / 256
    zeros = torch.zeros(1, 1, 257, dtype=torch.bfloat16)
    assert map_loss(ones, zeros, kind="mse").item() == pytest.approx(2.0**-16, rel=1e-6)
    assert map_loss(ones, zeros).item() == pytest.approx(1 / 256, rel=1e-6)
    features = (zeros[0], ones[0], torch.full((1, 257), 3 / 256, dtype=torch.bfloat16))
    found = triplet_loss(*features)
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(-3 * 2.0**-16, rel=1e-6)
    scores_bk = torch.tensor([[0.0, 8.0]], dtype=torch.bfloat16)
    assert classification_loss(scores_bk, torch.tensor([1])).item() == pytest.approx(math.log1p(math.exp(-8)), rel=1e-4)
