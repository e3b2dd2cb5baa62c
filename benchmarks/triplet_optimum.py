"""Masks for which the triplet loss is lowest: the object's box, or everything.

For each image the losses of several masks in place of the decoder's saliency are compared: the union of its boxes, the
same boxes grown, shrunk and shifted, everything, and nothing. Counted is whose loss is lowest, with the distances as
the paper has them and divided by the image's distance to black (``--triplet-scale image``), for several factors of the
area term (``--area-weight``); the overlap is the IoU of that mask with the boxes, a mean over images. Images are
squashed to the input size, evenly spaced over the validation images.

    python benchmarks/triplet_optimum.py --data ILSVRC --perceptual-weights timm:tf_efficientnet_lite0

Shapes: M masks, S side of the input in pixels.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipelines.datasets import load_boxes, open_dataset
from training.data.augmentation import EVALUATION_CROP
from training.data.loading import TrainingImages, to_device
from training.data.sampling import SampleKey
from training.losses import area_penalty, foreground_background, triplet_loss
from training.networks.weights import load_perceptual_network

AREA_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0, 1.5)
SCALES = ("none", "image")
WINNERS = ("everything", "the boxes", "grown", "shrunk", "shifted", "nothing")
FACTORS = {"grown": (1.25, 1.5), "shrunk": (0.75, 0.5)}
"""Sides of the boxes, about the same centres."""
SHIFT = 1 / 3
"""Part of a box's width or height by which it is moved to each of four sides."""


def candidates(boxes01_n4: npt.NDArray[np.float64], *, side: int) -> tuple[list[str], Tensor]:
    """Name of each mask (of ``WINNERS``) and the masks (M, S, S), 1 inside, from boxes ``x0, y0, x1, y1`` in 0..1."""
    corner, size = boxes01_n4[:, :2], boxes01_n4[:, 2:] - boxes01_n4[:, :2]
    boxes = [("the boxes", boxes01_n4)]
    for name, factors in FACTORS.items():
        for factor in factors:
            grown = corner + size * (1 - factor) / 2
            boxes.append((name, np.hstack([grown, grown + size * factor])))
    for step in ((-SHIFT, 0), (SHIFT, 0), (0, -SHIFT), (0, SHIFT)):
        moved = corner + size * np.array(step)
        boxes.append(("shifted", np.hstack([moved, moved + size])))
    masks = [torch.ones(side, side), *(_filled(one, side=side) for _, one in boxes), torch.zeros(side, side)]
    return ["everything", *(name for name, _ in boxes), "nothing"], torch.stack(masks)


def _filled(boxes01_n4: npt.NDArray[np.float64], *, side: int) -> Tensor:
    mask = torch.zeros(side, side)
    for x0, y0, x1, y1 in (boxes01_n4 * side).round().astype(int).clip(0, side):
        mask[y0:y1, x0:x1] = 1
    return mask


@torch.no_grad()
def winners(
    image01_3ss: Tensor, masks_mss: Tensor, *, perceptual: nn.Module
) -> Iterator[tuple[tuple[str, float], int]]:
    """Place of the mask of the lowest loss for every scale and area weight; of equal ones the first."""
    images = image01_3ss.expand(len(masks_mss), -1, -1, -1)
    whole, black = perceptual(torch.stack([image01_3ss, torch.zeros_like(image01_3ss)])).split(1)
    foreground, background = (perceptual(masked) for masked in foreground_background(images, masks_mss))
    for scale in SCALES:
        of_black = black if scale == "image" else None
        triplets = [
            triplet_loss(whole, f, b, of_black).loss
            for f, b in zip(foreground.split(1), background.split(1), strict=True)
        ]
        areas = [area_penalty(mask_ss) for mask_ss in masks_mss]
        for weight in AREA_WEIGHTS:
            losses = torch.stack([loss + weight * area for loss, area in zip(triplets, areas, strict=True)])
            yield (scale, weight), int(losses.argmin())


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--perceptual-weights", default="imagenet", help="F, as wsol-train takes it.")
@click.option("--images", type=click.IntRange(min=1), default=80, help="Validation images with boxes.")
@click.option("--input-size", type=click.IntRange(min=64), default=224)
def main(data: Path, perceptual_weights: str, images: int, input_size: int) -> None:
    dataset = open_dataset(data, split="val")
    boxes = load_boxes(dataset)
    with_boxes = {image_id for image_id, annotation in boxes.items() if len(annotation.boxes_xyxy)}
    known = [record for record in dataset.records if record.image_id in with_boxes]
    chosen = [known[place] for place in np.unique(np.linspace(0, len(known) - 1, images).round().astype(int))]
    perceptual = load_perceptual_network(perceptual_weights)
    crop = replace(EVALUATION_CROP, input_size=input_size, resize=input_size)
    loaded = TrainingImages(chosen, root=dataset.root, crop=crop, seed=0)
    counts: dict[tuple[str, float], Counter[str]] = {(scale, w): Counter() for scale in SCALES for w in AREA_WEIGHTS}
    overlaps, large = dict.fromkeys(counts, 0.0), 0
    for position, record in enumerate(tqdm(chosen, disable=None, leave=False)):
        annotation = boxes[record.image_id]
        assert annotation.frame_wh is not None
        frame = np.array(annotation.frame_wh * 2)
        names, masks = candidates((annotation.boxes_xyxy + np.array([0, 0, 1, 1])) / frame, side=input_size)
        iou = torch.minimum(masks, masks[1]).sum(dim=(1, 2)) / torch.maximum(masks, masks[1]).sum(dim=(1, 2))
        large += bool(masks[1].mean() > 1 / 2)
        image01 = to_device(loaded[SampleKey(0, position)], "cpu").images01_bchw[0]
        for setting, winner in winners(image01, masks, perceptual=perceptual):
            counts[setting][names[winner]] += 1
            overlaps[setting] += float(iou[winner])
    click.echo(f"{len(chosen)} images of {dataset.root.name}, {large} with boxes over more than half of the image")
    click.echo(f"| scale | area weight | {' | '.join(WINNERS)} | overlap |\n|{' --- |' * (3 + len(WINNERS))}")
    for (scale, weight), found in counts.items():
        cells = [f"{found[name]}" for name in WINNERS] + [f"{overlaps[scale, weight] / len(chosen):.2f}"]
        click.echo(f"| {scale} | {weight:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
