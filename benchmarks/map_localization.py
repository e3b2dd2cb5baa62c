"""Scores a folder of map shards as localizers under ``wsoleval-v1`` and prints the rates beside the baselines.

    python benchmarks/map_localization.py --data ROOT --maps DIR --split val

GT-known Loc at IoU .5 with the best shared threshold (an oracle's: tuned on the images it is scored on), its
95 % Wilson interval, MaxBoxAcc at IoU .3 and .7, and how many images were scored, failed and skipped. Images
with boxes but no usable map count as wrong; images without boxes are skipped. The centred Gaussian and the
whole frame are scored on the same images.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluation.boxes import FRAME_PX, boxes_at_thresholds, normalise_score_map, scale_boxes_truncated
from evaluation.localization import IOU_THRESHOLDS, BoxAccuracy, centred_gaussian_map, score_maps
from pipelines.datasets import Dataset, load_boxes, open_dataset
from pseudo_maps.images import decode_image
from pseudo_maps.shards import STATUS_OK, MapIndex

WHOLE_FRAME_XYXY = (0, 0, FRAME_PX - 1, FRAME_PX - 1)


def ground_truths_224(dataset: Dataset) -> list[npt.NDArray[np.int64]]:
    """Boxes (B, 4) of every record, scaled to 224 pixels and truncated; B is 0 without annotation."""
    annotations = load_boxes(dataset)
    truths = []
    for record in dataset.records:
        annotation = annotations.get(record.image_id)
        if annotation is None or not len(annotation.boxes_xyxy):
            truths.append(np.zeros((0, 4), dtype=np.int64))
            continue
        if annotation.frame_width is not None and annotation.frame_height is not None:
            frame_wh = (annotation.frame_width, annotation.frame_height)
        else:
            image = decode_image(dataset.root / record.path, enough_px=1)
            frame_wh = (image.file_width, image.file_height)
        truths.append(scale_boxes_truncated(annotation.boxes_xyxy, from_wh=frame_wh, to_wh=(FRAME_PX, FRAME_PX)))
    return truths


def maps_of(dataset: Dataset, index: MapIndex) -> Iterator[npt.NDArray[np.uint8] | None]:
    """Map of every record; None where the index has none or its status is a failure."""
    for record in dataset.records:
        usable = record.image_id in index and index.status(record.image_id) == STATUS_OK
        yield index.read_uint8(record.image_id) if usable else None


def same_boxes(
    boxes_xyxy: npt.ArrayLike, thresholds: npt.ArrayLike, truths: Sequence[npt.NDArray[np.int64]]
) -> BoxAccuracy:
    """Score of a predictor that gives the same boxes (T, 4) to every image that has ground truth."""
    accuracy = BoxAccuracy(thresholds=thresholds)
    accuracy.add_same_boxes(boxes_xyxy, [truth for truth in truths if len(truth)])
    for truth in truths:
        if not len(truth):
            accuracy.add_skipped()
    return accuracy


def print_row(name: str, accuracy: BoxAccuracy) -> None:
    """One line of the table, rates in percent."""
    at_iou = {iou: accuracy.max_box_acc(iou=iou) for iou in IOU_THRESHOLDS}
    score = accuracy.gt_known_loc()
    low, high = score.interval
    print(
        f"{name:<18}{100 * score.rate:8.2f}   [{100 * low:5.2f}, {100 * high:5.2f}]   {score.threshold:9.3f}"
        f"{100 * at_iou[0.3].rate:8.2f}{100 * at_iou[0.7].rate:8.2f}"
        f"{score.images:9d}{score.failed:8d}{score.skipped:9d}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="root of the data set with boxes")
    parser.add_argument("--maps", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--split", default="val", help="split of both (default: val)")
    arguments = parser.parse_args()

    dataset = open_dataset(arguments.data, split=arguments.split)
    truths = ground_truths_224(dataset)
    index = MapIndex(arguments.maps, arguments.split)
    started_s = time.perf_counter()
    from_maps = score_maps(zip(maps_of(dataset, index), truths, strict=True))
    elapsed_s = time.perf_counter() - started_s

    print(f"{arguments.maps} on {arguments.data}, split {arguments.split}, protocol wsoleval-v1")
    print("GT-known Loc at IoU .5, best shared threshold of 1000 (oracle), in percent")
    print(
        f"{'predictor':<18}{'Loc':>8}   {'95 % (Wilson)':>14}   {'threshold':>9}{'IoU .3':>8}{'IoU .7':>8}"
        f"{'images':>9}{'failed':>8}{'skipped':>9}"
    )
    print_row("maps", from_maps)
    gaussian = normalise_score_map(centred_gaussian_map())
    print_row("centred Gaussian", same_boxes(boxes_at_thresholds(gaussian), from_maps.thresholds, truths))
    print_row("whole frame", same_boxes([WHOLE_FRAME_XYXY], [0.0], truths))
    print(f"{1000 * elapsed_s / len(truths):.1f} ms an image for reading and scoring the maps")


if __name__ == "__main__":
    main()
