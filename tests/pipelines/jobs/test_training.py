"""From data sets, maps and names of weights to a trainer: what is found, refused, recorded and shown."""

import functools
import hashlib
import os
import re
import sys
import termios
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pipelines.jobs.training as training_setup
from pipelines.datasets import Dataset, open_dataset
from pipelines.jobs.training import TerminalProgress, build_trainer
from tests.pseudo_maps.shard_making import CONFIGURATION, make_folder
from tests.training.training_runs import (
    ALONE,
    HURRIED,
    SMALL,
    events,
    final_state,
    make_colour_folders,
    saliency,
)
from training.config import TrainConfig
from training.data.loading import MapsMissingError
from training.data.sampling import SampleKey
from training.inference import initial_weights
from training.loss_config import LossConfig

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and three validation images of three classes."""
    return make_colour_folders(tmp_path_factory.mktemp("colours"), train=2, val=1)


@pytest.fixture(scope="module")
def splits(data: Path) -> tuple[Dataset, Dataset]:
    return open_dataset(data, split="train", layout="imagefolder"), open_dataset(
        data, split="val", layout="imagefolder"
    )


def make_maps(folder: Path, ids: list[str], *, failed: tuple[str, ...] = ()) -> Path:
    make_folder(folder, split="train", ids=ids, shard_size=len(ids), failed=failed, size_wh=(96, 80))
    return folder


@pytest.fixture(scope="module")
def maps(splits: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids = [record.image_id for record in splits[0].records]
    return make_maps(tmp_path_factory.mktemp("maps") / "maps", ids)


class Recorded:
    """Stands for ``Trainer``: keeps its arguments."""

    def __init__(self, config: TrainConfig, run: Any, **arguments: Any) -> None:
        self.config, self.run = config, run
        self.arguments = arguments


def build_both(splits: tuple[Dataset, Dataset], out: Path, config: TrainConfig = SMALL, **others: Any) -> Any:
    arguments: dict[str, Any] = {"maps": None, "perceptual_weights": "random", "processes": ALONE, "run": HURRIED}
    return build_trainer(*splits, config=config, out=out, **{**arguments, **others})


@pytest.fixture
def build(splits: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call with a configuration and other arguments; gives those of the trainer that would be built."""
    monkeypatch.setattr(training_setup, "Trainer", Recorded)
    return functools.partial(build_both, splits, tmp_path)


def test_the_images_of_both_splits(build: Any) -> None:
    built = build()
    assert (len(built.arguments["train_images"]), len(built.arguments["val_images"])) == (6, 3)
    assert built.config == SMALL
    assert built.arguments["perceptual"] is None
    assert built.arguments["class_weights_k"] is None
    assert built.arguments["initialise"] is None
    limited = build(limit=2)
    assert (len(limited.arguments["train_images"]), len(limited.arguments["val_images"])) == (2, 2)


def test_the_maps_configuration_becomes_part_of_the_run_s(
    build: Any, maps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_map = replace(saliency(use_map=False, use_triplet=False), pooling="pseudo-map")
    of_cam = saliency(use_map=False, use_triplet=False, cam_map_weight=4.0)
    for config in (saliency(use_triplet=False), of_cam, by_map):
        built = build(config, maps=maps)
        assert built.config.maps == CONFIGURATION
        assert built.config.perceptual == ""
        assert "maps: all 6 images have a map" in capsys.readouterr().err
        assert built.arguments["train_images"][SampleKey(0, 0)].maps_bhw is not None


def test_images_without_a_map_are_refused_or_skipped(
    build: Any, splits: tuple[Dataset, Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [record.image_id for record in splits[0].records]
    maps = make_maps(tmp_path / "maps", ids[:-1], failed=(ids[0],))
    config = saliency(use_triplet=False)
    with pytest.raises(MapsMissingError, match=r"2 of 6 images have no usable map: 1 are in no shard; 1 have status"):
        build(config, maps=maps)
    built = build(config, maps=maps, on_missing="skip")
    assert len(built.arguments["train_images"]) == 4
    assert "2 of 6 images have no usable map" in capsys.readouterr().err
    # A method without maps sees the same images, reads no map, and stores nothing about them.
    with pytest.raises(MapsMissingError, match="--on-missing skip"):
        build(maps=maps)
    gap = build(maps=maps, on_missing="skip")
    assert gap.arguments["train_images"].sha256() == built.arguments["train_images"].sha256()
    batch = gap.arguments["train_images"][SampleKey(0, 0)]
    assert batch.maps_bhw is None and not batch.unreadable
    assert gap.config == SMALL


def test_classes_are_stored_by_the_names_that_the_data_set_knows(
    build: Any, splits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    named = [replace(split, class_words=("azure", "lime", "crimson")) for split in splits]
    assert build_both((named[0], named[1]), tmp_path).arguments["class_names"].words == ("azure", "lime", "crimson")


def test_validating_on_training_images_is_said(
    build: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build()
    assert "warning" not in capsys.readouterr().err
    flat = data / "train"
    both = tuple(open_dataset(flat, split=split, layout="imagefolder") for split in ("train", "val"))
    build_both((both[0], both[1]), tmp_path, limit=4)
    said = capsys.readouterr().err.splitlines()
    warnings = [line for line in said if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: 4 of 4 validation images are training images") and str(flat) in warnings[0]


def test_a_link_to_the_training_images_is_no_validation_set(
    build: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(data / "train")
    both = tuple(open_dataset(tmp_path, split=split, layout="imagefolder") for split in ("train", "val"))
    build_both((both[0], both[1]), tmp_path / "out")
    assert "warning: 6 of 6 validation images are training images" in capsys.readouterr().err


def test_weights_count_the_images_that_are_trained_on(build: Any) -> None:
    loss = LossConfig(use_map=False, use_triplet=False, class_weighting="balanced")
    built = build(replace(SMALL, loss=loss), limit=3)
    # Two of the first class, one of the second, none of the third: n / (K n_k).
    assert built.arguments["class_weights_k"].tolist() == [0.5, 1.0, 0.0]


class SmallNetwork(torch.nn.Module):
    """Stands for the loaded ResNet-50, whose 24 million weights take a second."""

    features = 2048


def test_the_perceptual_network_is_recorded_by_name_or_content(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, int]] = []

    def load(weights: str, *, seed: int) -> SmallNetwork:
        loaded.append((weights, seed))
        return SmallNetwork()

    monkeypatch.setattr(training_setup, "load_perceptual_network", load)
    config = replace(saliency(use_map=False), seed=5)
    file = tmp_path / "weights.pth"
    file.write_bytes(b"weights")
    built = [build(config, perceptual_weights=name) for name in ("random", "imagenet", str(file))]
    assert loaded == [("random", 5), ("imagenet", 5), (str(file), 5)]
    assert [one.config.perceptual for one in built] == ["random", "imagenet", hashlib.sha256(b"weights").hexdigest()]
    assert isinstance(built[0].arguments["perceptual"], SmallNetwork)


def test_imagenet_weights_are_loaded_when_asked_for(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Report:
        def describe(self) -> str:
            return "five layers"

    given: list[object] = []

    def initialise(encoder: object, **others: object) -> Report:
        given.extend((encoder, others))
        return Report()

    monkeypatch.setattr(initial_weights, "initialise_from_imagenet", initialise)

    model = SimpleNamespace(encoder=object(), classifier=SimpleNamespace(linear=object()))
    file = tmp_path / "alexnet.pth"
    file.write_bytes(b"weights")
    identities = {"imagenet": "imagenet", str(file): hashlib.sha256(b"weights").hexdigest()}
    for weights, identity in identities.items():
        built = build(replace(SMALL, init=weights))
        assert built.config.init == identity
        built.arguments["initialise"](model)
        expected = {"weights": weights, "linear": model.classifier.linear, "wnids": ("blue", "green", "red")}
        assert given == [model.encoder, expected]
        given.clear()


def test_splits_of_different_classes_are_refused(splits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    other = replace(splits[1], class_wnids=("blue", "red"))
    with pytest.raises(ValueError, match="the 3 classes of train are not the 2 of val"):
        build_both((splits[0], other), tmp_path)


def test_validation_shows_the_whole_image_at_the_size_that_is_trained(build: Any) -> None:
    images = build().arguments["val_images"]
    one, again = images[SampleKey(0, 0)], images[SampleKey(9, 0)]
    assert one.images_bchw.shape == (1, 3, 64, 64)
    assert torch.equal(one.images_bchw, again.images_bchw)


def test_a_run_with_maps_from_shards_and_the_real_perceptual_network(
    splits: tuple[Dataset, Dataset], maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(saliency(), epochs=1, batch_size=2)
    summary = build_both(splits, tmp_path, config, maps=maps, limit=2).fit()
    assert summary.steps == 1
    (line,) = events(tmp_path, "train")
    assert {"classification", "map", "triplet", "d_pos", "d_neg", "mean_saliency", "total"} < set(line)
    assert line["d_pos"] > 0 and line["d_neg"] > 0
    assert final_state(tmp_path)["class_names"] == ["blue", "green", "red"]
    stored = final_state(tmp_path)["config"]
    assert stored["perceptual"] == "random"
    assert stored["maps"] == CONFIGURATION
    said = capsys.readouterr().err
    assert "perceptual network: 2048 features of random" in said
    assert "alexnet-gap, saliency: 2 training and 2 validation images of 3 classes, 1 process(es) on cpu" in said
    assert "epoch 1/1: loss" in said


def test_progress_without_a_terminal_is_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress()
    for epoch in range(2):
        progress.start_epoch(epoch, batches=2, done=1)
        progress.step(4, {"total": 0.5, "top1": 0.25})
        progress.say("warning: of a step")
        progress.step(4, None)
        progress.start_validation(batches=1)
        progress.validate_batch()
        progress.say(f"epoch {epoch + 1} done")
    found = capsys.readouterr()
    assert found.err.splitlines() == ["warning: of a step", "epoch 1 done", "warning: of a step", "epoch 2 done"]
    assert found.out == ""


@pytest.mark.parametrize("columns", [0, 100])
def test_a_terminal_shows_a_bar_of_the_epoch_and_of_the_validation(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that states no width, as a container's may."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (30 if columns else 0, columns))
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        progress = TerminalProgress()
        progress.start_epoch(2, batches=1, done=0)
        progress.say("warning: of a step")
        progress.step(4, {"total": 0.5, "top1": 0.25})
        progress.start_validation(batches=3)
        progress.validate_batch()
        progress.say("epoch 3 done")
        progress.start_epoch(3, batches=1, done=0)
        progress.close()
        progress.close()
        terminal.write("error: all done\n")
        terminal.flush()
        shown = ""
        # A terminal gives what was written piece by piece.
        while not shown.endswith("all done\r\n"):
            shown += os.read(master, 1 << 16).decode()
    os.close(master)
    assert re.search(r"epoch 3: 100%[^\r]* 1/1 \[[^\r]*step/s, loss=0\.5, top1=0\.25\]", shown)
    assert re.search(r"validation: [^\r]* 0/3 \[", shown)
    assert re.search(r"\rwarning: of a step\r\n", shown)
    assert re.search(r"\repoch 3 done\r\n", shown) and shown.endswith("\rerror: all done\r\n"), "bars are gone"
    assert max(len(line) for line in re.split(r"[\r\n]+", shown)) <= (columns or 80)
