"""Configuration of the training objective. Imports no torch.

The docstring under a field is also the help text of the command-line option made from it.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

MapLossKind = Literal["l2", "mse", "bce"]
TripletSign = Literal["text", "as-printed"]
TripletScale = Literal["none", "image"]
ClassWeighting = Literal["none", "balanced"]


def check(valid: bool, name: str, value: object, expected: str) -> None:
    """ValueError, which says what was ``expected``, unless a value is valid."""
    if not valid:
        raise ValueError(f"{name}: expected {expected}, found {value}")


def check_choices(config: object, **allowed: Any) -> None:
    """ValueError for a field that is none of the names allowed, a ``Literal`` or a collection."""
    for name, choices in allowed.items():
        names: Iterable[str] = get_args(choices) or choices
        value = getattr(config, name)
        if value not in names:
            raise ValueError(f"{name}: expected one of {', '.join(names)}, found {value!r}")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Terms of the training objective, equation (8); ValueError for values without a meaning.

    A term of ``training.losses`` named ``x`` has its factor in the field ``x_weight``.
    """

    classification_weight: float = 1.0
    """Weight of the classification loss, equation (1)."""
    map_weight: float = 1.0
    """Weight of the map loss, equation (2)."""
    triplet_weight: float = 1.0
    """Weight of the perceptual triplet loss, equation (5)."""
    use_map: bool = True
    """Compute the map loss; off is the paper's ablation "w/o L_map"."""
    use_triplet: bool = True
    """Compute the perceptual triplet loss; off is the paper's ablation "w/o L_tri"."""
    map_kind: MapLossKind = "l2"
    """Distance between map and pseudo map: L2 norm (the paper's), mean squared error or binary cross entropy."""
    map_ignore: tuple[float, float] | None = None
    """Leave out of the map losses the pixels whose pseudo map lies between LOW and HIGH."""
    triplet_sign: TripletSign = "text"
    """Triplet loss: d_pos - d_neg (the paper's text) or d_neg - d_pos (its equation (5) as printed)."""
    triplet_scale: TripletScale = "none"
    """Divisor of an image's triplet distances: none (the paper's), or its features' distance to a black image's."""
    triplet_margin: float | None = None
    """Margin of the triplet loss, a hinge for each image; without one the loss is unbounded, as in the paper."""
    area_weight: float = 0.0
    """Weight of a penalty on the mean saliency, against maps that are foreground everywhere."""
    cam_map_weight: float = 0.0
    """Weight of the map loss on the label's class activation map (CAM); not in the paper, needs no decoder."""
    class_weighting: ClassWeighting = "none"
    """Class weights of the classification loss: none, or balanced by the number of training images."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.endswith("_weight") or (name == "triplet_margin" and value is not None):
                check(math.isfinite(value) and value >= 0, name, value, "a finite number of at least 0")
        check_choices(
            self,
            map_kind=MapLossKind,
            triplet_sign=TripletSign,
            triplet_scale=TripletScale,
            class_weighting=ClassWeighting,
        )
        if self.map_ignore is not None:
            low, high = self.map_ignore
            check(0 <= low < high <= 1, "map_ignore", f"{low} and {high}", "0 <= LOW < HIGH <= 1")
        if self.area_weight > 0 and not self.needs_saliency:
            raise ValueError(
                f"area_weight is {self.area_weight} while the map loss and the triplet loss are both off: expected 0, "
                "because no saliency is predicted then"
            )

    @property
    def needs_saliency(self) -> bool:
        """Whether any term uses the decoder's output; when none does, the decoder need not run."""
        return self.use_map or self.use_triplet

    @property
    def needs_maps(self) -> bool:
        """Whether any term uses the pseudo maps."""
        return self.use_map or self.computes("cam_map")

    def computes(self, term: str) -> bool:
        """Whether a term is part of the objective: by its switch ``use_<term>``, else by a factor above 0."""
        return bool(getattr(self, f"use_{term}", getattr(self, f"{term}_weight") > 0))

    def classification_only(self) -> "LossConfig":
        """The classification settings of this configuration, without any term on maps."""
        return LossConfig(
            use_map=False,
            use_triplet=False,
            classification_weight=self.classification_weight,
            class_weighting=self.class_weighting,
        )
