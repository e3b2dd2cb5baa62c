"""``benchmarks/train_step.py``: both steps compare the same work, the arithmetic of its table, and whole runs."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks import train_step
from benchmarks.train_step import COMPILED, ON_DEVICE, PLAIN, REAL, Measured, PlainStep, RealData
from pipelines.datasets import open_dataset
from pipelines.datasets.generated import make_clsloc_dataset
from pseudo_maps.shards import STATUS_OK, MapIndex, MapRow, ShardWriter, make_provenance, quantise_map, shard_name
from tests.command_calls import invoke, start_python
from tests.counts import full
from tests.training.training_runs import ALONE, MeanColours, tiny_networks
from training.config import TrainRunConfig
from training.step_statistics import pop_means
from training.trainer import Trainer

CPU = torch.device("cpu")
SIZE, BATCH = 64, 2
TINY = "--device cpu --arch alexnet-gap --batch-size 2 --input-size 64 --rounds 1 --steps 1".split()
SCRIPT = Path(train_step.__file__)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def small_networks() -> Iterator[None]:
    with tiny_networks():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Root of four training images and folder of their maps, of which one could not be made."""
    root = make_clsloc_dataset(
        tmp_path_factory.mktemp("data") / "root", classes=2, train_per_class=2, val_per_class=1, size_px=(72, 96)
    )
    records = open_dataset(root, split="train").records
    maps = tmp_path_factory.mktemp("maps")
    path, provenance = maps / shard_name("train", 0, 1), make_provenance({})
    with ShardWriter(path, rows=len(records), map_size=28, provenance=provenance) as writer:
        for row, record in enumerate(records):
            ok = row != 1
            stored, peak = quantise_map(np.full((28, 28), 0.5 * ok, dtype=np.float32))
            names = dict(image_id=record.image_id, path=record.path, wnid=record.wnid, label=record.label)
            status = STATUS_OK if ok else "timeout"
            with Image.open(root / record.path) as image:
                width, height = image.size
            writer.write(
                row, stored, MapRow(**names, height=height, width=width, peak=peak, proposals=1, status=status)
            )
        writer.commit()
    return root, maps


@pytest.mark.usefixtures("small_networks")
def test_both_steps_have_the_same_loss_and_the_same_number_of_operations() -> None:
    config = train_step.benchmark_config("alexnet-gap", batch_size=BATCH, input_size=SIZE, device=CPU)
    theirs = train_step.torchvision_perceptual_network(seed=3)
    batch = train_step.synthetic_batch(BATCH, size=SIZE, device=CPU)
    trainer = Trainer(
        config,
        TrainRunConfig(workers=0),
        out=Path("never-written"),
        processes=ALONE,
        train_images=train_step.training_images(None, images=BATCH, config=config),
        val_images=None,
        perceptual=train_step.our_perceptual_network(theirs),
    )
    assert trainer.model.decoder is not None and trainer.model.decoder.head.bias is not None
    # At a saliency of one half foreground and background would be the same picture, and d_neg nothing.
    torch.nn.init.constant_(trainer.model.decoder.head.bias, 2.0)
    plain = PlainStep(config, perceptual=theirs, device=CPU)
    plain.model.load_state_dict(trainer.model.state_dict())
    assert batch.maps_bhw is not None
    floats = (batch.images_bchw.float() / 255, batch.maps_bhw.float() / 255, batch.labels_b)

    # Before the steps, because a step changes the weights; batch norm's statistics do not enter this loss.
    expected = plain.loss(*floats).item()
    plain_flops = train_step.count_flops(lambda: plain.step(*floats))
    our_flops = train_step.count_flops(lambda: trainer.train_step([batch]))
    trainer._statistics.collect()
    assert pop_means(trainer._statistics.of_epoch)["total"] == pytest.approx(expected, rel=1e-5)
    assert expected > 1
    assert plain_flops == our_flops > 1e9
    moved = (p - q for p, q in zip(plain.model.parameters(), trainer.model.parameters(), strict=True))
    # The first step of Adam moves each weight by the rate or less; the plain one has no warm-up.
    assert 0 < max(float(difference.detach().abs().max()) for difference in moved) < 2.5 * config.optimiser.lr
    assert all(parameter.grad is None for parameter in theirs.parameters())
    assert not Path("never-written").exists()


def test_operations_of_a_product_and_of_its_gradients_are_counted() -> None:
    left, right = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7, requires_grad=True)
    # Two for each of 3 * 5 * 7 multiply-adds, and as many again for either gradient.
    assert train_step.count_flops(lambda: (left @ right).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_the_table_is_right() -> None:
    measured = Measured(
        arch="alexnet-gap",
        images=80,
        batch_size=8,
        seconds={PLAIN: [4.0, 8.0, 2.0], REAL: [2.0, 2.0, 1.0], ON_DEVICE: [1.0, 2.0, 0.5]},
        peak_bytes={PLAIN: 3 * 2**30, REAL: 2**29, ON_DEVICE: 2**29},
        step_flops=6_000_000_000,
    )
    assert [measured.images_per_s(variant) for variant in (PLAIN, REAL, ON_DEVICE)] == [20, 40, 80]
    # Rounds compared in pairs: 4/2, 8/2, 2/1, whose median is 2; the ratio of the medians is 2 as well.
    assert measured.ratio(REAL, PLAIN) == 2
    assert measured.ratio(REAL, ON_DEVICE) == 0.5
    # 20 images/s are 2.5 steps/s, so 1.5e10 operations/s of 3e11.
    rows = list(measured.lines(peak_flops_per_s=3e11))
    assert [row.split("batch 8")[1].split() for row in rows[:2]] == [
        "(a) PyTorch's defaults 20.0 images/s 3.00 GiB 5.0 % of peak".split(),
        "(b) ours, real data 40.0 images/s 0.50 GiB 10.0 % of peak".split(),
    ]
    assert rows[3].endswith("ratios: b/a 2.00, b/c 0.50, c/a 4.00; 6.0 GFLOP a step")
    alone = replace(measured, seconds={PLAIN: [4.0], ON_DEVICE: [1.0]})
    assert list(alone.lines(peak_flops_per_s=3e11))[-1].endswith("ratios: c/a 4.00; 6.0 GFLOP a step")
    seconds = {**measured.seconds, COMPILED: [0.5, 1.0, 0.25]}
    compiled = replace(measured, seconds=seconds, peak_bytes={**measured.peak_bytes, COMPILED: 0}, notes=["(d) first"])
    *_, ratios, note = compiled.lines(peak_flops_per_s=3e11)
    assert "ratios: b/a 2.00, b/d 0.25, c/a 4.00, d/a 8.00, d/c 2.00;" in ratios
    assert note == "alexnet-gap  batch 8    (d) first"


def test_ratios_compare_neighbouring_rounds() -> None:
    """A machine that slows down from round to round: the medians of the speeds would say 1, the pairs say 2."""
    measured = Measured(
        arch="", images=1, batch_size=1, step_flops=1, peak_bytes={}, seconds={PLAIN: [2, 4, 8], REAL: [1, 4, 2]}
    )
    assert measured.ratio(REAL, PLAIN) == 2
    assert measured.images_per_s(REAL) / measured.images_per_s(PLAIN) == 2
    measured = replace(measured, seconds={PLAIN: [2, 4, 6], REAL: [1, 4, 5]})
    assert measured.ratio(REAL, PLAIN) == 1.2
    assert measured.images_per_s(REAL) / measured.images_per_s(PLAIN) == 1


def test_steps_are_repeated() -> None:
    calls = []
    assert train_step.seconds_of(lambda: calls.append(1), times=3, device=CPU) > 0
    assert len(calls) == 3


def test_time_is_shared_out_by_the_kind_of_kernel() -> None:
    left = torch.rand(256, 256)
    line = train_step.kernel_shares(lambda: [left @ left for _ in range(20)], device=CPU)
    assert re.fullmatch(r"kernels: matrix products (9\d|100) %.*; \d+ % of the time", line)


def test_real_images_are_repeated_until_there_are_enough(data: tuple[Path, Path]) -> None:
    root, maps = data
    dataset = open_dataset(root, split="train")
    config = train_step.benchmark_config("alexnet-gap", batch_size=BATCH, input_size=SIZE, device=CPU)
    real = RealData(records=list(dataset.records), root=dataset.root, index=MapIndex(maps, "train"))
    assert len(train_step.training_images(real, images=7, config=config)) == 7
    assert len(train_step.training_images(real, images=1, config=config)) == 4


def run_program(*arguments: object) -> list[str]:
    """Lines that the script prints in a process of its own."""
    process = start_python("-W", "error", SCRIPT, *TINY, *arguments)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    return text.splitlines()


def run_here(*arguments: object) -> list[str]:
    """The same in this process, with networks of milliseconds."""
    with tiny_networks(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_step, "torchvision_perceptual_network", lambda seed: MeanColours())
        patch.setattr(train_step, "our_perceptual_network", lambda theirs: theirs)
        patch.setitem(train_step.PEAK_SIDE, "cpu", 16)
        return invoke(train_step.main, *TINY, *arguments, prog_name="train_step.py").output.splitlines()


@pytest.mark.parametrize("run", (run_here, run_program)[: full(1, 2)])
def test_all_three_variants_are_measured_with_data(run: Callable[..., list[str]], data: tuple[Path, Path]) -> None:
    root, maps = data
    report, _, *rows = run("--data", root, "--maps", maps, "--workers", 1)
    assert report.startswith("1 of 4 images have no usable map")
    for variant, row in zip((PLAIN, REAL, ON_DEVICE), rows[:3], strict=True):
        assert re.fullmatch(rf"alexnet-gap +batch 2 +{re.escape(variant)} +\d+\.\d images/s +\d+\.\d % of peak", row)
    ratios = r"ratios: b/a \d+\.\d\d, b/c \d+\.\d\d, c/a \d+\.\d\d; \d+\.\d GFLOP a step"
    assert re.fullmatch(rf"alexnet-gap +batch 2 +{ratios}", rows[3]) and len(rows) == 4


@pytest.mark.parametrize("run", (run_here, run_program)[: full(1, 2)])
def test_the_script_runs_without_data(run: Callable[..., list[str]]) -> None:
    first, *rows = run("--synthetic-only")
    assert first.startswith("CPU, 1 threads, torch ") and "(torch.float32 " in first
    assert [row.split("batch 2")[1].split()[0] for row in rows] == ["(a)", "(c)", "ratios:"]
    assert "b/" not in rows[-1]


def test_the_compiled_step_is_measured_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda part, **_: compiled.append(part) or part)
    monkeypatch.setattr(train_step, "kernel_shares", lambda step, **_: step() or "kernels: all")
    _, said, *rows = run_here("--synthetic-only", "--compile", "--profile")
    assert said.startswith("compiling the training step") and compiled
    kinds = [row.split("batch 2")[1].split()[0] for row in rows]
    assert kinds == ["(a)", "(c)", "(d)", "ratios:", "(d)", "(c)", "(d)"]
    assert re.search(r"ratios: c/a \d+\.\d\d, d/a \d+\.\d\d, d/c \d+\.\d\d;", rows[3])
    assert (
        re.search(r"compiled in \d+ s; CUDA graphs skipped 0 times$", rows[4])
        and "(c) kernels: " in rows[5]
        and "(d) kernels: " in rows[6]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--synthetic-only leaves it out"),
        (["--data", "."], "--synthetic-only leaves it out"),
        (["--synthetic-only", "--data", "."], "reads no --data"),
        (["--synthetic-only", "--arch", "vgg"], "'vgg' is not one of"),
    ],
)
def test_bad_usage_is_told(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(train_step.main, arguments)
    assert result.exit_code == 2
    assert message in result.output
