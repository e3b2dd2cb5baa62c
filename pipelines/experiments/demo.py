"""The demo: generated images, maps, two trained networks, their scores and a report, as steps of one chain."""

import time
from dataclasses import dataclass
from pathlib import Path

import click

from pipelines.datasets import open_dataset
from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.demo_text import BOXES, FULL, GAP, MAPS, read_results, summary_lines, write_introduction
from pipelines.experiments.pipeline_plan import RECORD_FILE, evaluation_step, proposals_step, report_step, shards_of
from pipelines.experiments.runner import StepRunner, run_chain
from pipelines.experiments.steps import Chain, DataIdentity, FileSet, Step, StepRecord
from training.run_folder.files import checkpoint_name

PROTOCOLS = ("cam", "wsoleval-v1")
"""A fixed threshold, and the best one on the very images."""
_TITLE = "Demo: the saliency-aware method on generated images"


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """What the demo makes. Both networks have the same budget; they differ by ``--method`` and its losses alone."""

    classes: int = 10
    train_per_class: int = 40
    val_per_class: int = 10
    size_px: tuple[int, int] = (240, 320)
    arch: str = "alexnet-gap"
    input_size_px: int = 96
    epochs: int = 8
    batch_size: int = 16
    seed: int = 0
    shown_images: int = 8

    @property
    def steps(self) -> int:
        """Optimiser steps of a whole training; images that fill no batch are left over for the next epoch."""
        return self.epochs * (self.classes * self.train_per_class // self.batch_size)


class _Folders:
    """Where everything lies below the demo's folder."""

    def __init__(self, out: Path) -> None:
        self.out, self.data, self.maps = out, out / "data", out / "maps"
        self.gap, self.full = out / "runs" / GAP, out / "runs" / FULL
        # In the report's order.
        self.evaluations = {name: out / "evaluation" / name for name in (GAP, FULL, MAPS, BOXES)}
        self.preview, self.introduction = out / "preview.png", out / "introduction.txt"
        self.report = out / "report.html"


def run_demo(out: Path, *, jobs: int, plan: DemoPlan | None = None, debug: bool = False) -> None:
    """Generate images, make maps, train and score both networks, and write a report; finished steps are kept.

    StepFailed when a step fails; FileExistsError when ``out`` holds other data.
    """
    plan = plan or DemoPlan()
    at = _Folders(out)
    started = time.monotonic()
    click.echo(f"Generating {plan.classes} classes of images, with boxes and masks, in {at.data}")
    make_clsloc_dataset(
        at.data,
        classes=plan.classes,
        train_per_class=plan.train_per_class,
        val_per_class=plan.val_per_class,
        seed=plan.seed,
        size_px=plan.size_px,
    )
    data = DataIdentity(*(open_dataset(at.data, split=split) for split in ("train", "val")))
    steps = _steps(at, plan=plan, jobs=jobs)
    with StepRunner(debug=debug) as runner:
        run_chain(Chain(name="demo", steps=steps, record=StepRecord(out / RECORD_FILE)), runner=runner, data=data)
    _echo_made(at, elapsed_s=time.monotonic() - started)


def _steps(at: _Folders, *, plan: DemoPlan, jobs: int) -> tuple[Step, ...]:
    data = ("--data", str(at.data))
    shards = tuple(shards_of(at.maps, split) for split in ("train", "val"))
    verify = Step(
        name="verification of the maps",
        stage="proposals",
        program="wsol-prep",
        arguments=("verify", str(at.maps), *data),
        makes=FileSet(path=at.maps, patterns=()),
        reads=shards,
    )
    preview = Step(
        name="picture of some maps",
        stage="proposals",
        program="wsol-prep",
        arguments=(
            *("preview", str(at.maps), *data, "--split", "val"),
            *("--count", str(plan.shown_images), "--out", str(at.preview)),
        ),
        makes=FileSet(path=at.preview),
        reads=shards[1:],
    )
    return (
        *(
            proposals_step(split=split, maps=at.maps, data=data, more=("--jobs", str(jobs)))
            for split in ("train", "val")
        ),
        verify,
        preview,
        *_training_steps(at, plan=plan, maps=shards[0]),
        *_evaluation_steps(at, plan=plan, maps=shards[1]),
        _report_step(at, plan=plan),
    )


def _training_steps(at: _Folders, *, plan: DemoPlan, maps: FileSet) -> tuple[Step, Step]:
    # One checkpoint of the larger network takes 300 MB. Images this small are read faster than sent between processes.
    budget = (
        *("--data", str(at.data), "--arch", plan.arch, "--input-size", str(plan.input_size_px)),
        *("--epochs", str(plan.epochs), "--batch-size", str(plan.batch_size), "--seed", str(plan.seed)),
        *("--device", "cpu", "--workers", "0", "--keep-last", "1", "--resume"),
    )
    f = at.gap / checkpoint_name(plan.steps)
    baseline = Step(
        name="training of the baseline: classification alone",
        stage="training",
        program="wsol-train",
        arguments=("--out", str(at.gap), "--method", "gap", *budget),
        makes=FileSet(path=at.gap),
    )
    full = Step(
        name="training of the full method: classification, map losses, and triplet loss with that baseline as F",
        stage="training",
        program="wsol-train",
        arguments=(
            *("--out", str(at.full), "--method", "saliency", "--maps", str(at.maps)),
            *("--perceptual-weights", str(f), *budget),
        ),
        makes=FileSet(path=at.full),
        reads=(maps,),
    )
    return baseline, full


def _evaluation_steps(at: _Folders, *, plan: DemoPlan, maps: FileSet) -> list[Step]:
    asked = ("--data", str(at.data), *(part for protocol in PROTOCOLS for part in ("--protocol", protocol)))
    shown = ("--panels", str(plan.shown_images))
    network = (*shown, "--device", "cpu", "--workers", "0", "--jobs", "1")
    gap, full = FileSet(path=at.gap), FileSet(path=at.full)
    scored = [
        (GAP, "evaluation of the baseline network", ("run", str(at.gap)), network, gap),
        (FULL, "evaluation of the full method's network", ("run", str(at.full)), network, full),
        (MAPS, "evaluation of the maps as a localizer", ("maps", str(at.maps)), shown, maps),
        (BOXES, "evaluation of boxes that never look at the image", ("baseline",), (), None),
    ]
    return [
        evaluation_step(name=what, command=(*command, *asked), out=at.evaluations[name], more=more, reads=reads)
        for name, what, command, more, reads in scored
    ]


def _report_step(at: _Folders, *, plan: DemoPlan) -> Step:
    def prepare() -> None:
        write_introduction(
            at.introduction,
            read_results(at.evaluations),
            train_images=plan.classes * plan.train_per_class,
            arch=plan.arch,
            input_size_px=plan.input_size_px,
            epochs=plan.epochs,
        )

    return report_step(
        at.evaluations.values(),
        (at.gap, at.full),
        report=at.report,
        more=("--title", _TITLE, "--introduction", str(at.introduction)),
        prepare=prepare,
    )


def _echo_made(at: _Folders, *, elapsed_s: float) -> None:
    made = {
        at.data: "generated images with boxes and masks, laid out like ILSVRC",
        at.maps: "saliency maps in HDF5 shards; open one in HDFView, silx view or H5Web",
        at.preview: "some images, their maps and boxes",
        at.gap: "the baseline network: checkpoint and training log",
        at.full: "the network of the full method, likewise",
        at.out / "evaluation": "metrics.json and predictions.csv of all four evaluations",
        at.report: "all of it on one page: open it in a browser",
    }
    click.secho(f"\nDone in {elapsed_s / 60:.1f} minutes. What was made:", bold=True)
    for path, what in made.items():
        click.echo(f"  {path}  {what}")
    click.secho("Images localized (GT-known Loc), by protocol:", bold=True)
    for line in summary_lines(read_results(at.evaluations)):
        click.echo(f"  {line}")
