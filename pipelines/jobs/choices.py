"""What the evaluations of ``wsol-eval`` are asked for: which images, which protocols, which views of a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.images import EvaluationSet

if TYPE_CHECKING:
    from training.inference.config import Views

__all__ = ["EvaluationChoices", "NetworkChoices"]


@dataclass(frozen=True, kw_only=True)
class EvaluationChoices:
    """What all evaluations share."""

    name: str
    """What tables and reports call the evaluation."""
    evaluation_set: EvaluationSet
    """The images asked for."""
    protocols: tuple[str, ...]
    """Names of protocols."""
    boxes: str
    """Ground truth that counts."""
    bootstrap_samples: int
    """Samples behind the intervals."""
    seed: int
    """Decides the samples."""
    out: Path | None
    """Folder of the results; None prints only."""
    jobs: int
    """Processes that make and score boxes."""
    panels: int
    """Images in the picture of examples; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class NetworkChoices:
    """How a network is looked at."""

    checkpoint: Path
    """Checkpoint file, or folder of a run."""
    localizers: tuple[str, ...]
    """Names of localizers; empty: all that need no gradient."""
    views: "Views"
    """Which views of an image are looked at."""
    precision: str
    """``fp32`` or ``bf16``."""
    devices: tuple[str, ...]
    """One process each."""
    batch_size: int
    """Images that pass the network together."""
    workers: int
    """Processes that decode, for each device."""
    save_maps: bool
    """Store the score maps as shards."""
