"""Coverage of ground-truth masks by proposals: average best overlap and recall on COCO images.

Masks above 2 % of the image area that are no crowd, drawn by pycocotools at file size, shrunk with the image
(nearest neighbour) to at most the working size. Overlap is the pixel intersection over union.

    python benchmarks/proposal_quality.py --data COCO_FOLDER --preset b1100

COCO_FOLDER holds ``images/`` and ``instances.json`` in COCO's format.
"""

import dataclasses
import json
from collections import defaultdict
from pathlib import Path

import click
import cv2
import numpy as np
from joblib import Parallel, delayed
from pycocotools import mask as coco_mask

from pseudo_maps.images import decode_image
from pseudo_maps.proposals import PRESETS, ProposalConfig, propose
from pseudo_maps.proposals.detectors import DETECTORS
from pseudo_maps.resampling import fit_working_size

SMALLEST_AREA_FRACTION = 0.02


def annotation_mask(annotation: dict, height: int, width: int) -> np.ndarray:
    """(height, width) bool mask of one COCO annotation, as pycocotools' ``annToMask`` draws it."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = coco_mask.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    return coco_mask.decode(encoded).astype(bool)


def best_overlaps(path: Path, annotations: list[dict], config: ProposalConfig) -> tuple[list[float], int]:
    """Best overlap of every annotated object with the proposals of one image, and the number of proposals."""
    cv2.setNumThreads(1)
    image = decode_image(path).rgb_hwc
    height, width, _ = image.shape
    working = fit_working_size(image, longest_px=config.working_size)
    proposals = propose(working, config=config)
    region_count = proposals.masks.shape[1]
    areas = np.bincount(proposals.labels.ravel(), minlength=region_count)
    proposal_areas = proposals.masks @ areas
    overlaps = []
    for annotation in annotations:
        mask = annotation_mask(annotation, height, width)
        if mask.sum() <= SMALLEST_AREA_FRACTION * height * width:
            continue
        size = (working.shape[1], working.shape[0])
        truth = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        inside = np.bincount(proposals.labels[truth], minlength=region_count)
        intersections = proposals.masks @ inside
        overlaps.append(float((intersections / (proposal_areas + truth.sum() - intersections)).max()))
    return overlaps, len(proposals.masks)


def quality(data: Path, config: ProposalConfig, *, jobs: int = 2) -> dict[str, float]:
    """Average best overlap, recall at .5 and .7, objects, and proposals an image over a COCO folder."""
    coco = json.loads((data / "instances.json").read_text(encoding="utf-8"))
    by_image = defaultdict(list)
    for annotation in coco["annotations"]:
        if not annotation.get("iscrowd", 0):
            by_image[annotation["image_id"]].append(annotation)
    results = Parallel(n_jobs=jobs)(
        delayed(best_overlaps)(data / "images" / image["file_name"], by_image[image["id"]], config)
        for image in coco["images"]
    )
    overlaps = np.concatenate([np.asarray(found) for found, _ in results])
    return {
        "average_best_overlap": float(overlaps.mean()),
        "recall_at_50": float((overlaps >= 0.5).mean()),
        "recall_at_70": float((overlaps >= 0.7).mean()),
        "objects": len(overlaps),
        "proposals_per_image": float(np.mean([count for _, count in results])),
    }


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--preset", "presets", type=click.Choice(list(PRESETS)), multiple=True, default=tuple(PRESETS))
@click.option(
    "--boundaries",
    type=click.Choice([name for name, row in DETECTORS.items() if not row.needs_model]),
    default="directed-sobel",
)
@click.option("--jobs", default=2)
def main(data: Path, presets: tuple[str, ...], boundaries: str, jobs: int) -> None:
    print("preset  average best overlap  recall@.5  recall@.7  objects  proposals/image")
    for preset in presets:
        found = quality(data, dataclasses.replace(PRESETS[preset], boundaries=boundaries), jobs=jobs)
        print(
            f"{preset:6}  {found['average_best_overlap']:20.4f}  {found['recall_at_50']:9.4f}  "
            f"{found['recall_at_70']:9.4f}  {found['objects']:7d}  {found['proposals_per_image']:15.0f}"
        )


if __name__ == "__main__":
    main()
