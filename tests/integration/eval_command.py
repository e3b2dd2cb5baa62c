"""What the tests of ``wsol-eval`` share: calls of the command, a small network, data sets that can be spoilt."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result
from PIL import Image

from pipelines.eval_cli import main
from tests.command_calls import StartedProgram, invoke, start_program

RESULTS = ("metrics.json", "predictions.csv", "per_class.csv")
DEADLINE_S = 300.0
SIDE_PX = 64
"""Input of the small network: the least that the architectures take."""


def evaluate(*words: object) -> Result:
    return invoke(main, *words, prog_name="wsol-eval")


def evaluated(out: Path, *words: object) -> dict[str, Any]:
    """Run a command that has to succeed, and give its metrics, whose counts have to add up."""
    result = evaluate(*words, "--out", out)
    assert result.exit_code == 0, result.output
    return metrics_of(out)


def metrics_of(out: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    counts = metrics["counts"]
    assert counts["asked"] == counts["scored"] + sum(counts["skipped"].values())
    assert sum(counts["failed"].values()) <= counts["scored"]
    return metrics


def result_of(metrics: Mapping[str, Any], localizer: str, protocol: str) -> dict[str, Any]:
    found = [*metrics["results"], *metrics["baselines"]]
    (result,) = (one for one in found if (one["localizer"], one["protocol"]) == (localizer, protocol))
    return dict(result)


def results_in(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in RESULTS}


def start(*words: object) -> StartedProgram:
    """Begin a command in a process group of its own, which its workers share."""
    return start_program("pipelines.eval_cli", *words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_until(met: Callable[[], bool], *, process: StartedProgram) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while not met():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up, "the command does not get there"
        time.sleep(0.005)


def wait_for_the_end_of_the_group(process: StartedProgram) -> None:
    """Wait until no worker is left of a command that has ended itself."""
    give_up = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.005)
    raise AssertionError("a worker outlived its command")


def make_checkpoint(path: Path, *, classes: int, decoder: bool = True, seed: int = 0) -> Path:
    """An untrained network as ``wsol-train`` would save it, with maps of both signs that differ by image and class."""
    import torch

    from training.config import CropConfig, TrainConfig
    from training.loss_config import LossConfig
    from training.networks.model import LocalizationModel
    from training.run_folder.checkpoints import save_checkpoint

    config = TrainConfig(
        classes=classes,
        method="saliency" if decoder else "gap",
        loss=LossConfig(use_map=decoder, use_triplet=False),
        crop=CropConfig(input_size=SIDE_PX, resize=73),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LocalizationModel(config.arch, config.classes, decoder=decoder)
        torch.nn.init.normal_(model.classifier.linear.weight)
        # Moves the running statistics.
        model.train()(torch.rand(4, 3, SIDE_PX, SIDE_PX))
    save_checkpoint(path, {"model": model.state_dict(), "config": config.as_json(), "step": 3, "optimiser": {}})
    return path


def make_listed_data(
    root: Path,
    boxes: Mapping[str, Sequence[tuple[float, float, float, float]]],
    *,
    labels: Mapping[str, int] | None = None,
    sizes: bool = True,
    classes: int = 2,
    size_wh: tuple[int, int] = (40, 20),
) -> Path:
    """A data set in the layout of the wsolevaluation project: image ids ``val/<name>.png`` with their boxes.

    Images are noise; without ``sizes`` only the files tell how large they are. Labels are 0, 1, 0, 1, ... unless given.
    """
    (root / "val").mkdir(parents=True)
    generator = np.random.default_rng(5)
    labels = {name: number % classes for number, name in enumerate(boxes)} if labels is None else labels
    for name in boxes:
        pixels = generator.integers(0, 256, size=(size_wh[1], size_wh[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "val" / f"{name}.png")
    lists = {
        "image_ids.txt": [f"val/{name}.png" for name in boxes],
        "class_labels.txt": [f"val/{name}.png,{label}" for name, label in labels.items()],
        "image_sizes.txt": [f"val/{name}.png,{size_wh[0]},{size_wh[1]}" for name in boxes] if sizes else [],
        "localization.txt": [
            f"val/{name}.png," + ",".join(map(str, box)) for name, of_image in boxes.items() for box in of_image
        ],
        "synsets.txt": [f"n{number:08d}" for number in range(classes)],
    }
    for file, lines in lists.items():
        if lines:
            (root / file).write_text("".join(f"{line}\n" for line in lines))
    return root


def bump(*, centre_xy: tuple[float, float] = (0.5, 0.5), side: int = 28) -> np.ndarray:
    """(side, side) float32 map with one smooth peak; the centre is a share of the sides."""
    y, x = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5) / side
    return np.exp(-((x - centre_xy[0]) ** 2 + (y - centre_xy[1]) ** 2) / 0.05).astype(np.float32)
