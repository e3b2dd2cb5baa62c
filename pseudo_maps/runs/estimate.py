"""Time and disk that the maps of a run take, measured on some of its images before it starts."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pseudo_maps.config import MapConfig
from pseudo_maps.files import evenly_spaced
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import MadeImage
from pseudo_maps.runs.generation import Plan, RunConfig
from pseudo_maps.runs.shard_task import worker_children

SAMPLE_IMAGES = 32
"""Images that are measured; the default method takes a second for them."""
SAMPLE_S = 20.0
"""No image is begun after so many seconds."""
ROW_BYTES = 1700
"""Of a map's row, its link under /by_name and its part of the HDF5 file, besides the compressed pixels."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run is going to take."""

    sample: int
    """Images that it was measured on."""
    core_s: float
    """Seconds on one core of this machine."""
    size_bytes: float
    """Bytes of all shards."""
    free_bytes: int
    """Bytes free where the shards are going to be."""


def estimate_run(records: Sequence[ImageRecord], *, plan: Plan, config: MapConfig, run: RunConfig) -> Estimate:
    """Measure evenly spaced images of the shards to be made, in the process that a worker would use.

    RuntimeError where every image ended its process. Kernels have to be compiled before (``warm_up``).
    """
    size = plan.manifest.shard_size
    to_do = [record for shard in plan.to_do for record in records[shard * size : (shard + 1) * size]]
    settings = run.child_settings(config)
    children = worker_children(run.child_module)
    sample = evenly_spaced(to_do, most=SAMPLE_IMAGES)
    chunks: list[int] = []
    try:
        # The start of the process is no cost of an image.
        for _ in children.make_images(sample[:1], settings=settings, limits=run.limits):
            pass
        start = time.perf_counter()
        for record in sample:
            for _, made in children.make_images([record], settings=settings, limits=run.limits):
                if isinstance(made, MadeImage):
                    chunks.append(len(made.chunk))
            elapsed_s = time.perf_counter() - start
            if elapsed_s > SAMPLE_S:
                break
    finally:
        children.close()
    if not chunks:
        raise RuntimeError("no estimate: every image that was tried ended its process")
    images, out = plan.images_to_do, run.out.absolute()
    existing = next(place for place in (out, *out.parents) if place.is_dir())
    return Estimate(
        sample=len(chunks),
        core_s=images * elapsed_s / len(chunks),
        size_bytes=images * (sum(chunks) / len(chunks) + ROW_BYTES),
        free_bytes=shutil.disk_usage(existing).free,
    )
