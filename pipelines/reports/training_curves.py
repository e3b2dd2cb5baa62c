"""Turns the ``metrics.jsonl`` of training runs into charts of losses and accuracies by epoch."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.drawing.charts import Line, line_chart
from training.run_folder.files import METRICS_LOG_FILE

__all__ = ["TrainingChart", "TrainingHistory", "read_history", "training_charts"]

_SALIENCY_NUMBERS = {
    "map": "map loss",
    "d_pos": "d_pos, foreground to image",
    "d_neg": "d_neg, foreground to background",
    "mean_saliency": "mean saliency",
}
"""What the full method logs besides the classification loss, and what the legend calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingHistory:
    """A training run, epoch by epoch."""

    name: str
    """Name of its folder."""
    values: Mapping[str, Mapping[float, float]]
    """By name of a number its value after each epoch: means over the epoch's steps, accuracies as fractions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingChart:
    """A chart, and its text for readers who do not see it."""

    svg: bytes
    alt: str
    """What it shows, with the last value of every line."""


def read_history(folder: Path, *, name: str | None = None) -> TrainingHistory:
    """Read what a run of wsol-train logged after each epoch; it may still be running.

    Parameters
    ----------
    folder
        That of the run.
    name
        What the legend calls it; by default the name of the folder.

    Raises
    ------
    ValueError
        There is no such log, or no epoch is finished in it.
    """
    path = folder / METRICS_LOG_FILE
    if not path.is_file():
        raise ValueError(f"{path}: not found; expected the folder of a run of wsol-train")
    values: dict[str, dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event: dict[str, Any] = json.loads(line)
            if event["event"] not in ("epoch", "val"):
                continue
            epoch = float(event.pop("epoch"))
        except (ValueError, KeyError, TypeError):
            # The last line of a process that was killed while writing it.
            continue
        prefix = "val_" if event["event"] == "val" else ""
        for key, value in event.items():
            if value is None or isinstance(value, int | float):
                # null stands for what is not finite.
                number = math.nan if value is None else float(value)
                values.setdefault(prefix + key, {})[epoch] = number
    if "train_classification" not in values:
        raise ValueError(f"{path}: expected at least one finished epoch, found none; train on, then report")
    return TrainingHistory(name=name or folder.resolve().name, values=values)


def training_charts(histories: Sequence[TrainingHistory]) -> list[TrainingChart]:
    """Charts of the classification loss, of accuracy, and of each run's map loss and triplet distances.

    Parameters
    ----------
    histories
        At least one; lines have their order.
    """
    loss = [_line(run, "train_classification", name=run.name) for run in histories]
    accuracy = [
        line
        for run in histories
        for key, what in (("train_top1", "training windows"), ("val_top1", "validation images"))
        if (line := _line(run, key, name=f"{run.name}: {what}", factor=100)) is not None
    ]
    charts = [
        _chart([line for line in loss if line is not None], title="Classification loss", values="cross entropy"),
        _chart(accuracy, title="Top-1 accuracy while training", values="images (%)"),
    ]
    for run in histories:
        lines = [
            line
            for key, what in _SALIENCY_NUMBERS.items()
            if (line := _line(run, f"train_{key}", name=what)) is not None
        ]
        if lines:
            charts.append(_chart(lines, title=f"Saliency of {run.name} while training", values="value"))
    return charts


def _line(run: TrainingHistory, key: str, *, name: str, factor: float = 1.0) -> Line | None:
    by_epoch = run.values.get(key)
    if not by_epoch:
        return None
    return Line(name=name, x_n=list(by_epoch), y_n=[factor * value for value in by_epoch.values()])


def _chart(lines: Sequence[Line], *, title: str, values: str) -> TrainingChart:
    svg = line_chart(lines, title=title, x_label="epoch", y_label=values, fractions=False, dots="all")
    last = "; ".join(f"{line.name} ends at {np.asarray(line.y_n)[-1]:.3g}" for line in lines)
    return TrainingChart(svg=svg, alt=f"{title}, by epoch: {last}.")
