"""Images per second of ``wsol-eval run``, from JPEG files to results, beside those of the network alone.

    python benchmarks/evaluation_speed.py --data ILSVRC --checkpoint runs/alexnet --device cuda --images 10000

The whole command evaluates ``--images`` images and a fifth of them in turn, so that the difference has no start in it;
the network computes class scores and maps of one batch that stays on its device. The rounds alternate, ratios are
medians.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from subprocess import run

import click
import torch

from training.config import Precision
from training.inference.localizers import NetworkLocalizer, load_for_inference

_BATCHES_ALONE = 10


def command_seconds(arguments: tuple[str, ...], *, images: int) -> float:
    """Seconds of ``wsol-eval run`` on the first images into a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        words = ("run", *arguments, "--limit", str(images), "--out", str(Path(folder) / "out"), "--panels", "0")
        start = time.perf_counter()
        run([sys.executable, "-m", "pipelines.eval_cli", *words], check=True, capture_output=True)
        return time.perf_counter() - start


def alone_seconds(localizer: NetworkLocalizer, images_bchw: torch.Tensor, labels_b: torch.Tensor) -> float:
    """Seconds of one batch, maps included."""

    def wait() -> None:
        if images_bchw.is_cuda:
            torch.cuda.synchronize()

    localizer(images_bchw, labels_b)
    wait()
    start = time.perf_counter()
    for _ in range(_BATCHES_ALONE):
        localizer(images_bchw, labels_b)
    wait()
    return (time.perf_counter() - start) / _BATCHES_ALONE


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True), required=True, help="Data set with validation images.")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="Checkpoint, or a run's folder.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--images", type=click.IntRange(min=10), default=1000, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--workers", type=click.IntRange(min=0), default=4, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def main(data: str, checkpoint: Path, device: str, images: int, batch_size: int, workers: int, rounds: int) -> None:
    model = load_for_inference(checkpoint, device=device)
    # As the command's --precision auto.
    precision: Precision = "bf16" if model.device.type == "cuda" else "fp32"
    localizer = NetworkLocalizer(model, localizers=("cam",), precision=precision)
    side = model.input_size_px
    images_bchw = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8).to(device)
    labels_b = torch.zeros(batch_size, dtype=torch.int64).to(device)
    options = ("--data", data, "--device", device, "--localizer", "cam", "--workers", str(workers))
    arguments = (str(checkpoint), *options, "--batch-size", str(batch_size))
    few = images // 5
    command_seconds(arguments, images=few)
    rates = []
    for _ in range(rounds):
        taken_s = command_seconds(arguments, images=images) - command_seconds(arguments, images=few)
        rates.append(((images - few) / taken_s, batch_size / alone_seconds(localizer, images_bchw, labels_b)))
    whole, alone = (statistics.median(one) for one in zip(*rates, strict=True))
    ratio = statistics.median(whole / alone for whole, alone in rates)
    click.echo(f"{'wsol-eval run':<20}{whole:>10,.1f} images/s, 50,000 images in {50_000 / whole / 60:.1f} minutes")
    click.echo(f"{'the network alone':<20}{alone:>10,.1f} images/s on {device}")
    click.echo(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
