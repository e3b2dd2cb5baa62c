"""Turns data, maps, architectures, rows and seeds into the runs behind the paper's tables, and says how far each is.

A run is a folder: what ``wsol-train`` wrote, ``evaluation`` with what ``wsol-eval`` wrote, the logs of both, and
``table-run.json`` with the settings that decide its result.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.results.folder import EVALUATION_FOLDER, JOURNAL_FOLDER
from evaluation.results.schema import METRICS_FILE
from pipelines.datasets import Dataset
from pipelines.experiments.paper_table.rows import ROWS
from pseudo_maps.files import differences, file_sha256, write_atomically
from pseudo_maps.shards.manifest import manifest_path
from training.run_folder.files import CHECKPOINT_GLOB, FINISHED_FILE, read_finished

__all__ = [
    "BASELINE_NAME",
    "PSEUDO_MAP_NAME",
    "RECORD_FILE",
    "Setting",
    "Step",
    "TablePlan",
    "TableRun",
    "images_digest",
    "planned_runs",
    "run_name",
]

RECORD_FILE = "table-run.json"
FAILURE_FILE = "failure.txt"
BASELINE_NAME = "baseline"
PSEUDO_MAP_NAME = "pseudo-map"

MAP_SETTINGS = frozenset({"map_loss", "map_weight"})
"""Options of ``wsol-train`` for rows with the map loss."""
TRIPLET_SETTINGS = frozenset({"triplet_weight", "triplet_sign", "triplet_margin", "perceptual_weights"})
"""Options of ``wsol-train`` for rows with the triplet loss."""
SALIENCY_SETTINGS = frozenset({"area_weight"})
"""Options of ``wsol-train`` for all rows with a saliency branch."""
FREE_SETTINGS = frozenset(
    {"workers", "jobs", "checkpoint_minutes", "keep_last", "log_every", "compile_", "tensorboard"}
)
"""Options that do not decide a result, and may change between two calls."""
FILE_SETTINGS = frozenset({"perceptual_weights", "blacklist"})
"""Options that may name a file: its content decides, not its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """An option of ``wsol-train`` or ``wsol-eval run`` with its value."""

    option: str
    """As it is typed: ``--epochs``."""
    value: Any
    """What it is set to, by default or not."""
    default: Any
    """What it is when nothing is typed."""
    words: tuple[str, ...]
    """What is typed for it; empty for the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A program that is part of a run."""

    program: str
    """A key of ``pipelines.experiments.steps.PROGRAMS``."""
    words: tuple[str, ...]
    """Its options and arguments."""
    log: Path
    """File that its output is added to."""


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """What the tables are made of."""

    data: Path
    """Root of the data set."""
    layout: str
    """Its layout, or ``auto``."""
    train: Dataset
    """The training images."""
    val: Dataset
    """The images that are scored."""
    maps: Path
    """Folder of the shards."""
    out: Path
    """Folder of all runs and of the tables."""
    archs: tuple[str, ...]
    """Architectures."""
    rows: tuple[str, ...]
    """Keys of ``ROWS``."""
    seeds: tuple[int, ...]
    """Seeds of every row."""
    protocols: tuple[str, ...]
    """Protocols; the first is the main table's."""
    training: Mapping[str, Setting]
    """Options of ``wsol-train``, by parameter name."""
    evaluation: Mapping[str, Setting]
    """Options of ``wsol-eval`` for every evaluation, by parameter name."""
    network_evaluation: Mapping[str, Setting]
    """Those of ``wsol-eval run`` alone."""

    @cached_property
    def train_images(self) -> str:
        """Number and digest of the training images."""
        return images_digest(self.train, limit=self.training["limit"].value)

    @cached_property
    def val_images(self) -> str:
        """Number and digest of the images that are scored."""
        return images_digest(self.val, limit=self.evaluation["limit"].value)

    @property
    def has_val_maps(self) -> bool:
        """Whether there are pseudo maps of the images that are scored."""
        return manifest_path(self.maps, self.val.split).is_file()


@dataclass(frozen=True, kw_only=True)
class TableRun:
    """One folder of results: a trained network, the baselines, or the pseudo maps."""

    name: str
    """What lines, tables and metrics.json call it."""
    folder: Path
    """Where it is made."""
    arch: str = ""
    """Architecture; empty where nothing is trained."""
    row: str = ""
    """Key of ``ROWS``; empty where nothing is trained."""
    seed: int | None = None
    """Seed of the training; None where nothing is trained."""
    training: Mapping[str, Any]
    """Settings that decide the training, as JSON values; empty where nothing is trained."""
    evaluation: Mapping[str, Any]
    """Settings that decide the evaluation, as JSON values."""
    training_words: tuple[str, ...]
    """What is typed after ``wsol-train``, but for the device."""
    evaluation_words: tuple[str, ...]
    """What is typed after ``wsol-eval``, but for the device."""
    protocols: tuple[str, ...]
    """As they were asked for, the main table's first: the settings of the evaluation hold them sorted."""

    @property
    def metrics_file(self) -> Path:
        """Where its figures stand when it is evaluated."""
        return self.folder / EVALUATION_FOLDER / METRICS_FILE

    @property
    def is_trained(self) -> bool:
        """Whether the training is finished, or there is none."""
        return not self.row or (self.folder / FINISHED_FILE).is_file()

    @property
    def is_finished(self) -> bool:
        """Whether its figures are there and whole."""
        evaluation = self.folder / EVALUATION_FOLDER
        return self.is_trained and self.metrics_file.is_file() and not (evaluation / JOURNAL_FOLDER).exists()

    @property
    def failure(self) -> str | None:
        """Why its last try failed; None when it did not."""
        path = self.folder / FAILURE_FILE
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def steps(self, *, device: str) -> list[Step]:
        """The programs that are still to be run, in order."""
        steps = []
        on_device = ("--device", device) if self.row else ()
        if not self.is_trained:
            steps.append(Step(program="wsol-train", words=(*self.training_words, *on_device), log=self.log("train")))
        if not self.is_finished:
            words = (*self.evaluation_words, *on_device)
            steps.append(Step(program="wsol-eval", words=words, log=self.log("evaluation")))
        return steps

    def log(self, name: str) -> Path:
        """File of the output of a step."""
        return self.folder / f"{name}.log"

    def refusal(self) -> str | None:
        """Why the folder cannot be gone on with: it was made with other settings. None when it can.

        Raises
        ------
        ValueError
            The record of the settings cannot be read.
        """
        record = self.record()
        begun = {
            "training": any(self.folder.glob(CHECKPOINT_GLOB)) or (self.folder / FINISHED_FILE).exists(),
            "evaluation": (self.folder / EVALUATION_FOLDER).is_dir(),
        }
        for part, folder in (("training", self.folder), ("evaluation", self.folder / EVALUATION_FOLDER)):
            if not begun[part]:
                continue
            if record is None:
                return f"{folder} was not made by wsol-pipeline table; use another --out, or move it away"
            lines = differences(record.get(part, {}), getattr(self, part))
            if lines:
                return f"{folder} was made with other settings ({'; '.join(lines)}); use another --out"
        return None

    def contradictions(self, options: Collection[str]) -> list[str]:
        """What the record of the settings says otherwise than these options, such as ``--epochs``.

        Raises
        ------
        ValueError
            The record cannot be read.
        """
        record = self.record() or {}
        found: list[str] = []
        for part, now in (("training", self.training), ("evaluation", self.evaluation)):
            there = record.get(part, {})
            of_both = [option for option in options if option in there and option in now]
            found += differences({name: there[name] for name in of_both}, {name: now[name] for name in of_both})
        return list(dict.fromkeys(found))

    def record(self) -> dict[str, Any] | None:
        """The settings that the folder was made with; None where it has none.

        Raises
        ------
        ValueError
            The file is damaged.
        """
        path = self.folder / RECORD_FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON, found: {error}; move the folder of the run away") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path}: expected an object, found {type(found).__name__}; move the folder away")
        return found

    def finished_training(self) -> dict[str, Any]:
        """What ``wsol-train`` left at its end: ``configuration``, the identity of the training images, and more.

        Raises
        ------
        ValueError
            The file is missing or damaged.
        """
        expected = f"{self.folder / FINISHED_FILE}: expected the configuration of a finished training"
        try:
            found = read_finished(self.folder)
        except OSError as error:
            raise ValueError(f"{expected}: {error}") from error
        if found is None or not isinstance(found.get("configuration"), dict):
            raise ValueError(f"{expected}, found none in it")
        return found

    def write_record(self) -> None:
        """Leave the settings in the folder, which is made when it is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {"training": self.training, "evaluation": self.evaluation, "protocols": self.protocols}
        text = json.dumps(record, indent=1)
        write_atomically(self.folder / RECORD_FILE, f"{text}\n".encode())

    def write_failure(self, reason: str | None) -> None:
        """Leave the reason of a failure in the folder, or take away that of an earlier try."""
        path = self.folder / FAILURE_FILE
        if reason is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, f"{reason}\n".encode(errors="replace"))


def planned_runs(plan: TablePlan) -> list[TableRun]:
    """All runs: baselines and pseudo maps first, which take no training, then seed by seed all rows of all networks.

    With the seeds outside, the tables have every row early.
    """
    trained = [
        _trained_run(plan, arch=arch, row=row, seed=seed)
        for seed in plan.seeds
        for arch in plan.archs
        for row in plan.rows
    ]
    maps = {"maps": _manifest_digest(plan.maps, plan.val.split)}
    return [
        _untrained_run(plan, name=BASELINE_NAME, command=("baseline",), record={}),
        _untrained_run(plan, name=PSEUDO_MAP_NAME, command=("maps", str(plan.maps)), record=maps),
        *trained,
    ]


def run_name(*, arch: str, row: str, seed: int) -> str:
    """Name of the run of a trained network."""
    return f"{arch} {row} seed {seed}"


def _trained_run(plan: TablePlan, *, arch: str, row: str, seed: int) -> TableRun:
    kind = ROWS[row]
    folder = plan.out / arch / row / f"seed-{seed}"
    unused: set[str] = set()
    # Where images without a map are skipped, rows without the map loss skip them too: all rows see the same images.
    # Where they are refused, every image has one, and these rows need not look.
    needs_maps = kind.uses_map or plan.training["on_missing"].value == "skip"
    unused |= set() if needs_maps else {"on_missing"}
    unused |= set() if kind.uses_map else MAP_SETTINGS
    unused |= set() if kind.uses_triplet else TRIPLET_SETTINGS
    unused |= set() if kind.has_saliency else SALIENCY_SETTINGS
    settings = {name: setting for name, setting in plan.training.items() if name not in unused}
    words = [*_data_words(plan), "--out", str(folder), "--arch", arch, *kind.words, "--seed", str(seed)]
    if needs_maps:
        words += ["--maps", str(plan.maps)]
    # --resume also starts a run that has no checkpoint yet.
    words += [*_typed(settings.values()), "--resume"]
    training: dict[str, Any] = {
        "arch": arch,
        "row": list(kind.words),
        "seed": seed,
        **_decisive(settings),
        "train_images": plan.train_images,
    }
    if needs_maps:
        training["maps"] = _manifest_digest(plan.maps, plan.train.split)
    localizers = [word for localizer in kind.localizers for word in ("--localizer", localizer)]
    name = run_name(arch=arch, row=row, seed=seed)
    scored = {**plan.evaluation, **plan.network_evaluation}
    return TableRun(
        name=name,
        folder=folder,
        arch=arch,
        row=row,
        seed=seed,
        training=training,
        evaluation={**_evaluation_record(plan, scored), "localizers": list(kind.localizers)},
        training_words=tuple(words),
        evaluation_words=(
            *("run", str(folder), *_evaluation_words(plan, folder=folder, name=name)),
            *localizers,
            *_typed(scored.values()),
        ),
        protocols=plan.protocols,
    )


def _untrained_run(plan: TablePlan, *, name: str, command: Sequence[str], record: Mapping[str, Any]) -> TableRun:
    """What ``wsol-eval`` scores without a network; ``record`` is what decides it beside the options."""
    folder = plan.out / name
    return TableRun(
        name=name,
        folder=folder,
        training={},
        evaluation={**_evaluation_record(plan, plan.evaluation), **record},
        training_words=(),
        evaluation_words=(
            *(*command, *_evaluation_words(plan, folder=folder, name=name)),
            *_typed(plan.evaluation.values()),
        ),
        protocols=plan.protocols,
    )


def _data_words(plan: TablePlan) -> list[str]:
    return ["--data", str(plan.data), *(() if plan.layout == "auto" else ("--layout", plan.layout))]


def _evaluation_words(plan: TablePlan, *, folder: Path, name: str) -> list[str]:
    protocols = [word for protocol in plan.protocols for word in ("--protocol", protocol)]
    return [*_data_words(plan), "--out", str(folder / EVALUATION_FOLDER), "--name", name, *protocols]


def _evaluation_record(plan: TablePlan, settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {
        "protocols": sorted(plan.protocols),
        **_decisive(settings),
        "val_images": plan.val_images,
    }


def _typed(settings: Iterable[Setting]) -> list[str]:
    return [word for setting in settings for word in setting.words]


def _decisive(settings: Mapping[str, Setting]) -> dict[str, Any]:
    values = {}
    for name, setting in settings.items():
        value = setting.value
        if name in FILE_SETTINGS and value is not None and Path(value).is_file():
            values[setting.option] = f"sha256 {file_sha256(Path(value))}"
        elif name not in FREE_SETTINGS:
            values[setting.option] = value
    return values


def images_digest(dataset: Dataset, *, limit: int | None) -> str:
    """Number and digest of the first images of a data set, as the record of a run holds it."""
    digest = hashlib.sha256()
    records = dataset.records[:limit]
    for record in records:
        digest.update(f"{record.image_id}\0{record.label}\0".encode(errors="surrogateescape"))
    return f"{len(records)} images, sha256 {digest.hexdigest()}"


def _manifest_digest(maps: Path, split: str) -> str:
    """Identity of the maps: their manifest holds the configuration and a digest of the images' ids."""
    path = manifest_path(maps, split)
    return f"sha256 {file_sha256(path)}" if path.is_file() else "none"
