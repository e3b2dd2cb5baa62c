"""Names that command lines offer and results hold, in the order in which they are shown; imports nothing heavy."""

from typing import Literal, get_args

PROTOCOL_NAMES = ("cam", "cam-release", "wsoleval-v1", "wsoleval-v2", "ts-cam", "psol-crop")
"""Keys of ``evaluation.protocols.PROTOCOLS``, the default first."""

BOX_CHOICES = ("all", "first")
"""Ground truth that counts: every box of an image, as ILSVRC asks, or only the one annotated first."""

BASELINES = ("centred-gaussian", "centred-square", "whole-frame")
"""Predictors that never look at the image, scored beside every result."""

ErrorKind = Literal["correct", "wrong class", "multi-instance", "part", "more", "other", "no box"]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
"""Verdicts on a predicted box; ``evaluation.metrics.errors`` defines them and uses positions in this tuple."""

EvaluationKind = Literal["run", "maps", "baseline"]
"""Commands of ``wsol-eval`` that write results."""
