"""Names everything that decides a training run: the configuration in every checkpoint, and the two recipes."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from training.data.augmentation import CropConfig
from training.losses import LossConfig
from training.networks.registry import ARCHITECTURES
from training.schedules import OptimiserConfig, ScheduleConfig

__all__ = ["METHODS", "RECIPES", "TrainConfig", "TrainRunConfig", "configuration_differences", "recipe"]

Precision = Literal["fp32", "bf16"]
METHODS = {
    "gap": "classification alone: the CAM baseline",
    "has": "classification of images with hidden patches: the Hide-and-Seek baseline",
    "saliency": "the paper's method: classification, map loss and perceptual triplet loss",
}
"""Name and meaning of every method."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What decides the result of a run; ValueError for values without a meaning."""

    arch: str = "alexnet-gap"
    """Encoder and classifier."""
    classes: int = 1000
    """Number of classes."""
    method: str = "saliency"
    """What is learnt: gap, has or saliency."""
    batch_norm: bool = True
    """Batch norm after every convolution of encoder and decoder."""
    init: str = "random"
    """``random`` as in the paper, or ``imagenet``: torchvision's weights where the layers are the same."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Terms of the objective."""
    crop: CropConfig = field(default_factory=CropConfig)
    """What of an image is shown while training."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """Optimiser and its learning rate."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Course of the learning rate."""
    epochs: int = 100
    """Passes over the images."""
    batch_size: int = 32
    """Images of one step of the optimiser, over all processes."""
    accumulation: int = 1
    """Parts in which a process computes its share of a batch, one after the other."""
    clip_norm: float | None = None
    """Gradients are scaled down to this norm."""
    precision: Precision = "fp32"
    """fp32, or bf16: autocast of the forward passes."""
    seed: int = 0
    """Decides weights, order, windows and dropout; below 2**63."""
    perceptual: str = ""
    """The frozen network's weights: SHA-256 of the file, ``imagenet`` or ``random``; empty when not used."""
    maps: Mapping[str, Any] = field(default_factory=dict)
    """Configuration of the saliency maps; empty when not used."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("arch", self.arch, tuple(ARCHITECTURES)),
            ("method", self.method, tuple(METHODS)),
            ("precision", self.precision, get_args(Precision)),
            ("init", self.init, ("random", "imagenet")),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {value!r}")
        for name in ("classes", "epochs", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected 0 <= seed < 2**63, found {self.seed}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected above 0, found {self.clip_norm}")
        if self.method != "saliency" and self.loss.needs_saliency:
            raise ValueError(f"method {self.method} has neither map loss nor triplet loss: switch both off")

    def as_json(self) -> dict[str, Any]:
        """The configuration as it is stored: nested dictionaries, lists, strings, numbers and booleans."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def configuration_differences(stored: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Compare two configurations as ``as_json`` gives them.

    Parameters
    ----------
    stored
        The one in a checkpoint.
    own
        The one of this run.

    Returns
    -------
    list of str
        "optimiser.lr: 0.01 there, 0.001 now" for each value that differs, in the order of ``own``, then what only
        ``stored`` has; empty when they are equal.
    """
    there, now = dict(_leaves(stored)), dict(_leaves(own))
    return [
        f"{name}: {there.get(name, 'nothing')!r} there, {now.get(name, 'nothing')!r} now"
        for name in [*now, *(name for name in there if name not in now)]
        if name not in there or name not in now or there[name] != now[name]
    ]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    # An empty mapping is a value: "maps" of a run without maps.
    if isinstance(value, Mapping) and (value or not name):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


@dataclass(frozen=True, kw_only=True)
class TrainRunConfig:
    """What does not decide the result: how fast, how often saved, how talkative."""

    workers: int = 2
    """Processes that decode images, for each training process; 0 decodes in the training process."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints inside an epoch."""
    keep_last: int = 3
    """Checkpoints that stay."""
    log_every: int = 20
    """Steps between two lines of training numbers."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    tensorboard: bool = False
    """Write TensorBoard events."""


def _paper() -> TrainConfig:
    return TrainConfig()


def _default() -> TrainConfig:
    return replace(
        _paper(),
        optimiser=OptimiserConfig(name="adamw", lr=1e-3, weight_decay=0.05),
        schedule=ScheduleConfig(kind="cosine", warmup_epochs=2.0, final_fraction=0.01),
        clip_norm=1.0,
    )


RECIPES = {
    "paper": "section 2.5: Adam, learning rate 1e-2 throughout, batch 32, 100 epochs, no clipping",
    "default": "what trains well here: AdamW 1e-3, two epochs of warm-up, cosine, clipping",
}
"""Name and meaning of every recipe."""


def recipe(name: str) -> TrainConfig:
    """The configuration that a recipe starts from; ValueError for an unknown name."""
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, found {name!r}")
    return _paper() if name == "paper" else _default()
