"""Parameters and time of a training step with each loss and pooling, as ratios to classification alone.

    python benchmarks/option_cost.py --perceptual-weights timm:tf_efficientnet_lite0

The trainer's own step of the default recipe on one synthetic batch, fp32 on the CPU. Rounds of one step of each variant
alternate and the first is not counted; times are medians of the processor time, ratios are medians over the rounds.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from pseudo_maps.records import ImageRecord
from training.config import TrainConfig, TrainRunConfig, recipe
from training.data.loading import Batch, TrainingImages
from training.loss_config import LossConfig
from training.networks.registry import ARCHITECTURES
from training.networks.weights import load_perceptual_network
from training.processes import Processes
from training.trainer import Trainer

CPU = torch.device("cpu")
_NO_LOSS: dict[str, Any] = {"use_map": False, "use_triplet": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "gap": {"loss": LossConfig(**_NO_LOSS), "method": "gap"},
    "L_cam alone": {"loss": LossConfig(**_NO_LOSS, cam_map_weight=4.0)},
    "L_cam alone, --pooling pseudo-map": {
        "loss": LossConfig(**_NO_LOSS, cam_map_weight=4.0),
        "pooling": "pseudo-map",
    },
    "L_map": {"loss": LossConfig(use_triplet=False)},
    "L_map, --pooling saliency": {"loss": LossConfig(use_triplet=False), "pooling": "saliency"},
    "L_map and L_tri, as printed": {"loss": LossConfig()},
    "L_map, L_tri and L_cam": {"loss": LossConfig(cam_map_weight=4.0)},
    "L_map, L_tri and L_cam, --triplet-scale image --area-weight 1": {
        "loss": LossConfig(cam_map_weight=4.0, triplet_scale="image", area_weight=1.0)
    },
}
"""Changes of the configuration by name; the first is what the others are compared with."""


def build(config: TrainConfig, *, perceptual_weights: str, folder: Path) -> Trainer:
    """The trainer of a variant; it writes nothing."""
    # The trainer wants to know how many images there are; none is ever read.
    nowhere = [ImageRecord(image_id=str(number), path=str(number), label=0) for number in range(config.batch_size)]
    return Trainer(
        config,
        TrainRunConfig(workers=0),
        out=folder,
        processes=Processes(rank=0, world_size=1, device=CPU),
        train_images=TrainingImages(nowhere, root="", crop=config.crop, seed=0),
        val_images=None,
        perceptual=load_perceptual_network(perceptual_weights) if config.loss.use_triplet else None,
    )


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--arch", type=click.Choice(tuple(ARCHITECTURES)), default="alexnet-gap")
@click.option("--perceptual-weights", default="random", help="F, as wsol-train takes it.")
@click.option("--input-size", type=click.IntRange(min=64), default=112)
@click.option("--batch-size", type=click.IntRange(min=2), default=8)
@click.option("--rounds", type=click.IntRange(min=1), default=9, help="Counted rounds.")
def main(arch: str, perceptual_weights: str, input_size: int, batch_size: int, rounds: int) -> None:
    start = recipe("default")
    start = replace(start, arch=arch, batch_size=batch_size, crop=start.crop.at_input_size(input_size))
    torch.manual_seed(0)
    batch = Batch(
        images_bchw=torch.randint(256, (batch_size, input_size, input_size, 3), dtype=torch.uint8).permute(0, 3, 1, 2),
        maps_bhw=torch.randint(256, (batch_size, input_size, input_size), dtype=torch.uint8),
        labels_b=torch.randint(start.classes, (batch_size,)),
        positions_b=torch.arange(batch_size),
        unreadable={},
    )
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            name: build(replace(start, **changes), perceptual_weights=perceptual_weights, folder=Path(folder))
            for name, changes in VARIANTS.items()
        }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in tqdm(range(rounds + 1), disable=None, leave=False):
        for name, trainer in trainers.items():
            began = time.process_time()
            trainer.train_step([batch])
            if number:
                seconds[name].append(time.process_time() - began)
    first = seconds[next(iter(trainers))]
    click.echo(f"{arch}, {input_size} px, F {perceptual_weights}\n| variant | parameters | ms an image | ratio |")
    for name, trainer in trainers.items():
        parameters = sum(weights.numel() for weights in trainer.model.parameters())
        ratio = statistics.median(mine / theirs for mine, theirs in zip(seconds[name], first, strict=True))
        ms = 1e3 * statistics.median(seconds[name]) / batch_size
        click.echo(f"| {name} | {parameters / 1e6:.1f} M | {ms:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
