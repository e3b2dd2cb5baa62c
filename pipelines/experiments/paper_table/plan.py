"""Plan of the paper's tables: every run with its folder, its steps and the settings that its results depend on."""

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.results.folder import EVALUATION_FOLDER, JOURNAL_FOLDER
from evaluation.schema import METRICS_FILE
from pipelines.cli.options import Option, arguments, names_file
from pipelines.datasets import Dataset
from pipelines.experiments.paper_table.options import EVALUATION_OPTIONS, NETWORK_KEYS, TRAINING_OPTIONS
from pipelines.experiments.paper_table.rows import ROWS
from pipelines.experiments.steps import Chain, FileSet, Step, StepRecord
from pseudo_maps.files import differences, file_sha256
from pseudo_maps.shards.manifest import found_splits, manifest_path
from training.networks.registry import ARCHITECTURES, TIMM_PREFIX
from training.run_folder.files import CHECKPOINT_GLOB, FINISHED_FILE, read_finished

RECORD_FILE = "table-run.json"
BASELINE_NAME = "baseline"
PSEUDO_MAP_NAME = "pseudo-map"
_SEED_PREFIX = "seed-"
_TIMM_FOLDERS = "timm-"
"""In place of ``timm:``, so that no relative path is taken for the name of a network."""


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """What the tables are made of."""

    data: Path
    layout: str
    train: Dataset
    val: Dataset
    maps: Path
    out: Path
    """Folder of all runs and of the tables."""
    archs: tuple[str, ...]
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    protocols: tuple[str, ...]
    """The first is the main table's."""
    values: Mapping[str, Any]
    """Value of every option that is passed on, by key; ``given`` has the keys of those that were given explicitly."""
    given: frozenset[str] = frozenset()

    @cached_property
    def train_images(self) -> str:
        """Number and digest of the training images."""
        return _images_digest(self.train, limit=self.values["limit"])

    @cached_property
    def val_images(self) -> str:
        """Number and digest of the images that are scored."""
        return _images_digest(self.val, limit=self.values["limit"])

    @property
    def has_val_maps(self) -> bool:
        """Whether there are pseudo maps of the images that are scored."""
        return self.maps.is_dir() and self.val.split in found_splits(self.maps)


@dataclass(frozen=True, kw_only=True)
class TableRun(Chain):
    """A trained network, the baselines, or the pseudo maps, each in a folder of its own."""

    folder: Path
    arch: str = ""
    row: str = ""
    """Key of ``ROWS``; like ``arch`` empty where nothing is trained."""
    seed: int | None = None

    @property
    def metrics_file(self) -> Path:
        """File of its results when it is evaluated."""
        return self.folder / EVALUATION_FOLDER / METRICS_FILE

    @property
    def is_trained(self) -> bool:
        """Whether the training is finished, or there is none."""
        return not self.row or (self.folder / FINISHED_FILE).is_file()

    @property
    def has_results(self) -> bool:
        """Whether its results are there and whole."""
        evaluation = self.folder / EVALUATION_FOLDER
        return self.is_trained and self.metrics_file.is_file() and not (evaluation / JOURNAL_FOLDER).exists()

    @property
    def failure(self) -> str | None:
        """Why its last try failed; None when it did not."""
        return next(filter(None, (self.record.failure(step.name) for step in self.steps)), None)

    def recorded(self, stage: str) -> Mapping[str, Any]:
        """Settings that the results of a stage were begun with; empty where they are not known."""
        names = [step.name for step in self.steps if step.stage == stage]
        return (self.record.settings(names[0]) if names else None) or {}

    def refusal(self) -> str | None:
        """Why the folder cannot be resumed: it was made with other settings. None when it can."""
        for step in self.steps:
            if step.makes.files():
                recorded = self.record.settings(step.name)
                if recorded is None:
                    return (
                        f"{step.makes.path} was not made by wsol-pipeline table, or its {RECORD_FILE} is damaged; use "
                        "another --out, or move it away"
                    )
                found = differences(recorded, step.settings)
                if found:
                    return f"{step.makes.path} was made with other settings ({'; '.join(found)}); use another --out"
        return None

    def finished_training(self) -> dict[str, Any]:
        """What ``wsol-train`` left at its end, ``configuration`` among it; ValueError where it is damaged."""
        expected = f"{self.folder / FINISHED_FILE}: expected the configuration of a finished training"
        try:
            found = read_finished(self.folder)
        except OSError as error:
            raise ValueError(f"{expected}: {error}") from error
        if found is None or not isinstance(found.get("configuration"), dict):
            raise ValueError(f"{expected}, found none in it")
        return found


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
    maps = FileSet(path=manifest_path(plan.maps, plan.val.split))
    return [
        _untrained_run(plan, name=BASELINE_NAME, command=("baseline",)),
        _untrained_run(plan, name=PSEUDO_MAP_NAME, command=("maps", str(plan.maps)), maps=maps),
        *trained,
    ]


def run_name(*, arch: str, row: str, seed: int) -> str:
    """Name of the run of a trained network."""
    return f"{arch} {row} seed {seed}"


def _folder_of(arch: str) -> str:
    return arch.replace(TIMM_PREFIX, _TIMM_FOLDERS)


def _trained_run(plan: TablePlan, *, arch: str, row: str, seed: int) -> TableRun:
    kind, name = ROWS[row], run_name(arch=arch, row=row, seed=seed)
    folder = plan.out / _folder_of(arch) / row / f"{_SEED_PREFIX}{seed}"
    options = {key: option for key, option in TRAINING_OPTIONS.items() if not option.field.startswith(kind.ignores)}
    # Where images without a map are skipped, rows without the map loss skip them too: all rows see the same images.
    # Where they are refused, every image has one, and these rows need not look.
    needs_maps = kind.uses_map or plan.values["on-missing"] == "skip"
    if not needs_maps:
        del options["on-missing"]
    decisive, free = _arguments(plan, options)
    manifest = FileSet(path=manifest_path(plan.maps, plan.train.split))
    checkpoints = FileSet(path=folder, patterns=(CHECKPOINT_GLOB, FINISHED_FILE))
    training = Step(
        name=f"training of {name}",
        stage="training",
        program="wsol-train",
        # --resume also starts a run that has no checkpoint yet.
        arguments=(
            *(*_data(plan), "--out", str(folder), "--arch", arch, *kind.arguments, *kind.switches),
            *("--seed", str(seed)),
            *(("--maps", str(plan.maps)) if needs_maps else ()),
            *(*decisive, "--resume"),
        ),
        free=free,
        on_device=True,
        makes=checkpoints,
        reads=(manifest,) if needs_maps else (),
        settings={
            **{"arch": arch, "row": list(kind.arguments), "seed": seed},
            **_decisive(plan, options),
            "train_images": plan.train_images,
            **({"maps": _digest(manifest)} if needs_maps else {}),
        },
        log=folder / "train.log",
    )
    localizers = [argument for localizer in kind.localizers for argument in ("--localizer", localizer)]
    evaluation = _evaluation(
        plan,
        name=name,
        folder=folder,
        command=("run", str(folder)),
        options=EVALUATION_OPTIONS,
        more=localizers,
        settings={"localizers": list(kind.localizers)},
        reads=checkpoints,
        on_device=True,
    )
    record = StepRecord(folder / RECORD_FILE)
    return TableRun(
        name=name, steps=(training, evaluation), record=record, folder=folder, arch=arch, row=row, seed=seed
    )


def _untrained_run(plan: TablePlan, *, name: str, command: Sequence[str], maps: FileSet | None = None) -> TableRun:
    """What ``wsol-eval`` scores without a network."""
    folder = plan.out / name
    step = _evaluation(
        plan,
        name=name,
        folder=folder,
        command=command,
        options={key: option for key, option in EVALUATION_OPTIONS.items() if key not in NETWORK_KEYS},
        settings={"maps": _digest(maps)} if maps else {},
        reads=maps,
    )
    return TableRun(name=name, steps=(step,), record=StepRecord(folder / RECORD_FILE), folder=folder)


def _evaluation(
    plan: TablePlan,
    *,
    name: str,
    folder: Path,
    command: Sequence[str],
    options: Mapping[str, Option],
    more: Sequence[str] = (),
    settings: Mapping[str, Any],
    reads: FileSet | None,
    on_device: bool = False,
) -> Step:
    decisive, free = _arguments(plan, options)
    protocols = [argument for protocol in plan.protocols for argument in ("--protocol", protocol)]
    out = folder / EVALUATION_FOLDER
    return Step(
        name=f"evaluation of {name}",
        stage="evaluation",
        program="wsol-eval",
        arguments=(*command, *_data(plan), "--out", str(out), "--name", name, *protocols, *more, *decisive),
        free=free,
        on_device=on_device,
        makes=FileSet(path=out),
        reads=(reads,) if reads else (),
        settings={
            # As keys: their order, which reports take from here, makes no difference.
            "protocol": dict.fromkeys(plan.protocols, True),
            **_decisive(plan, options),
            "val_images": plan.val_images,
            **settings,
        },
        log=folder / "evaluation.log",
    )


def _data(plan: TablePlan) -> list[str]:
    return ["--data", str(plan.data), *(() if plan.layout == "auto" else ("--layout", plan.layout))]


def _arguments(plan: TablePlan, options: Mapping[str, Option]) -> tuple[list[str], tuple[str, ...]]:
    """Arguments of the options that were given: those that decide results, and the others."""
    given = {key: plan.values[key] for key in options if key in plan.given}
    parts = [
        list(arguments(options, {key: value for key, value in given.items() if options[key].decides is decides}))
        for decides in (True, False)
    ]
    return parts[0], tuple(parts[1])


def _decisive(plan: TablePlan, options: Mapping[str, Option]) -> dict[str, Any]:
    """Values of the options that decide results; a file counts by its content."""
    values = {}
    for key, option in options.items():
        if option.decides:
            value = plan.values[key]
            if value is not None and names_file(option, value) and Path(value).is_file():
                value = f"sha256 {file_sha256(Path(value))}"
            values[f"--{key}"] = value
    return values


def _images_digest(dataset: Dataset, *, limit: int | None) -> str:
    """Number and digest of the first images of a data set."""
    digest = hashlib.sha256()
    records = dataset.records[:limit]
    for record in records:
        digest.update(f"{record.image_id}\0{record.label}\0".encode(errors="surrogateescape"))
    return f"{len(records)} images, sha256 {digest.hexdigest()}"


def _digest(manifest: FileSet) -> str:
    """Identity of the maps: their manifest holds the configuration and a digest of the images' ids."""
    return f"sha256 {file_sha256(manifest.path)}" if manifest.path.is_file() else "none"


def find_runs(out: Path) -> dict[str, Any]:
    """Options of ``wsol-pipeline table`` that the existing trained runs were made with, by their records.

    ``archs``, ``rows`` and ``seeds`` that have a run, and ``protocol`` and ``limit`` of the first; empty without runs.
    """
    found: dict[tuple[int, str, str], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    of_timm = sorted(path.name.removeprefix(_TIMM_FOLDERS) for path in out.glob(f"{_TIMM_FOLDERS}*"))
    archs = (*ARCHITECTURES, *(f"{TIMM_PREFIX}{name}" for name in of_timm))
    for arch in archs:
        for row in ROWS:
            for path in (out / _folder_of(arch) / row).glob(f"{_SEED_PREFIX}*/{RECORD_FILE}"):
                with contextlib.suppress(ValueError):
                    seed = int(path.parent.name.removeprefix(_SEED_PREFIX))
                    name, record = run_name(arch=arch, row=row, seed=seed), StepRecord(path)
                    training = record.settings(f"training of {name}")
                    if training is not None:
                        found[seed, arch, row] = training, record.settings(f"evaluation of {name}") or {}
    if not found:
        return {}
    seeds, of_archs, of_rows = (set(parts) for parts in zip(*found, strict=True))
    first, evaluation = next(found[key] for key in found if key[0] == min(seeds))
    values = {
        "archs": tuple(arch for arch in archs if arch in of_archs),
        "rows": tuple(row for row in ROWS if row in of_rows),
        "seeds": tuple(sorted(seeds)),
        "limit": first.get("--limit"),
    }
    return {**values, **({"protocol": tuple(evaluation["protocol"])} if evaluation else {})}


def contradictions(plan: TablePlan, runs: Iterable[TableRun], *, given: Collection[str]) -> list[str]:
    """Sentences about runs made with other options than those ``given`` (``--epochs``), or of other images."""
    digests: dict[tuple[str, int | None], str] = {}
    found = []
    for run in runs:
        different: list[str] = []
        for step in run.steps:
            made = run.recorded(step.stage)
            both = [name for name in given if name in made and name in step.settings]
            different += differences({name: made[name] for name in both}, {name: step.settings[name] for name in both})
            name, dataset = ("train_images", plan.train) if step.stage == "training" else ("val_images", plan.val)
            if name in made and "--limit" not in given:
                # The number of images is the run's own; which ones they are is the data set's.
                limit = made.get("--limit")
                if (name, limit) not in digests:
                    digests[name, limit] = _images_digest(dataset, limit=limit)
                different += differences({"--data": made[name]}, {"--data": digests[name, limit]})
        if different:
            found.append(f"{run.name} was made with other settings ({'; '.join(dict.fromkeys(different))})")
    return found
