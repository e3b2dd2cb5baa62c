"""Images per second of one training step: PyTorch's defaults, ours on real data, ours on data on the device.

    wsol-prep proposals --data ROOT --split train --out MAPS
    python benchmarks/train_step.py --data ROOT --maps MAPS --workers 12
    python benchmarks/train_step.py --synthetic-only

(a) is the paper's objective written plainly: the same networks, torchvision's ResNet-50 as F, three calls of F, fp32.
(b) and (c) are the trainer's own step of the same losses with the default recipe, in bf16 on CUDA; (b) is fed by the
trainer's loader, (c) by one batch on the device. All weights are random.
Rounds of a, b and c alternate and the first of each is not counted; speeds are medians, ratios are medians over the
ratios of neighbouring rounds. (b) starts a round with its loader's queue empty and one batch of every worker done, so
that what was read while others were measured does not count: choose --steps well above --workers.

Shapes: B images of a batch, K classes, H W pixels.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet  # type: ignore[import-untyped]
from tqdm import tqdm

from pipelines.datasets import open_dataset
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import MapIndex
from training.config import LossConfig, TrainConfig, TrainRunConfig, recipe
from training.data.loading import Batch, TrainingImages, check_maps
from training.data.sampling import EpochSampler
from training.data.workers import WorkerLoader
from training.networks.model import LocalizationModel, ModelOutput
from training.networks.normalisation import IMAGENET_MEAN, IMAGENET_STD
from training.networks.perceptual import PerceptualNetwork
from training.networks.registry import ARCHITECTURES, MIN_IMAGE_SIDE_PX
from training.networks.weights import load_perceptual_network
from training.processes import Processes, start_processes
from training.trainer import Trainer

PLAIN, REAL, ON_DEVICE = "(a) PyTorch's defaults", "(b) ours, real data", "(c) ours, data on the device"

CLASSES = 1000
"""K: that of ILSVRC, whatever the data set has."""
WARM_UP_STEPS = 2
"""Untimed steps in which memory is measured, kernels are chosen and, with --compile, networks are compiled."""
PREFETCH_BATCHES = 4
"""Batches that each worker prepares ahead: ``WorkerLoader``'s default, which the trainer uses."""
OPEN_SHARDS = 256
"""Shards kept open: shuffled reads go to all of them."""
RESIDUAL_SCALE = 0.25
"""Last batch norm factor of each of the 16 blocks of F (1 / sqrt 16), without which random features overflow."""
PEAK_SIDE = {"cuda": 8192, "cpu": 1024}
"""Side of the square matrices whose product is taken for the device's peak: bf16 on CUDA, fp32 on a CPU."""
PEAK_REPEATS = 10
"""Timed products, and untimed ones before them in which the clock rises."""


class PlainStep:
    """One training step written plainly, fp32, nothing fused; ``perceptual`` is torchvision's ResNet-50 as frozen F."""

    def __init__(self, config: TrainConfig, *, perceptual: nn.Module, device: torch.device) -> None:
        self.model = LocalizationModel(config.arch, config.classes, batch_norm=config.batch_norm).to(device)
        self.perceptual = perceptual.to(device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.optimiser.lr, weight_decay=config.optimiser.weight_decay
        )
        self.clip_norm = config.clip_norm
        self.mean = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1)

    def loss(self, images01_bchw: Tensor, maps01_bhw: Tensor, labels_b: Tensor) -> Tensor:
        """Equation (8) over ``images01[B, 3, H, W]``, ``maps01[B, H, W]`` and ``labels[B]``, a scalar."""
        output: ModelOutput = self.model(images01_bchw)
        assert output.saliency is not None
        classification = functional.cross_entropy(output.scores, labels_b)
        pixels = maps01_bhw[0].numel()
        map_loss = ((output.saliency - maps01_bhw).flatten(1).norm(dim=1) / pixels**0.5).mean()
        saliency = output.saliency.unsqueeze(1)
        whole = self.features(images01_bchw)
        foreground = self.features(saliency * images01_bchw)
        background = self.features((1 - saliency) * images01_bchw)
        triplet = functional.mse_loss(foreground, whole) - functional.mse_loss(foreground, background)
        total: Tensor = classification + map_loss + triplet
        return total

    def features(self, images01_bchw: Tensor) -> Tensor:
        """``images01[B, 3, H, W]``, masked or not, to ``[B, 2048]``."""
        features: Tensor = self.perceptual((images01_bchw - self.mean) / self.std)
        return features

    def step(self, images01_bchw: Tensor, maps01_bhw: Tensor, labels_b: Tensor) -> None:
        """One step of the optimiser."""
        self.optimiser.zero_grad()
        self.loss(images01_bchw, maps01_bhw, labels_b).backward()  # type: ignore[no-untyped-call]
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimiser.step()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one architecture and batch size gave."""

    arch: str
    images: int
    """Images a round."""
    batch_size: int
    seconds: dict[str, list[float]]
    """Seconds of every counted round by variant; all lists are equally long."""
    peak_bytes: dict[str, int]
    """Largest device memory by variant, 0 on a CPU."""
    step_flops: int
    """Floating-point operations of one step, a multiply-add counted as two."""

    def images_per_s(self, variant: str) -> float:
        """Median over the rounds."""
        return self.images / statistics.median(self.seconds[variant])

    def peak_share(self, variant: str, *, peak_flops_per_s: float) -> float:
        """Part of the device's matrix peak that a variant reaches."""
        return self.images_per_s(variant) / self.batch_size * self.step_flops / peak_flops_per_s

    def ratio(self, variant: str, other: str) -> float:
        """Speed of a variant over that of another, median over neighbouring rounds."""
        pairs = zip(self.seconds[variant], self.seconds[other], strict=True)
        return statistics.median(theirs / mine for mine, theirs in pairs)

    def lines(self, *, peak_flops_per_s: float) -> Iterator[str]:
        """A row for each variant, then the ratios."""
        for variant in self.seconds:
            memory = f"{self.peak_bytes[variant] / 2**30:6.2f} GiB" if self.peak_bytes[variant] else " " * 10
            yield (
                f"{self.arch:<12} batch {self.batch_size:<4} {variant:<28} {self.images_per_s(variant):9.1f} images/s"
                f"  {memory}  {100 * self.peak_share(variant, peak_flops_per_s=peak_flops_per_s):5.1f} % of peak"
            )
        ratios = {"c/a": (ON_DEVICE, PLAIN)}
        if REAL in self.seconds:
            ratios = {"b/a": (REAL, PLAIN), "b/c": (REAL, ON_DEVICE), **ratios}
        shown = ", ".join(f"{name} {self.ratio(*pair):.2f}" for name, pair in ratios.items())
        yield f"{self.arch:<12} batch {self.batch_size:<4} ratios: {shown}; {self.step_flops / 1e9:.1f} GFLOP a step"


@dataclass(frozen=True, kw_only=True)
class RealData:
    """Training images with their maps."""

    records: list[ImageRecord]
    """Images that have a map in ``index``."""
    root: Path
    index: MapIndex


def torchvision_perceptual_network(*, seed: int) -> nn.Module:
    """F as torchvision's ResNet-50, frozen, in evaluation mode, random weights: ``[B, 3, H, W]`` to ``[B, 2048]``."""
    torch.manual_seed(seed)
    network: nn.Module = resnet.resnet50(weights=None)
    for block in network.modules():
        if isinstance(block, resnet.Bottleneck):
            nn.init.constant_(block.bn3.weight, RESIDUAL_SCALE)
    network.fc = nn.Identity()
    return network.eval().requires_grad_(False)


def our_perceptual_network(network: nn.Module) -> PerceptualNetwork:
    """The same F as the trainer has it, loaded from a file as a user's weights are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.pth"
        torch.save(network.state_dict(), path)
        return load_perceptual_network(str(path))


def synthetic_batch(batch_size: int, *, size: int, device: torch.device) -> Batch:
    """Random pixels, maps and labels in the loader's types and memory format, on the device."""
    generator = torch.Generator().manual_seed(0)
    images_bhwc = torch.randint(256, (batch_size, size, size, 3), dtype=torch.uint8, generator=generator)
    maps_bhw = torch.randint(256, (batch_size, size, size), dtype=torch.uint8, generator=generator)
    return Batch(
        images_bchw=images_bhwc.to(device).permute(0, 3, 1, 2),
        maps_bhw=maps_bhw.to(device),
        labels_b=torch.randint(CLASSES, (batch_size,), generator=generator).to(device),
        positions_b=torch.arange(batch_size, device=device),
        unreadable={},
    )


def benchmark_config(arch: str, *, batch_size: int, input_size: int, device: torch.device) -> TrainConfig:
    """The default recipe with the paper's losses, as ``wsol-train`` fills it in for this device."""
    start = recipe("default")
    return replace(
        start,
        arch=arch,
        loss=LossConfig(),
        classes=CLASSES,
        batch_size=batch_size,
        # 256 for 224, as wsol-train does.
        crop=replace(start.crop, input_size=input_size, resize=round(input_size * 256 / 224)),
        precision="bf16" if device.type == "cuda" else "fp32",
    )


def training_images(real: RealData | None, *, images: int, config: TrainConfig) -> TrainingImages:
    """At least ``images`` images, so that nothing measured falls on the end of an epoch, where a loader runs dry."""
    if real is None:
        # The trainer wants to know how many there are; none is ever read.
        nowhere = [ImageRecord(image_id=str(number), path=str(number), label=0) for number in range(images)]
        return TrainingImages(nowhere, root="", crop=config.crop, seed=0)
    records = list(itertools.islice(itertools.cycle(real.records), max(images, len(real.records))))
    return TrainingImages(records, root=real.root, crop=config.crop, seed=0, index=real.index)


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions of ``run``, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        run()
    operations: int = counter.get_total_flops()
    return operations


def measure_peak(device: torch.device) -> float:
    """Operations per second of a large matrix product, median over the repeats after as many untimed ones."""
    side, dtype = PEAK_SIDE[device.type], torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    repeat(lambda: left @ right, times=PEAK_REPEATS)
    seconds = [seconds_of(lambda: left @ right, times=1, device=device) for _ in range(PEAK_REPEATS)]
    return 2 * side**3 / statistics.median(seconds)


def seconds_of(step: Callable[[], object], *, times: int, device: torch.device) -> float:
    """Seconds until the device has done everything that some calls of ``step`` ask of it, and nothing from before."""
    on_cuda = device.type == "cuda"
    wait: Callable[[], object] = (lambda: torch.cuda.synchronize(device)) if on_cuda else (lambda: None)
    wait()
    start = time.perf_counter()
    repeat(step, times=times)
    wait()
    return time.perf_counter() - start


class MemoryMeter:
    """Largest memory that is allocated on a device beyond what was there at the start."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)

    def peak_bytes(self) -> int:
        """Bytes until now; 0 on a CPU."""
        return torch.cuda.max_memory_allocated(self._device) - self._before if self._device.type == "cuda" else 0


def measure(
    config: TrainConfig, run: TrainRunConfig, *, processes: Processes, real: RealData | None, rounds: int, steps: int
) -> Measured:
    """Build all variants of one case, warm them up, and time them in turns."""
    device, batch_size = processes.device, config.batch_size
    needed = WARM_UP_STEPS + (rounds + 1) * (run.workers * (PREFETCH_BATCHES + 1) + steps)
    images = training_images(real, images=needed * batch_size, config=config)
    their_perceptual = torchvision_perceptual_network(seed=0)
    perceptual = our_perceptual_network(their_perceptual)

    meter = MemoryMeter(device)
    plain = PlainStep(config, perceptual=their_perceptual, device=device)
    batch = synthetic_batch(batch_size, size=config.crop.input_size, device=device)
    assert batch.maps_bhw is not None
    floats = (batch.images_bchw.float().div(255).contiguous(), batch.maps_bhw.float().div(255), batch.labels_b)
    repeat(lambda: plain.step(*floats), times=WARM_UP_STEPS)
    peak_bytes = {PLAIN: meter.peak_bytes()}
    # Both do the same arithmetic, and only an uncompiled step can be counted.
    step_flops = count_flops(lambda: plain.step(*floats))

    meter = MemoryMeter(device)
    with tempfile.TemporaryDirectory() as out:
        # Nothing is written there: a trainer writes in fit() and save() only.
        trainer = Trainer(
            config, run, out=Path(out), processes=processes, train_images=images, val_images=None, perceptual=perceptual
        )
    repeat(lambda: trainer.train_step([batch]), times=WARM_UP_STEPS)
    peak_bytes[ON_DEVICE] = meter.peak_bytes()

    timed: dict[str, Callable[[], object]] = {PLAIN: lambda: plain.step(*floats)}
    if real is not None:
        sampler = EpochSampler(len(images), batch_size, seed=0)
        loader = WorkerLoader(images, sampler, workers=run.workers, prefetch_batches=PREFETCH_BATCHES, persistent=True)
        batches = iter(loader)
        timed[REAL] = lambda: trainer.train_step([next(batches)])
        peak_bytes[REAL] = peak_bytes[ON_DEVICE]
    timed[ON_DEVICE] = lambda: trainer.train_step([batch])

    seconds: dict[str, list[float]] = {variant: [] for variant in timed}
    for number in tqdm(range(rounds + 1), desc=f"{config.arch} {batch_size}", disable=None, leave=False):
        for variant, step in timed.items():
            if variant == REAL:
                repeat(lambda: next(batches), times=run.workers * PREFETCH_BATCHES)
                repeat(step, times=run.workers)
            elapsed_s = seconds_of(step, times=steps, device=device)
            if number > 0:
                seconds[variant].append(elapsed_s)
    return Measured(
        arch=config.arch,
        images=steps * batch_size,
        batch_size=batch_size,
        seconds=seconds,
        peak_bytes=peak_bytes,
        step_flops=step_flops,
    )


def repeat(step: Callable[[], object], *, times: int) -> None:
    """Call ``step`` a number of times."""
    for _ in range(times):
        step()


def describe_device(device: torch.device, *, peak_flops_per_s: float) -> str:
    """What is measured on, and the settings of PyTorch that decide how fast fp32 is."""
    if device.type != "cuda":
        peak = f"peak {peak_flops_per_s / 1e12:.3f} TFLOP/s (fp32 {PEAK_SIDE['cpu']}^3)"
        return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}; {peak}"
    on_off = {True: "on", False: "off"}
    return (
        f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; "
        f"peak {peak_flops_per_s / 1e12:.0f} TFLOP/s (bf16 {PEAK_SIDE['cuda']}^3)\n"
        f"TF32 in (a): convolutions {on_off[torch.backends.cudnn.allow_tf32]}, "
        f"matrix products {on_off[torch.backends.cuda.matmul.allow_tf32]}"
    )


repeatable = partial(click.option, multiple=True, show_default=True, help="May be given several times.")


@click.command()
@click.option("--data", "root", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Data root.")
@click.option("--maps", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of shards.")
@click.option("--synthetic-only", is_flag=True, help="Leave (b) out; no data is needed.")
@repeatable("--arch", "archs", type=click.Choice(tuple(ARCHITECTURES)), default=("alexnet-gap", "googlenet-gap"))
@repeatable("--batch-size", "batch_sizes", type=click.IntRange(min=2), default=(32, 256))
@click.option("--input-size", type=click.IntRange(min=MIN_IMAGE_SIDE_PX), default=224, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Counted rounds of each.")
@click.option("--steps", type=click.IntRange(min=1), default=40, show_default=True, help="Steps a round.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Loader processes of (b).")
@click.option("--device", "device_name", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--compile", "compile_", is_flag=True, help="Compile the networks of (b) and (c).")
@click.option("--no-tf32", is_flag=True, help="Switch TF32 off in cuDNN too, where PyTorch has it on.")
def main(
    root: Path | None,
    maps: Path | None,
    synthetic_only: bool,
    archs: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    input_size: int,
    rounds: int,
    steps: int,
    workers: int,
    device_name: str,
    compile_: bool,
    no_tf32: bool,
) -> None:
    """Measure every architecture with every batch size."""
    real = None
    if synthetic_only and (root or maps):
        raise click.UsageError("--synthetic-only reads no --data and no --maps")
    if not synthetic_only:
        if root is None or maps is None:
            raise click.UsageError("(b) needs --data ROOT and --maps DIR; --synthetic-only leaves it out")
        dataset = open_dataset(root, split="train")
        index = MapIndex(maps, "train", max_open_files=OPEN_SHARDS)
        records, report = check_maps(dataset.records, index, on_missing="skip")
        click.echo(report.describe())
        real = RealData(records=records, root=dataset.root, index=index)
    if no_tf32:
        # Ours runs its convolutions in bf16, so this changes (a) alone.
        torch.backends.cudnn.allow_tf32 = False
    processes = start_processes(device_name)
    device = processes.device
    peak_flops_per_s = measure_peak(device)
    click.echo(describe_device(device, peak_flops_per_s=peak_flops_per_s))
    run = TrainRunConfig(workers=workers if real is not None else 0, compile="on" if compile_ else "off")
    for arch, batch_size in itertools.product(archs, batch_sizes):
        config = benchmark_config(arch, batch_size=batch_size, input_size=input_size, device=device)
        measured = measure(config, run, processes=processes, real=real, rounds=rounds, steps=steps)
        click.echo("\n".join(measured.lines(peak_flops_per_s=peak_flops_per_s)))
        if device.type == "cuda":
            # What one case leaves in PyTorch's cache has blocks of sizes that the next cannot use.
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
