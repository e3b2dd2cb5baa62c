"""Times the threshold sweep of the evaluator beside a plain OpenCV contour sweep of the same definition.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --maps DIR --split val

For every map: boxes under ``wsoleval-v1`` (largest contour) and ``wsoleval-v2`` (all contours) at 1000 thresholds, by
the component tree, by one ``cv2.findContours`` a threshold (x1000, the evaluator's way), and by one for each distinct
grey level. One core; medians over maps of the best of three calls, and the ratios. The boxes are compared at every
level, and a difference ends the script. Without --maps: generated maps shaped like class activation maps (14 x 14,
cubic), blurred noise and noise.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from evaluation.boxes.overlaps import Candidates
from evaluation.boxes.wsoleval import (
    LEVELS,
    WSOLEVAL_THRESHOLDS,
    all_contours,
    largest_contours,
    normalise_score_map,
)
from pseudo_maps.processes import prepare_worker_process
from pseudo_maps.shards import STATUS_OK, MapIndex

REPETITIONS = 3
"""Timed calls of each side; the best one counts, because the machine does other work too."""

GreyMap = npt.NDArray[np.uint8]
Boxes = list[tuple[int, int, int, int]]


def largest_sweep(map_hw: GreyMap, levels: npt.NDArray[np.int64]) -> list[Boxes]:
    """Box of the largest contour above each of the levels, as ``wsoleval-v1`` defines it."""
    swept: list[Boxes] = []
    for level in levels:
        contours = contours_above(map_hw, level)
        swept.append([box_of(max(contours, key=cv2.contourArea), map_hw)] if contours else [(0, 0, 0, 0)])
    return swept


def full_sweep(map_hw: GreyMap, levels: npt.NDArray[np.int64]) -> list[Boxes]:
    """Boxes of all contours above each of the levels, as ``wsoleval-v2`` defines them."""
    swept: list[Boxes] = []
    for level in levels:
        contours = contours_above(map_hw, level)
        swept.append([box_of(contour, map_hw) for contour in contours] or [(0, 0, 0, 0)])
    return swept


def contours_above(map_hw: GreyMap, level: np.int64) -> Sequence[npt.NDArray[np.int32]]:
    """OpenCV's contours of the pixels strictly above a level."""
    _, binary = cv2.threshold(map_hw, int(level), 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    return contours


def box_of(contour: npt.NDArray[np.int32], map_hw: GreyMap) -> tuple[int, int, int, int]:
    """Corners of a contour's box as the evaluator computes them."""
    height, width = map_hw.shape
    x, y, box_width, box_height = cv2.boundingRect(contour)
    return x, y, min(x + box_width, width - 1), min(y + box_height, height - 1)


def same(swept: list[Boxes], levels: npt.NDArray[np.int64], candidates: Candidates) -> bool:
    """Whether the component tree gives the boxes of the sweep at each of the levels."""
    for boxes, level in zip(swept, levels, strict=True):
        stands = (candidates.first_level_n <= level) & (level <= candidates.last_level_n)
        of_level = [tuple(int(side) for side in box) for box in candidates.boxes_n4[stands]]
        if sorted(of_level) != sorted(boxes):
            return False
    return True


def generated_maps(count: int) -> Iterator[tuple[str, GreyMap]]:
    """Maps by kind, the kinds in the order in which contours become more."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield "activation maps", normalise_score_map(rng.random((14, 14)))
    for _ in range(count // 4):
        yield "blurred noise", normalise_score_map(cv2.GaussianBlur(rng.random((224, 224)), (0, 0), 4))
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
        row: list[float] = []
        for ours, plain in ((largest_contours, largest_sweep), (all_contours, full_sweep)):
            if not same(plain(map_hw, levels_u), levels_u, ours(map_hw)):
                sys.exit(f"a map of {kind!r} has other boxes than OpenCV's")
            # Noise takes OpenCV ten seconds a sweep.
            repetitions = 1 if kind == "noise" else REPETITIONS
            row.append(best_ms(lambda map_hw=map_hw, ours=ours: ours(map_hw), repetitions))
            for levels in (levels_t, levels_u):
                row.append(
                    best_ms(lambda map_hw=map_hw, plain=plain, levels=levels: plain(map_hw, levels), repetitions)
                )
        timings.setdefault(kind, []).append(tuple(row))
    print(f"boxes equal OpenCV {cv2.__version__}'s on all maps, at {LEVELS} levels; milliseconds a map, one core")
    print(
        f"{'maps':<17}{'count':>6}{'protocol':>13}{'ours':>7}{'x1000':>9}{'distinct':>10}{'ratio':>8}{'distinct':>10}"
    )
    for kind, rows in timings.items():
        medians = np.median(rows, axis=0)
        for protocol, (ours_ms, full_ms, distinct_ms) in (("wsoleval-v1", medians[:3]), ("wsoleval-v2", medians[3:])):
            print(
                f"{kind:<17}{len(rows):>6}{protocol:>13}{ours_ms:>7.2f}{full_ms:>9.1f}{distinct_ms:>10.1f}"
                f"{full_ms / ours_ms:>8.1f}{distinct_ms / ours_ms:>10.1f}"
            )


if __name__ == "__main__":
    main()
