"""Milliseconds an image on one core, by stage, from JPEG file to finished map, beside OpenCV and scikit-image.

Every image is shrunk to at most the working size for all methods; medians over the images. The ratios to
OpenCV's Selective Search and to SLIC come from the same run, since machines differ. The process is set up as the
workers of ``wsol-prep`` are, for all methods.

    python benchmarks/proposal_speed.py --images FOLDER --preset b1100
"""

import dataclasses
import functools
import importlib
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from skimage.segmentation import slic

from pseudo_maps.config import MapConfig
from pseudo_maps.images import decode_image
from pseudo_maps.map_making import make_map
from pseudo_maps.processes import prepare_worker_process
from pseudo_maps.proposals import PRESETS
from pseudo_maps.proposals.detectors import DETECTORS
from pseudo_maps.proposals.geodesic_config import WEIGHTINGS
from pseudo_maps.proposals.selective_search import selective_search_boxes
from pseudo_maps.records import ImageRecord
from pseudo_maps.resampling import fit_working_size

STAGES = {
    "decode": ("pseudo_maps.map_making", "decode_image"),
    "shrink": ("pseudo_maps.map_making", "fit_working_size"),
    "boundaries": ("pseudo_maps.proposals.geodesic_proposals", "detect_boundaries"),
    "superpixels": ("pseudo_maps.proposals.geodesic_proposals", "geodesic_superpixels"),
    "graph": ("pseudo_maps.proposals.geodesic_proposals", "build_region_graph"),
    "spectral contrast": ("pseudo_maps.proposals.spectral_contrast", "spectral_contrast_weights"),
    "geometry": ("pseudo_maps.proposals.geodesic_proposals", "region_geometry"),
    "seeds": ("pseudo_maps.proposals.geodesic_proposals", "farthest_point_seeds"),
    "geodesics": ("pseudo_maps.proposals.geodesic_proposals", "distances_from_sets"),
    "level sets": ("pseudo_maps.proposals.geodesic_proposals", "critical_level_sets"),
    "deduplication": ("pseudo_maps.proposals.geodesic_proposals", "keep_distinct"),
    "resampling": ("pseudo_maps.map_making", "area_average"),
    "quantisation": ("pseudo_maps.map_making", "quantise_map"),
}
"""Stage and the function that is timed, by the module that calls it."""


def timed(function: Callable[..., Any], record: Callable[[float], None]) -> Callable[..., Any]:
    """``function`` that also records how many milliseconds each call took."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **options)
        record((time.perf_counter() - start) * 1e3)
        return result

    return wrapper


def measure_geodesic(paths: list[Path], config: MapConfig) -> dict[str, float]:
    """Median milliseconds of every stage and of the whole way from file to quantised map."""
    records = [ImageRecord(image_id=path.stem, path=path.name) for path in paths]
    for record in records[:2]:
        make_map(record, root=str(paths[0].parent), config=config)
    current: defaultdict[str, float] = defaultdict(float)
    originals = {}
    for stage, (module_name, name) in STAGES.items():
        module = importlib.import_module(module_name)
        originals[stage] = (module, name, getattr(module, name))

        def record_stage(elapsed_ms: float, stage: str = stage) -> None:
            current[stage] += elapsed_ms

        setattr(module, name, timed(getattr(module, name), record_stage))
    times: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "whole")}
    try:
        for path, record in zip(paths, records, strict=True):
            current.clear()
            start = time.perf_counter()
            made = make_map(record, root=str(path.parent), config=config)
            current["whole"] = (time.perf_counter() - start) * 1e3
            if made.message:
                raise ValueError(made.message)
            for stage in times:
                times[stage].append(current[stage])
    finally:
        for module, name, original in originals.values():
            setattr(module, name, original)
    return {stage: float(np.median(values)) for stage, values in times.items()}


def measure(pictures: list[np.ndarray], function: Callable[[np.ndarray], Any]) -> float:
    """Median milliseconds of ``function`` over decoded, shrunk pictures."""
    times = []
    for picture in pictures:
        start = time.perf_counter()
        function(picture)
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--preset", type=click.Choice(list(PRESETS)), default="b1100")
@click.option(
    "--boundaries",
    type=click.Choice([name for name, row in DETECTORS.items() if not row.needs_model]),
    default="directed-sobel",
)
@click.option("--weighting", type=click.Choice(list(WEIGHTINGS)), default="uniform", help="How proposals are averaged.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images.")
@click.option("--others", type=click.IntRange(min=0), default=20, help="Images for each of the other methods.")
def main(images: Path, preset: str, boundaries: str, weighting: str, limit: int | None, others: int) -> None:
    prepare_worker_process()
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:limit]
    if not paths:
        raise click.UsageError(f"--images {images}: expected .jpg, .jpeg or .png files in it, found none")
    config = MapConfig(proposals=dataclasses.replace(PRESETS[preset], boundaries=boundaries), weighting=weighting)
    found = measure_geodesic(paths, config)
    print(f"{len(paths)} images of {images.name}, preset {preset}, {boundaries}, {weighting}, one core, median ms")
    for stage in STAGES:
        print(f"  {stage:28} {found[stage]:8.2f}")
    print(f"  {'file to map':28} {found['whole']:8.2f}")
    if not others:
        return
    working = config.proposals.working_size
    step = max(1, len(paths) // others)
    pictures = [
        fit_working_size(decode_image(path, enough_px=working).rgb_hwc, longest_px=working)
        for path in paths[::step][:others]
    ]
    rivals: dict[str, Callable[[np.ndarray], Any]] = {
        f"Selective Search {mode} (OpenCV)": functools.partial(
            lambda picture, mode: selective_search_boxes(picture, mode=mode), mode=mode
        )
        for mode in ("fast", "single")
    }
    rivals["SLIC, 1,000 segments (skimage)"] = functools.partial(slic, n_segments=1000)
    for name, function in rivals.items():
        elapsed_ms = measure(pictures, function)
        print(f"  {name:28} {elapsed_ms:8.2f}   {elapsed_ms / found['whole']:6.1f} times ours")


if __name__ == "__main__":
    main()
