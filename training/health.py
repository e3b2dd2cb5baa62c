"""Turns the losses, scores and saliency of many steps into an early stop where a training run has failed.

Shapes: B images of a batch, K classes, C features, H W pixels, T steps of a check.

What it looks for was seen with this paper's recipe: Adam at learning rate 1e-2 without batch norm gives a loss of
4e5, then features that are all zero and scores that no longer depend on the image.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["HealthConfig", "HealthMonitor", "SaturatedSaliencyWarning", "TrainingDiverged"]

_REMEDY = (
    "Lower --lr, train with --batch-norm, use --recipe default, or clip the gradient; then start again from the last "
    "good checkpoint or from the beginning."
)
_EQUAL_SCORES = 1e-6
"""Spread of a class's scores over a batch, relative to the largest score, that counts as none: float32 rounding."""
_NOTHING_LEARNT = 0.99
"""Part of the entropy of the labels above which a cross entropy is no better than constant scores."""

_CROSS_ENTROPY = "scores"
_SPREAD = "score spread"
_LOWEST_CLASS = "lowest predicted class"
_HIGHEST_CLASS = "highest predicted class"
_LARGEST_FEATURE = "largest feature"
_SALIENCY = "saliency"


class TrainingDiverged(RuntimeError):
    """The run cannot recover; the message says what happened at which step and what to change."""


class SaturatedSaliencyWarning(UserWarning):
    """The decoder calls nearly everything, or nearly nothing, foreground."""


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """When a run counts as failed; ValueError for values without a meaning."""

    check_every_steps: int = 50
    """Steps between two looks at the collected numbers; each look waits once for the GPU."""
    dead_steps: int = 100
    """Steps in a row whose features are all zero, or whose scores are equal for all images, that end the run."""
    constant_steps: int = 1000
    """Steps in a row that predict one class only, while nothing has been learnt, that end the run."""
    saliency_low: float = 0.02
    """Mean saliency of a check below which a warning is given."""
    saliency_high: float = 0.98
    """Mean saliency of a check above which a warning is given."""

    def __post_init__(self) -> None:
        for name in ("check_every_steps", "dead_steps", "constant_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 <= self.saliency_low < self.saliency_high <= 1:
            raise ValueError(
                f"saliency limits {self.saliency_low} and {self.saliency_high}: expected 0 <= low < high <= 1"
            )


class HealthMonitor:
    """Watches a training run and raises ``TrainingDiverged`` when it has failed.

    Parameters
    ----------
    classes
        K.
    config
        Limits.

    Notes
    -----
    ``observe`` only queues small reductions on the device and never waits for it; the numbers come to the CPU at
    every ``check_every_steps``-th call, and at ``check``. Call ``check`` before a checkpoint is written, so that a
    checkpoint never holds weights of a step that turns out to be NaN.

    One class for every image is normal in the first steps, so it ends a run only when the cross entropy has also
    stayed above 99 % of the entropy of the labels seen (ln K when classes are equally frequent), which is what
    constant scores reach at best.

    With several processes each watches its own part of the batch; one that raises ends the job.
    """

    def __init__(self, *, classes: int, config: HealthConfig | None = None) -> None:
        if classes < 1:
            raise ValueError(f"{classes} classes, expected at least 1")
        self._config = HealthConfig() if config is None else config
        self._classes = classes
        self._steps: list[int] = []
        self._names: tuple[str, ...] = ()
        self._statistics: list[Tensor] = []
        self._labels_k: Tensor | None = None
        self._zero_features = _Streak()
        self._equal_scores = _Streak()
        self._one_class = _ConstantStreak(classes)
        self._saturated = False

    def observe(
        self,
        step: int,
        *,
        losses: Mapping[str, Tensor],
        scores_bk: Tensor,
        labels_b: Tensor,
        features_bc: Tensor | None = None,
        saliency_bhw: Tensor | None = None,
    ) -> None:
        """Note one training step, and check when enough steps are noted.

        Parameters
        ----------
        step
            Number of the step, for messages.
        losses
            Name -> scalar.
        scores_bk
            (B, K) scores before the softmax.
        labels_b
            (B,) class indices, ``0 <= label < K``.
        features_bc
            (B, C) or (B, C, H, W) features that the scores are made of.
        saliency_bhw
            (B, H, W) in 0..1.

        Raises
        ------
        TrainingDiverged
            As ``check``.
        ValueError
            Scores that are not (B, K).

        Warns
        -----
        SaturatedSaliencyWarning
            As ``check``.
        """
        if scores_bk.ndim != 2 or scores_bk.shape[1] != self._classes:
            raise ValueError(f"scores have shape {tuple(scores_bk.shape)}, expected (B, {self._classes})")
        with torch.no_grad():
            statistics = {f"loss {name}": value.detach() for name, value in losses.items()}
            statistics |= _score_statistics(scores_bk.detach(), labels_b)
            if features_bc is not None:
                statistics[_LARGEST_FEATURE] = features_bc.detach().abs().amax()
            if saliency_bhw is not None:
                statistics[_SALIENCY] = saliency_bhw.detach().float().mean()
            names = tuple(statistics)
            if names != self._names:
                self.check()
                self._names = names
            self._statistics.append(torch.stack([value.float() for value in statistics.values()]))
            if self._labels_k is None:
                self._labels_k = torch.zeros(self._classes, dtype=torch.float32, device=scores_bk.device)
            # bincount would wait for the GPU to learn the size of its result.
            self._labels_k.index_add_(0, labels_b, torch.ones_like(labels_b, dtype=torch.float32))
        self._steps.append(step)
        if len(self._steps) >= self._config.check_every_steps:
            self.check()

    def check(self) -> None:
        """Look at the steps noted since the last check.

        Raises
        ------
        TrainingDiverged
            A loss, the scores, the features or the saliency became NaN or infinite; features were all zero or
            scores equal for all images over ``dead_steps``; one class was predicted over ``constant_steps``
            without anything learnt.

        Warns
        -----
        SaturatedSaliencyWarning
            The mean saliency is outside the limits; once until it has been inside again.
        """
        if not self._steps:
            return
        table = torch.stack(self._statistics).cpu().double()
        columns_t = {name: table[:, column].tolist() for column, name in enumerate(self._names)}
        labels_k = torch.zeros(self._classes) if self._labels_k is None else self._labels_k.cpu()
        steps, self._steps, self._statistics, self._labels_k = self._steps, [], [], None

        self._check_finite(steps, columns_t)
        self._check_dead(steps, columns_t)
        self._check_one_class(steps, columns_t, labels_k)
        if _SALIENCY in columns_t:
            self._check_saliency(steps, columns_t[_SALIENCY])

    def _check_finite(self, steps: list[int], columns_t: dict[str, list[float]]) -> None:
        for row, step in enumerate(steps):
            # The spread of scores is NaN by design for a batch of one image.
            broken = [name for name, column in columns_t.items() if name != _SPREAD and not math.isfinite(column[row])]
            if broken:
                found = ", ".join(f"{name} {columns_t[name][row]}" for name in broken)
                raise TrainingDiverged(f"step {step}: training diverged, not finite: {found}. {_REMEDY}")

    def _check_dead(self, steps: list[int], columns_t: dict[str, list[float]]) -> None:
        signs = [
            (self._zero_features, _LARGEST_FEATURE, 0.0, "all features are zero"),
            (self._equal_scores, _SPREAD, _EQUAL_SCORES, "the scores are the same for every image"),
        ]
        for streak, name, limit, what in signs:
            for step, value in zip(steps, columns_t.get(name, []), strict=False):
                if math.isnan(value):
                    continue
                streak.note(step, found=value <= limit)
                if streak.length >= self._config.dead_steps:
                    raise TrainingDiverged(
                        f"step {step}: the network is dead: {what} in each of {streak.length} steps since step "
                        f"{streak.first_step}, so it cannot learn any more. {_REMEDY}"
                    )

    def _check_one_class(self, steps: list[int], columns_t: dict[str, list[float]], labels_k: Tensor) -> None:
        lowest, highest = min(columns_t[_LOWEST_CLASS]), max(columns_t[_HIGHEST_CLASS])
        predicted = int(lowest) if lowest == highest else None
        streak = self._one_class
        streak.note(steps, predicted=predicted, cross_entropies=columns_t[_CROSS_ENTROPY], labels_k=labels_k)
        entropy = streak.label_entropy
        if streak.steps >= self._config.constant_steps and entropy > 0:
            if streak.cross_entropy >= _NOTHING_LEARNT * entropy:
                raise TrainingDiverged(
                    f"step {steps[-1]}: nothing is being learnt: class {predicted} was predicted for every image of "
                    f"{streak.steps} steps since step {streak.first_step}, while the cross entropy stayed at "
                    f"{streak.cross_entropy:.4f} (constant scores reach {entropy:.4f}). {_REMEDY}"
                )
            # Older steps must not hide that a run stopped learning, so each stretch is judged for itself.
            streak.forget()

    def _check_saliency(self, steps: list[int], column_t: list[float]) -> None:
        mean = math.fsum(column_t) / len(column_t)
        saturated = not self._config.saliency_low <= mean <= self._config.saliency_high
        if saturated and not self._saturated:
            side, advice = (
                ("foreground", "--area-weight or a --triplet-margin keeps the triplet loss from it")
                if mean > self._config.saliency_high
                else ("background", "lower --area-weight, or check that the pseudo maps are not empty")
            )
            warnings.warn(
                f"step {steps[-1]}: the mean saliency is {mean:.4f}: nearly everything is {side}; {advice}",
                SaturatedSaliencyWarning,
                stacklevel=4,
            )
        self._saturated = saturated


class _Streak:
    """Number of steps in a row in which something was found."""

    def __init__(self) -> None:
        self.length = 0
        self.first_step = 0

    def note(self, step: int, *, found: bool) -> None:
        if found and self.length == 0:
            self.first_step = step
        self.length = self.length + 1 if found else 0


class _ConstantStreak:
    """Steps in a row that predict the same class for every image, their cross entropies and labels."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._predicted: int | None = None
        self.forget()

    def forget(self) -> None:
        self.steps = 0
        self.first_step = 0
        self._cross_entropy_sum = 0.0
        self._labels_k = torch.zeros(self._classes, dtype=torch.float64)

    def note(self, steps: list[int], *, predicted: int | None, cross_entropies: list[float], labels_k: Tensor) -> None:
        if predicted is None or predicted != self._predicted:
            self.forget()
        self._predicted = predicted
        if predicted is not None:
            if self.steps == 0:
                self.first_step = steps[0]
            self.steps += len(steps)
            self._cross_entropy_sum += math.fsum(cross_entropies)
            self._labels_k += labels_k

    @property
    def cross_entropy(self) -> float:
        """Mean over the steps, in nats."""
        return self._cross_entropy_sum / max(1, self.steps)

    @property
    def label_entropy(self) -> float:
        """Entropy in nats of the labels: the cross entropy of the best scores that ignore the image."""
        shares_k = self._labels_k / self._labels_k.sum().clamp(min=1)
        return float(torch.special.entr(shares_k).sum())


def _score_statistics(scores_bk: Tensor, labels_b: Tensor) -> dict[str, Tensor]:
    """Name -> scalar: cross entropy, spread over the batch (NaN for one image), range of predicted classes."""
    scores_bk = scores_bk.float()
    largest = scores_bk.abs().amax()
    spread = (scores_bk.amax(dim=0) - scores_bk.amin(dim=0)).amax() / largest.clamp(min=torch.finfo().tiny)
    predicted_b = scores_bk.argmax(dim=1)
    return {
        # Unweighted, whatever the training loss is, so that it can be compared with the entropy of the labels.
        _CROSS_ENTROPY: torch.nn.functional.cross_entropy(scores_bk, labels_b),
        _SPREAD: spread if len(scores_bk) > 1 else torch.full_like(spread, math.nan),
        _LOWEST_CLASS: predicted_b.amin(),
        _HIGHEST_CLASS: predicted_b.amax(),
    }
