"""Images per second of torchvision's reference pipeline and of ours, which reads the saliency map as well.

    wsol-prep proposals --data ROOT --split train --out MAPS
    python benchmarks/loader.py --data ROOT --maps MAPS

Both deliver normalised float32 batches of the same files to a consumer that does nothing else, through the same
number of workers. The reference is the usual recipe: ImageFolder's loader, Resize 256, RandomCrop 224,
RandomHorizontalFlip, ToTensor, Normalize in the worker. Ours leaves the worker as uint8 and is made float and
normalised by the consumer, inside the time measured. Rounds alternate; the first of each is not counted, but gives the
seconds until our first batch, the start of the workers included. Memory and processor time of the workers follow; the
latter tells the two apart on a busy machine too.
"""

import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

from pipelines.datasets import open_dataset
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import MapIndex
from training.config import CropConfig
from training.data.loading import TrainingImages, check_maps, to_device
from training.data.sampling import EpochSampler
from training.data.workers import WorkerLoader
from training.networks.normalisation import IMAGENET_MEAN, IMAGENET_STD

OPEN_SHARDS = 256
"""Shards kept open: shuffled reads go to all of them, and opening one again costs as much as reading a map."""

TICKS = os.sysconf("SC_CLK_TCK")


class ReferenceImages(Dataset[tuple[Tensor, int]]):
    """The same files in torchvision's way: what ``ImageFolder`` with the usual transforms does for an index."""

    def __init__(self, records: Sequence[ImageRecord], root: Path) -> None:
        self.samples = [(str(root / record.path), record.label) for record in records]
        self.transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.RandomCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        return self.transform(pil_loader(path)), label


def normalise_in_place(images01_bchw: Tensor) -> Tensor:
    """``(images01 - mean) / std`` of channels-last ``images01[B, 3, S, S]`` on the CPU.

    By rows of S pixels with their three channels: broadcasting over the channels alone, which lie side by side in
    memory, takes three times as long. A GPU does not care, and there the networks normalise.
    """
    size = images01_bchw.shape[-1]
    rows_bsr = images01_bchw.permute(0, 2, 3, 1).view(-1, size, 3 * size)
    scale_r = (1 / torch.tensor(IMAGENET_STD)).repeat(size)
    shift_r = (-torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)).repeat(size)
    torch.addcmul(shift_r, rows_bsr, scale_r, out=rows_bsr)
    return images01_bchw


def rate(images: int, seconds: float) -> str:
    """Images per second as text."""
    return f"{images / seconds:7.0f} images/s"


def own_mib(pid: int) -> float:
    """Memory of a process that it shares with no other, in MiB: of a worker, what each further one needs (Linux)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", text, re.MULTILINE))) / 1024


def processor_ms(pids: Iterable[int], *, images: int) -> float:
    """Processor time of some processes until now, for each of so many images (Linux)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(user) + int(system) for *_, user, system in (of[:13] for of in fields)) * 1000 / TICKS / images


@click.command()
@click.option("--data", "root", type=click.Path(path_type=Path, exists=True), required=True, help="Data root.")
@click.option("--maps", type=click.Path(path_type=Path, exists=True), help="Folder of shards; none: images only.")
@click.option("--split", default="train", show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--images", default=2000, show_default=True, help="Images a round.")
@click.option("--batch-size", default=32, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Counted rounds of each.")
def main(root: Path, maps: Path | None, split: str, workers: int, images: int, batch_size: int, rounds: int) -> None:
    """Measure both pipelines in turns and print the medians and their ratio."""
    torch.set_num_threads(1)
    dataset = open_dataset(root, split=split)
    records: Sequence[ImageRecord] = dataset.records
    index = None if maps is None else MapIndex(maps, split, max_open_files=OPEN_SHARDS)
    if index is not None:
        records, report = check_maps(records, index, on_missing="skip")
        click.echo(report.describe())
    sampler = EpochSampler(len(records), batch_size, seed=0)
    order = [[key.position for key in batch] for batch in sampler][: max(1, images // batch_size)]
    # Both read the same files in the same order, and both keep their workers between rounds.
    records = [records[position] for batch in order for position in batch]
    reference = DataLoader(
        ReferenceImages(records, dataset.root),
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    ours_images = TrainingImages(records, root=dataset.root, crop=CropConfig(), seed=0, index=index)
    ours_sampler = EpochSampler(len(records), batch_size, seed=0, shuffle=False)
    ours = WorkerLoader(ours_images, ours_sampler, workers=workers, pin_memory=False, persistent=True)

    def run_reference() -> None:
        for images_bchw, _ in reference:
            assert images_bchw.dtype == torch.float32

    def run_ours(epoch: int) -> float:
        ours_sampler.set_epoch(epoch)
        first_s, start = 0.0, time.perf_counter()
        for batch in ours:
            first_s = first_s or time.perf_counter() - start
            assert normalise_in_place(to_device(batch, "cpu").images01_bchw).dtype == torch.float32
        return first_s

    reference_s, ours_s, first_s = [], [], []
    others: list[int | None] = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        run_reference()
        middle = time.perf_counter()
        others = others or [child.pid for child in multiprocessing.active_children()]
        first_s.append(run_ours(number))
        end = time.perf_counter()
        reference_s.append(middle - start)
        ours_s.append(end - middle)
        click.echo(f"round {number}: reference {rate(len(records), middle - start)}, ours ", nl=False)
        click.echo(rate(len(records), end - middle))
    one, other = statistics.median(reference_s[1:]), statistics.median(ours_s[1:])
    # Neighbouring rounds are compared, because whatever else the machine does changes over minutes.
    ratio = statistics.median(theirs / mine for theirs, mine in zip(reference_s[1:], ours_s[1:], strict=True))
    click.echo(f"torchvision, image alone     {rate(len(records), one)}")
    click.echo(f"ours, image{' and map' if index else ' alone'}        {rate(len(records), other)}")
    click.echo(f"ratio {ratio:.2f} with {workers} workers; first batch after {first_s[0]:.1f} s")
    mine = [child.pid for child in multiprocessing.active_children() if child.pid not in others]
    if mine:
        click.echo(f"largest memory of a worker's own {max(map(own_mib, mine)):.0f} MiB")
        theirs_ms, mine_ms = (processor_ms(pids, images=len(records) * (rounds + 1)) for pids in (others, mine))
        click.echo(f"processor time of workers {mine_ms:.1f} ms per image, torchvision {theirs_ms:.1f} ms")


if __name__ == "__main__":
    main()
