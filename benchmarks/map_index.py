"""Makes a folder of shards and prints what opening a ``MapIndex`` and reading maps from it cost.

    python benchmarks/map_index.py                  # 1300 shards of 1000 rows, as ILSVRC train
    python benchmarks/map_index.py --shards 50

Opening is measured on shards whose maps are one small map repeated, so that 1.3 million rows are made in a
minute or two; reading on one shard of full-size maps, each its own, beside h5py in the same run. Times of reading are
computing time of the thread, the best of five passes, which other work on the machine changes little. The folder is
removed at the end.
"""

import argparse
import math
import resource
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pseudo_maps import shards
from pseudo_maps.runs.status import split_status
from pseudo_maps.shards.fletcher32 import append_checksum
from pseudo_maps.shards.layout import encode_provenance
from pseudo_maps.shards.manifest import Manifest, agree_on_manifest
from pseudo_maps.shards.writer import write_shard_file

T = TypeVar("T")

SMALL_MAP_SIZE = 8
MAP_SIZE = 224
PROVENANCE = shards.make_provenance({"benchmark": "map_index"})


def cell_map(generator: np.random.Generator, *, size: int, cells: int) -> npt.NDArray[np.float32]:
    """(size, size) float32, constant on irregular cells as a mean of proposals is: 6-8 KB compressed at 224."""
    centres = generator.uniform(0, size, (cells, 2))
    pixels = np.stack(np.mgrid[0:size, 0:size], axis=-1).reshape(-1, 2)
    cell_of_pixel = cKDTree(centres).query(pixels)[1]
    squared_px = ((centres - size / 2) ** 2).sum(axis=1)
    values = np.exp(-squared_px / (2 * (0.3 * size) ** 2)) + generator.uniform(0, 0.1, cells)
    return values[cell_of_pixel].reshape(size, size).astype(np.float32)


def table_row(number: int, *, peak: float) -> shards.MapRow:
    """A row with ids and paths as long as those of ILSVRC train."""
    wnid = f"n{1440764 + number // 1300:08d}"
    return shards.MapRow(
        image_id=f"{wnid}_{number}",
        path=f"Data/CLS-LOC/train/{wnid}/{wnid}_{number}.JPEG",
        wnid=wnid,
        label=number // 1300,
        height=375,
        width=500,
        peak=peak,
        proposals=900,
        status=shards.STATUS_OK,
    )


def make_folder(folder: Path, *, count: int, rows: int) -> None:
    """``count`` shards of ``rows`` rows with small maps, written without the writer's per-map work."""
    stored_hw, peak = shards.quantise_map(cell_map(np.random.default_rng(0), size=SMALL_MAP_SIZE, cells=9))
    chunk = append_checksum(zlib.compress(stored_hw.tobytes(), 4))
    for index in range(count):
        write_shard_file(
            folder / shards.shard_name("train", index, count),
            chunks=[chunk] * rows,
            rows=[table_row(index * rows + row, peak=peak) for row in range(rows)],
            map_shape=stored_hw.shape,
            provenance=encode_provenance(PROVENANCE),
            by_name=False,
        )


def measure_reads(folder: Path, *, rows: int) -> None:
    """One shard of full-size maps: the writer, the reader, the index and plain h5py."""
    generator = np.random.default_rng(1)
    maps = [shards.quantise_map(cell_map(generator, size=MAP_SIZE, cells=300)) for _ in range(rows)]
    path = folder / shards.shard_name("val", 0, 1)
    start = time.perf_counter()
    with shards.ShardWriter(path, rows=rows, map_size=MAP_SIZE, provenance=PROVENANCE) as writer:
        for row, (stored_hw, peak) in enumerate(maps):
            writer.write(row, stored_hw, table_row(row, peak=peak))
        writer.commit()
    written_s = time.perf_counter() - start
    size_kb = path.stat().st_size / rows / 1000
    print(f"{rows} maps of {MAP_SIZE}x{MAP_SIZE}: {size_kb:.1f} KB a map with by_name, ", end="")
    print(f"written in {1000 * written_s / rows:.2f} ms a map")
    order = generator.permutation(rows).tolist()
    index = shards.MapIndex(folder, "val")
    ids = [table_row(row, peak=0.0).image_id for row in order]

    def open_and_read(row: int) -> None:
        with h5py.File(path, "r") as file:
            file["saliency/maps"][row]

    with h5py.File(path, "r") as file, shards.ShardReader(path) as reader:
        stack = file["saliency/maps"]
        h5py_ms = per_call_ms(lambda row: stack[row], order)
        print(f"  h5py, file kept open      {h5py_ms:.3f} ms a map")
        for name, read_ms in (
            ("ShardReader.read_uint8", per_call_ms(reader.read_uint8, order)),
            ("MapIndex.read_uint8", per_call_ms(index.read_uint8, ids)),
            ("MapIndex.read", per_call_ms(index.read, ids)),
            ("h5py, open and read", per_call_ms(open_and_read, order[:200])),
        ):
            print(f"  {name:25} {read_ms:.3f} ms a map, {read_ms / h5py_ms:.2f} of h5py's")


def measure_status(folder: Path, *, count: int, rows: int) -> None:
    """What ``wsol-prep status`` reads of the folder."""
    agree_on_manifest(
        folder,
        Manifest(
            split="train",
            images=count * rows,
            shards=count,
            shard_size=rows,
            ids_sha256="0" * 64,
            configuration=PROVENANCE["configuration"],
        ),
    )
    start, start_cpu = time.perf_counter(), time.process_time()
    assert split_status(folder, "train").done == count * rows
    elapsed_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    print(f"status of {count} shards of {rows} rows: {elapsed_s:.2f} s ({cpu_s:.2f} s computing)")


def per_call_ms(call: Callable[[T], object], arguments: Sequence[T], *, passes: int = 5) -> float:
    """Mean milliseconds of computing that ``call`` takes over ``arguments``, in the best of ``passes`` passes."""
    call(arguments[0])
    best_s = math.inf
    for _ in range(passes):
        start = time.thread_time()
        for argument in arguments:
            call(argument)
        best_s = min(best_s, time.thread_time() - start)
    return 1000 * best_s / len(arguments)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1300)
    parser.add_argument("--rows", type=int, default=1000, help="rows a shard")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_reads(folder, rows=options.rows)
        make_folder(folder, count=options.shards, rows=options.rows)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start, start_cpu = time.perf_counter(), time.process_time()
        index = shards.MapIndex(folder, "train")
        opened_s, opened_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"MapIndex of {options.shards} shards of {options.rows} rows: opened in {opened_s:.2f} s ", end="")
        print(f"({opened_cpu_s:.2f} s computing), peak RSS {after:.0f} MB ({before:.0f} MB before)")
        numbers = np.random.default_rng(2).integers(0, len(index), 2000).tolist()
        ids = [table_row(number, peak=0.0).image_id for number in numbers]
        print(
            f"  random small maps, most in a new shard     {per_call_ms(index.read_uint8, ids, passes=1):.3f} ms a map"
        )
        print(f"  again (places known, 32 files open)        {per_call_ms(index.read_uint8, ids):.3f} ms a map")
        print(f"  lookup alone                               {per_call_ms(index.status, ids):.4f} ms")
        start = time.perf_counter()
        for path in sorted(folder.glob("train-*.h5")):
            with h5py.File(path, "r") as file:
                file["images"][()]
        print(f"  plain h5py, open and read every table      {time.perf_counter() - start:.2f} s")
        measure_status(folder, count=options.shards, rows=options.rows)


if __name__ == "__main__":
    main()
