"""CPU time of supervision and HDF5 writing, as a share of that of the proposals.

Both ways do the same images on one core: a bare loop of ``make_map``, and ``make_shard`` as a worker runs it, with its
child process and committed shard. CPU seconds are counted, start-up left out (each way does the first images
once before), because other work on the machine changes elapsed time more than the effect; it changes CPU time too, so
the parts that are added to ``make_map`` are also measured on their own: compressing the maps, and all that the
supervising process does. The rounds alternate; the smallest of each counts.

    python benchmarks/supervision.py --images FOLDER --rounds 5
"""

import os
import tempfile
import time
from pathlib import Path

import click

from pseudo_maps.config import MapConfig
from pseudo_maps.map_making import make_map
from pseudo_maps.processes import prepare_worker_process
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import CHILD_MODULE, ImageLimits
from pseudo_maps.runs.generation import RunConfig
from pseudo_maps.runs.shard_task import ShardTask, make_shard, worker_children
from pseudo_maps.shards import compress_map

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s() -> float:
    """CPU seconds of this process and of its children, running ones included."""
    total = sum(os.times()[:4])
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            words = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(words[11]) + int(words[12])) / TICKS
    return total


def bare_loop(records: list[ImageRecord], *, root: Path, config: MapConfig) -> float:
    """CPU seconds of the maps alone."""
    start = cpu_s()
    for record in records:
        made = make_map(record, root=str(root), config=config)
        if made.message:
            raise ValueError(made.message)
    return cpu_s() - start


def compression(records: list[ImageRecord], *, root: Path, config: MapConfig) -> float:
    """CPU seconds of compressing the maps, which the child process does."""
    maps = [make_map(record, root=str(root), config=config).map_uint8 for record in records]
    start = time.process_time()
    for map_uint8 in maps:
        compress_map(map_uint8)
    return time.process_time() - start


def supervised(records: list[ImageRecord], *, root: Path, config: MapConfig) -> tuple[float, float]:
    """CPU seconds of the maps in a child process, committed as a shard: all, and without the child."""
    with tempfile.TemporaryDirectory() as folder:
        task = ShardTask(
            path=Path(folder) / "val-00000-of-00001.h5",
            records=tuple(records),
            settings=RunConfig(root=root, out=Path(folder)).child_settings(config),
            limits=ImageLimits(),
        )
        start, own_start = cpu_s(), time.process_time()
        report = make_shard(task)
        own_s, all_s = time.process_time() - own_start, cpu_s() - start
    if report.error or report.failures:
        raise ValueError(report.error or report.failures[0])
    return all_s, own_s


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--images", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--limit", type=click.IntRange(min=1), default=200, help="Only the first images.")
@click.option("--rounds", type=click.IntRange(min=1), default=5)
def main(images: Path, limit: int, rounds: int) -> None:
    prepare_worker_process()
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:limit]
    if not paths:
        raise click.UsageError(f"--images {images}: expected .jpg, .jpeg or .png files in it or below, found none")
    records = [ImageRecord(image_id=path.stem, path=path.relative_to(images).as_posix()) for path in paths]
    config = MapConfig(weighting="objectness")
    bare_loop(records[:3], root=images, config=config)
    supervised(records[:3], root=images, config=config)
    bare, both, own, zipped = [], [], [], []
    for _ in range(rounds):
        bare.append(bare_loop(records, root=images, config=config))
        all_s, own_s = supervised(records, root=images, config=config)
        both.append(all_s)
        own.append(own_s)
        zipped.append(compression(records, root=images, config=config))
    worker_children(CHILD_MODULE).close()
    print(f"{len(records)} images of {images.name}, {rounds} rounds, ms of CPU an image (smallest, all)")
    for name, found in {
        "make_map alone": bare,
        "supervised shard, all processes": both,
        "  supervisor, HDF5 file": own,
        "  compression": zipped,
    }.items():
        shown = " ".join(f"{1e3 * seconds / len(records):.2f}" for seconds in found)
        print(f"  {name:32} {1e3 * min(found) / len(records):8.2f}   {shown}")
    print(f"  overhead, whole runs compared    {100 * (min(both) / min(bare) - 1):8.2f} %")
    print(f"  overhead, sum of the parts       {100 * (min(own) + min(zipped)) / min(bare):8.2f} %")
    print(f"  of it without compression        {100 * min(own) / min(bare):8.2f} %")


if __name__ == "__main__":
    main()
