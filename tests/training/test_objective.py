"""The training step compiled and not: the same numbers, resumed runs to the bit, and what happens where it fails."""

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.train_program import start_two, train
from tests.training.training_runs import (
    ALONE,
    HURRIED,
    SMALL,
    Crash,
    Interrupt,
    TinyEncoder,
    assert_same,
    crash,
    final_state,
    make_trainer,
    saliency,
)
from training.config import COMPILED_STEPS, Compile, TrainConfig, TrainRunConfig
from training.data.loading import Batch, DeviceBatch
from training.networks.model import LocalizationModel
from training.networks.perceptual import PerceptualNetwork
from training.objective import TRIAL_STEPS, Objective

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

FULL = replace(
    saliency(cam_map_weight=4.0, triplet_scale="image"), arch="alexnet-gap-plus", epochs=1, clip_norm=1.0, seed=3
)
"""Every loss, dropout, and F of a black image: all that a step can have."""
COMPILED = replace(HURRIED, compile="on")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Compile without a compiler's back end and without a break in a graph, as any wait for the device would be."""
    real, settings = torch.compile, []

    def compile_(part: Any, **given: Any) -> Any:
        settings.append(given)
        return real(part, backend="eager", fullgraph=True, dynamic=given["dynamic"])

    monkeypatch.setattr(torch, "compile", compile_)
    return settings


def test_a_compiled_run_has_the_numbers_of_a_plain_one(
    data: Path, tmp_path: Path, traced: list[dict[str, Any]]
) -> None:
    said = Interrupt(0, crash)
    make_trainer(data, tmp_path / "plain", FULL).fit()
    assert not traced
    make_trainer(data, tmp_path / "compiled", FULL, run=COMPILED, progress=said).fit()
    # Network, F and losses.
    assert len(traced) == 3
    assert said.said[0] == "compiling the training step: the first step takes longer"
    assert said.said[1].startswith("epoch 1/1: ")
    plain, compiled = final_state(tmp_path / "plain"), final_state(tmp_path / "compiled")
    torch.testing.assert_close(compiled["model"], plain["model"], rtol=1e-3, atol=1e-4)


def test_the_command_compiles(data: Path, tmp_path: Path, traced: list[dict[str, Any]]) -> None:
    words = "--compile on --method gap --device cpu --input-size 64 --batch-size 4 --epochs 1 --workers 0"
    result = train(*words.split(), "--data", data, "--out", tmp_path)
    assert result.exit_code == 0 and "compiling the training step: " in result.stderr, result.output
    assert len(traced) == 2


def test_steps_on_trial_leave_no_trace_and_a_run_resumes_to_the_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda part, **_: compiled.append(part) or part)
    make_trainer(data, tmp_path / "plain", FULL).fit()
    often = replace(COMPILED, checkpoint_minutes=0.0)
    with pytest.raises(Crash):
        make_trainer(data, tmp_path / "resumed", FULL, run=often, progress=Interrupt(2, crash)).fit()
    make_trainer(data, tmp_path / "resumed", FULL, run=often).fit(resume=True)
    assert len(compiled) == 6
    assert_same(final_state(tmp_path / "resumed"), final_state(tmp_path / "plain"))


def test_without_a_compiler_the_run_goes_on_uncompiled_and_says_why(
    data: Path, gap_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATH", "CXX"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    said = Interrupt(0, crash)
    make_trainer(data, tmp_path, SMALL, run=COMPILED, progress=said).fit()
    step, end = said.said[1:3]
    assert re.match(r"warning: --compile: the training step cannot be compiled: \w+: \w", step)
    assert end == "warning: --compile: the run continues uncompiled"
    assert_same(final_state(tmp_path), final_state(gap_run))


class Refused(nn.Module):
    """Stands for what the compiler refuses when it is first called."""

    def forward(self, *_inputs: Any, **_named: Any) -> Tensor:
        raise RuntimeError("this layer\nand more")


def test_the_frozen_network_is_compiled_alone_where_the_others_cannot_be(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    frozen = lambda part: lambda *inputs: calls.append(len(inputs)) or part(*inputs)  # noqa: E731
    monkeypatch.setattr(torch, "compile", lambda part, **_: frozen(part) if hasattr(part, "perceptual") else Refused())
    said = Interrupt(0, crash)
    make_trainer(data, tmp_path, FULL, run=COMPILED, progress=said).fit()
    refused = "warning: --compile: the training step cannot be compiled: RuntimeError: this layer"
    assert said.said[1:-1] == [refused]
    # Each of three steps on trial and of three real ones.
    assert calls == [2] * 6


def test_of_several_processes_f_alone_is_compiled_and_none_waits_for_one_that_cannot(
    data: Path, tmp_path: Path
) -> None:
    start = "compiling the frozen network: the first step takes longer"
    failed = "warning: --compile: the frozen network cannot be compiled: "
    goes_on = "warning: --compile: the run continues uncompiled"
    with start_two("tests.training.compiling_program", data, tmp_path / "triplet") as (processes, _):
        first, second = (json.loads(process.communicate()[0].splitlines()[-1]) for process in processes)
    assert first[:3] == [start, f"{failed}see another process", goes_on]
    assert second[:3] == [start, f"{failed}RuntimeError: no compiler", goes_on]
    assert first[3].startswith("epoch 1/1: ")
    with start_two("tests.training.compiling_program", data, tmp_path / "map", "map-loss-alone") as (processes, _):
        said = [json.loads(process.communicate()[0].splitlines()[-1])[0] for process in processes]
    assert said == [f"{goes_on}: with several processes only F is compiled, and this run has none"] * 2


@pytest.mark.parametrize(
    ("choice", "device", "steps", "expected"),
    [
        ("off", "cuda", COMPILED_STEPS, False),
        ("on", "cpu", 1, True),
        ("auto", "cuda", COMPILED_STEPS, True),
        ("auto", "cuda", COMPILED_STEPS - 1, False),
        ("auto", "cpu", COMPILED_STEPS, False),
    ],
)
def test_auto_compiles_long_runs_on_cuda(choice: Compile, device: str, steps: int, expected: bool) -> None:
    assert TrainRunConfig(compile=choice).compiles(device=device, steps=steps) == expected


@pytest.mark.parametrize(("images", "accumulation", "graphs"), [(2, 1, True), (2, 2, False), (65, 1, False)])
def test_small_whole_steps_on_cuda_are_captured_as_graphs(
    monkeypatch: pytest.MonkeyPatch, images: int, accumulation: int, graphs: bool
) -> None:
    options: list[dict[str, Any]] = []
    began: list[None] = []
    said: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda part, **given: options.append(given["options"]) or part)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: began.append(None))
    config = replace(SMALL, batch_size=images * accumulation, accumulation=accumulation)
    model = LocalizationModel(config.arch, config.classes, decoder=False)
    objective = Objective(
        model,
        config=config,
        processes=ALONE,
        perceptual=None,
        class_weights_k=None,
        compiled=True,
        say=said.append,
    )
    # What is computed stays on the CPU: the choice alone is looked at.
    objective._processes = replace(ALONE, device=torch.device("cuda"))
    batch = DeviceBatch(torch.rand(images, 3, 64, 64), None, torch.arange(images) % 3, torch.arange(images))
    objective.compute(batch, seed=0, first=0)
    assert [given["triton.cudagraphs"] for given in options] == [graphs, graphs]
    assert len(began) == graphs * (TRIAL_STEPS + 1)
    assert said == [f"compiling the training step{' for CUDA graphs' * graphs}: the first step takes longer"]


def frozen_network(config: TrainConfig) -> tuple[nn.Module, list[Tensor]]:
    """F as an objective has it after one step, and the images that it was given."""
    given: list[Tensor] = []
    torch.manual_seed(0)
    perceptual = PerceptualNetwork(TinyEncoder(batch_norm=True))
    perceptual.register_forward_hook(lambda _module, inputs, _output: given.append(inputs[0].detach()))
    objective = Objective(
        LocalizationModel(config.arch, config.classes, decoder=True),
        config=config,
        processes=ALONE,
        perceptual=perceptual,
        class_weights_k=None,
        compiled=False,
        say=print,
    )
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    batch = DeviceBatch(images, torch.rand(2, 64, 64), torch.tensor([0, 1]), torch.arange(2))
    objective.compute(batch, seed=0, first=0)
    return perceptual, given


def test_frozen_weights_are_rounded_once_and_the_features_are_those_of_autocast() -> None:
    rounded, given = frozen_network(replace(FULL, precision="bf16"))
    whole, _ = frozen_network(FULL)
    assert {weights.dtype for weights in rounded.parameters()} == {torch.bfloat16}
    assert {weights.dtype for weights in whole.parameters()} == {torch.float32}
    found = []
    for network in (rounded, whole):
        images = given[1].clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = network(images)
        features.float().square().sum().backward()
        found.append((features.detach(), images.grad))
    assert_same(found[0], found[1])
    assert found[0][0].std() > 0


def test_everything_that_f_sees_lies_in_channels_last_memory() -> None:
    _, given = frozen_network(FULL)
    # Two images and a black one, then two foregrounds and two backgrounds.
    assert [len(images) for images in given] == [3, 4]
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in given)


POOLED = replace(
    saliency(cam_map_weight=1.0, class_weighting="balanced", map_kind="bce", map_ignore=(0.2, 0.6), triplet_margin=0.1),
    pooling="pseudo-map",
    batch_size=8,
    accumulation=2,
    clip_norm=1.0,
)


@pytest.mark.parametrize("config", [FULL, POOLED, replace(SMALL, method="has")], ids=["all-losses", "pooled", "has"])
def test_a_step_never_waits_for_the_device(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: TrainConfig
) -> None:
    # Tensors on "meta" have no values: whatever asks for one, as a wait for a GPU would, raises an error.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    weights = torch.ones(config.classes) if config.loss.class_weighting == "balanced" else None
    processes = replace(ALONE, device=torch.device("meta"))
    trainer = make_trainer(data, tmp_path, config, processes=processes, class_weights_k=weights)
    images = torch.zeros(4, 64, 64, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    batch = Batch(images, images[:, 0], torch.tensor([0, 1, 2, 0]), torch.arange(4), unreadable={})
    trainer.train_step([batch] * config.accumulation)
    assert {weights.device.type for weights in trainer.model.parameters()} == {"meta"}
    assert all(weights.grad is not None for weights in trainer.model.parameters())
