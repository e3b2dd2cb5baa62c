"""Turns data sets, a folder of maps and names of weights into a trainer that is ready to run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
from tqdm import tqdm

from pipelines.datasets import Dataset
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import MapIndex, file_sha256
from training.augmentation import EVALUATION_CROP
from training.config import TrainConfig, TrainRunConfig
from training.image_loading import MapReport, OnMissing, TrainingImages, check_maps
from training.losses import balanced_class_weights
from training.model import LocalizationModel
from training.processes import Processes
from training.progress import Progress
from training.trainer import Trainer
from training.weights import initialise_from_imagenet, load_perceptual_network

__all__ = ["TerminalProgress", "build_trainer", "choose_records", "identify_inputs"]

OPEN_SHARDS = 256
"""Shards that a loader worker keeps open: shuffled images come from all of them."""


class TerminalProgress(Progress):
    """A bar with images/s, remaining time and losses on a terminal; one line an epoch elsewhere."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def start_epoch(self, epoch: int, *, batches: int, done: int) -> None:
        """Begin a bar; not shown where stderr is not a terminal."""
        self._bar = tqdm(
            total=batches, initial=done, desc=f"epoch {epoch + 1}", unit=" step", disable=None, leave=False
        )

    def step(self, images: int, numbers: Mapping[str, float] | None) -> None:
        """Advance the bar."""
        assert self._bar is not None
        self._bar.update(1)
        if numbers is not None:
            shown = {name: numbers[name] for name in ("total", "top1", "images_per_s") if name in numbers}
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()})

    def say(self, text: str) -> None:
        """Print a line, above the bar when there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        click.echo(text, err=True)


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
    """Open everything that a run reads, say what was found, and join it.

    Parameters
    ----------
    train, val
        Splits of one data set; boxes are not read.
    maps
        Folder with the training split's shards, when the map loss is on.
    perceptual_weights
        ``imagenet``, ``random`` or a file.
    on_missing
        Whether images without a usable map are refused or skipped.
    limit
        Only the first images of each split.

    Raises
    ------
    ValueError
        Different classes in the splits, maps that are missing, weights that cannot be had.
    """
    if train.class_wnids != val.class_wnids:
        raise ValueError(
            f"{train.root}: the {len(train.class_wnids)} classes in train are not the {len(val.class_wnids)} in val"
        )
    progress = TerminalProgress() if processes.is_main else Progress()
    index = None if maps is None else MapIndex(maps, train.split, max_open_files=OPEN_SHARDS)
    records, report = choose_records(train, index=index, on_missing=on_missing, limit=limit)
    if report is not None:
        progress.say(f"maps: {report.describe()}")
    config = identify_inputs(config, index=index, perceptual_weights=perceptual_weights)
    perceptual = None
    if config.loss.use_triplet:
        perceptual = load_perceptual_network(perceptual_weights, seed=config.seed)
        progress.say(f"perceptual network: {perceptual.features} features of {perceptual_weights}")

    def initialise(model: LocalizationModel) -> None:
        progress.say(initialise_from_imagenet(model.encoder, config.arch).describe())

    weights = None
    if config.loss.class_weighting == "balanced":
        weights = balanced_class_weights([record.label for record in records], config.classes)
    val_crop = replace(EVALUATION_CROP, input_size=config.crop.input_size, resize=config.crop.resize)
    progress.say(
        f"{config.arch}, {config.method}: {len(records)} training and {len(val.records[:limit])} validation images of "
        f"{config.classes} classes, {processes.world_size} process(es) on {processes.device.type}"
    )
    return Trainer(
        config,
        run,
        out=out,
        processes=processes,
        train_images=TrainingImages(records, root=train.root, crop=config.crop, seed=config.seed, index=index),
        val_images=TrainingImages(list(val.records[:limit]), root=val.root, crop=val_crop, seed=0),
        perceptual=perceptual,
        class_weights_k=weights,
        initialise=initialise if config.init == "imagenet" else None,
        progress=progress,
    )


def choose_records(
    train: Dataset, *, index: MapIndex | None, on_missing: OnMissing, limit: int | None
) -> tuple[list[ImageRecord], MapReport | None]:
    """The images that are learnt from, and what was found of their maps.

    Raises
    ------
    MapsMissingError
        Images have no usable map and ``on_missing`` is ``"refuse"``, or no image has one.
    """
    records = list(train.records[:limit])
    return (records, None) if index is None else check_maps(records, index, on_missing=on_missing)


def identify_inputs(config: TrainConfig, *, index: MapIndex | None, perceptual_weights: str) -> TrainConfig:
    """The configuration as a checkpoint stores it: with that of the maps and the identity of F's weights."""
    if index is not None:
        config = replace(config, maps=index.provenance["configuration"])
    if config.loss.use_triplet:
        path = Path(perceptual_weights)
        known = file_sha256(path) if path.is_file() else perceptual_weights
        config = replace(config, perceptual=known)
    return config
