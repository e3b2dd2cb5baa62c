"""Finished runs of ``wsol-pipeline table`` written by hand, for the tests of what reads them."""

import copy
import json
from pathlib import Path
from typing import Any

from pipelines.datasets import Dataset
from pipelines.experiments.paper_table.options import EVALUATION_OPTIONS, TRAINING_OPTIONS
from pipelines.experiments.paper_table.plan import (
    BASELINE_NAME,
    PSEUDO_MAP_NAME,
    TablePlan,
    TableRun,
    planned_runs,
)
from pipelines.experiments.paper_table.rows import ROWS
from pipelines.experiments.steps import DataIdentity
from pseudo_maps.records import ImageRecord
from tests.evaluation import example_metrics

CONFIGURATION: dict[str, Any] = {
    "arch": "alexnet-gap",
    "classes": 2,
    "method": "gap",
    "seed": 0,
    "epochs": 7,
    "batch_size": 16,
    "init": "random",
    "precision": "fp32",
    "crop": {"input_size": 112},
    "optimiser": {"name": "adamw", "lr": 0.001, "weight_decay": 0.05},
    "schedule": {"kind": "cosine"},
    "loss": {"map_kind": "l2"},
    "maps": {"method": "geodesic", "map_size": 224},
    "perceptual": "imagenet",
}
PROTOCOLS = ("cam", "wsoleval-v1")


def dataset(root: Path, split: str, *, images: int) -> Dataset:
    records = tuple(
        ImageRecord(image_id=f"{split}{number}", path=f"{number}.jpg", wnid="a", label=0) for number in range(images)
    )
    return Dataset(
        root=root, split=split, layout="clsloc", records=records, class_wnids=("a", "b"), class_words=("a", "b")
    )


def data_identity(folder: Path) -> DataIdentity:
    """Two splits of images that do not exist; evaluations, which would read their boxes, cannot use it."""
    return DataIdentity(dataset(folder, "train", images=2), dataset(folder, "val", images=2))


def make_plan(folder: Path, **changes: Any) -> TablePlan:
    """A plan of two rows and three seeds on ten images that do not exist; other fields or options by key."""
    data, maps = folder / "shapes", folder / "maps"
    defaults = {key: one.to_info_dict()["default"] for key, one in {**EVALUATION_OPTIONS, **TRAINING_OPTIONS}.items()}
    given = {
        "epochs": 7,
        "map-weight": 2.0,
        "triplet-margin": 0.5,
        "area-weight": 0.25,
        "workers": 3,
        "boxes": "first",
        **{name: changes.pop(name) for name in list(changes) if name in defaults},
    }
    fields: dict[str, Any] = {
        "data": data,
        "layout": "auto",
        "train": dataset(data, "train", images=10),
        "val": dataset(data, "val", images=5),
        "maps": maps,
        "out": folder / "out",
        "archs": ("alexnet-gap",),
        "rows": ("gap", "ours"),
        "seeds": (0, 1, 2),
        "protocols": PROTOCOLS,
    }
    return TablePlan(**{**fields, **changes}, values={**defaults, **given}, given=frozenset(given))


def metrics_of(run: TableRun, *, correct: int, classified: int = 130) -> dict[str, Any]:
    """The content of a metrics.json; ``cam`` localizes ``correct`` of 200 images, other maps one more each."""
    kind = "run" if run.row else {BASELINE_NAME: "baseline", PSEUDO_MAP_NAME: "maps"}[run.name]
    made = example_metrics.metrics(run.name, kind=kind, correct=correct)
    names = ROWS[run.row].localizers if run.row else ("map",)
    if kind == "baseline":
        names = ()
    made["results"] = [
        example_metrics.result(name, protocol, correct=correct + extra, classified=bool(run.row))
        for extra, name in enumerate(names)
        for protocol in PROTOCOLS
    ]
    if made["classification"]:
        made["classification"]["top1"] = example_metrics.rate(classified)
    return made


def write_finished(
    run: TableRun, *, correct: int, configuration: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Make a run look finished; gives the content of its metrics.json."""
    for step in run.steps:
        run.record.begin(step)
    if run.row:
        stored = {**CONFIGURATION, "arch": run.arch, "seed": run.seed, **(configuration or {})}
        (run.folder / "finished.json").write_text(json.dumps({"configuration": stored}))
    content = copy.deepcopy(metrics_of(run, correct=correct, **changes))
    run.metrics_file.parent.mkdir(parents=True, exist_ok=True)
    run.metrics_file.write_text(json.dumps(content))
    return content


def runs_by_name(plan: TablePlan) -> dict[str, TableRun]:
    return {run.name: run for run in planned_runs(plan)}
