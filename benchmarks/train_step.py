"""Images per second of one training step: PyTorch's defaults, ours on real data, on data on the device, compiled.

    wsol-prep proposals --data ROOT --split train --out MAPS
    python benchmarks/train_step.py --data ROOT --maps MAPS --workers 12
    python benchmarks/train_step.py --synthetic-only --compile --profile

(a) is the paper's objective written plainly: the same networks, torchvision's ResNet-50 as F, three calls of F, fp32.
(b) and (c) are the trainer's own step of the same losses with the default recipe, in bf16 on CUDA; (b) is fed by the
trainer's loader, (c) by a batch on the device; --compile adds (d), (c) compiled, and compiles (b). Weights are random.
Rounds of a, b and c alternate and the first of each is not counted; speeds are medians, ratios are medians over the
ratios of neighbouring rounds. (b) starts a round with its loader's queue empty and one batch of every worker done, so
that what was read while others were measured does not count: choose --steps well above --workers.

Shapes: B images of a batch, K classes, H W pixels.
"""

import itertools
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet  # type: ignore[import-untyped]
from tqdm import tqdm

from pipelines.datasets import open_dataset
from pseudo_maps.records import ImageRecord
from pseudo_maps.shards import MapIndex
from training import objective
from training.config import TrainConfig, TrainRunConfig, recipe
from training.data.loading import Batch, TrainingImages, check_maps
from training.data.sampling import EpochSampler
from training.data.workers import WorkerLoader
from training.loss_config import LossConfig
from training.networks.model import LocalizationModel, ModelOutput
from training.networks.normalisation import IMAGENET_MEAN, IMAGENET_STD
from training.networks.perceptual import PerceptualNetwork
from training.networks.registry import ARCHITECTURES, MIN_IMAGE_SIDE_PX
from training.networks.weights import load_perceptual_network
from training.processes import Processes, start_processes
from training.progress import Progress
from training.trainer import Trainer

PLAIN, REAL = "(a) PyTorch's defaults", "(b) ours, real data"
ON_DEVICE, COMPILED = "(c) ours, data on the device", "(d) ours, compiled"

CLASSES = 1000
"""K: that of ILSVRC, whatever the data set has."""
WARM_UP_STEPS = 2
"""Untimed steps in which memory is measured, kernels are chosen and, with --compile, the step is compiled."""
PROFILED_STEPS = 3
KINDS = {
    "compiled": "triton|cpp_fused",
    "convolutions": "conv|xmma|fprop|dgrad|wgrad|implicit",
    "matrix products": "gemm|addmm|::mm|bmm|nvjet",
    "batch norm": "batch_norm|bn_",
    "optimiser and clipping": "adam|foreach|multi_tensor|norm",
    "copies and casts": "copy|memcpy|memset|::cat|CatArray",
}
"""Kinds of kernels and the names that tell them, the first that fits; all others do something to each number."""
PREFETCH_BATCHES = 4
"""Batches that each worker prepares ahead: ``WorkerLoader``'s default, which the trainer uses."""
OPEN_SHARDS = 256
"""Shards kept open: shuffled reads go to all of them."""
RESIDUAL_SCALE = 0.25
"""Last batch norm factor of each of the 16 blocks of F (1 / sqrt 16), without which random features overflow."""
PEAK_SIDE = {"cuda": 8192, "cpu": 1024}
PEAK_DTYPE = {"cuda": torch.bfloat16, "cpu": torch.float32}
"""Side and type of the square matrices whose product is taken for the device's peak."""
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
        pixels = maps01_bhw[0].numel()
        map_loss = ((output.saliency - maps01_bhw).flatten(1).norm(dim=1) / pixels**0.5).mean()
        saliency = output.saliency.unsqueeze(1)
        whole, foreground, background = (
            self.perceptual((masked - self.mean) / self.std)
            for masked in (images01_bchw, saliency * images01_bchw, (1 - saliency) * images01_bchw)
        )
        triplet = functional.mse_loss(foreground, whole) - functional.mse_loss(foreground, background)
        return functional.cross_entropy(output.scores, labels_b) + map_loss + triplet

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
    notes: Sequence[str] = ()
    """Lines about what else was measured."""

    def images_per_s(self, variant: str) -> float:
        """Median over the rounds."""
        return self.images / statistics.median(self.seconds[variant])

    def ratio(self, variant: str, other: str) -> float:
        """Speed of a variant over that of another, median over neighbouring rounds."""
        pairs = zip(self.seconds[variant], self.seconds[other], strict=True)
        return statistics.median(theirs / mine for mine, theirs in pairs)

    def lines(self, *, peak_flops_per_s: float) -> Iterator[str]:
        """A row for each variant, then the ratios."""
        case = f"{self.arch:<12} batch {self.batch_size:<4}"
        for variant in self.seconds:
            memory = f"{self.peak_bytes[variant] / 2**30:6.2f} GiB" if self.peak_bytes[variant] else " " * 10
            speed = self.images_per_s(variant)
            share = speed / self.batch_size * self.step_flops / peak_flops_per_s
            yield f"{case} {variant:<28} {speed:9.1f} images/s  {memory}  {100 * share:5.1f} % of peak"
        names = {variant[1]: variant for variant in self.seconds}
        pairs = [pair for pair in ("ba", "bd" if "d" in names else "bc", "ca", "da", "dc") if names.keys() >= {*pair}]
        shown = ", ".join(f"{one}/{other} {self.ratio(names[one], names[other]):.2f}" for one, other in pairs)
        yield f"{case} ratios: {shown}; {self.step_flops / 1e9:.1f} GFLOP a step"
        yield from (f"{case} {note}" for note in self.notes)


class RealData(NamedTuple):
    """Training images that have a map in ``index``."""

    records: list[ImageRecord]
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
        crop=start.crop.at_input_size(input_size),
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
    return int(counter.get_total_flops())


def measure_peak(device: torch.device) -> float:
    """Operations per second of a large matrix product, median over the repeats after as many untimed ones."""
    side = PEAK_SIDE[device.type]
    left, right = torch.randn(2, side, side, device=device, dtype=PEAK_DTYPE[device.type])
    repeat(lambda: left @ right, times=PEAK_REPEATS)
    seconds = [seconds_of(lambda: left @ right, times=1, device=device) for _ in range(PEAK_REPEATS)]
    return 2 * side**3 / statistics.median(seconds)


def seconds_of(step: Callable[[], object], *, times: int, device: torch.device) -> float:
    """Seconds until the device has done everything that some calls of ``step`` ask of it, and nothing from before."""
    wait: Callable[[], object] = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    repeat(step, times=times)
    wait()
    return time.perf_counter() - start


def kernel_shares(step: Callable[[], object], *, device: torch.device) -> str:
    """Share of the kernels' time by kind, and of that in all time; operators in place of kernels on a CPU."""
    with profile(activities=[getattr(ProfilerActivity, device.type.upper())]) as seen:
        elapsed_s = seconds_of(step, times=PROFILED_STEPS, device=device)
    times_us: Counter[str] = Counter()
    for event in seen.key_averages():
        # The optimiser's steps are in the list as well, around their kernels.
        if event.device_type.name == device.type.upper() and not event.key.startswith("Optimizer."):
            kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key, re.IGNORECASE)), "others")
            times_us[kind] += event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
    total_us = times_us.total()
    shares = ", ".join(f"{kind} {100 * time_us / total_us:.0f} %" for kind, time_us in times_us.most_common())
    return f"kernels: {shares}; {total_us / 1e4 / elapsed_s:.0f} % of the time"


def measure(
    config: TrainConfig,
    run: TrainRunConfig,
    *,
    processes: Processes,
    real: RealData | None,
    rounds: int,
    steps: int,
    profiled: bool = False,
) -> Measured:
    """Build all variants of one case, warm them up, and time them in turns."""
    device, batch_size = processes.device, config.batch_size
    needed = WARM_UP_STEPS + (rounds + 1) * (run.workers * (PREFETCH_BATCHES + 1) + steps)
    images = training_images(real, images=needed * batch_size, config=config)
    their_perceptual = torchvision_perceptual_network(seed=0)
    perceptual = our_perceptual_network(their_perceptual)
    batch = synthetic_batch(batch_size, size=config.crop.input_size, device=device)
    assert batch.maps_bhw is not None
    floats = (batch.images_bchw.float().div(255).contiguous(), batch.maps_bhw.float().div(255), batch.labels_b)
    progress = Progress()
    progress.say = click.echo  # type: ignore[assignment, method-assign]
    inputs = {"train_images": images, "val_images": None, "perceptual": perceptual, "progress": progress}
    timed: dict[str, Callable[..., object]] = {}
    peak_bytes: dict[str, int] = {}
    on_cuda, notes = device.type == "cuda", []
    for variant in (PLAIN, ON_DEVICE, COMPILED)[: 3 if run.compile == "on" else 2]:
        started, before = time.monotonic(), torch.cuda.memory_allocated(device) if on_cuda else 0
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(device)
        if variant == PLAIN:
            timed[PLAIN] = partial(PlainStep(config, perceptual=their_perceptual, device=device).step, *floats)
        else:
            # Nothing is written: a trainer writes in fit() and save() only.
            one = replace(run, compile="on" if variant == COMPILED else "off")
            trainer = Trainer(config, one, out=Path("never-made"), processes=processes, **inputs)
            timed[variant] = partial(trainer.train_step, [batch])
        repeat(timed[variant], times=WARM_UP_STEPS)
        peak_bytes[variant] = torch.cuda.max_memory_allocated(device) - before if on_cuda else 0
        if variant == COMPILED:
            skips = counters.pop("inductor", Counter())["cudagraph_skips"]
            notes.append(f"(d) compiled in {time.monotonic() - started:.0f} s; CUDA graphs skipped {skips} times")
    # All do the same arithmetic, and only an uncompiled step can be counted.
    step_flops = count_flops(timed[PLAIN])
    ours = list(timed)[1:]
    if real is not None:
        sampler = EpochSampler(len(images), batch_size, seed=0)
        batches = iter(WorkerLoader(images, sampler, workers=run.workers, prefetch_batches=PREFETCH_BATCHES))
        timed = {PLAIN: timed.pop(PLAIN), REAL: lambda: trainer.train_step([next(batches)]), **timed}
        peak_bytes[REAL] = peak_bytes[ours[-1]]

    seconds: dict[str, list[float]] = {variant: [] for variant in timed}
    for _ in tqdm(range(rounds + 1), desc=f"{config.arch} {batch_size}", disable=None, leave=False):
        for variant, step in timed.items():
            if variant == REAL:
                repeat(lambda: next(batches), times=run.workers * PREFETCH_BATCHES)
                repeat(step, times=run.workers)
            seconds[variant].append(seconds_of(step, times=steps, device=device))
    notes += [f"{variant[:3]} {kernel_shares(timed[variant], device=device)}" for variant in ours if profiled]
    return Measured(
        arch=config.arch,
        images=steps * batch_size,
        batch_size=batch_size,
        seconds={variant: of_rounds[1:] for variant, of_rounds in seconds.items()},
        peak_bytes=peak_bytes,
        step_flops=step_flops,
        notes=notes,
    )


def repeat(step: Callable[[], object], *, times: int) -> None:
    """Call ``step`` a number of times."""
    for _ in range(times):
        step()


def describe_device(device: torch.device, *, peak_flops_per_s: float) -> str:
    """What is measured on, and whether PyTorch takes TF32 for the fp32 of (a)."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    peak = f"peak {peak_flops_per_s / 1e12:.3f} TFLOP/s ({PEAK_DTYPE[device.type]} {PEAK_SIDE[device.type]}^3)"
    tf32 = f"convolutions {torch.backends.cudnn.allow_tf32}, matrix products {torch.backends.cuda.matmul.allow_tf32}"
    return f"{name}, torch {torch.__version__}; {peak}; TF32 in {tf32}"


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
@click.option("--compile", "compile_", is_flag=True, help="Measure (d) too, and compile (b).")
@click.option("--profile", "profiled", is_flag=True, help="Share of the kernels' time by kind, of (c) and (d).")
@click.option("--graph-images", default=objective.GRAPH_IMAGES, show_default=True, help="CUDA graphs up to this batch.")
def main(root: Path | None, maps: Path | None, synthetic_only: bool, **given: Any) -> None:
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
    objective.GRAPH_IMAGES = given["graph_images"]
    processes = start_processes(given["device_name"])
    device = processes.device
    peak_flops_per_s = measure_peak(device)
    click.echo(describe_device(device, peak_flops_per_s=peak_flops_per_s))
    run = TrainRunConfig(workers=given["workers"] if real else 0, compile="on" if given["compile_"] else "off")
    lengths = {name: given[name] for name in ("rounds", "steps", "profiled")}
    for arch, batch_size in itertools.product(given["archs"], given["batch_sizes"]):
        config = benchmark_config(arch, batch_size=batch_size, input_size=given["input_size"], device=device)
        measured = measure(config, run, processes=processes, real=real, **lengths)
        click.echo("\n".join(measured.lines(peak_flops_per_s=peak_flops_per_s)))
        # What one case leaves in PyTorch's cache has blocks of sizes that the next cannot use.
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
