"""One table of boundary detectors, weightings and presets: quality of proposals, localization of maps, time.

    python benchmarks/proposal_table.py --coco COCO_FOLDER --boxes ILSVRC_ROOT --boxes BOXES.csv

For every detector and preset: average best overlap and recall of the proposals against COCO's masks (as in
``proposal_quality.py``). For every weighting of them: GT-known Loc at IoU .5 of the stored maps under ``wsoleval-v1``,
its 95 % interval, and in brackets the mean over IoU .3, .5 and .7, on each set of images with boxes; and the median
milliseconds from decoded image to map. OpenCV's Selective Search stands in the same table. A set is a data root with a
val split, or a CSV file of ``image_id,wnid,width,height,boxes`` (boxes ``x0 y0 x1 y1`` in file pixels, joined by
``;``) beside a folder ``images``. The threshold is the best one on the images themselves: an oracle's.
"""

import csv
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from proposal_quality import quality

from evaluation.boxes.overlaps import best_overlaps
from evaluation.metrics.intervals import percentile_interval, poisson_weights
from evaluation.protocols import PROTOCOLS
from pipelines.datasets import load_boxes, open_dataset
from pseudo_maps.config import MapConfig
from pseudo_maps.images import decode_image
from pseudo_maps.map_making import saliency_map
from pseudo_maps.processes import prepare_worker_process
from pseudo_maps.proposals import PRESETS
from pseudo_maps.proposals.detectors import DETECTORS
from pseudo_maps.proposals.geodesic_config import WEIGHTINGS
from pseudo_maps.proposals.selective_search import SelectiveSearchConfig
from pseudo_maps.shards import quantise_map

PROTOCOL = PROTOCOLS["wsoleval-v1"]
IOU_THRESHOLDS = (0.3, 0.5, 0.7)
BOOTSTRAP_SAMPLES = 1000

Sample = tuple[Path, npt.NDArray[np.float64], tuple[int, int] | None]
"""Image file, boxes (B, 4), and the width and height that they refer to (None: the file's)."""


def samples_of(path: Path) -> list[Sample]:
    """Images with boxes of a data root or of a CSV file."""
    if path.is_dir():
        dataset = open_dataset(path, split="val")
        boxes = load_boxes(dataset)
        return [
            (dataset.root / record.path, boxes[record.image_id].boxes_xyxy, boxes[record.image_id].frame_wh)
            for record in dataset.records
            if len(boxes[record.image_id].boxes_xyxy)
        ]
    files = {file.stem: file for file in (path.parent / "images").iterdir()}
    samples: list[Sample] = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(list(file)[1:]):
            corners = [[float(side) for side in box.split()] for box in row[4].split(";")]
            samples.append((files[row[0]], np.array(corners), (int(row[2]), int(row[3]))))
    return samples


def overlaps_of(sample: Sample, config: MapConfig) -> tuple[npt.NDArray[np.float64], float]:
    """Best overlap at every threshold level, (L,), and the milliseconds that the map took."""
    prepare_worker_process()
    path, boxes_b4, frame_wh = sample
    image = decode_image(path)
    started_s = time.perf_counter()
    map_hw, _ = saliency_map(image.rgb_hwc, config=config)
    elapsed_ms = 1000 * (time.perf_counter() - started_s)
    truth_b4 = PROTOCOL.ground_truth(boxes_b4, image_wh=frame_wh or (image.file_width, image.file_height))
    candidates = PROTOCOL.candidates(quantise_map(map_hw)[0])
    iou_l, _ = best_overlaps(candidates, truth_b4, levels=len(PROTOCOL.thresholds_l))
    return iou_l, elapsed_ms


def localization(iou_il: npt.NDArray[np.float64]) -> str:
    """Rate at IoU .5 with its interval, and the mean of the rates at .3, .5 and .7, in percent."""
    rates = [float((iou_il >= wanted).mean(axis=0).max()) for wanted in IOU_THRESHOLDS]
    weights_is = poisson_weights(range(len(iou_il)), samples=BOOTSTRAP_SAMPLES, seed=0).astype(np.float64)
    hits_sl = weights_is.T @ (iou_il >= IOU_THRESHOLDS[1])
    low, high = percentile_interval((hits_sl / weights_is.sum(axis=0)[:, None]).max(axis=1)) or (0.0, 1.0)
    return f"{100 * rates[1]:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({100 * np.mean(rates):.1f})"


def configurations(presets: Sequence[str]) -> Iterator[tuple[str, str, list[tuple[str, MapConfig]]]]:
    """Detector, preset, and for each weighting its name and configuration."""
    for detector in DETECTORS:
        if DETECTORS[detector].needs_model:
            continue
        for preset in presets:
            base = dataclasses.replace(PRESETS[preset], boundaries=detector)
            yield (
                detector,
                preset,
                [(name, MapConfig(proposals=base, weighting=name)) for name in WEIGHTINGS],
            )
    yield "selective-search", "fast", [("uniform", MapConfig(proposals=SelectiveSearchConfig()))]


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--coco", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--boxes", "sets", type=click.Path(exists=True, path_type=Path), multiple=True)
@click.option(
    "--preset", "presets", type=click.Choice(list(PRESETS)), multiple=True, default=("b650", "b1100", "b2200")
)
@click.option("--jobs", default=2)
def main(coco: Path | None, sets: tuple[Path, ...], presets: tuple[str, ...], jobs: int) -> None:
    # boxes.csv is called after its folder.
    named = {(path if path.is_dir() else path.parent).name: samples_of(path) for path in sets}
    print(f"| boundaries | preset | weighting | ABO | recall@.5 | proposals | {' | '.join(named)} | ms |")
    print("| --- " * (7 + len(named)) + "|")
    for detector, preset, weightings in configurations(presets):
        cells = ["-", "-", "-"]
        if coco is not None and detector != "selective-search":
            found = quality(coco, dataclasses.replace(PRESETS[preset], boundaries=detector), jobs=jobs)
            cells = [
                f"{found['average_best_overlap']:.3f}",
                f"{found['recall_at_50']:.3f}",
                f"{found['proposals_per_image']:.0f}",
            ]
        for weighting, config in weightings:
            columns, times_ms = [], []
            for samples in named.values():
                results = Parallel(n_jobs=jobs)(delayed(overlaps_of)(sample, config) for sample in samples)
                columns.append(localization(np.stack([iou_l for iou_l, _ in results])))
                times_ms += [elapsed_ms for _, elapsed_ms in results]
            median_ms = f"{np.median(times_ms):.1f}" if times_ms else "-"
            row = [detector, preset, weighting, *cells, *columns, median_ms]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
