"""Turns the words of ``wsol-train`` into a training run. Imports torch only when there is work to do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import DATA_OPTION, LAYOUT_OPTION
from pipelines.cli.terminal import (
    CONTEXT_SETTINGS,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    SingleCommand,
    common_options,
)

if TYPE_CHECKING:
    from pipelines.datasets import Dataset
    from training.config import TrainConfig

__all__ = ["main"]

ARCH_NAMES = ("alexnet-gap", "alexnet-gap-plus", "googlenet-gap", "resnet50-gap")
RECIPE_NAMES = ("paper", "default")
METHOD_NAMES = ("gap", "has", "saliency")
CROP_NAMES = ("crop", "resized-crop")
OPTIMISER_NAMES = ("adam", "adamw", "sgd")
SCHEDULE_NAMES = ("constant", "step", "cosine")
STEP_MILESTONES = (1 / 3, 2 / 3)
"""Where --schedule step lowers the rate tenfold: the epochs 30 and 60 of the usual 90 on ILSVRC, in proportion."""


@click.command(cls=SingleCommand, context_settings=CONTEXT_SETTINGS, params=[DATA_OPTION, LAYOUT_OPTION])
@click.option(
    "--maps",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the shards; without the map loss they only say which images are left out.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--arch", type=click.Choice(ARCH_NAMES), default="alexnet-gap", help="Encoder and classifier.")
@click.option(
    "--recipe", "recipe_name", type=click.Choice(RECIPE_NAMES), default="default", help="Where to start from."
)
@click.option("--method", type=click.Choice(METHOD_NAMES), default="saliency", help="What is learnt.")
@click.option("--no-map-loss", is_flag=True, help="Without the map loss (ablation).")
@click.option("--no-triplet-loss", is_flag=True, help="Without the perceptual triplet loss (ablation).")
@click.option("--map-loss", type=click.Choice(("l2", "mse", "bce")), default="l2", help="Kind of the map loss.")
@click.option("--map-weight", type=click.FloatRange(min=0), default=1.0, help="Factor of the map loss.")
@click.option("--triplet-weight", type=click.FloatRange(min=0), default=1.0, help="Factor of the triplet loss.")
@click.option(
    "--triplet-sign",
    type=click.Choice(("text", "as-printed")),
    default="text",
    help="d_pos - d_neg as the paper's text asks, or d_neg - d_pos as its equation (5) prints.",
)
@click.option("--triplet-margin", type=float, help="Hinge margin of the triplet loss.  [default: none]")
@click.option("--area-weight", type=click.FloatRange(min=0), default=0.0, help="Factor of the mean saliency.")
@click.option("--class-weighting", type=click.Choice(("none", "balanced")), default="none", help="Weights of classes.")
@click.option(
    "--perceptual-weights",
    default="imagenet",
    help="Weights of the frozen ResNet-50: imagenet (torchvision's), random, or torchvision's file; or a checkpoint "
    "of this program, of any architecture.",
)
@click.option("--init", type=click.Choice(("random", "imagenet")), default="random", help="Weights of the encoder.")
@click.option("--batch-norm/--no-batch-norm", default=True, help="Batch norm in encoder and decoder.")
@click.option("--on-missing", type=click.Choice(("refuse", "skip")), default="refuse", help="Images without a map.")
@click.option("--input-size", type=click.IntRange(min=64), default=224, help="Side in pixels of what the network sees.")
@click.option("--crop", type=click.Choice(CROP_NAMES), help="Window shown.  [default: the recipe's]")
@click.option("--crop-scale", type=click.FloatRange(0, 1, min_open=True), help="Smallest area of a resized-crop.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the images.  [default: the recipe's]")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images a step, over all processes.  [default: the recipe's]"
)
@click.option("--accumulation", type=click.IntRange(min=1), default=1, help="Parts of a batch, one after the other.")
@click.option("--optimiser", type=click.Choice(OPTIMISER_NAMES), help="Optimiser.  [default: the recipe's]")
@click.option("--lr", type=float, help="Learning rate.  [default: the recipe's]")
@click.option("--weight-decay", type=float, help="Weight decay.  [default: the recipe's]")
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULE_NAMES),
    help="Course of the learning rate; step: a tenth of it after each third of the run.  [default: the recipe's]",
)
@click.option("--warmup-epochs", type=float, help="Epochs over which the rate rises.  [default: the recipe's]")
@click.option("--clip-norm", type=float, help="Largest norm of the gradient, 0 for none.  [default: the recipe's]")
@click.option("--precision", type=click.Choice(("auto", "fp32", "bf16")), default="auto", help="auto: bf16 on CUDA.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Decides weights, order and windows.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(min=0), default=2, help="Processes that read images.")
@click.option("--checkpoint-minutes", type=click.FloatRange(min=0), default=10.0, help="Minutes between checkpoints.")
@click.option("--keep-last", type=click.IntRange(min=1), default=3, help="Checkpoints that stay.")
@click.option("--log-every", type=click.IntRange(min=1), default=20, help="Steps between two lines of numbers.")
@click.option("--compile", "compile_", is_flag=True, help="Compile the networks with torch.compile.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard events (extra: tensorboard).")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images of each split, for a try.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out.")
@common_options
def main(data: Path, layout: str, maps: Path | None, out: Path, **options: Any) -> None:
    """Train a network that classifies and localizes, from images and the saliency maps of wsol-prep.

    Runs alone, on one GPU, or on several: torchrun --nproc-per-node 4 -m pipelines.train_cli ... A run may be stopped
    at any moment; SIGTERM saves a checkpoint first and exits 143. Boxes are never read.
    """
    from training.progress import StoppedBySignal

    try:
        with _alone_in(out):
            _train(data, layout, maps, out, options)
    except StoppedBySignal as stopped:
        # One line, not one of each process.
        if os.environ.get("RANK", "0") == "0":
            click.echo(f"wsol-train: stopped by {stopped} with a checkpoint in {out}; --resume goes on", err=True)
        sys.exit(EXIT_INTERRUPTED if str(stopped) == "SIGINT" else EXIT_TERMINATED)


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep a second run out of the folder, before anything in it is looked at."""
    from pseudo_maps.files import folder_lock
    from training.run_folder.checkpoints import CheckpointFolder
    from training.run_folder.files import LOCK_FILE, LOCK_WAIT_S

    # Of several processes the first one writes. A finished run is only read, and may lie where nobody can write.
    if os.environ.get("RANK", "0") != "0" or CheckpointFolder(out).is_finished():
        yield
        return

    def warn(line: str) -> None:
        click.echo(f"wsol-train: warning: {line}", err=True)

    with folder_lock(out, LOCK_FILE, wait_s=LOCK_WAIT_S, warn=warn):
        yield


def _train(data: Path, layout: str, maps: Path | None, out: Path, options: dict[str, Any]) -> None:
    from pipelines.datasets import open_dataset
    from pipelines.jobs.training import build_trainer
    from training.config import TrainRunConfig
    from training.processes import start_processes
    from training.run_folder.checkpoints import CheckpointFolder

    folder = CheckpointFolder(out)
    finished = folder.finished()
    if finished is None and folder.steps() and not options["resume"]:
        raise click.UsageError(f"{out} has checkpoints already: add --resume to go on, or use another --out")
    datasets = {split: open_dataset(data, split=split, layout=layout) for split in ("train", "val")}
    processes = start_processes(options["device"])
    try:
        precision = options["precision"]
        if precision == "auto":
            precision = "bf16" if processes.device.type == "cuda" else "fp32"
        config = _configuration({**options, "precision": precision}, classes=len(datasets["train"].class_wnids))
        if config.loss.use_map and maps is None:
            raise click.UsageError("the map loss needs --maps FOLDER; make it with wsol-prep proposals")
        if finished is not None:
            _check_finished(finished, config, datasets["train"], out=out, maps=maps, options=options)
            if processes.is_main:
                click.echo(f"{out}: this run is finished; use another --out for another one")
            return
        run = TrainRunConfig(
            workers=options["workers"],
            checkpoint_minutes=options["checkpoint_minutes"],
            keep_last=options["keep_last"],
            log_every=options["log_every"],
            compile=options["compile_"],
            tensorboard=options["tensorboard"],
        )
        trainer = build_trainer(
            datasets["train"],
            datasets["val"],
            config=config,
            run=run,
            out=out,
            processes=processes,
            maps=maps,
            perceptual_weights=options["perceptual_weights"],
            on_missing=options["on_missing"],
            limit=options["limit"],
        )
        summary = trainer.fit(resume=options["resume"] and bool(folder.steps()))
        if processes.is_main:
            click.echo(
                f"finished: {summary.epochs} epochs, {summary.steps} steps, "
                f"val top-1 {100 * summary.top1:.2f} %, top-5 {100 * summary.top5:.2f} %; {out}"
            )
            if summary.peak_memory_bytes:
                click.echo(f"peak GPU memory: {summary.peak_memory_bytes / 2**30:.2f} GiB")
    finally:
        processes.stop()


def _check_finished(
    finished: Mapping[str, Any],
    config: TrainConfig,
    train: Dataset,
    *,
    out: Path,
    maps: Path | None,
    options: Mapping[str, Any],
) -> None:
    """ValueError when a finished run was asked for with other settings or images than it was made with."""
    from pipelines.jobs.training import choose_records, identify_inputs
    from pseudo_maps.files import differences
    from pseudo_maps.shards import MapIndex
    from training.data.loading import TrainingImages

    index = None if maps is None else MapIndex(maps, "train")
    asked = identify_inputs(config, index=index, perceptual_weights=options["perceptual_weights"])
    lines = differences(finished.get("configuration", {}), asked.as_json())
    if lines:
        raise ValueError(f"{out}: holds a finished run of other settings ({'; '.join(lines)}); use another --out")
    records, _ = choose_records(train, index=index, on_missing=options["on_missing"], limit=options["limit"])
    images = TrainingImages(records, root=train.root, crop=config.crop, seed=config.seed)
    if finished.get("images_sha256") not in (None, images.sha256()):
        raise ValueError(
            f"{out}: holds a finished run of other training images than these {len(records)} (--data, --limit and "
            "--on-missing choose them); use another --out"
        )


def _configuration(options: Mapping[str, Any], *, classes: int) -> TrainConfig:
    """The recipe with what the options change; the maps' and F's identities are added where they are opened."""
    from dataclasses import replace

    from training.config import LossConfig, recipe

    start = recipe(options["recipe_name"])
    saliency = options["method"] == "saliency"
    if not saliency and (options["no_map_loss"] or options["no_triplet_loss"]):
        raise click.UsageError(f"--method {options['method']} has no map loss and no triplet loss to switch off")
    loss = LossConfig(
        use_map=saliency and not options["no_map_loss"],
        use_triplet=saliency and not options["no_triplet_loss"],
        map_weight=options["map_weight"],
        triplet_weight=options["triplet_weight"],
        map_kind=options["map_loss"],
        triplet_sign=options["triplet_sign"],
        triplet_margin=options["triplet_margin"],
        area_weight=options["area_weight"],
        class_weighting=options["class_weighting"],
    )
    size = options["input_size"]
    # 256 for 224, as everybody trains on ILSVRC, and in proportion for other sizes.
    crop = replace(start.crop, input_size=size, resize=round(size * 256 / 224))
    if options["crop"] is not None:
        crop = replace(crop, kind=options["crop"])
    if options["crop_scale"] is not None:
        crop = replace(crop, scale=(options["crop_scale"], 1.0))
    optimiser = replace(start.optimiser, **_given(options, name="optimiser", lr="lr", weight_decay="weight_decay"))
    schedule = replace(
        start.schedule,
        **_given(options, kind="schedule", warmup_epochs="warmup_epochs"),
        milestones=STEP_MILESTONES if options["schedule"] == "step" else (),
    )
    clip_norm = start.clip_norm if options["clip_norm"] is None else (options["clip_norm"] or None)
    return replace(
        start,
        arch=options["arch"],
        classes=classes,
        method=options["method"],
        batch_norm=options["batch_norm"],
        init=options["init"],
        loss=loss,
        crop=crop,
        optimiser=optimiser,
        schedule=schedule,
        clip_norm=clip_norm,
        accumulation=options["accumulation"],
        precision=options["precision"],
        seed=options["seed"],
        **_given(options, epochs="epochs", batch_size="batch_size"),
    )


def _given(options: Mapping[str, Any], **fields: str) -> dict[str, Any]:
    return {field: options[option] for field, option in fields.items() if options[option] is not None}


if __name__ == "__main__":
    main(prog_name="wsol-train")
