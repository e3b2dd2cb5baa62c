"""Early stop of a training run that cannot recover: not finite, dead, or predicting one class only.

Shapes: B images of a batch, K classes, C features, H W pixels.

Each was seen with the paper's recipe: Adam at learning rate 1e-2 without batch norm gives a loss of
4e5, then features that are all zero and scores that no longer depend on the image.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_REMEDY = (
    "Lower --lr, train with --batch-norm, use --recipe default, or clip the gradient; then start again from the last "
    "good checkpoint or from the beginning."
)
_EQUAL_SCORES = 1e-6
"""Spread of a class's scores over a batch, relative to the largest score, that counts as none: float32 rounding."""
_NOTHING_LEARNT = 0.99
"""Part of the entropy of the labels above which a cross entropy is no better than constant scores."""


class TrainingDiverged(RuntimeError):
    """The run cannot recover; the message says what happened at which step and what to change."""


class SaturatedSaliencyWarning(UserWarning):
    """The decoder calls nearly everything, or nearly nothing, foreground."""


class HealthLimits(NamedTuple):
    """When a run counts as failed."""

    dead_steps: int = 100
    """Steps in a row whose features are all zero, or whose scores are equal for all images, that end the run."""
    constant_steps: int = 1000
    """Steps in a row that predict one class only, while nothing has been learnt, that end the run."""
    saturated_steps: int = 50
    """Steps in a row whose mean saliency is outside the limits before a warning is given."""
    saliency_low: float = 0.02
    saliency_high: float = 0.98


def health_values(scores_bk: Tensor, labels_b: Tensor, features_bchw: Tensor) -> dict[str, Tensor]:
    """Named scalars for ``HealthMonitor``, left on their device.

    Of ``scores[B, K]`` before the softmax, ``labels[B]``, and the ``features[B, C, H, W]`` that the scores are made of.
    """
    scores_bk = scores_bk.detach().float()
    largest = scores_bk.abs().amax()
    spread = (scores_bk.amax(dim=0) - scores_bk.amin(dim=0)).amax() / largest.clamp(min=torch.finfo().tiny)
    predicted_b = scores_bk.argmax(dim=1)
    return {
        # Unweighted, whatever the training loss is, so that it can be compared with the entropy of the labels.
        "cross entropy": torch.nn.functional.cross_entropy(scores_bk, labels_b),
        # One image tells nothing about how scores differ between images.
        "score spread": spread if len(scores_bk) > 1 else torch.ones_like(spread),
        "lowest predicted class": predicted_b.amin(),
        "highest predicted class": predicted_b.amax(),
        "largest feature": features_bchw.detach().abs().amax(),
    }


class HealthMonitor:
    """Raises ``TrainingDiverged`` when a run has failed; ``labels`` are the class indices of all training images.

    One class for every image is normal in the first steps, so it ends a run only when the cross entropy has also
    stayed above 99 % of the entropy of the labels (ln K when classes are equally frequent), which is what constant
    scores reach at best.
    """

    def __init__(self, labels: Sequence[int], *, limits: HealthLimits | None = None) -> None:
        self._limits = HealthLimits() if limits is None else limits
        shares = [count / len(labels) for count in Counter(labels).values()]
        self._label_entropy = -math.fsum(share * math.log(share) for share in shares)
        self._zero_features, self._equal_scores = _Streak(), _Streak()
        self._one_class, self._saturated = _Streak(), _Streak()
        self._predicted = -1.0

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Look at one step: losses by name, and what ``health_values`` gives.

        TrainingDiverged when a value is not finite, features were all zero or scores equal for all images over
        ``dead_steps``, or one class was predicted over ``constant_steps`` without anything learnt.
        SaturatedSaliencyWarning once the mean saliency has been outside the limits for ``saturated_steps``, and again
        only after it has been inside.
        """
        broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise TrainingDiverged(f"step {step}: training diverged, not finite: {', '.join(broken)}. {_REMEDY}")
        for streak, found, what in (
            (self._zero_features, values["largest feature"] == 0, "all features are zero"),
            (self._equal_scores, values["score spread"] <= _EQUAL_SCORES, "the scores are the same for every image"),
        ):
            if streak.note(step, found=found) >= self._limits.dead_steps:
                raise TrainingDiverged(
                    f"step {step}: the network is dead: {what} in each of {streak.length} steps since step "
                    f"{streak.first_step}, so it cannot learn any more. {_REMEDY}"
                )
        self._note_predictions(step, values)
        if "mean_saliency" in values:
            self._note_saliency(step, values["mean_saliency"])

    def _note_predictions(self, step: int, values: Mapping[str, float]) -> None:
        predicted, streak = values["lowest predicted class"], self._one_class
        if predicted != self._predicted:
            streak.note(step, found=False)
        self._predicted = predicted
        found = predicted == values["highest predicted class"]
        if streak.note(step, found=found, value=values["cross entropy"]) >= self._limits.constant_steps:
            if self._label_entropy and streak.mean >= _NOTHING_LEARNT * self._label_entropy:
                raise TrainingDiverged(
                    f"step {step}: nothing is being learnt: class {predicted:.0f} was predicted for every image of "
                    f"{streak.length} steps since step {streak.first_step}, while the cross entropy stayed at "
                    f"{streak.mean:.4f} (constant scores reach {self._label_entropy:.4f}). {_REMEDY}"
                )
            # Older steps must not hide that a run stopped learning, so each stretch is judged for itself.
            streak.note(step, found=False)

    def _note_saliency(self, step: int, mean: float) -> None:
        limits = self._limits
        outside = not limits.saliency_low <= mean <= limits.saliency_high
        if self._saturated.note(step, found=outside) == limits.saturated_steps:
            side, advice = (
                (
                    "foreground",
                    "--area-weight (1, with --triplet-scale image) or a --triplet-margin keeps the loss from it",
                )
                if mean > limits.saliency_high
                else ("background", "lower --area-weight, or check that the pseudo maps are not empty")
            )
            warnings.warn(
                f"step {step}: the mean saliency is {mean:.4f}: nearly everything is {side}; {advice}",
                SaturatedSaliencyWarning,
                stacklevel=3,
            )


class _Streak:
    """Steps in a row in which something was found, and the mean of a value over them."""

    def __init__(self) -> None:
        self.length, self.first_step, self._sum = 0, 0, 0.0

    def note(self, step: int, *, found: bool, value: float = 0.0) -> int:
        """Length after this step."""
        if not found or self.length == 0:
            self.length, self.first_step, self._sum = 0, step, 0.0
        if found:
            self.length += 1
            self._sum += value
        return self.length

    @property
    def mean(self) -> float:
        return self._sum / max(1, self.length)
