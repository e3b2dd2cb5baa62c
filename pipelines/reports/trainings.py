"""Training runs in reports: names, curves by epoch, and whether they learned from the same images."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from evaluation.drawing.charts import ChartForm, Line, line_chart
from pipelines.reports.html_pages import Chart
from training.run_folder.files import METRICS_LOG_FILE

_SALIENCY_VALUES = {
    "map": "map loss",
    "cam_map": "map loss on the CAM",
    "d_pos": "d_pos, foreground to image",
    "d_neg": "d_neg, foreground to background",
    "mean_saliency": "mean saliency",
}
"""What the full method logs besides the classification loss, and its names in the legend."""


History: TypeAlias = Mapping[str, Mapping[float, float]]
"""By logged name the value after each epoch: means over the epoch's steps, accuracies as fractions."""


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells the folders apart (``gap/seed-0``); ValueError for one given twice."""
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path}: expected every training run once, found it {paths.count(path)} times")
    names = [path.name for path in paths]
    length = 1
    while len(set(names)) < len(names):
        length += 1
        names = ["/".join(path.parts[-length:]) for path in paths]
    return names


def other_training_images(finished: Mapping[str, Mapping[str, object]]) -> list[str]:
    """One sentence when not all runs learned from the same images, none when they did.

    ``finished`` is the content of ``finished.json`` by name of a run; runs without ``images_sha256`` are not compared.
    """
    by_digest: dict[object, list[str]] = {}
    for name, one in finished.items():
        if one.get("images_sha256"):
            by_digest.setdefault(one["images_sha256"], []).append(name)
    if len(by_digest) < 2:
        return []
    groups = []
    for names in by_digest.values():
        number = finished[names[0]].get("images")
        groups.append(", ".join(names) + ("" if number is None else f" ({number} images)"))
    return [
        f"Not all runs learned from the same images: {', against '.join(groups)}. --on-missing skip leaves out images "
        "without a map, --limit all but the first."
    ]


def read_history(folder: Path) -> History:
    """Read what a run of wsol-train logged after each epoch; ValueError without a log or a finished epoch."""
    path = folder / METRICS_LOG_FILE
    if not path.is_file():
        raise ValueError(f"{path}: not found; expected the folder of a run of wsol-train")
    values: dict[str, dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
            if event["event"] not in ("epoch", "val"):
                continue
            epoch = float(event.pop("epoch"))
        except (ValueError, KeyError, TypeError):
            # The last line of a process that was killed while writing it.
            continue
        prefix = "val_" if event["event"] == "val" else ""
        for key, value in event.items():
            if value is None or isinstance(value, int | float):
                # null is logged for NaN and infinity.
                values.setdefault(prefix + key, {})[epoch] = math.nan if value is None else float(value)
    if "train_classification" not in values:
        raise ValueError(f"{path}: expected at least one finished epoch, found none; report after the first epoch")
    return values


def training_charts(histories: Mapping[str, History], *, form: ChartForm = "page") -> list[Chart]:
    """The classification loss, accuracies, and each run's map loss and triplet distances, by the runs' names."""
    if not histories:
        return []
    losses = _lines({name: history.get("train_classification") for name, history in histories.items()})
    accuracies = _lines(
        {
            f"{name} on {images}": history.get(key)
            for name, history in histories.items()
            for key, images in (("train_top1", "training crops"), ("val_top1", "validation images"))
        },
        factor=100,
    )
    charts = [
        _chart("training-loss", losses, title="Classification loss", y_label="cross entropy", form=form),
        _chart("training-accuracy", accuracies, title="Top-1 accuracy while training", y_label="images (%)", form=form),
    ]
    for number, (name, history) in enumerate(histories.items(), start=1):
        lines = _lines({value: history.get(f"train_{key}") for key, value in _SALIENCY_VALUES.items()})
        if lines:
            title = f"Saliency of {name} while training"
            charts.append(_chart(f"training-saliency-{number}", lines, title=title, y_label="value", form=form))
    return charts


def _lines(named: Mapping[str, Mapping[float, float] | None], *, factor: float = 1.0) -> list[Line]:
    """Lines of those values by epoch that were logged."""
    return [
        Line(name=name, x_n=list(by_epoch), y_n=[factor * value for value in by_epoch.values()])
        for name, by_epoch in named.items()
        if by_epoch
    ]


def _chart(name: str, lines: Sequence[Line], *, title: str, y_label: str, form: ChartForm) -> Chart:
    content = line_chart(lines, title=title, x_label="epoch", y_label=y_label, fractions=False, dots="all", form=form)
    last = "; ".join(f"{line.name} ends at {line.y_n[-1]:.3g}" for line in lines)
    return Chart(name, content, f"{title}, by epoch: {last}.")
