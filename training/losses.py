"""Training losses, equations (1) to (8) of the paper.

Shapes: B images of a batch, K classes, H W pixels, N features of the perceptual net (2048 for ResNet-50).
Every reduction runs in float32 at least, so bfloat16 inputs lose nothing on the way to the mean.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from training.loss_config import LossConfig, MapLossKind, TripletSign
from training.networks.classifier import normalised_cam

CAM_BCE_MARGIN = 0.5 / 255
"""Least distance of an activation map from 0 and 1 in the binary cross entropy: half a step of a stored pseudo map."""
LEAST_SCALE = 1e-6
"""Least divisor of the triplet distances, as a part of the features' mean square."""


class TripletFeatures(NamedTuple):
    """Perceptual features (B, N) of the image, of its foreground and of its background, and (1, N) of a black image.

    Those of the black image are given exactly when ``triplet_scale`` is ``image``.
    """

    image: Tensor
    foreground: Tensor
    background: Tensor
    black: Tensor | None = None


class TripletLoss(NamedTuple):
    """The perceptual triplet loss and the two distances it is made of, each the scalar mean over B."""

    loss: Tensor
    d_pos: Tensor
    d_neg: Tensor


class LossInputs(NamedTuple):
    """What the terms of a batch are computed from; None where no term needs it."""

    scores_bk: Tensor
    """(B, K) before softmax."""
    labels_b: Tensor
    class_weights_k: Tensor | None = None
    """(K,) from ``balanced_class_weights``: given exactly when ``class_weighting`` is ``balanced``."""
    saliency_bhw: Tensor | None = None
    """(B, H, W) in 0..1, the decoder's output."""
    target_bhw: Tensor | None = None
    """(B, H, W) in 0..1, the pseudo maps."""
    logits_bhw: Tensor | None = None
    """(B, H, W), the decoder's output before the sigmoid."""
    triplet_features: TripletFeatures | None = None
    cam_bhw: Tensor | None = None
    """(B, h, w), the class activation maps of the labels, neither clipped nor scaled."""


class LossTerms(NamedTuple):
    """The scalar to differentiate, and what to log: name -> scalar, detached, on the device of the loss."""

    total: Tensor
    named: dict[str, Tensor]


def classification_loss(scores_bk: Tensor, labels_b: Tensor, *, class_weights_k: Tensor | None = None) -> Tensor:
    """Cross entropy over ``scores[B, K]`` and ``labels[B]``, mean over B, equation (1): a scalar, at least float32.

    A label outside ``0 <= label < K`` raises IndexError on the CPU and stops the CUDA context. With ``class_weights_k``
    (K,) the sum is divided by B, not by the weights of the batch: the mean over batches is then the weighted loss of
    the data set whatever falls into one batch, and a batch of classes with weight 0 gives 0 where the other convention
    gives 0 / 0.
    """
    scores_bk = _at_least_float32(scores_bk)
    if class_weights_k is None:
        return functional.cross_entropy(scores_bk, labels_b)
    weights_k = class_weights_k.to(dtype=scores_bk.dtype, device=scores_bk.device)
    return functional.cross_entropy(scores_bk, labels_b, weight=weights_k, reduction="sum") / len(scores_bk)


def balanced_class_weights(labels: Sequence[int] | Tensor, classes: int) -> Tensor:
    """(K,) float32 weights ``n / (K n_k)`` of K classes, by which every class has the same part in the loss.

    ``labels`` are the class indices of the n training images. A class without images has weight 0. Where every class
    has images, the mean over images is 1. ValueError for no labels, no classes, or a label outside ``0 <= label < K``.
    """
    labels_n = torch.as_tensor(labels, dtype=torch.int64).cpu()
    if classes < 1 or labels_n.numel() == 0:
        raise ValueError(f"{labels_n.numel()} labels of {classes} classes: expected at least 1 of each")
    lowest, highest = int(labels_n.min()), int(labels_n.max())
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"labels range from {lowest} to {highest}, expected 0 to {classes - 1}: leave out images of unknown class"
        )
    images_k = torch.bincount(labels_n, minlength=classes).to(torch.float64)
    weights_k = labels_n.numel() / (classes * images_k)
    return torch.where(images_k > 0, weights_k, 0.0).to(torch.float32)


def map_loss(
    saliency_bhw: Tensor,
    target_bhw: Tensor,
    *,
    kind: MapLossKind = "l2",
    logits_bhw: Tensor | None = None,
    ignore: tuple[float, float] | None = None,
) -> Tensor:
    """Distance of ``saliency[B, H, W]`` from pseudo maps ``target[B, H, W]``, both in 0..1, mean over B, equation (2).

    Parameters
    ----------
    kind
        ``l2``: per image the L2 norm over pixels divided by sqrt(H W), so that its scale does not depend on the
        resolution; its gradient is 0 for an image that equals its target. ``mse``: mean squared error.
        ``bce``: binary cross entropy with soft targets, mean over pixels.
    logits_bhw
        (B, H, W), the decoder's output before the sigmoid; needed by ``bce`` alone, which would be infinite at a
        saturated sigmoid.
    ignore
        Pixels whose target lies between these two values, neither included, do not count: norm and means of an image
        are over the others, and an image without any has loss 0.

    Returns
    -------
    Tensor
        Scalar, at least float32. ValueError for shapes that differ, an unknown kind, or ``bce`` without logits.
    """
    _check_choice(kind, MapLossKind, name="kind of map loss")
    _check_same_shape(saliency_bhw, target_bhw, what="saliency and target")
    target_bhw = _at_least_float32(target_bhw)
    counted_bhw = None
    if ignore is not None:
        counted_bhw = ((target_bhw <= ignore[0]) | (target_bhw >= ignore[1])).to(target_bhw.dtype)
    if kind == "bce":
        if logits_bhw is None:
            raise ValueError("the map loss bce needs logits_bhw, the decoder's output before the sigmoid; found None")
        _check_same_shape(logits_bhw, target_bhw, what="logits and target")
        errors_bhw = functional.binary_cross_entropy_with_logits(
            _at_least_float32(logits_bhw), target_bhw, reduction="none"
        )
        return _mean_of_counted(errors_bhw, counted_bhw)
    difference_bhw = _at_least_float32(saliency_bhw) - target_bhw
    if kind == "mse":
        return _mean_of_counted(difference_bhw.square(), counted_bhw)
    if counted_bhw is not None:
        difference_bhw = difference_bhw * counted_bhw
    # vector_norm has the subgradient 0 at 0; the square root of a sum of squares would give NaN there.
    norm_b: Tensor = torch.linalg.vector_norm(difference_bhw.flatten(start_dim=1), dim=1)
    if counted_bhw is not None:
        return (norm_b / counted_bhw.sum(dim=(1, 2)).clamp(min=1).sqrt()).mean()
    return (norm_b / math.sqrt(difference_bhw[0].numel())).mean()


def _mean_of_counted(errors_bhw: Tensor, counted_bhw: Tensor | None) -> Tensor:
    if counted_bhw is None:
        return errors_bhw.mean()
    return ((errors_bhw * counted_bhw).sum(dim=(1, 2)) / counted_bhw.sum(dim=(1, 2)).clamp(min=1)).mean()


def cam_map_loss(
    cam_bhw: Tensor, target_bhw: Tensor, *, kind: MapLossKind = "l2", ignore: tuple[float, float] | None = None
) -> Tensor:
    """Map loss of the labels' activation maps ``cam[B, h, w]`` and pseudo maps ``target[B, H, W]``, not in the paper.

    The maps are clipped at 0 and divided by their maximum, so the loss does not depend on their scale and its gradient
    leaves it alone; the target, in 0..1, is averaged over areas to their size. For ``bce`` they are clamped to
    ``CAM_BCE_MARGIN`` from 0 and 1, which every map reaches. A map without a positive value counts as zeros and has no
    gradient. ``ignore`` is about the averaged target. A scalar, at least float32; ValueError as for ``map_loss``, or
    for maps of other images.
    """
    _check_same_shape(cam_bhw[:, 0, 0], target_bhw[:, 0, 0], what="one pixel of the activation maps and targets")
    cam01_bhw = normalised_cam(_at_least_float32(cam_bhw))
    size = (cam_bhw.shape[1], cam_bhw.shape[2])
    small_bhw = functional.interpolate(_at_least_float32(target_bhw)[:, None], size=size, mode="area")[:, 0]
    logits_bhw = torch.logit(cam01_bhw, eps=CAM_BCE_MARGIN) if kind == "bce" else None
    return map_loss(cam01_bhw, small_bhw, kind=kind, logits_bhw=logits_bhw, ignore=ignore)


def foreground_background(images01_bchw: Tensor, saliency_bhw: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground ``s x`` and background ``(1 - s) x`` of ``images01[B, C, H, W]``, equations (3) and (4).

    ``saliency[B, H, W]`` and images are in 0..1, the images not normalised: a masked pixel has to be black, not of the
    mean colour. ValueError when batch or size differ.
    """
    _check_same_shape(images01_bchw[:, 0], saliency_bhw, what="one channel of the images and saliency")
    saliency_b1hw = saliency_bhw.unsqueeze(1)
    return saliency_b1hw * images01_bchw, (1 - saliency_b1hw) * images01_bchw


def triplet_loss(
    features_x: Tensor,
    features_f: Tensor,
    features_b: Tensor,
    features_black: Tensor | None = None,
    *,
    sign: TripletSign = "text",
    margin: float | None = None,
) -> TripletLoss:
    """Perceptual triplet loss over three ``features[B, N]``, mean over B, equations (5) to (7); at least float32.

    Features of the image, of its foreground and of its background; N is the n of the equations. With
    ``features_black[1, N]`` of a black image, which the paper does not have, both distances of an image are divided by
    that of the image to black, without gradient to the divisor. ValueError for other shapes, an unknown sign or a
    negative margin.

    Parameters
    ----------
    sign
        ``text``: ``d_pos - d_neg``, which pulls the foreground to the image and pushes the background away, as
        section 2.3 says. ``as-printed``: ``d_neg - d_pos``, as equation (5) is printed.
    margin
        With a number, at least 0, each image's difference becomes ``max(0, difference + margin)``.
    """
    _check_choice(sign, TripletSign, name="sign of the triplet loss")
    if features_x.ndim != 2:
        raise ValueError(f"features have shape {tuple(features_x.shape)}, expected (B, N): pool them first")
    _check_same_shape(features_x, features_f, what="features of image and foreground")
    _check_same_shape(features_x, features_b, what="features of image and background")
    features_f = _at_least_float32(features_f)
    d_pos_b = (_at_least_float32(features_x) - features_f).square().mean(dim=1)
    d_neg_b = (features_f - _at_least_float32(features_b)).square().mean(dim=1)
    if features_black is not None:
        _check_same_shape(features_x[:1], features_black, what="features of one image and of the black one")
        whole = _at_least_float32(features_x).detach()
        scale_b = (whole - _at_least_float32(features_black).detach()).square().mean(dim=1)
        # An image that is black itself has distances of rounding errors alone.
        scale_b = torch.maximum(scale_b, LEAST_SCALE * whole.square().mean(dim=1)).clamp(min=torch.finfo().tiny)
        d_pos_b, d_neg_b = d_pos_b / scale_b, d_neg_b / scale_b
    loss_b = d_pos_b - d_neg_b if sign == "text" else d_neg_b - d_pos_b
    if margin is not None:
        _check_not_negative(margin, name="margin of the triplet loss")
        loss_b = functional.relu(loss_b + margin)
    return TripletLoss(loss=loss_b.mean(), d_pos=d_pos_b.mean(), d_neg=d_neg_b.mean())


def area_penalty(saliency_bhw: Tensor) -> Tensor:
    """Mean of ``saliency[B, H, W]`` over pixels and images: a scalar in 0..1, not in the paper.

    The triplet loss alone is smallest with everything foreground; this term gives the area a price.
    """
    return _at_least_float32(saliency_bhw).mean()


LossTerm = Callable[[LossInputs, LossConfig], dict[str, Tensor]]
_TERMS: dict[str, LossTerm] = {}


def _loss_term(term: LossTerm) -> LossTerm:
    """Register a term ``_x``, weighted by the field ``x_weight`` of ``LossConfig`` with an optional switch ``use_x``.

    It returns named scalars to log, of which the first is added to the objective.
    """
    _TERMS[term.__name__.removeprefix("_")] = term
    return term


@_loss_term
def _area(inputs: LossInputs, _config: LossConfig) -> dict[str, Tensor]:
    return {"mean_saliency": area_penalty(_given(inputs, "saliency_bhw"))}


@_loss_term
def _map(inputs: LossInputs, config: LossConfig) -> dict[str, Tensor]:
    saliency_bhw, target_bhw = _given(inputs, "saliency_bhw"), _given(inputs, "target_bhw")
    options: dict[str, Any] = {"kind": config.map_kind, "ignore": config.map_ignore}
    return {"map": map_loss(saliency_bhw, target_bhw, logits_bhw=inputs.logits_bhw, **options)}


@_loss_term
def _cam_map(inputs: LossInputs, config: LossConfig) -> dict[str, Tensor]:
    cam_bhw, target_bhw = _given(inputs, "cam_bhw"), _given(inputs, "target_bhw")
    return {"cam_map": cam_map_loss(cam_bhw, target_bhw, kind=config.map_kind, ignore=config.map_ignore)}


@_loss_term
def _triplet(inputs: LossInputs, config: LossConfig) -> dict[str, Tensor]:
    if inputs.triplet_features is None:
        raise ValueError("triplet_features is None, expected it because the triplet loss is on")
    found = triplet_loss(*inputs.triplet_features, sign=config.triplet_sign, margin=config.triplet_margin)
    return {"triplet": found.loss, "d_pos": found.d_pos, "d_neg": found.d_neg}


def combine_losses(inputs: LossInputs, *, config: LossConfig) -> LossTerms:
    """Full objective, equation (8), over one batch.

    ``named`` holds ``total`` and ``classification``; with the map loss ``map``; with the triplet loss ``triplet``,
    ``d_pos`` and ``d_neg``; with either ``mean_saliency``; with the CAM's map loss ``cam_map``; none multiplied by its
    factor. A term that is off is not computed, whatever else is given; one that is on with factor 0 is. ValueError when
    an input that a term needs is missing, or class weights and configuration contradict each other.
    """
    weights_k = inputs.class_weights_k
    if (weights_k is not None) != (config.class_weighting == "balanced"):
        found = "none" if weights_k is None else f"{tuple(weights_k.shape)}"
        raise ValueError(f"class weights: found {found} with class_weighting {config.class_weighting}")
    classification = classification_loss(inputs.scores_bk, inputs.labels_b, class_weights_k=weights_k)
    named = {"classification": classification}
    total = config.classification_weight * classification
    if config.needs_saliency:
        named |= _area(inputs, config)
    for name, term in _TERMS.items():
        if config.computes(name):
            values = term(inputs, config)
            named |= values
            total = total + getattr(config, f"{name}_weight") * next(iter(values.values()))
    named["total"] = total
    return LossTerms(total=total, named={name: value.detach() for name, value in named.items()})


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _given(inputs: LossInputs, name: str) -> Tensor:
    tensor: Tensor | None = getattr(inputs, name)
    if tensor is None:
        raise ValueError(f"{name} is None, expected it because a loss on maps is on")
    return tensor


def _check_same_shape(first: Tensor, second: Tensor, *, what: str) -> None:
    # Without this a map of another size could broadcast, and the loss would still be a number.
    if first.shape != second.shape:
        raise ValueError(f"{what} have shapes {tuple(first.shape)} and {tuple(second.shape)}, expected the same")


def _check_choice(value: str, choices: object, *, name: str) -> None:
    names = get_args(choices)
    if value not in names:
        raise ValueError(f"{name}: expected one of {', '.join(names)}, found {value!r}")


def _check_not_negative(value: float, *, name: str) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value}, expected a finite number of at least 0")
