"""Command line of ``wsol-eval``: evaluations, predictions, exports and reports. Imports torch late."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evaluation.names import PROTOCOL_NAMES
from pipelines.cli.eval_options import BASELINE_OPTIONS, MAPS_OPTIONS, PREDICT_OPTIONS, RUN_OPTIONS
from pipelines.cli.options import EXISTING, EXISTING_FILE, EXISTING_FOLDER, NEW_FOLDER, Network, NewFile, as_usage_error
from pipelines.cli.terminal import (
    CONTEXT_SETTINGS,
    CommandGroup,
    Progress,
    common_options,
    ending_on_signals,
    say_notes,
)
from pseudo_maps.wording import counted
from training.networks.registry import TIMM_PREFIX

if TYPE_CHECKING:
    from evaluation.schema import Metrics
    from pipelines.jobs.evaluation import EvaluationChoices


ZERO_PROTOCOLS = ("cam", "cam-release", "psol-crop")
"""Protocols that measure a share of the maximum from 0; the others do from the minimum."""


@click.group(cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@common_options
def main() -> None:
    """Score localization under named protocols, beside baselines that ignore the image.

    Every score has its protocol, its threshold, and the numbers of images scored, failed and skipped. After an
    interruption the same command with the same --out resumes.
    """


@main.command(context_settings=CONTEXT_SETTINGS, params=[*RUN_OPTIONS])
@click.argument("checkpoint", type=Network())
@common_options
def run(checkpoint: Path, **options: Any) -> None:
    """Score a trained network: a checkpoint or run folder of wsol-train, or timm:NAME[@FILE] with --out."""
    from evaluation.results.folder import EVALUATION_FOLDER
    from pipelines.jobs.evaluation import evaluate_network
    from pipelines.jobs.network_maps import NetworkChoices, usable_devices
    from training.inference.config import Views

    with as_usage_error():
        devices = usable_devices(options["device"])
        views = Views(scales=options["scales"] or (1.0,), flip=options["flip"], ten_crop=options["ten_crop"])
    # Runs are told apart by their own names, not by that of the folder that all results have by default.
    default_name = (options["out"] or checkpoint).resolve().name
    if options["out"] is None:
        if str(checkpoint).startswith(TIMM_PREFIX):
            raise click.UsageError(f"{checkpoint} has no run folder: give --out FOLDER")
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
        options["out"] = folder / (
            EVALUATION_FOLDER if checkpoint.is_dir() else f"{EVALUATION_FOLDER}-{checkpoint.stem}"
        )
    precision = options["precision"]
    if precision == "auto":
        precision = "bf16" if devices[0].startswith("cuda") else "fp32"
    choices = _choices(options, default_name=default_name, need_boxes=False)
    network = NetworkChoices(
        checkpoint=checkpoint,
        localizers=options["localizers"],
        views=views,
        precision=precision,
        devices=devices,
        batch_size=options["batch_size"],
        workers=options["workers"],
        save_maps=options["save_maps"],
    )
    _evaluate(choices, functools.partial(evaluate_network, choices, network, say=Progress.say))


@main.command(context_settings=CONTEXT_SETTINGS, params=[*MAPS_OPTIONS])
@click.argument("folder", type=EXISTING_FOLDER)
@common_options
def maps(folder: Path, **options: Any) -> None:
    """Score a folder of maps without a network: shards, or files of any tool."""
    from evaluation.maps import open_stored_maps
    from pipelines.jobs.box_checks import check_map_names, check_map_shapes
    from pipelines.jobs.class_scores import read_class_scores
    from pipelines.jobs.evaluation import evaluate_maps

    # Without boxes and masks there are pictures still, for which a folder is needed.
    need_boxes = options["masks"] is None and options["out"] is None
    choices = _choices(options, default_name=(options["out"] or folder).resolve().name, need_boxes=need_boxes)
    source = open_stored_maps(
        folder,
        split=options["split"],
        min_max=options["map_range"] == "min-max",
        localizer=options["localizer"],
    )
    records = [image.record for image in choices.evaluation_set.images]
    say_notes(check_map_names(source, folder, wanted=records, known=choices.evaluation_set.records))
    say_notes(check_map_shapes(source, folder, records, root=choices.evaluation_set.root))
    zero = "" if source.min_max else source.describe_zero(choices.evaluation_set.images)
    clipping = [name for name in choices.protocols if name in ZERO_PROTOCOLS]
    if zero and clipping:
        click.echo(
            f"wsol-eval: {folder}: {zero}; {', '.join(clipping)} score raw and scaled maps of one network "
            "differently, with --map-range min-max alike",
            err=True,
        )
    say_notes(source.check_images(records, root=choices.evaluation_set.root))
    scores = None
    if options["scores"] is not None:
        scores = read_class_scores(options["scores"], choices.evaluation_set)
        say_notes(scores.warnings)
    _evaluate(choices, functools.partial(evaluate_maps, choices, source, scores=scores))


@main.command(context_settings=CONTEXT_SETTINGS, params=[*BASELINE_OPTIONS])
@common_options
def baseline(**options: Any) -> None:
    """Score baselines that ignore the image: a centred Gaussian, a centred square and the whole frame."""
    from pipelines.jobs.evaluation import evaluate_baselines

    out: Path | None = options["out"]
    default_name = "baseline" if out is None else out.resolve().name
    choices = _choices({**options, "panels": 0}, default_name=default_name, need_boxes=True)
    _evaluate(choices, functools.partial(evaluate_baselines, choices))


@main.command(context_settings=CONTEXT_SETTINGS, params=[*PREDICT_OPTIONS])
@click.argument("checkpoint", type=Network())
@click.argument("images", nargs=-1, required=True, type=EXISTING)
@common_options
def predict(checkpoint: Path, images: tuple[Path, ...], **options: Any) -> None:
    """Predict class and box for any images: files, or folders that are searched for images."""
    from pipelines.jobs.localizer import Localizer
    from pipelines.jobs.network_maps import usable_devices
    from pipelines.jobs.prediction import PredictionOutput, predict_images
    from pseudo_maps.processes import worker_count

    with as_usage_error():
        devices = usable_devices(options["device"])
        jobs = worker_count(options["jobs"])
    network = Localizer(
        checkpoint,
        device=devices[0],
        **{name: options[name] for name in ("localizer", "protocol", "threshold", "class_names")},
    )
    output = PredictionOutput(
        folder=options["out"], overlays=options["overlays"], maps=options["save_maps"], csv=options["csv"]
    )
    with ending_on_signals(resumes=False):
        failed = predict_images(
            network,
            images,
            output=output,
            label=options["label"],
            batch_size=options["batch_size"],
            workers=options["workers"],
            jobs=jobs,
            say=click.echo,
        )
    if failed:
        without = f"{counted(failed, 'image')} without a prediction"
        raise RuntimeError(f"{without}; {output.folder}/predictions.json says why")


@main.command(context_settings=CONTEXT_SETTINGS)
@click.argument("checkpoint", type=Network())
@click.option("--out", required=True, type=NewFile(".onnx", ".pt2"), help="File to write: *.onnx or *.pt2.")
@click.option(
    "--class", "labels", multiple=True, type=click.IntRange(min=0), help="Label whose map is an output.  [default: all]"
)
@click.option(
    "--class-names",
    type=EXISTING_FILE,
    help="File with one class name per line, stored in the file.  [default: the names in the checkpoint]",
)
@common_options
def export(checkpoint: Path, out: Path, labels: tuple[int, ...], class_names: Path | None) -> None:
    """Export encoder and classifier, with class scores and activation maps as outputs."""
    from pipelines.jobs.localizer import read_class_names
    from training.inference.export import export_onnx, export_torch
    from training.inference.localizers import load_for_inference

    model = load_for_inference(checkpoint)
    # An empty tuple: a checkpoint without names.
    names = (
        (model.class_names or None)
        if class_names is None
        else read_class_names(class_names, classes=model.classes, trained=model.names)
    )
    write = export_onnx if out.suffix.lower() == ".onnx" else export_torch
    write(model, out, classes=labels or None, class_names=names)
    click.echo(f"{out}: {model.arch}, {model.classes} classes, input {model.input_size_px}x{model.input_size_px}")


@main.command(context_settings=CONTEXT_SETTINGS)
@click.argument("runs", nargs=-1, required=True, type=EXISTING)
@click.option(
    "--out",
    default="report.html",
    type=NewFile(".html", ".htm", ".md", ".csv", ".tex"),
    help="File to write: a page *.html, or its tables as *.md, *.csv (every value) or *.tex (booktabs).",
)
@click.option("--title", help="Title of the page.  [default: the names of the runs]")
@click.option(
    "--introduction",
    type=EXISTING_FILE,
    help="Plain text above the tables: paragraphs separated by empty lines, headings as lines that begin with '# '.",
)
@click.option(
    "--training",
    multiple=True,
    type=EXISTING_FOLDER,
    help="Run folder of wsol-train whose losses and accuracies are drawn; may be given several times.",
)
@click.option("--charts", type=NEW_FOLDER, help="Folder for the charts as files, for papers.  [default: none]")
@click.option("--chart-format", type=click.Choice(("pdf", "svg")), default="pdf", help="Format of --charts.")
@common_options
def report(runs: tuple[Path, ...], out: Path, introduction: Path | None, **options: Any) -> None:
    """Compare finished evaluations in one self-contained HTML page, or as tables.

    Each of RUNS is a results folder of wsol-eval, or a run folder of wsol-train with its evaluation in it.
    """
    from pipelines.reports.evaluation_report import write_report

    try:
        text = "" if introduction is None else introduction.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{introduction}: expected UTF-8 text: {error}") from None
    chart_form = options.pop("chart_format")
    warnings = write_report(runs, out, introduction=text, chart_form=chart_form, **options)
    if out.suffix.lower() not in (".html", ".htm"):
        say_notes(warnings)
    click.echo(f"{out}: {counted(len(runs), 'run')}")


def _choices(options: dict[str, Any], *, default_name: str, need_boxes: bool) -> EvaluationChoices:
    from pipelines.datasets import open_dataset
    from pipelines.jobs.box_checks import check_mask_shapes
    from pipelines.jobs.evaluation import EvaluationChoices
    from pipelines.jobs.evaluation_set import load_evaluation_set
    from pseudo_maps.processes import prepare_worker_process, worker_count

    with as_usage_error():
        jobs = worker_count(options["jobs"])
    if jobs == 1:
        # This process does the work itself.
        prepare_worker_process()
    dataset = open_dataset(options["data"], split=options["split"], layout=options["layout"])
    say_notes(dataset.notes)
    out: Path | None = options["out"]
    evaluation_set = load_evaluation_set(
        dataset,
        boxes=options["boxes"],
        blacklist=options["blacklist"],
        limit=options["limit"],
        need_boxes=need_boxes,
    )
    say_notes(evaluation_set.warnings)
    if options.get("masks"):
        say_notes(check_mask_shapes(evaluation_set, options["masks"]))
    return EvaluationChoices(
        name=options["name"] or default_name,
        evaluation_set=evaluation_set,
        # In the table's order and each once, however they were typed.
        protocols=tuple(name for name in PROTOCOL_NAMES if name in (options["protocols"] or PROTOCOL_NAMES)),
        boxes=options["boxes"],
        bootstrap_samples=options["bootstrap_samples"],
        seed=options["seed"],
        out=out,
        jobs=jobs,
        panels=options["panels"],
        masks=options.get("masks"),
        threshold_from=options["threshold_from"],
    )


def _evaluate(choices: EvaluationChoices, evaluate: Callable[..., Metrics]) -> None:
    """Evaluate with a progress bar, and print the table."""
    from evaluation.results.tables import metrics_table

    progress = Progress(len(choices.evaluation_set.images), label=choices.name)
    with ending_on_signals(resumes=choices.out is not None), progress:
        metrics = evaluate(advance=progress.advance)
    click.echo(metrics_table(metrics))
    if choices.out is not None:
        click.echo(f"{choices.out}: metrics.json, predictions.csv; tables and charts: wsol-eval report {choices.out}")


if __name__ == "__main__":
    main(prog_name="wsol-eval")
