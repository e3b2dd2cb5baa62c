"""Interrupted and killed trainings: a resumed run equals an uninterrupted one, to the bit."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.counts import full
from tests.training.training_runs import (
    HURRIED,
    SMALL,
    TINY,
    Crash,
    Interrupt,
    assert_same_bytes,
    crash,
    events,
    make_colour_folders,
    make_trainer,
    saliency,
    send,
    timeless,
)
from training.class_names import ClassNames
from training.config import ScheduleConfig
from training.data.loading import Batch, TrainingImages
from training.health import TrainingDiverged
from training.networks.registry import ARCHITECTURES
from training.progress import Progress, StoppedBySignal
from training.run_folder.checkpoints import CheckpointError, CheckpointFolder, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")


KILLED = {
    "dropout, hidden patches, accumulation": (
        replace(SMALL, arch="alexnet-gap-plus", method="has", accumulation=2, clip_norm=1.0),
        5,
        4,
    ),
    "all losses, warm-up, in the first epoch": (
        replace(
            saliency(cam_map_weight=4.0, triplet_scale="image", area_weight=1.0, map_ignore=(0.2, 0.7)),
            pooling="saliency",
            schedule=ScheduleConfig(kind="cosine", warmup_epochs=1.0),
            batch_size=6,
        ),
        2,
        1,
    ),
    "the map loss on the CAM alone, features weighted by the pseudo map": (
        replace(saliency(use_map=False, use_triplet=False, cam_map_weight=4.0), pooling="pseudo-map"),
        5,
        4,
    ),
    "a network of timm, dilated": (replace(SMALL, arch="timm:test_efficientnet", output_stride=16), 5, 4),
}


@pytest.mark.parametrize("case", list(KILLED)[: full(3, 4)])
def test_a_killed_run_resumes_to_the_bit(case: str, data: Path, tmp_path: Path) -> None:
    config, after, saved = KILLED[case]
    # Zero minutes: a checkpoint after every step, so that a killed run has one in the middle of an epoch.
    often = replace(HURRIED, checkpoint_minutes=0.0, keep_last=1)
    whole = make_trainer(data, tmp_path / "whole", config, run=often).fit()
    killed = tmp_path / "killed"
    with pytest.raises(Crash):
        make_trainer(data, killed, config, run=often, progress=Interrupt(after, crash)).fit()
    assert CheckpointFolder(killed).steps() == [saved]
    assert not CheckpointFolder(killed).is_finished()
    assert make_trainer(data, killed, config, run=often).fit(resume=True) == whole
    assert_same_bytes(killed, tmp_path / "whole")


def test_a_checkpoint_from_before_a_setting_was_added_resumes_to_the_bit(data: Path, tmp_path: Path) -> None:
    whole, old = tmp_path / "whole", tmp_path / "old"
    make_trainer(data, whole, saliency()).fit()
    with pytest.raises(StoppedBySignal):
        make_trainer(data, old, saliency(), progress=Interrupt(3, send(signal.SIGTERM))).fit()
    (path,) = old.glob("checkpoint-*.pt")
    state = load_checkpoint(path)
    del state["config"]["loss"]["cam_map_weight"], state["config"]["loss"]["triplet_scale"], state["config"]["pooling"]
    save_checkpoint(path, state)
    make_trainer(data, old, saliency()).fit(resume=True)
    assert_same_bytes(old, whole)
    with pytest.raises(CheckpointError, match=r"loss\.cam_map_weight: 0\.0 stored, 4\.0 now"):
        make_trainer(data, old, saliency(cam_map_weight=4.0)).fit(resume=True)


@pytest.mark.parametrize(
    ("number", "stride"),
    [(signal.SIGTERM, 1), (signal.SIGINT, 5), (signal.SIGTERM, 2), (signal.SIGTERM, 3)][: full(2, 4)],
)
def test_a_run_interrupted_at_any_step_reports_the_same_numbers(
    number: signal.Signals, stride: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted again and again: each step, and the validation after an epoch's last, ends some process."""
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)
    config = replace(saliency(), arch="tiny", batch_size=2, accumulation=2, clip_norm=1.0)
    # Six steps an epoch and lines after steps 4, 6, 8 and 12: stops fall before, on and after a line.
    run = replace(HURRIED, log_every=4)
    whole = make_trainer(data, tmp_path / "whole", config, run=run).fit()
    out, steps = tmp_path / "stopped", []
    for _ in range(20):
        stopping = Interrupt(stride, send(number))
        try:
            summary = make_trainer(data, out, config, run=run, progress=stopping).fit(resume=bool(steps))
            break
        except StoppedBySignal as stopped:
            assert str(stopped) == number.name
            steps += CheckpointFolder(out).steps()[-1:]
    assert steps == list(range(stride, 13, stride))
    assert summary == whole
    assert_same_bytes(out, tmp_path / "whole")


def test_a_run_killed_before_its_marker_finishes_without_a_step(data: Path, gap_run: Path, tmp_path: Path) -> None:
    interrupted = Interrupt(6, lambda: None)
    trainer = make_trainer(data, tmp_path, progress=interrupted)
    whole = trainer.fit()
    (tmp_path / "finished.json").unlink()
    again = Interrupt(1, crash)
    assert make_trainer(data, tmp_path, progress=again).fit(resume=True) == whole
    assert CheckpointFolder(tmp_path).is_finished()
    assert timeless(events(tmp_path)) == timeless(events(gap_run))
    assert any("resumed from" in line and "step 6" in line for line in again.said)


def test_an_epoch_that_is_stopped_in_its_validation_and_killed_at_its_end_is_logged_once(
    data: Path, gap_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoppedBySignal):
        # The signal of the epoch's last step is heard in its validation.
        make_trainer(data, tmp_path, progress=Interrupt(3, send(signal.SIGTERM))).fit()
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(CheckpointFolder, "save", lambda *_: crash())
        make_trainer(data, tmp_path).fit(resume=True)
    assert [line["epoch"] for line in events(tmp_path, "epoch")] == [1]
    make_trainer(data, tmp_path).fit(resume=True)
    assert timeless(events(tmp_path)) == timeless(events(gap_run))


def test_an_epoch_is_saved_before_it_is_told(data: Path, tmp_path: Path) -> None:
    class Refusing(Progress):
        def say(self, text: str) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        make_trainer(data, tmp_path, progress=Refusing()).fit()
    assert CheckpointFolder(tmp_path).steps() == [3]


def test_signals_are_as_before_after_a_run(data: Path, tmp_path: Path) -> None:
    def mine(_number: int, _frame: object) -> None:
        raise AssertionError("not called")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with pytest.raises(StoppedBySignal, match="SIGINT"):
            make_trainer(data, tmp_path, progress=Interrupt(1, send(signal.SIGINT))).fit()
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_resuming_another_configuration_names_what_differs(data: Path, gap_run: Path) -> None:
    other = replace(SMALL, seed=3, optimiser=replace(SMALL.optimiser, lr=0.5))
    before = (gap_run / "metrics.jsonl").read_text()
    with pytest.raises(CheckpointError) as caught:
        make_trainer(data, gap_run, other).fit(resume=True)
    assert "optimiser.lr: 0.001 stored, 0.5 now" in str(caught.value)
    assert "seed: 0 stored, 3 now" in str(caught.value)
    assert "batch_size" not in str(caught.value)
    assert (gap_run / "metrics.jsonl").read_text() == before


def test_resuming_with_other_images_is_refused(gap_run: Path, tmp_path: Path) -> None:
    more = make_colour_folders(tmp_path / "more", train=6)
    with pytest.raises(CheckpointError, match=r"had 3 steps in an epoch, now there are 4"):
        make_trainer(more, gap_run).fit(resume=True)


def test_resuming_with_as_many_other_images_is_refused(gap_run: Path, tmp_path: Path) -> None:
    others = make_colour_folders(tmp_path / "others")
    changed = next((others / "train").glob("*/*.png"))
    changed.write_bytes(changed.read_bytes() + b"\0")
    said, copied = Interrupt(0, crash), shutil.copytree(gap_run, tmp_path / "copied")
    make_trainer(others, copied, progress=said).fit(resume=True)
    assert said.said[0].startswith("warning: training image files have other sizes than when ")
    changed.rename(changed.with_stem("zzz"))
    with pytest.raises(CheckpointError, match="was trained on other images"):
        make_trainer(others, gap_run).fit(resume=True)


def test_weights_that_are_not_finite_are_never_saved(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path)
    with torch.no_grad():
        trainer.model.classifier.linear.weight[0, 0] = float("inf")
    with pytest.raises(TrainingDiverged, match="weights are no longer finite"):
        trainer.save()
    assert CheckpointFolder(tmp_path).steps() == []


def test_a_run_interrupted_in_its_validation_validates_again(data: Path, gap_run: Path, tmp_path: Path) -> None:
    # The third step is the last of its epoch and is followed by the validation.
    stopping = Interrupt(3, send(signal.SIGTERM))
    with pytest.raises(StoppedBySignal, match="SIGTERM"):
        make_trainer(data, tmp_path, progress=stopping).fit()
    assert CheckpointFolder(tmp_path).steps() == [3]
    assert events(tmp_path, "val") == [] and not any("epoch 1/" in line for line in stopping.said)
    make_trainer(data, tmp_path).fit(resume=True)
    assert timeless(events(tmp_path)) == timeless(events(gap_run))


def test_resuming_without_a_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="start without --resume"):
        make_trainer(data, tmp_path).fit(resume=True)


def test_as_many_checkpoints_stay_as_asked_for(data: Path, tmp_path: Path) -> None:
    run = replace(HURRIED, checkpoint_minutes=0.0, keep_last=2)
    make_trainer(data, tmp_path, run=run).fit()
    assert CheckpointFolder(tmp_path).steps() == [5, 6]


def test_classes_in_another_order_are_not_resumed(tmp_path: Path) -> None:
    data = make_colour_folders(tmp_path / "data")
    names = ("blue", "green", "red")
    run = {"class_names": ClassNames(names, names)}
    make_trainer(data, tmp_path / "run", replace(SMALL, epochs=1), **run).fit()
    moved = ("red", *names[:2])
    other = make_trainer(data, tmp_path / "run", replace(SMALL, epochs=1), class_names=ClassNames(moved, moved))
    with pytest.raises(CheckpointError, match=f"{', '.join(names)}.*{', '.join(moved)}.*trained on"):
        other.fit(resume=True)
    make_trainer(data, tmp_path / "run", replace(SMALL, epochs=1), **run).fit(resume=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_batch_and_a_checkpoint_is_saved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def never(_images: TrainingImages, _keys: object) -> Batch:
        # In the worker, whose parent then waits for it.
        os.kill(os.getppid(), number)
        while True:
            signal.pause()

    monkeypatch.setattr(TrainingImages, "__getitems__", never)
    with pytest.raises(StoppedBySignal, match=number.name):
        make_trainer(data, tmp_path / "run", SMALL, run=replace(HURRIED, workers=1)).fit()
    assert CheckpointFolder(tmp_path / "run").steps() == [0]
