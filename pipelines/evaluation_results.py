"""Turns scored images into a folder of results: metrics.json, predictions.csv, and a journal to go on from.

The journal holds every image scored so far; an evaluation that was stopped goes on with the images that are missing.
It is deleted once metrics.json is there.
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evaluation.image_scores import ImageScores, Pair
from evaluation.journal import ResultJournal
from evaluation.metrics_schema import METRICS_SCHEMA, read_metrics
from evaluation.predictions import write_predictions
from evaluation.protocols import get_protocol
from evaluation.tally import Tally
from pipelines.evaluation_set import EvaluationImage, EvaluationSet
from pipelines.image_scoring import BASELINES
from pseudo_maps import __version__

__all__ = ["METRICS_FILE", "PREDICTIONS_FILE", "EvaluationPlan", "ResultFolder"]

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
JOURNAL_FOLDER = "journal"

_VERSIONED = ("numpy", "opencv-contrib-python-headless", "opencv-python", "torch", "torchvision")


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What decides the results of an evaluation."""

    kind: str
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
    """Samples behind the intervals."""
    seed: int
    """Decides the samples."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where the maps come from: network or shards, with digests."""
    stamp: str | None = None
    """What tells changes of a source that has no digest (times of files): compared on resume, not reported."""

    def config(self) -> dict[str, Any]:
        """All of it as JSON values, for metrics.json."""
        return {
            "data": self.evaluation_set.config(),
            "boxes": self.boxes,
            "protocols": list(self.protocols),
            "localizers": list(self.localizers),
            "bootstrap": {"samples": self.bootstrap_samples, "seed": self.seed},
            **self.source,
        }


class ResultFolder:
    """The folder of one evaluation, or a temporary one that is forgotten.

    Parameters
    ----------
    out
        Folder of the results, made when it is missing; None: results are printed only.
    plan
        What decides them.

    Raises
    ------
    ValueError
        The folder holds results of another plan; the differing keys are named.
    OSError
        The folder cannot be made or written.
    """

    def __init__(self, out: Path | None, *, plan: EvaluationPlan) -> None:
        self._plan = plan
        self._temporary = tempfile.TemporaryDirectory() if out is None else None
        self.folder = Path(self._temporary.name) if self._temporary else Path(os.fspath(out or ""))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._counted: Tally | None = None

    def finished(self) -> dict[str, Any] | None:
        """The content of metrics.json when this evaluation has been finished before, else None.

        Raises
        ------
        ValueError
            The file is of another evaluation, or is no metrics.json; keys that differ are named.
        """
        path = self.folder / METRICS_FILE
        if not path.exists():
            return None
        read_metrics(path)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        plan = self._plan
        wanted = json.loads(json.dumps({"kind": plan.kind, "config": plan.config()}))
        differing = [key for key in ("kind",) if found.get(key) != wanted[key]]
        before, now = found.get("config", {}), wanted["config"]
        differing += [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        if differing:
            raise ValueError(
                f"{path}: results of another evaluation, which differs in {', '.join(differing)}; use another --out"
            )
        return None if plan.stamp is not None else found

    def journal(self) -> ResultJournal:
        """The journal of this plan.

        Raises
        ------
        ValueError
            The folder holds the journal of another plan; the differing keys are named.
        """
        plan = self._plan
        return ResultJournal(
            self.folder / JOURNAL_FOLDER,
            config={"kind": plan.kind, "package": __version__, "stamp": plan.stamp, **plan.config()},
        )

    def score(
        self,
        score: Callable[[Sequence[EvaluationImage]], Iterator[list[ImageScores]]],
        *,
        again: frozenset[int] = frozenset(),
        advance: Callable[[int], None],
    ) -> None:
        """Score the images that the journal does not have yet.

        Parameters
        ----------
        score
            Gives the scores of images in batches; each batch is stored as it comes.
        again
            Indexes of images that are scored although the journal has them.
        advance
            Told how many images more are done.
        """
        journal = self.journal()
        done = journal.done() - again
        images = self._plan.evaluation_set.images
        waiting = [image for image in images if image.index not in done]
        advance(len(images) - len(waiting))
        for batch in score(waiting):
            journal.append(batch)
            advance(len(batch))

    def write(self, *, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Count what the journal holds, write metrics.json and predictions.csv, and delete the journal.

        Parameters
        ----------
        extra
            Further entries of metrics.json, such as ``pixels``.

        Returns
        -------
        dict
            The content of metrics.json.

        Raises
        ------
        RuntimeError
            An image is missing in the journal.
        """
        plan, journal, tally = self._plan, self.journal(), self._tally()
        metrics = {
            "schema": METRICS_SCHEMA,
            "kind": plan.kind,
            "name": plan.name,
            **tally.metrics(),
            "pixels": None,
            **(extra or {}),
            "config": plan.config(),
            "versions": _versions(),
        }
        write_predictions(
            self.folder / PREDICTIONS_FILE,
            journal,
            protocols=[get_protocol(name) for name in plan.protocols],
            localizers=(*plan.localizers, *BASELINES),
            levels=tally.reported_levels(),
        )
        text = json.dumps(metrics, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        write_atomically(self.folder / METRICS_FILE, text.encode("utf-8", errors="surrogateescape"))
        journal.remove()
        return metrics

    def reported_levels(self) -> dict[Pair, int]:
        """Threshold level at which each result is reported, by localizer and protocol."""
        return self._tally().reported_levels()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary:
            self._temporary.cleanup()

    def _tally(self) -> Tally:
        """Counts of all images; made once, when all are there."""
        if self._counted is None:
            plan = self._plan
            tally = Tally(
                [get_protocol(name) for name in plan.protocols],
                (*plan.localizers, *BASELINES),
                class_wnids=plan.evaluation_set.dataset.class_wnids,
                baselines=BASELINES,
                bootstrap_samples=plan.bootstrap_samples,
                seed=plan.seed,
            )
            for image in self._checked(self.journal()):
                tally.add([image])
            self._counted = tally
        return self._counted

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


def _versions() -> dict[str, str]:
    versions = {"saliency-aware-wsol": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
