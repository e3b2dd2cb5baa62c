"""Configuration of a training run: every setting, every list of names, and the recipes. Imports no torch.

The docstring under a field is also the help text of the command-line option made from it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

from pseudo_maps.files import differences
from training.loss_config import LossConfig, check, check_choices
from training.networks.registry import ARCHITECTURES, TIMM_PREFIX, check_arch

_Config = TypeVar("_Config")

Method = Literal["gap", "has", "saliency"]
METHODS: dict[Method, str] = {
    "gap": "classification alone: the CAM baseline",
    "has": "classification of images with hidden patches: the Hide-and-Seek baseline",
    "saliency": "the paper's method: classification, map loss and perceptual triplet loss",
}
"""Name and meaning of every method."""

Precision = Literal["fp32", "bf16"]
Compile = Literal["off", "auto", "on"]
COMPILED_STEPS = 20_000
"""Fewest steps of a run that ``--compile auto`` compiles, an estimate: 10 ms saved in each pay for three minutes."""
Pooling = Literal["gap", "saliency", "pseudo-map"]
CropKind = Literal["crop", "resized-crop", "center", "squash"]
OptimiserName = Literal["adam", "adamw", "sgd"]
ScheduleKind = Literal["constant", "step", "cosine"]
OnMissing = Literal["refuse", "skip"]
"""Whether training images without a usable saliency map are an error or left out."""
NAMED_WEIGHTS = ("imagenet", "random")
"""Weights that have a name instead of a path."""
STEP_MILESTONES = (1 / 3, 2 / 3)
"""Epochs 30 and 60 of the usual 90 on ILSVRC, in proportion."""


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Training crop (section 2.5: "random cropping and horizontal flipping"); ValueError outside a field's range."""

    kind: CropKind = "crop"
    """Training crop: a random or the central square, a random area and aspect ratio, or the whole image squashed."""
    input_size: int = 224
    """Side of the network's input in pixels."""
    resize: int = 256
    """Short side in pixels to which images are resized before a crop or center crop."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of a resized-crop, as fractions of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a resized-crop, drawn uniformly in the logarithm."""
    flip_probability: float = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        check_choices(self, kind=CropKind)
        check(1 <= self.input_size <= self.resize, "input_size", self.input_size, f"1 to resize ({self.resize})")
        check(0 < self.scale[0] <= self.scale[1] <= 1, "scale", self.scale, "0 < smallest <= largest <= 1")
        check(0 < self.ratio[0] <= self.ratio[1] < math.inf, "ratio", self.ratio, "0 < smallest <= largest")
        check(0 <= self.flip_probability <= 1, "flip_probability", self.flip_probability, "0 to 1")

    @property
    def short_side_px(self) -> int:
        """Short side at which an image may be decoded without any crop of this kind being enlarged."""
        if self.kind == "resized-crop":
            # The thin side of a crop of the smallest area and the most extreme ratio.
            extreme = max(self.ratio[1], 1 / self.ratio[0])
            return math.ceil(self.input_size * math.sqrt(extreme / self.scale[0]))
        return self.input_size if self.kind == "squash" else self.resize

    def at_input_size(self, side_px: int) -> "CropConfig":
        """The same crop at another input size, ``resize`` in proportion."""
        return replace(self, input_size=side_px, resize=round(side_px * self.resize / self.input_size))


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Optimiser; ValueError for values without a meaning."""

    name: OptimiserName = "adam"
    """Optimiser."""
    lr: float = 1e-2
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Weight decay, not applied to biases and normalisation layers."""
    momentum: float = 0.9
    """Momentum of sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments of adam and adamw."""

    def __post_init__(self) -> None:
        check_choices(self, name=OptimiserName)
        check(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "a finite number above 0")
        decay = self.weight_decay
        check(math.isfinite(decay) and decay >= 0, "weight_decay", decay, "a finite number of at least 0")
        for name, value in (("momentum", self.momentum), ("betas", self.betas[0]), ("betas", self.betas[1])):
            check(0 <= value < 1, name, value, "0 <= value < 1")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning-rate schedule; ValueError for values without a meaning."""

    kind: ScheduleKind = "constant"
    """Learning-rate schedule after the warm-up; step multiplies by gamma at each milestone."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up, instead of warmup_steps."""
    milestones: tuple[float, ...] = ()
    """Fractions of the run at which the step schedule lowers the rate, after each third by default."""
    gamma: float = 0.1
    """Factor of the step schedule at each milestone."""
    final_fraction: float = 0.0
    """Fraction of the peak learning rate at which the cosine schedule ends."""

    def __post_init__(self) -> None:
        check_choices(self, kind=ScheduleKind)
        # Other schedules have no milestones, so a change of the kind leaves none behind.
        milestones = (tuple(self.milestones) or STEP_MILESTONES) if self.kind == "step" else ()
        object.__setattr__(self, "milestones", milestones)
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")
        finite = math.isfinite(self.warmup_epochs)
        check(finite and self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "a finite number of at least 0")
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError(f"warm-up of {self.warmup_steps} steps and {self.warmup_epochs} epochs: give only one")
        rising = list(milestones) == sorted(set(milestones)) and all(0 < part < 1 for part in milestones)
        check(rising, "milestones", milestones, "rising fractions of the run between 0 and 1")
        check(0 < self.gamma <= 1, "gamma", self.gamma, "above 0 and at most 1")
        check(0 <= self.final_fraction <= 1, "final_fraction", self.final_fraction, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What decides the result of a run, stored in every checkpoint; ValueError for values without a meaning."""

    arch: str = field(default="alexnet-gap", metadata={"choices": tuple(ARCHITECTURES), "prefix": TIMM_PREFIX})
    """Network architecture: one of these, or timm:NAME for any network of timm (extra: imagenet)."""
    classes: int = 1000
    """Number of classes."""
    method: Method = "saliency"
    """Training method: the CAM baseline, Hide-and-Seek, or the paper's method."""
    batch_norm: bool = True
    """Batch normalisation after every convolution of encoder and decoder."""
    output_stride: int | None = None
    """Stride of the features in input pixels: 8, 16 or 32; for resnet50-gap and timm's networks."""
    init: str = "random"
    """Initial weights: random (the paper's); imagenet, torchvision's or timm's for the layers that match; a file of
    torchvision's; or a checkpoint or run of wsol-train, of the same or other classes."""
    pooling: Pooling = "gap"
    """Pooling before the classifier: gap, the plain mean (the paper's), or a mean weighted by the decoder's saliency
    or, during training, by the pseudo map."""
    loss: LossConfig = field(default_factory=LossConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = 100
    """Epochs to train."""
    batch_size: int = 32
    """Images per optimiser step, over all processes."""
    accumulation: int = 1
    """Gradient accumulation steps per optimiser step."""
    clip_norm: float | None = None
    """Maximum gradient norm."""
    precision: Precision = "fp32"
    """Precision of the forward passes: float32, or bfloat16 autocast."""
    seed: int = 0
    """Random seed: initial weights, sampling order, crops, dropout."""
    perceptual: str = ""
    """The perceptual network's weights: SHA-256 of the file, or a name of ``NAMED_WEIGHTS``; empty when not used."""
    maps: Mapping[str, Any] = field(default_factory=dict)
    """Configuration of the saliency maps; empty when not used."""

    def __post_init__(self) -> None:
        check_arch(self.arch)
        check_choices(self, method=METHODS, precision=Precision, pooling=Pooling)
        check(self.output_stride in (None, 8, 16, 32), "output_stride", self.output_stride, "8, 16 or 32")
        for name in ("classes", "epochs", "batch_size", "accumulation"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check(0 <= self.seed < 2**63, "seed", self.seed, "0 <= seed < 2**63")
        check(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0")
        if self.method != "saliency" and (self.loss.needs_saliency or self.loss.needs_maps):
            raise ValueError(f"method {self.method}: expected no map loss and no triplet loss; switch them off")
        if self.pooling != "gap" and self.method != "saliency":
            raise ValueError(f"pooling {self.pooling}: expected gap, because method {self.method} is a baseline")
        if self.pooling == "saliency" and not self.loss.needs_saliency:
            raise ValueError(
                "pooling saliency: expected the map loss or the triplet loss, because no saliency is predicted "
                "without them"
            )

    @property
    def needs_maps(self) -> bool:
        """Whether the pseudo maps of the training images are used."""
        return self.loss.needs_maps or self.pooling == "pseudo-map"

    def as_json(self) -> dict[str, Any]:
        """The configuration as it is stored: nested dictionaries, lists, strings, numbers and booleans."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


@dataclass(frozen=True, kw_only=True)
class TrainRunConfig:
    """What does not decide the result of a run: how fast, how often saved, how much logged."""

    workers: int = 2
    """Processes that decode images, per training process; 0 decodes in the training process."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints within an epoch."""
    keep_last: int = 3
    """Number of newest checkpoints to keep."""
    log_every: int = 20
    """Steps between lines in metrics.jsonl."""
    compile: Compile = "off"
    """Compile networks and losses with torch.compile; auto: on CUDA, where the run is long enough to gain from it."""
    tensorboard: bool = False
    """Write TensorBoard events (extra: tensorboard)."""

    def compiles(self, *, device: str, steps: int) -> bool:
        """Whether a run of so many optimiser steps is compiled on ``device``, the whole run, so a resumed one too."""
        return self.compile == "on" or (self.compile == "auto" and device == "cuda" and steps >= COMPILED_STEPS)


class Recipe(NamedTuple):
    """A complete configuration to start from."""

    meaning: str
    """One line for help texts."""
    config: TrainConfig


RECIPES = {
    "paper": Recipe(
        "Adam, constant learning rate 1e-2, batch 32, 100 epochs, no clipping (section 2.5)", TrainConfig()
    ),
    "default": Recipe(
        "AdamW, 1e-3, two epochs of warm-up, cosine schedule, clipping, and the map loss on the CAM",
        TrainConfig(
            loss=LossConfig(cam_map_weight=4.0),
            optimiser=OptimiserConfig(name="adamw", lr=1e-3, weight_decay=0.05),
            schedule=ScheduleConfig(kind="cosine", warmup_epochs=2.0, final_fraction=0.01),
            clip_norm=1.0,
        ),
    ),
}
"""Every recipe by name."""


def recipe(name: str, *, method: Method | None = None) -> TrainConfig:
    """A recipe's configuration, for another method if wanted; ``gap`` and ``has`` keep its classification loss only.

    Raises
    ------
    ValueError
        Unknown recipe or method.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, found {name!r}")
    config = RECIPES[name].config
    if method is None:
        return config
    loss = config.loss if method == "saliency" else config.loss.classification_only()
    return replace(config, method=method, loss=loss)


def changed(config: _Config, values: Mapping[str, Any]) -> _Config:
    """Copy of a configuration with other values by field name; ``loss.map_weight`` is a nested field.

    Examples
    --------
    >>> changed(TrainConfig(), {"epochs": 3, "optimiser.lr": 0.1}).optimiser.lr
    0.1
    """
    fields = {name: value for name, value in values.items() if "." not in name}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        outer, _, inner = name.partition(".")
        if inner:
            nested.setdefault(outer, {})[inner] = value
    fields |= {outer: changed(getattr(config, outer), inner) for outer, inner in nested.items()}
    return replace(config, **fields)  # type: ignore[type-var]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def completed(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stored settings of a run, with the defaults of fields that are newer than it; these change nothing."""
    defaults = TrainConfig().as_json()
    nested = {name: {**value, **stored.get(name, {})} for name, value in defaults.items() if isinstance(value, dict)}
    return {**defaults, **stored, **nested} if stored else stored


def setting_differences(stored: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """What differs between the settings of a run, as ``as_json`` gives them, and those asked for, a line each.

    More epochs are no difference under a constant learning rate, of which no step depends on the length of the run.
    """
    stored = completed(stored)
    longer = config.schedule.kind == "constant" and config.epochs > int(stored.get("epochs", config.epochs))
    return differences({**stored, "epochs": config.epochs} if longer else stored, config.as_json())
