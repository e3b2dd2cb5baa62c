"""Throughput of two dask workers on this machine against loky with two jobs, and compares the bytes.

A scheduler and two workers are started on 127.0.0.1, then `wsol-prep proposals` makes the same maps in turn with either
engine; whole commands are timed, the workers of dask run already. The best round of each counts.

    python benchmarks/dask_throughput.py --data ILSVRC10 --limit 500 --rounds 2
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

WORKERS = 2
START_LIMIT_S = 120.0


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Address of a scheduler with two workers, which end with the block."""
    address_file = folder / "scheduler.json"
    with contextlib.ExitStack() as stack:

        def start(program: str, *words: object) -> None:
            command = [sys.executable, "-m", f"distributed.cli.{program}", *map(str, words), "--no-dashboard"]
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        start("dask_scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", address_file)
        give_up_s = time.monotonic() + START_LIMIT_S
        while not (address_file.exists() and address_file.read_text().strip()):
            if time.monotonic() > give_up_s:
                raise RuntimeError("the dask scheduler does not start")
            time.sleep(0.1)
        address: str = json.loads(address_file.read_text())["address"]
        for _ in range(WORKERS):
            start("dask_worker", address, "--nthreads", 1, "--host", "127.0.0.1", "--local-directory", folder)
        yield address


def run(out: Path, *words: object, data: Path, split: str, limit: int) -> float:
    """Seconds of one whole command."""
    command = [sys.executable, "-m", "pipelines.prep_cli", "proposals", "--data", data, "--split", split]
    start_s = time.perf_counter()
    subprocess.run(
        [*map(str, command), "--limit", str(limit), "--out", str(out), *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start_s


def shards(folder: Path) -> dict[str, bytes]:
    """Content of every shard by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.h5"))}


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--split", default="val")
@click.option("--limit", type=click.IntRange(min=1), default=500, help="Only the first images.")
@click.option("--rounds", type=click.IntRange(min=1), default=2)
def main(data: Path, split: str, limit: int, rounds: int) -> None:
    data = data.resolve()
    seconds: dict[str, list[float]] = {"loky": [], "dask": []}
    made: dict[str, dict[str, bytes]] = {}
    with tempfile.TemporaryDirectory() as name, cluster(Path(name)) as address:
        ways = {"loky": ("--jobs", WORKERS), "dask": ("--backend", "dask", "--scheduler", address)}
        for number in range(rounds):
            for engine, words in ways.items():
                out = Path(name) / f"{engine}-{number}"
                seconds[engine].append(run(out, *words, data=data, split=split, limit=limit))
                made[engine] = shards(out)
    for engine, measured in seconds.items():
        rates = ", ".join(f"{limit / elapsed:.1f}" for elapsed in measured)
        print(f"{engine}: {rates} images/s; {len(made[engine])} shards")
    print(f"same bytes: {made['loky'] == made['dask']}")
    print(f"dask / loky, best rounds: {min(seconds['loky']) / min(seconds['dask']):.2f}")


if __name__ == "__main__":
    main()
