"""The command ``wsol-train``: from options to a training run. Imports torch only when there is work to do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import given_names
from pipelines.cli.terminal import (
    CONTEXT_SETTINGS,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    SingleCommand,
    common_options,
    say_notes,
)
from pipelines.cli.train_options import CONFIG_OPTIONS, RUN_OPTIONS, TRAIN_OPTIONS
from pseudo_maps.wording import counted
from training.config import TrainConfig, TrainRunConfig, changed, recipe

if TYPE_CHECKING:
    from pipelines.datasets import Dataset


@click.command(cls=SingleCommand, context_settings=CONTEXT_SETTINGS, params=[*TRAIN_OPTIONS])
@common_options
def main(data: Path, layout: str, maps: Path | None, out: Path, **options: Any) -> None:
    """Train a network that classifies and localizes, from images and the saliency maps of wsol-prep.

    Runs on the CPU, one GPU or several: torchrun --nproc-per-node 4 "$(command -v wsol-train)" ... SIGTERM saves a
    checkpoint and exits with 143; --resume continues. Boxes are never read.
    """
    from training.progress import StoppedBySignal

    try:
        with contextlib.ExitStack() as held:
            _train(data, layout, maps, out, options, held=held)
    except StoppedBySignal as stopped:
        # One line, not one of each process.
        if os.environ.get("RANK", "0") == "0":
            click.echo(f"wsol-train: stopped by {stopped} with a checkpoint in {out}; --resume continues", err=True)
        sys.exit(EXIT_INTERRUPTED if str(stopped) == "SIGINT" else EXIT_TERMINATED)


def _train(
    data: Path, layout: str, maps: Path | None, out: Path, options: dict[str, Any], *, held: contextlib.ExitStack
) -> None:
    from pipelines.datasets import open_dataset
    from pipelines.jobs.training import build_trainer
    from pseudo_maps.files import LOCK_WAIT_S, folder_lock
    from training.processes import start_processes
    from training.run_folder.checkpoints import CheckpointFolder
    from training.run_folder.files import LOCK_FILE

    def lock() -> None:
        """Keep a second run out of the folder; of several processes the first one writes."""
        if is_first:
            held.enter_context(folder_lock(out, LOCK_FILE, wait_s=LOCK_WAIT_S, warn=lambda line: say_notes([line])))

    is_first = os.environ.get("RANK", "0") == "0"
    folder = CheckpointFolder(out)
    # A finished run is only read, unless it is continued, and may lie where nobody can write.
    is_locked = not folder.is_finished()
    if is_locked:
        lock()
    finished = folder.finished()
    if finished is None and folder.steps() and not options["resume"]:
        raise click.UsageError(f"{out} has checkpoints already: add --resume to continue, or use another --out")
    datasets = {split: open_dataset(data, split=split, layout=layout) for split in ("train", "val")}
    if is_first:
        say_notes(note for dataset in datasets.values() for note in dataset.notes)
    processes = start_processes(options["device"])
    try:
        precision = options["precision"]
        if precision == "auto":
            precision = "bf16" if processes.device.type == "cuda" else "fp32"
        given = given_names(click.get_current_context())
        classes = len(datasets["train"].class_wnids)
        if not classes:
            raise ValueError(
                f"{data}: none of {counted(len(datasets['train'].records), 'training image')} has a class; sort them "
                "into one folder per class (train/<class>, val/<class>)"
            )
        config = _configuration({**options, "precision": precision}, given=given, classes=classes)
        if config.needs_maps and maps is None:
            user = "the map loss" if config.loss.needs_maps else "--pooling pseudo-map"
            raise click.UsageError(f"{user} needs --maps FOLDER; make it with wsol-prep proposals")
        if finished is not None:
            _check_finished(finished, config, datasets["train"], out=out, maps=maps, options=options)
            if config.epochs == finished.get("configuration", {}).get("epochs") or not folder.steps():
                if processes.is_main:
                    click.echo(f"{out}: this run is finished; use another --out for a new one")
                return
            if not is_locked:
                lock()
                if folder.finished() != finished:
                    raise RuntimeError(f"{out}: another process has continued this run; give the command again")
        run = TrainRunConfig(**{option.field: options[str(option.name)] for option in RUN_OPTIONS})
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
        summary = trainer.fit(resume=bool(folder.steps() and (options["resume"] or finished)))
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
    """ValueError when a finished run has other settings or images than those asked for; more epochs may continue it."""
    from pipelines.jobs.training import choose_records, identify_inputs
    from pseudo_maps.shards import MapIndex
    from training.config import setting_differences
    from training.data.loading import TrainingImages

    index = None if maps is None else MapIndex(maps, "train")
    asked = identify_inputs(config, index=index, perceptual_weights=options["perceptual_weights"])
    lines = setting_differences(finished.get("configuration", {}), asked)
    if lines:
        text = "; ".join(lines)
        if len(lines) == 1 and text.startswith("epochs:") and asked.schedule.kind != "constant":
            text += f": its {asked.schedule.kind} schedule has ended, so that it cannot be continued"
        raise ValueError(f"{out}: holds a finished run of other settings ({text}); use another --out")
    records, _ = choose_records(train, index=index, on_missing=options["on_missing"], limit=options["limit"])
    images = TrainingImages(records, root=train.root, crop=config.crop, seed=config.seed)
    if finished.get("images_sha256") not in (None, images.sha256()):
        raise ValueError(
            f"{out}: holds a finished run of other training images than these {len(records)} (--data, --limit and "
            "--on-missing choose them); use another --out"
        )
    if finished.get("image_bytes") not in (None, images.file_bytes()):
        raise ValueError(f"{out}: holds a finished run, and image files have been replaced since; use another --out")


def _configuration(options: Mapping[str, Any], *, given: Collection[str], classes: int) -> TrainConfig:
    """The recipe, changed by the options that were given."""
    start = recipe(options["recipe"], method=options["method"] if "method" in given else None)
    without = [f"loss.use_{term}" for term in ("map", "triplet") if options[f"no_{term}_loss"]]
    if without and start.method != "saliency":
        raise click.UsageError(f"--method {start.method} has no map loss and no triplet loss to switch off")
    values = {option.field: options[str(option.name)] for option in CONFIG_OPTIONS if option.name in given}
    if options["no_map_loss"]:
        values.setdefault("loss.cam_map_weight", 0.0)
    values |= {"classes": classes, "precision": options["precision"], **dict.fromkeys(without, False)}
    if "crop.input_size" in values:
        start = replace(start, crop=start.crop.at_input_size(values.pop("crop.input_size")))
    if "crop.scale" in values:
        values["crop.scale"] = (values["crop.scale"], 1.0)
        if values.get("crop.kind", start.crop.kind) != "resized-crop":
            say_notes(["--crop-scale has no effect without --crop resized-crop"])
    if "clip_norm" in values:
        values["clip_norm"] = values["clip_norm"] or None
    return changed(start, values)


if __name__ == "__main__":
    main(prog_name="wsol-train")
