"""What the tests of the trainer share: images told by their colour, small trainers, and how two runs compare."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pseudo_maps.records import ImageRecord
from training.config import CropConfig, OptimiserConfig, TrainConfig, TrainRunConfig
from training.data.loading import TrainingImages
from training.loss_config import LossConfig
from training.networks import decoder
from training.networks.parts import ConvUnit, Encoder, EncoderFeatures, ImportedLayer, Upsampling
from training.networks.registry import ARCHITECTURES, Architecture
from training.processes import Processes
from training.progress import Progress
from training.run_folder.checkpoints import load_checkpoint
from training.trainer import Trainer

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 40, 40)}
"""Class name, in label order, and RGB."""
SIDE_PX = 64
CROP = CropConfig(input_size=SIDE_PX, resize=73)
SHOWN_WHOLE = CropConfig(kind="squash", input_size=SIDE_PX, resize=73, flip_probability=0.0)
NO_SALIENCY = LossConfig(use_map=False, use_triplet=False)
ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"))
SMALL = TrainConfig(
    classes=len(COLOURS),
    method="gap",
    loss=NO_SALIENCY,
    crop=CROP,
    optimiser=OptimiserConfig(name="adam", lr=1e-3),
    epochs=2,
    batch_size=4,
)
"""Three steps an epoch on the twelve training images that ``make_colour_folders`` draws unless told otherwise."""
HURRIED = TrainRunConfig(workers=0, log_every=1)
OF_THE_CLOCK = "images_per_s"


def make_colour_folders(root: Path, *, train: int = 4, val: int = 2, last_val: int | None = None) -> Path:
    """``root/<split>/<colour>/<number>.png``: noise around a colour, so that any window tells the class."""
    generator = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        for number_of_class, (name, rgb) in enumerate(COLOURS.items()):
            last = number_of_class == len(COLOURS) - 1
            for number in range(last_val if split == "val" and last and last_val is not None else count):
                pixels = np.clip(generator.normal(rgb, 25, size=(80, 96, 3)), 0, 255).astype(np.uint8)
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


def records(root: Path, *, split: str) -> list[ImageRecord]:
    names = sorted(COLOURS)
    paths = sorted((root / split).glob("*/*.png"))
    return [
        ImageRecord(
            image_id=f"{path.parent.name}/{path.stem}",
            path=f"{split}/{path.parent.name}/{path.name}",
            wnid=path.parent.name,
            label=names.index(path.parent.name),
        )
        for path in paths
    ]


class DiscMaps:
    """Stands for an index of shards: the same disc for every image."""

    def size(self, _image_id: str) -> None:
        """Unknown."""

    def read_uint8(self, _image_id: str) -> np.ndarray:
        y, x = np.mgrid[-1:1:24j, -1:1:24j]
        return np.where(x**2 + y**2 < 0.5, 255, 0).astype(np.uint8)


class MeanColours(nn.Module):
    """Stands for the perceptual network F: 12 features, the mean colours of the four quarters."""

    def forward(self, images01_bchw: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images01_bchw, 2).flatten(1)


class TinyEncoder(Encoder):
    """A network of two convolutions and two skips, to be registered as an architecture."""

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__(batch_norm=batch_norm)
        self.conv1 = ConvUnit(3, 8, kernel=5, stride=4, padding=2, batch_norm=batch_norm)
        self.conv2 = ConvUnit(8, 16, kernel=3, stride=2, padding=1, batch_norm=batch_norm)
        self.feature_channels, self.skip_channels = 16, (16, 8)
        self.upsampling = (Upsampling(kernel=3, stride=1, padding=1), Upsampling(kernel=4, stride=2, padding=1))

    def forward(self, normalised_bchw: Tensor) -> EncoderFeatures:
        conv1 = self.conv1(normalised_bchw)
        conv2 = self.conv2(conv1)
        return EncoderFeatures(conv2, (conv2, conv1))

    def imported_layers(self) -> dict[str, ImportedLayer]:
        return {}


class TinyEncoderWithDropout(TinyEncoder):
    dropout = 0.5


TINY = Architecture("two convolutions", "tests.training.training_runs:TinyEncoder")
"""The whole registration of a new architecture."""
TINY_WITH_DROPOUT = TINY._replace(encoder="tests.training.training_runs:TinyEncoderWithDropout")
TINY_DECODER_WIDTHS = (8, 8)


@contextlib.contextmanager
def tiny_networks() -> Iterator[None]:
    """Within, AlexNet's names mean two convolutions, and decoders are narrow: for what any network will do."""
    rows, widths = dict(ARCHITECTURES), decoder.DECODER_WIDTHS
    ARCHITECTURES.update({"alexnet-gap": TINY, "alexnet-gap-plus": TINY_WITH_DROPOUT})
    decoder.DECODER_WIDTHS = TINY_DECODER_WIDTHS
    try:
        yield
    finally:
        ARCHITECTURES.update(rows)
        decoder.DECODER_WIDTHS = widths


class Interrupt(Progress):
    """Does something to the run after a number of steps."""

    def __init__(self, after: int, action: Any) -> None:
        self._left, self._action = after, action
        self.said: list[str] = []

    def step(self, images: int, numbers: Mapping[str, float] | None) -> None:
        self._left -= 1
        if self._left == 0:
            self._action()

    def say(self, text: str) -> None:
        self.said.append(text)


class Crash(Exception):
    """What ``crash`` raises: the end of a process that had no time to clean up."""


def crash() -> None:
    raise Crash


def send(number: signal.Signals) -> Any:
    return lambda: os.kill(os.getpid(), number)


def make_trainer(
    data: Path,
    out: Path,
    config: TrainConfig = SMALL,
    *,
    run: TrainRunConfig = HURRIED,
    progress: Progress | None = None,
    **others: Any,
) -> Trainer:
    maps = DiscMaps() if config.needs_maps else None
    train = TrainingImages(records(data, split="train"), root=data, crop=config.crop, seed=config.seed, index=maps)
    val = TrainingImages(records(data, split="val"), root=data, crop=SHOWN_WHOLE, seed=0)
    if config.loss.use_triplet:
        others = {"perceptual": MeanColours(), **others}
    return Trainer(
        config,
        run,
        **{"out": out, "processes": ALONE, "train_images": train, "val_images": val, "progress": progress, **others},
    )


def saliency(**loss: Any) -> TrainConfig:
    return replace(SMALL, method="saliency", loss=LossConfig(**loss))


def events(out: Path, event: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if event in (None, line["event"])]


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != OF_THE_CLOCK} for line in lines]


def final_state(out: Path) -> dict[str, Any]:
    return load_checkpoint(max(out.glob("checkpoint-*.pt")))


def assert_same(first: Any, second: Any, *, where: str = "state") -> None:
    """Every number of two states is the same, to the bit."""
    assert type(first) is type(second), where
    if isinstance(first, Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, Mapping):
        assert list(first) == list(second), where
        for key in first:
            assert_same(first[key], second[key], where=f"{where}[{key!r}]")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for place, (left, right) in enumerate(zip(first, second, strict=True)):
            assert_same(left, right, where=f"{where}[{place}]")
    else:
        assert first == second, where


def assert_same_bytes(first: Path, second: Path) -> None:
    """The files of two finished runs are the same, but for the speed in their log."""
    newest = {out: max(out.glob("checkpoint-*.pt")) for out in (first, second)}
    assert_same(load_checkpoint(newest[first]), load_checkpoint(newest[second]))
    assert newest[first].name == newest[second].name
    assert newest[first].read_bytes() == newest[second].read_bytes()
    assert [json.dumps(line) for line in timeless(events(first))] == [
        json.dumps(line) for line in timeless(events(second))
    ]
    assert (first / "finished.json").read_bytes() == (second / "finished.json").read_bytes()
