"""Turns nothing but a folder name into generated images, maps, two trained networks, their scores and a report."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from evaluation.results.schema import METRICS_FILE
from pipelines.datasets.generated import make_clsloc_dataset
from pipelines.experiments.demo_text import BOXES, FULL, GAP, MAPS, introduction, read_figures, summary_lines
from pipelines.experiments.steps import StepRunner, command_line
from pseudo_maps import __version__
from pseudo_maps.files import write_atomically
from training.run_folder.files import FINISHED_FILE, checkpoint_name

__all__ = ["DemoPlan", "run_demo"]

PROTOCOLS = ("cam", "wsoleval-v1")
"""A fixed threshold, and the best one on the very images."""

_TITLE = "Demo: the saliency-aware method on generated images"
_IMAGES_S = 7
"""Wall time of drawing the images."""


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """What the demo makes. Both networks have the same budget; they differ by ``--method`` and its losses alone."""

    classes: int = 10
    """Classes of generated images."""
    train_per_class: int = 40
    """Images of each class to learn from."""
    val_per_class: int = 10
    """Images of each class to evaluate on."""
    size_px: tuple[int, int] = (240, 320)
    """Smallest and largest side of an image."""
    arch: str = "alexnet-gap"
    """Architecture of both networks."""
    input_size_px: int = 96
    """Side of what the networks see."""
    epochs: int = 8
    """Passes over the training images."""
    batch_size: int = 16
    """Images of a step; at most as many as there are to learn from."""
    map_weight: float = 64.0
    """Factor of the map loss."""
    seed: int = 0
    """Decides weights, order and windows of both networks."""
    shown_images: int = 8
    """Validation images in the pictures."""

    @property
    def steps(self) -> int:
        """Steps of the optimiser of a whole training; images that fill no batch wait for the next epoch."""
        return self.epochs * (self.classes * self.train_per_class // self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    what: str
    """Heading."""
    seconds: int
    """Wall time on two idle cores, measured here."""
    makes: Path
    """What is there when the step is done."""
    program: str
    words: tuple[object, ...]

    @property
    def line(self) -> str:
        return command_line(self.program, self.words)


class _Folders:
    """Where everything lies below the demo's folder."""

    def __init__(self, out: Path) -> None:
        self.out, self.data, self.maps = out, out / "data", out / "maps"
        self.gap, self.full = out / "runs" / GAP, out / "runs" / FULL
        # In the report's order.
        self.evaluations = {name: out / "evaluation" / name for name in (GAP, FULL, MAPS, BOXES)}
        self.preview, self.introduction, self.report = (
            out / "preview.png",
            out / "introduction.txt",
            out / "report.html",
        )
        self.record = out / "steps.json"


def run_demo(out: Path, *, jobs: int, plan: DemoPlan | None = None, debug: bool = False) -> None:
    """Generate images, make maps, train and score both networks, and write a report; finished steps are kept.

    Parameters
    ----------
    out
        Folder of everything; made when it is missing.
    jobs
        Processes that make maps.
    plan
        What is made; by default what ``make demo`` shows.
    debug
        Give every step ``--debug``.

    Raises
    ------
    StepFailed
        A step did not end well; its message stands above. The same call goes on.
    FileExistsError
        ``out`` holds other data.
    """
    plan = plan or DemoPlan()
    at = _Folders(out)
    started = time.monotonic()
    steps = _steps(at, plan=plan, jobs=jobs)
    with StepRunner(debug=debug) as runner:
        _say(1, steps, f"Generate {plan.classes} classes of images, with boxes and masks, in {at.data}")
        make_clsloc_dataset(
            at.data,
            classes=plan.classes,
            train_per_class=plan.train_per_class,
            val_per_class=plan.val_per_class,
            seed=plan.seed,
            size_px=plan.size_px,
        )
        recorded = _read_record(at.record)
        for place, step in enumerate(steps):
            # What stands behind a step that runs again may have other input than before.
            if recorded[: place + 1] == [done.line for done in steps[: place + 1]] and step.makes.exists():
                click.echo(f"[{place + 2}/{len(steps) + 1}] {step.what}: done before, kept")
                continue
            recorded = recorded[:place]
            _say(place + 2, steps, step.what)
            click.secho(f"$ {step.line}", bold=True)
            if step.makes == at.report:
                _write_introduction(at, plan=plan)
            runner.run(step.program, step.words)
            recorded = [*recorded, step.line]
            _write_record(at.record, recorded)
    _say_what_was_made(at, elapsed_s=time.monotonic() - started)


def _steps(at: _Folders, *, plan: DemoPlan, jobs: int) -> list[_Step]:
    """Every step after the images, in order."""
    maps = [
        _Step(
            what=f"Propose objects in the {split} images and average them into saliency maps",
            seconds=seconds,
            makes=at.maps / f"{split}.manifest.json",
            program="wsol-prep",
            words=("proposals", "--data", at.data, "--split", split, "--out", at.maps, "--jobs", jobs),
        )
        for split, seconds in (("train", 16), ("val", 5))
    ]
    shown = ("--split", "val", "--count", plan.shown_images)
    return [
        *maps,
        _Step(
            what="Read every map again and check it",
            seconds=1,
            makes=at.maps,
            program="wsol-prep",
            words=("verify", at.maps, "--data", at.data),
        ),
        _Step(
            what="Draw some of the maps",
            seconds=4,
            makes=at.preview,
            program="wsol-prep",
            words=("preview", at.maps, "--data", at.data, *shown, "--out", at.preview),
        ),
        *_training_steps(at, plan=plan),
        *_evaluation_steps(at, plan=plan),
        _Step(
            what="Write the report",
            seconds=4,
            makes=at.report,
            program="wsol-eval",
            words=_report_words(at),
        ),
    ]


def _training_steps(at: _Folders, *, plan: DemoPlan) -> list[_Step]:
    budget: tuple[object, ...] = ("--arch", plan.arch, "--input-size", plan.input_size_px, "--epochs", plan.epochs)
    budget += ("--batch-size", plan.batch_size, "--seed", plan.seed)
    # One checkpoint of the larger network takes 300 MB. Images this small are read faster than sent between processes.
    budget += ("--device", "cpu", "--workers", 0, "--keep-last", 1, "--resume")
    f = at.gap / checkpoint_name(plan.steps)
    losses = ("--perceptual-weights", f, "--map-weight", plan.map_weight)
    return [
        _Step(
            what="Train the baseline: classification alone (gap)",
            seconds=40,
            makes=at.gap / FINISHED_FILE,
            program="wsol-train",
            words=("--data", at.data, "--out", at.gap, "--method", "gap", *budget),
        ),
        _Step(
            what="Train the full method: classification, map loss, and triplet loss with that baseline as F",
            seconds=120,
            makes=at.full / FINISHED_FILE,
            program="wsol-train",
            words=("--data", at.data, "--maps", at.maps, "--out", at.full, "--method", "saliency", *losses, *budget),
        ),
    ]


def _evaluation_steps(at: _Folders, *, plan: DemoPlan) -> list[_Step]:
    asked: tuple[object, ...] = ("--data", at.data)
    for protocol in PROTOCOLS:
        asked += ("--protocol", protocol)
    shown = ("--panels", plan.shown_images)
    network = ("--device", "cpu", "--workers", 0, "--jobs", 1, *shown)
    scored: dict[str, tuple[str, tuple[object, ...]]] = {
        GAP: ("Evaluate the baseline network", ("run", at.gap, *asked, *network)),
        FULL: ("Evaluate the network of the full method", ("run", at.full, *asked, *network)),
        MAPS: ("Evaluate the maps as if they were a localizer", ("maps", at.maps, *asked, *shown)),
        BOXES: ("Evaluate boxes that never look at the image", ("baseline", *asked)),
    }
    return [
        _Step(
            what=what,
            seconds=8 if "run" in words else 5,
            makes=at.evaluations[name] / METRICS_FILE,
            program="wsol-eval",
            words=(*words, "--out", at.evaluations[name]),
        )
        for name, (what, words) in scored.items()
    ]


def _report_words(at: _Folders) -> tuple[object, ...]:
    words: list[object] = ["report", *at.evaluations.values(), "--out", at.report, "--title", _TITLE]
    words += ["--introduction", at.introduction]
    for run in (at.gap, at.full):
        words += ["--training", run]
    return tuple(words)


def _say(number: int, steps: Sequence[_Step], what: str) -> None:
    """Heading of step ``number``, the first of which is the images, with the time it takes and what is left."""
    seconds = [_IMAGES_S, *(step.seconds for step in steps)]
    here_s, left_s = seconds[number - 1], sum(seconds[number - 1 :])
    click.secho(f"\n[{number}/{len(seconds)}] {what}", bold=True)
    click.echo(f"about {here_s} s on two idle cores; all that is left: {left_s / 60:.1f} minutes")


def _write_introduction(at: _Folders, *, plan: DemoPlan) -> None:
    text = introduction(
        read_figures(at.evaluations),
        train_images=plan.classes * plan.train_per_class,
        arch=plan.arch,
        input_size_px=plan.input_size_px,
        epochs=plan.epochs,
    )
    write_atomically(at.introduction, f"{text}\n".encode())


def _read_record(path: Path) -> list[str]:
    """Lines of the steps done by this version, in order; none where the record is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [str(line) for line in found["done"]] if found["version"] == __version__ else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_record(path: Path, lines: Sequence[str]) -> None:
    write_atomically(path, (json.dumps({"version": __version__, "done": list(lines)}, indent=1) + "\n").encode())


def _say_what_was_made(at: _Folders, *, elapsed_s: float) -> None:
    made = {
        at.data: "generated images with boxes and masks, laid out like ILSVRC",
        at.maps: "saliency maps in HDF5 shards; open one in HDFView, silx view or H5Web",
        at.preview: "some images, their maps and boxes",
        at.gap: "the baseline network: checkpoint and training log",
        at.full: "the network of the full method, likewise",
        at.out / "evaluation": "metrics.json, predictions.csv and figures of all four evaluations",
        at.report: "all of it on one page: open it in a browser",
    }
    click.secho(f"\nDone in {elapsed_s / 60:.1f} minutes. What was made:", bold=True)
    for path, what in made.items():
        click.echo(f"  {path}  {what}")
    click.secho("Images localized (GT-known Loc), by protocol:", bold=True)
    for line in summary_lines(read_figures(at.evaluations)):
        click.echo(f"  {line}")
