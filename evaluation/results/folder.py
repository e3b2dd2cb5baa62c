"""Folder of one evaluation: metrics.json, predictions.csv, per_class.csv, and the journal of an unfinished one.

The journal holds every image scored so far; an evaluation that was stopped resumes with the images that are missing.
It is deleted once all files are there.
"""

import functools
import json
import platform
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec

from evaluation.image_scores import ImageScores, Pair
from evaluation.images import EvaluationSet
from evaluation.metrics.calibration import Calibration
from evaluation.metrics.pixels import pixel_scores
from evaluation.metrics.tally import IMAGES_AT_ONCE, Tally
from evaluation.names import BASELINES, EvaluationKind
from evaluation.protocols import Protocol, get_protocol
from evaluation.results.journal import ResultJournal
from evaluation.results.per_class import PER_CLASS_FILE, write_per_class
from evaluation.results.predictions import PREDICTIONS_FILE, write_predictions
from evaluation.schema import METRICS_FILE, Metrics, MetricsError, Result, read_metrics, write_json
from pseudo_maps import __version__
from pseudo_maps.files import LOCK_WAIT_S, differences, folder_lock

LOCK_FILE = ".evaluation.lock"
"""Locked by the evaluation that writes to the folder, and there only meanwhile."""
JOURNAL_FOLDER = "journal"
"""Folder inside a folder of results of what an unfinished evaluation has scored so far."""
EVALUATION_FOLDER = "evaluation"
"""Folder of the results inside that of a trained network."""

_VERSIONED = ("numpy", "opencv-contrib-python-headless", "opencv-python", "torch", "torchvision")


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What decides the results of an evaluation."""

    kind: EvaluationKind
    """``run``, ``maps`` or ``baseline``."""
    name: str
    """What tables and reports call it."""
    evaluation_set: EvaluationSet
    """The images asked for."""
    protocols: tuple[str, ...]
    """Names of the protocols, in the order of the results."""
    localizers: tuple[str, ...]
    """Names of the localizers, without the baselines."""
    boxes: str
    """Ground truth that counts, one of ``BOX_CHOICES``."""
    bootstrap_samples: int
    seed: int
    """Random seed of the bootstrap."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where the maps come from: network or shards, with digests."""
    views: Mapping[str, str] = field(default_factory=dict)
    """By protocol what the views of the network mean under it."""
    calibration: Calibration | None = None
    """Thresholds chosen on other images, for every localizer and baseline under the sweep protocols."""
    masks: str | None = None
    """Digest of the masks that pixels are scored by; None: they are not."""
    stamp: str | None = None
    """What tells changes of a source that has no digest (times of files): compared on resume, not reported."""

    def config(self) -> dict[str, Any]:
        """All of it as JSON values, for metrics.json."""
        values = {
            "data": self.evaluation_set.config(),
            "boxes": self.boxes,
            "protocols": list(self.protocols),
            "localizers": list(self.localizers),
            "bootstrap": {"samples": self.bootstrap_samples, "seed": self.seed},
            **({"thresholds": self.calibration.config()} if self.calibration else {}),
            **({"masks": {"sha256": self.masks}} if self.masks else {}),
            **self.source,
        }
        as_json: dict[str, Any] = json.loads(json.dumps(values))
        return as_json


class ResultFolder:
    """The folder of one evaluation, made when it is missing; a temporary one when ``out`` is None."""

    def __init__(self, out: Path | None, *, plan: EvaluationPlan) -> None:
        self._plan = plan
        self._temporary = ExitStack()
        self.folder = out or Path(self._temporary.enter_context(tempfile.TemporaryDirectory()))
        self.folder.mkdir(parents=True, exist_ok=True)

    def finished(self) -> Metrics | None:
        """The content of metrics.json when this evaluation has been finished before, else None.

        Finished means that the two CSV files are there too and the journal is gone. Another name of the same evaluation
        is written into metrics.json. ValueError when the file is of another evaluation, whose differing values are
        named, or is no metrics.json.
        """
        path, plan = self.folder / METRICS_FILE, self._plan
        if not path.exists():
            return None
        found = read_metrics(path)
        # An evaluation of another kind has other settings altogether.
        differing = differences({"kind": found.kind}, {"kind": plan.kind}) or differences(found.config, plan.config())
        if differing:
            raise ValueError(f"{path}: results of another evaluation ({'; '.join(differing)}); use another --out")
        whole = all((self.folder / name).is_file() for name in (PREDICTIONS_FILE, PER_CLASS_FILE))
        whole = whole and not (self.folder / JOURNAL_FOLDER).exists()
        if plan.stamp is not None or not whole:
            return None
        if found.name != plan.name:
            found = msgspec.structs.replace(found, name=plan.name)
            write_json(path, found)
        return found

    def alone(self) -> AbstractContextManager[None]:
        """Lock the folder during a block, so that no second evaluation writes to it; errors as ``folder_lock``."""
        return folder_lock(self.folder, LOCK_FILE, wait_s=LOCK_WAIT_S, warn=warnings.warn)

    def add(self, batch: Sequence[ImageScores]) -> None:
        """Keep the scores of a batch of images, in case the evaluation is stopped."""
        self.journal.add(batch)

    @functools.cached_property
    def journal(self) -> ResultJournal:
        """The scores added so far; ValueError when they are of another plan, whose differing keys are named."""
        plan = self._plan
        return ResultJournal(
            self.folder / JOURNAL_FOLDER,
            config={"kind": plan.kind, "package": __version__, "stamp": plan.stamp, **plan.config()},
        )

    def write(self) -> Metrics:
        """Count what the journal holds, write the two CSV files and metrics.json, and delete the journal.

        RuntimeError when an image is missing in the journal.
        """
        plan, tally = self._plan, self._tally
        metrics = Metrics(
            kind=plan.kind,
            name=plan.name,
            counts=tally.counts(),
            classification=tally.classification(),
            results=tuple(_with_views(result, plan.views) for result in tally.results()),
            baselines=tally.results(baselines=True),
            pixels=pixel_scores(self.journal, localizers=plan.localizers) if plan.masks else None,
            config=plan.config(),
            versions=_versions(),
        )
        write_predictions(
            self.folder / PREDICTIONS_FILE,
            self.journal,
            protocols=self._protocols(),
            localizers=(*plan.localizers, *BASELINES),
            levels=tally.reported_levels(),
        )
        write_per_class(self.folder / PER_CLASS_FILE, metrics, names=plan.evaluation_set.class_words)
        write_json(self.folder / METRICS_FILE, metrics)
        self.journal.remove()
        return metrics

    def reported_levels(self) -> dict[Pair, int]:
        """Threshold level at which each result is reported, by localizer and protocol."""
        return self._tally.reported_levels()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.close()

    def _protocols(self) -> list[Protocol]:
        first_box_only = self._plan.boxes == "first"
        return [replace(get_protocol(name), first_box_only=first_box_only) for name in self._plan.protocols]

    @functools.cached_property
    def _tally(self) -> Tally:
        """Counts of all images; made once, when all are there."""
        plan = self._plan
        tally = Tally(
            self._protocols(),
            (*plan.localizers, *BASELINES),
            class_wnids=plan.evaluation_set.class_wnids,
            baselines=BASELINES,
            bootstrap_samples=plan.bootstrap_samples,
            seed=plan.seed,
            calibration=plan.calibration,
        )
        images = self._checked(self.journal)
        while batch := list(islice(images, IMAGES_AT_ONCE)):
            tally.add(batch)
        return tally

    def _checked(self, journal: Iterable[ImageScores]) -> Iterator[ImageScores]:
        """The journal's images, which must be all that were asked for."""
        expected = 0
        for image in journal:
            if image.index != expected:
                break
            yield image
            expected += 1
        if expected != len(self._plan.evaluation_set.images):
            missing = self._plan.evaluation_set.images[expected].record.image_id
            raise RuntimeError(
                f"{self.folder}: no result of image {missing!r} (index {expected}); run the same command again"
            )


def find_metrics(path: Path) -> Path:
    """A ``metrics.json`` from its path, a folder of results, or the folder of a training run that holds its results.

    MetricsError for a folder that has none.
    """
    if not path.is_dir():
        return path
    own, inside = path / METRICS_FILE, path / EVALUATION_FOLDER / METRICS_FILE
    if own.is_file() or inside.is_file():
        return own if own.is_file() else inside
    raise MetricsError(
        f"{own}: not found, nor {inside}; give a folder that wsol-eval wrote, or evaluate the network first: wsol-eval "
        f"run {path}"
    )


def _with_views(result: Result, views: Mapping[str, str]) -> Result:
    """The result with the views of the network among its rules."""
    if result.protocol not in views:
        return result
    return msgspec.structs.replace(result, describe={**result.describe, "views": views[result.protocol]})


def _versions() -> dict[str, str]:
    versions = {"saliency-aware-wsol": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
