"""Times the threshold sweep of the evaluator beside a plain OpenCV contour sweep of the same definition.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --maps DIR --split val

For every map: boxes under ``wsoleval-v1`` (largest contour) and ``wsoleval-v2`` (all contours) at 1000 thresholds, by
the component tree and by one ``cv2.findContours`` a threshold; a second OpenCV sweep searches each distinct grey level
once. One core; medians over maps, and the ratios. The boxes are compared at every threshold, and a difference ends
the script. Without --maps: generated maps shaped like class activation maps (14 x 14, cubic), blurred noise and noise.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.overlaps import Candidates
from evaluation.wsoleval import (
    LEVELS,
    WSOLEVAL_THRESHOLDS,
    all_contours,
    largest_contours,
    normalise_score_map,
)
from pseudo_maps.shards import STATUS_OK, MapIndex
from pseudo_maps.worker_process import prepare_worker_process

GreyMap = npt.NDArray[np.uint8]
Boxes = list[tuple[int, int, int, int]]


def plain_sweep(map_hw: GreyMap, levels: npt.NDArray[np.int64]) -> list[Boxes]:
    """Boxes of all contours above each of the levels, the largest contour's first."""
    height, width = map_hw.shape
    swept = []
    for level in levels:
        _, binary = cv2.threshold(map_hw, int(level), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        boxes = []
        for contour in contours:
            x, y, box_width, box_height = cv2.boundingRect(contour)
            boxes.append((x, y, min(x + box_width, width - 1), min(y + box_height, height - 1)))
        if contours:
            areas = [cv2.contourArea(contour) for contour in contours]
            boxes.insert(0, boxes.pop(areas.index(max(areas))))
        swept.append(boxes or [(0, 0, 0, 0)])
    return swept


def same(swept: list[Boxes], levels: npt.NDArray[np.int64], largest: Candidates, every: Candidates) -> bool:
    """Whether the component tree gives the boxes of the sweep at each of the levels."""
    for boxes, level in zip(swept, levels, strict=True):
        of_level = []
        for candidates in (largest, every):
            stands = (candidates.first_level_n <= level) & (level <= candidates.last_level_n)
            of_level.append([tuple(int(side) for side in box) for box in candidates.boxes_n4[stands]])
        if of_level[0] != boxes[:1] or sorted(of_level[1]) != sorted(boxes):
            return False
    return True


def generated_maps(count: int) -> Iterator[tuple[str, GreyMap]]:
    """Maps by kind, the kinds in the order in which contours become more."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield "activation maps", normalise_score_map(rng.random((14, 14)))
    for _ in range(count // 4):
        yield "blurred noise", normalise_score_map(cv2.GaussianBlur(rng.random((224, 224)), (0, 0), 4))
    for _ in range(2):
        yield "noise", normalise_score_map(rng.random((224, 224)))


def stored_maps(folder: Path, split: str, count: int) -> Iterator[tuple[str, GreyMap]]:
    """Evenly spread usable maps of a folder of shards."""
    index = MapIndex(folder, split)
    ids = [image_id for image_id in index if index.status(image_id) == STATUS_OK]
    for position in np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int):
        yield f"{folder.name} {split}", normalise_score_map(index.read_uint8(ids[position]))


def best_ms(call: Callable[[], object], repetitions: int) -> float:
    """Shortest time of a call."""
    times = []
    for _ in range(repetitions):
        started_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_s)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, help="folder of shards instead of generated maps")
    parser.add_argument("--split", default="val", help="split of the shards (default: val)")
    parser.add_argument("--count", type=int, default=40, help="maps (default: 40)")
    arguments = parser.parse_args()
    prepare_worker_process()
    maps = (
        stored_maps(arguments.maps, arguments.split, arguments.count)
        if arguments.maps
        else generated_maps(arguments.count)
    )
    timings: dict[str, list[tuple[float, ...]]] = {}
    # Compile, or load what was compiled, before the clock runs.
    largest_contours(np.eye(8, dtype=np.uint8))
    all_contours(1 - np.eye(8, dtype=np.uint8))
    for kind, map_hw in maps:
        levels_t = (WSOLEVAL_THRESHOLDS * int(map_hw.max())).astype(np.int64)
        levels_u = np.unique(levels_t)
        swept = plain_sweep(map_hw, levels_u)
        if not same(swept, levels_u, largest_contours(map_hw), all_contours(map_hw)):
            sys.exit(f"a map of {kind!r} has other boxes than OpenCV's")
        v1_ms = best_ms(lambda map_hw=map_hw: largest_contours(map_hw), 5)
        v2_ms = best_ms(lambda map_hw=map_hw: all_contours(map_hw), 5)
        distinct_ms = best_ms(lambda map_hw=map_hw, levels=levels_u: plain_sweep(map_hw, levels), 1)
        full_ms = best_ms(lambda map_hw=map_hw, levels=levels_t: plain_sweep(map_hw, levels), 1)
        timings.setdefault(kind, []).append((v1_ms, v2_ms, full_ms, distinct_ms))
    print(f"boxes equal OpenCV {cv2.__version__}'s on all maps, at {LEVELS} levels; milliseconds a map, one core")
    print(
        f"{'maps':<20}{'count':>6}{'v1':>8}{'v2':>8}{'OpenCV x1000':>14}{'distinct':>10}"
        f"{'x1000/v1':>10}{'x1000/v2':>10}{'distinct/v1':>13}{'distinct/v2':>13}"
    )
    for kind, rows in timings.items():
        v1_ms, v2_ms, full_ms, distinct_ms = np.median(rows, axis=0)
        print(
            f"{kind:<20}{len(rows):>6}{v1_ms:>8.2f}{v2_ms:>8.2f}{full_ms:>14.1f}{distinct_ms:>10.1f}"
            f"{full_ms / v1_ms:>10.1f}{full_ms / v2_ms:>10.1f}{distinct_ms / v1_ms:>13.1f}{distinct_ms / v2_ms:>13.1f}"
        )


if __name__ == "__main__":
    main()
