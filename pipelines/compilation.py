"""Kernels compiled ahead of their first use, for all users of an installation and all nodes that share it."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from evaluation.maps import MAP_LOCALIZER
from evaluation.names import PROTOCOL_NAMES
from evaluation.results.folder import EvaluationPlan, ResultFolder
from evaluation.scoring import ImageMaps, MapBatch, ScoringTask, score
from pipelines.datasets import open_dataset
from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.jobs.evaluation_set import load_evaluation_set
from pseudo_maps.config import MapConfig
from pseudo_maps.kernels import telling_of_compilation
from pseudo_maps.proposals.detectors import DETECTORS
from pseudo_maps.proposals.geodesic_config import PRESETS, WEIGHTINGS
from pseudo_maps.proposals.methods import METHODS
from pseudo_maps.runs.generation import warm_up


def compile_kernels(*, on_compile: Callable[[], None]) -> None:
    """Make and score a few small maps in every way, so that all kernels are in a folder of ``kernel_folders``.

    ``on_compile`` is called once, before the first kernel that is not there yet.
    """
    tell = functools.cache(on_compile)
    presets = [replace(PRESETS["b1100"], boundaries=name) for name, row in DETECTORS.items() if not row.needs_model]
    configs = [MapConfig(proposals=preset, weighting=name) for preset in presets for name in WEIGHTINGS]
    for config in (*configs, MapConfig(proposals=METHODS["selective-search"].config(), weighting="uniform")):
        warm_up(config, on_compile=tell)
    with TemporaryDirectory() as folder, telling_of_compilation(tell):
        root = make_clsloc_dataset(Path(folder) / "data", classes=2, train_per_class=1, val_per_class=2)
        evaluation_set = load_evaluation_set(open_dataset(root, split="val"))
        plan = EvaluationPlan(
            kind="maps",
            name="compilation",
            evaluation_set=evaluation_set,
            protocols=PROTOCOL_NAMES,
            localizers=(MAP_LOCALIZER,),
            boxes="all",
            bootstrap_samples=1,
            seed=0,
        )
        task = ScoringTask(root=root, protocols=plan.protocols, localizers=plan.localizers)
        generator = np.random.default_rng(0)
        maps = [
            ImageMaps(whole={MAP_LOCALIZER: generator.random((14, 14), dtype=np.float32)})
            for _ in evaluation_set.images
        ]
        with ResultFolder(None, plan=plan) as results:
            results.add(score(MapBatch(evaluation_set.images, maps), task=task))
            results.write()
