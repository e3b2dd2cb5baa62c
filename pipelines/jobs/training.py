"""Trainer from data sets, a folder of maps and names of weights, with its progress bars."""

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from pipelines.cli.terminal import bar_width
from pipelines.datasets import Dataset
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import MapIndex
from pseudo_maps.shards.sources import check_sources
from training.class_names import ClassNames
from training.config import OnMissing, TrainConfig, TrainRunConfig
from training.data.augmentation import EVALUATION_CROP
from training.data.loading import MapReport, TrainingImages, check_maps
from training.inference.initial_weights import initial_weights_identity, initialise
from training.losses import balanced_class_weights
from training.networks.model import LocalizationModel
from training.networks.weights import RANDOM, load_perceptual_network, weights_identity
from training.processes import Processes
from training.progress import Progress
from training.trainer import Trainer

OPEN_SHARDS = 256
"""Shards that a loader worker keeps open: shuffled images come from all of them."""


_SHOWN_NUMBERS = {"total": "loss", "top1": "top1"}
"""Training numbers beside the bar, and what they are called there."""


class TerminalProgress(Progress):
    """Bars of the steps and of the validation on a terminal; one line an epoch there and elsewhere."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def start_epoch(self, epoch: int, *, batches: int, done: int) -> None:
        """Begin a bar with steps/s, remaining time, loss and accuracy; not shown where stderr is not a terminal."""
        self._begin(f"epoch {epoch + 1}", total=batches, done=done, unit="step")

    def step(self, images: int, numbers: Mapping[str, float] | None) -> None:
        """Advance the bar."""
        assert self._bar is not None
        self._bar.update(1)
        if numbers is not None:
            shown = {word: numbers[name] for name, word in _SHOWN_NUMBERS.items() if name in numbers}
            self._bar.set_postfix({word: f"{value:.3g}" for word, value in shown.items()})

    def start_validation(self, *, batches: int) -> None:
        """Begin a bar in place of that of the epoch."""
        self._begin("validation", total=batches, done=0, unit="batch")

    def validate_batch(self) -> None:
        """Advance the bar."""
        assert self._bar is not None
        self._bar.update(1)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Remove the bar, so that a message does not stick to it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _begin(self, label: str, *, total: int, done: int, unit: str) -> None:
        self.close()
        # disable=None: no bar where stderr is not a terminal.
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=label,
            unit=f" {unit}",
            disable=None,
            leave=False,
            **bar_width(),
        )


def build_trainer(
    train: Dataset,
    val: Dataset,
    *,
    config: TrainConfig,
    run: TrainRunConfig,
    out: Path,
    processes: Processes,
    maps: Path | None,
    perceptual_weights: str,
    on_missing: OnMissing = "refuse",
    limit: int | None = None,
) -> Trainer:
    """Open everything that a run reads, report it, and build a trainer that is ready for ``fit``.

    ``train`` and ``val`` are splits of one data set, of which ``limit`` images are used; boxes are not read. ``maps``
    is the folder with the training split's shards: images without a usable map are treated as ``on_missing`` says, so
    that all methods see the same images; the maps themselves are read where something is learned from them.
    ``perceptual_weights`` is as in ``load_perceptual_network``. ValueError for different classes in the splits, maps
    that are missing, or weights that cannot be had; ShardError for maps of other images.
    """
    if train.class_wnids != val.class_wnids:
        raise ValueError(
            f"{train.root}: the {len(train.class_wnids)} classes of train are not the {len(val.class_wnids)} of val; "
            "both splits need the same classes"
        )
    progress = TerminalProgress() if processes.is_main else Progress()
    index = None if maps is None else MapIndex(maps, train.split, max_open_files=OPEN_SHARDS)
    records, report = choose_records(train, index=index, on_missing=on_missing, limit=limit)
    if report is not None:
        progress.say(f"maps: {report.describe()}")
    if index is not None:
        for warning in check_sources(index, records, root=train.root):
            progress.say(f"warning: {warning}")
    val_records = list(val.records[:limit])
    shared = set(_real_files(val_records, root=val.root)).intersection(_real_files(records, root=train.root))
    if shared:
        progress.say(
            f"warning: {len(shared)} of {len(val_records)} validation images are training images, so the accuracy says "
            f"nothing about new images; put images into the folders train and val of {train.root}"
        )
    names, weights_at_start = ClassNames(train.class_wnids, train.class_words), config.init
    config = identify_inputs(config, index=index, perceptual_weights=perceptual_weights)
    perceptual = None
    if config.loss.use_triplet:
        perceptual = load_perceptual_network(perceptual_weights, seed=config.seed)
        progress.say(f"perceptual network: {perceptual.features} features of {perceptual_weights}")

    def start(model: LocalizationModel) -> None:
        progress.say(initialise(model, weights_at_start, arch=config.arch, names=names))

    weights = None
    if config.loss.class_weighting == "balanced":
        weights = balanced_class_weights([record.label for record in records], config.classes)
    val_crop = replace(EVALUATION_CROP, input_size=config.crop.input_size, resize=config.crop.resize)
    progress.say(
        f"{config.arch}, {config.method}: {len(records)} training and {len(val_records)} validation images of "
        f"{config.classes} classes, {processes.world_size} process(es) on {processes.device.type}"
    )
    if processes.world_size > 1 and processes.device.type == "cpu" and config.batch_norm:
        progress.say(
            "warning: on CPUs batch norm is not synchronised, so each process normalises by its own part of a batch; "
            "--no-batch-norm trains the same on any number of processes"
        )
    left = len(records) % config.batch_size
    if 0 < left < len(records):
        progress.say(f"{left} of {len(records)} training images fill no batch; each epoch leaves out others")
    return Trainer(
        config,
        run,
        out=out,
        processes=processes,
        train_images=TrainingImages(
            records,
            root=train.root,
            crop=config.crop,
            seed=config.seed,
            index=index if config.needs_maps else None,
        ),
        val_images=TrainingImages(val_records, root=val.root, crop=val_crop, seed=0),
        perceptual=perceptual,
        class_weights_k=weights,
        class_names=names,
        initialise=None if weights_at_start == RANDOM else start,
        progress=progress,
    )


def _real_files(records: Iterable[ImageRecord], *, root: Path) -> Iterator[tuple[str, str]]:
    """Folder and name of each file, links to folders resolved: a split may be a link to another."""
    real = functools.cache(os.path.realpath)
    for record in records:
        folder, name = os.path.split(record.path)
        yield real(os.path.join(root, folder)), name


def choose_records(
    train: Dataset, *, index: MapIndex | None, on_missing: OnMissing, limit: int | None
) -> tuple[list[ImageRecord], MapReport | None]:
    """The training images, and the report on their maps; errors as ``check_maps``."""
    records = list(train.records[:limit])
    return (records, None) if index is None else check_maps(records, index, on_missing=on_missing)


def identify_inputs(config: TrainConfig, *, index: MapIndex | None, perceptual_weights: str) -> TrainConfig:
    """The configuration as a checkpoint stores it: with that of the maps and the identities of weights in files."""
    config = replace(config, init=initial_weights_identity(config.init))
    if index is not None and config.needs_maps:
        config = replace(config, maps=index.provenance["configuration"])
    if config.loss.use_triplet:
        config = replace(config, perceptual=weights_identity(perceptual_weights))
    return config
