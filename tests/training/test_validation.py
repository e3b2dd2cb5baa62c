"""Accuracy over validation images: each counts once, one that cannot be read counts as wrong and is said."""

import shutil
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from tests.training.training_runs import (
    ALONE,
    HURRIED,
    SHOWN_WHOLE,
    SMALL,
    Interrupt,
    assert_same,
    events,
    final_state,
    make_colour_folders,
    make_trainer,
    records,
    timeless,
)
from training.data.loading import DeviceBatch, TrainingImages, UnreadableImageError
from training.data.sampling import permutation
from training.networks.model import LocalizationModel, ModelOutput
from training.run_folder.checkpoints import CheckpointFolder
from training.validation import Validation

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

ONE_EPOCH = replace(SMALL, epochs=1)
"""Three steps."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training images, five for validation, of three colours."""
    return make_colour_folders(tmp_path_factory.mktemp("colours"), last_val=1)


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:200])
    return path


class Right(LocalizationModel):
    """Knows the class of every image from its colours: blue, green, red are channels 2, 1, 0."""

    def __init__(self) -> None:
        super().__init__("alexnet-gap", 3, batch_norm=True, decoder=False)

    def forward(
        self, images01_bchw: Tensor, *, with_saliency: bool = True, cam_classes: Tensor | None = None
    ) -> ModelOutput:
        output = super().forward(images01_bchw, with_saliency=with_saliency, cam_classes=cam_classes)
        return output._replace(scores=images01_bchw.mean(dim=(2, 3)).flip(1))


def measure(data: Path, *, batch_size: int) -> tuple[dict[str, float], tuple[str, ...], list[int]]:
    images = TrainingImages(records(data, split="val"), root=data, crop=SHOWN_WHOLE, seed=0)
    validation = Validation(images, batch_size=batch_size, workers=0, processes=ALONE, precision="fp32")
    shown: list[int] = []

    def look(batch: DeviceBatch) -> None:
        shown.extend(batch.labels_b.tolist())

    asked: list[None] = []
    found = validation.measure(Right(), before_batch=lambda: asked.append(None), look=look)
    assert len(asked) == len(validation)
    return found.accuracy, found.unreadable, shown


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_unreadable_images_count_as_wrong_in_any_batches(own: Path, batch_size: int) -> None:
    assert measure(own, batch_size=batch_size)[:2] == ({"top1": 1, "top5": 1, "images": 5, "unreadable": 0}, ())
    gone, damaged = own / "val" / "blue" / "0.png", cut(own / "val" / "green" / "1.png")
    # A record made before the file was lost.
    listed = records(own, split="val")
    gone.unlink()
    assert listed[0].path == "val/blue/0.png"
    images = TrainingImages(listed, root=own, crop=SHOWN_WHOLE, seed=0)
    validation = Validation(images, batch_size=batch_size, workers=0, processes=ALONE, precision="fp32")
    found = validation.measure(Right(), before_batch=lambda: None)
    assert found.accuracy == {"top1": 3 / 5, "top5": 3 / 5, "images": 5, "unreadable": 2}
    assert len(found.unreadable) == 2
    assert str(gone) in found.unreadable[0] and str(damaged) in found.unreadable[1]


def test_the_first_batch_that_has_an_image_is_shown(own: Path) -> None:
    cut(own / "val" / "blue" / "0.png")
    assert measure(own, batch_size=1)[2] == [0]
    cut(own / "val" / "blue" / "1.png")
    assert measure(own, batch_size=2)[2] == [1, 1]


def test_a_run_goes_on_past_an_unreadable_validation_image_and_says_so(own: Path, tmp_path: Path) -> None:
    damaged = cut(own / "val" / "red" / "0.png")
    told = Interrupt(99, lambda: None)
    make_trainer(
        own, tmp_path / "run", replace(SMALL, batch_size=12), run=replace(HURRIED, workers=1), progress=told
    ).fit()
    lines = events(tmp_path / "run", "val")
    assert [(line["images"], line["unreadable"]) for line in lines] == [(5, 1), (5, 1)]
    assert all(line["top1"] <= 4 / 5 for line in lines)
    warnings = [line for line in told.said if line.startswith("warning: ")]
    assert len(warnings) == 1 and str(damaged) in warnings[0]
    assert sum("(1 of 5 images unreadable)" in line for line in told.said) == 2


def test_an_unreadable_training_image_ends_the_run_in_one_line_and_a_mended_one_goes_on(
    data: Path, own: Path, tmp_path: Path
) -> None:
    run = replace(HURRIED, workers=1, checkpoint_minutes=0.0)
    make_trainer(data, tmp_path / "whole", ONE_EPOCH, run=run).fit()
    (*_, last) = permutation(12, seed=ONE_EPOCH.seed, epoch=0)
    damaged = own / records(own, split="train")[last].path
    content = damaged.read_bytes()
    cut(damaged)
    with pytest.raises(UnreadableImageError) as caught:
        make_trainer(own, tmp_path / "run", ONE_EPOCH, run=run).fit()
    message = str(caught.value)
    assert message.startswith(f"{damaged}: ") and "\n" not in message and "Traceback" not in message
    # The error's frames hold the workers; freed by the garbage collector instead, they are waited for, five seconds.
    traceback.clear_frames(caught.tb)
    assert CheckpointFolder(tmp_path / "run").steps() == [1, 2]
    damaged.write_bytes(content)
    make_trainer(own, tmp_path / "run", ONE_EPOCH, run=run).fit(resume=True)
    assert_same(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))
    assert timeless(events(tmp_path / "run")) == timeless(events(tmp_path / "whole"))
