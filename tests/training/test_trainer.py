"""The training loop: it learns, its switches reach the loss, and it refuses what cannot work."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.training.training_runs import (
    ALONE,
    HURRIED,
    SHOWN_WHOLE,
    SMALL,
    DiscMaps,
    MeanColours,
    assert_same,
    events,
    final_state,
    make_trainer,
    records,
    saliency,
    timeless,
)
from training.config import OptimiserConfig, Pooling, ScheduleConfig, TrainConfig
from training.data.loading import TrainingImages, to_device
from training.data.sampling import SampleKey
from training.health import TrainingDiverged
from training.loss_config import LossConfig
from training.processes import Processes
from training.run_folder.checkpoints import CheckpointFolder

pytestmark = pytest.mark.usefixtures("one_torch_thread", "small_networks")

SGD = OptimiserConfig(name="sgd", lr=0.01)
LEARNING = replace(SMALL, epochs=12, batch_size=6, seed=1, optimiser=OptimiserConfig(name="adam", lr=0.03))


# --- it learns


def test_the_loss_falls_and_the_accuracy_rises_above_chance(data: Path, tmp_path: Path) -> None:
    config = replace(LEARNING, epochs=8)
    summary = make_trainer(data, tmp_path, config).fit()
    epochs, validations = events(tmp_path, "epoch"), events(tmp_path, "val")
    assert epochs[-1]["train_total"] < 0.3 * epochs[0]["train_total"]
    assert epochs[-1]["train_top1"] > 0.9
    # Chance is 1/3.
    assert summary.top1 >= 0.8
    assert (summary.top1, summary.top5) == (validations[-1]["top1"], validations[-1]["top5"])
    assert (summary.epochs, summary.steps, summary.peak_memory_bytes) == (8, 16, 0)


def test_the_map_loss_teaches_the_decoder_the_maps(data: Path, tmp_path: Path) -> None:
    config = replace(LEARNING, method="saliency", loss=LossConfig(use_triplet=False))
    make_trainer(data, tmp_path, config).fit()
    lines = events(tmp_path, "epoch")
    # The best map without a shape is 0.98 of the first one.
    assert lines[-1]["train_map"] < 0.8 * lines[0]["train_map"]


def test_the_map_loss_on_the_cam_teaches_it_the_maps_without_a_decoder(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path, replace(LEARNING, method="saliency", loss=CAM_ALONE.loss))
    assert trainer.model.decoder is None
    trainer.fit()
    lines = events(tmp_path, "epoch")
    assert lines[-1]["train_cam_map"] < 0.8 * lines[0]["train_cam_map"]
    for line in lines:
        parts = line["train_classification"] + 4 * line["train_cam_map"]
        assert line["train_total"] == pytest.approx(parts, rel=1e-5)


# --- every switch reaches the loss


def test_gap_is_saliency_without_both_losses_to_the_bit(data: Path, gap_run: Path, tmp_path: Path) -> None:
    config = replace(SMALL, method="saliency")
    make_trainer(data, tmp_path, config).fit()
    first, second = final_state(gap_run), final_state(tmp_path)
    assert_same(first["model"], second["model"])
    assert_same(first["optimiser"], second["optimiser"])
    assert timeless(events(gap_run)) == timeless(events(tmp_path))


def test_hide_and_seek_changes_what_is_learnt(data: Path, gap_run: Path, tmp_path: Path) -> None:
    make_trainer(data, tmp_path, replace(SMALL, method="has", epochs=1)).fit()
    # The step of Adam that follows the first gradient depends on the images alone.
    assert events(tmp_path, "train")[0]["classification"] != events(gap_run, "train")[0]["classification"]


def test_hidden_patches_and_dropout_do_not_depend_on_accumulation(data: Path, tmp_path: Path) -> None:
    # The small network has dropout. The same batches in one part and in two, which two processes would share likewise.
    config = replace(SMALL, method="has", epochs=1, batch_norm=False, optimiser=SGD)
    for parts in (1, 2):
        make_trainer(data, tmp_path / str(parts), replace(config, accumulation=parts)).fit()
    one, two = (final_state(tmp_path / str(parts))["model"] for parts in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


CAM_ALONE = saliency(use_map=False, use_triplet=False, cam_map_weight=4.0)
GAP_NUMBERS = {"total", "classification", "top1", "images_per_s", "learning_rate"}
MAP_NUMBERS = {"map", "mean_saliency"}
TRIPLET_NUMBERS = {"triplet", "d_pos", "d_neg", "mean_saliency"}


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        (SMALL, set()),
        (replace(SMALL, method="has"), set()),
        (replace(SMALL, clip_norm=1.0), {"gradient_norm"}),
        (saliency(use_triplet=False), MAP_NUMBERS),
        (saliency(use_map=False), TRIPLET_NUMBERS),
        (saliency(), MAP_NUMBERS | TRIPLET_NUMBERS),
        (saliency(cam_map_weight=4.0), MAP_NUMBERS | TRIPLET_NUMBERS | {"cam_map"}),
        (CAM_ALONE, {"cam_map"}),
    ],
    ids=["gap", "has", "clipped", "no-triplet", "no-map", "full", "cam", "cam-alone"],
)
def test_the_named_losses_are_those_switched_on(
    data: Path, tmp_path: Path, config: TrainConfig, numbers: set[str]
) -> None:
    make_trainer(data, tmp_path, replace(config, epochs=1, batch_size=6, optimiser=SGD)).fit()
    lines = events(tmp_path, "train")
    assert len(lines) == 2
    for line in lines:
        assert set(line) == GAP_NUMBERS | numbers | {"event", "step", "epoch"}


@pytest.mark.parametrize("pooling", ["gap", "saliency", "pseudo-map"])
def test_the_pooling_reaches_the_scores(data: Path, tmp_path: Path, pooling: Pooling) -> None:
    """The first step's features, saliency and maps, and what the classifier makes of them."""
    loss = LossConfig(use_map=pooling == "saliency", use_triplet=False)
    config = replace(SMALL, method="saliency", pooling=pooling, loss=loss, batch_norm=False, batch_size=12)
    trainer = make_trainer(data, tmp_path, config)
    index = DiscMaps() if config.needs_maps else None
    images = TrainingImages(records(data, split="train"), root=data, crop=config.crop, seed=0, index=index)
    batch = to_device(images[SampleKey(0, 0)], "cpu")
    with torch.no_grad():
        features = trainer.model(batch.images01_bchw).features
        saliency_bhw = trainer.model(batch.images01_bchw).saliency
        weights = {"gap": None, "saliency": saliency_bhw, "pseudo-map": batch.maps01_bhw}[pooling]
        assert (weights is None) == (pooling == "gap")
        expected = trainer.model.classifier(features, weights)
        found, _ = trainer._objective.compute(batch, seed=0, first=0)
    assert torch.equal(found.scores, expected)


def test_factors_signs_and_the_area_reach_the_total(data: Path, tmp_path: Path) -> None:
    numbers = dict(map_weight=3.0, triplet_weight=5.0, area_weight=7.0, map_ignore=(0.2, 0.8))
    config = saliency(triplet_sign="as-printed", map_kind="mse", **numbers)
    make_trainer(data, tmp_path, replace(config, epochs=1, optimiser=SGD)).fit()
    for line in events(tmp_path, "train"):
        assert line["triplet"] == pytest.approx(line["d_neg"] - line["d_pos"], abs=1e-6)
        parts = line["classification"] + 3 * line["map"] + 5 * line["triplet"] + 7 * line["mean_saliency"]
        assert line["total"] == pytest.approx(parts, rel=1e-5)


def test_weights_of_classes_reach_the_loss(data: Path, tmp_path: Path) -> None:
    loss = LossConfig(use_map=False, use_triplet=False, class_weighting="balanced")
    config = replace(SMALL, loss=loss, epochs=1, optimiser=SGD)
    make_trainer(data, tmp_path / "zero", config, class_weights_k=torch.zeros(3)).fit()
    assert [line["total"] for line in events(tmp_path / "zero", "train")] == [0, 0, 0]


def test_the_gradient_is_clipped(data: Path, tmp_path: Path) -> None:
    """A step of SGD without momentum moves all weights together by lr times the limit."""
    config = replace(SMALL, clip_norm=0.01, epochs=1, batch_size=12, optimiser=replace(SGD, lr=1.0, momentum=0.0))
    trainer = make_trainer(data, tmp_path, config)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.fit()
    moved = [now.detach() - then for now, then in zip(trainer.model.parameters(), before, strict=True)]
    (line,) = events(tmp_path, "train")
    assert line["gradient_norm"] > 0.02
    assert math.sqrt(sum(float(part.square().sum()) for part in moved)) == pytest.approx(0.01, rel=1e-2)


def test_the_learning_rate_follows_the_schedule(data: Path, tmp_path: Path) -> None:
    config = replace(SMALL, schedule=ScheduleConfig(kind="step", milestones=(0.5,), warmup_steps=2))
    make_trainer(data, tmp_path, config).fit()
    rates = [line["learning_rate"] for line in events(tmp_path, "train")]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4])


# --- what is counted


def test_gradient_accumulation_gives_the_step_of_the_whole_batch(data: Path, tmp_path: Path) -> None:
    config = replace(SMALL, batch_norm=False, optimiser=replace(SGD, lr=1e-3), epochs=1)
    whole, parts = (
        make_trainer(data, tmp_path / "1", config),
        make_trainer(data, tmp_path / "2", replace(config, accumulation=2)),
    )
    start = {name: value.clone() for name, value in whole.model.state_dict().items()}
    assert whole.fit().steps == parts.fit().steps == 3
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, rtol=1e-4, atol=1e-7)
    assert not torch.equal(start["classifier.linear.weight"], whole.model.state_dict()["classifier.linear.weight"])
    for first, second in zip(events(tmp_path / "1", "train"), events(tmp_path / "2", "train"), strict=True):
        assert second["total"] == pytest.approx(first["total"], rel=1e-5)
        assert second["top1"] == first["top1"]


def test_validation_counts_every_image_once(data: Path, gap_run: Path, tmp_path: Path) -> None:
    """Against one image at a time through the trained model."""
    trainer = make_trainer(data, tmp_path)
    trainer.model.load_state_dict(final_state(gap_run)["model"])
    model = trainer.model.eval()
    images = TrainingImages(records(data, split="val"), root=data, crop=SHOWN_WHOLE, seed=0)
    hits = 0
    for position in range(5):
        batch = to_device(images[SampleKey(0, position)], "cpu")
        with torch.no_grad():
            hits += int(model(batch.images01_bchw).scores.argmax(dim=1).item() == batch.labels_b.item())
    (*_, last) = events(gap_run, "val")
    assert last["images"] == 5
    assert last["top1"] == hits / 5
    # Five guesses among three classes.
    assert last["top5"] == 1.0


def test_the_epoch_line_is_the_mean_of_its_steps(gap_run: Path) -> None:
    for line in events(gap_run, "epoch"):
        steps = [step for step in events(gap_run, "train") if line["epoch"] - 1 < step["epoch"] <= line["epoch"]]
        assert len(steps) == 3
        for name in ("total", "top1"):
            assert line[f"train_{name}"] == pytest.approx(sum(step[name] for step in steps) / 3)


def test_numbers_between_two_lines_are_averaged(data: Path, gap_run: Path, tmp_path: Path) -> None:
    """A line after every second step, and one at the end of each epoch of three."""
    make_trainer(data, tmp_path, run=replace(HURRIED, log_every=2)).fit()
    each = [line["total"] for line in events(gap_run, "train")]
    lines = [(line["step"], line["total"]) for line in events(tmp_path, "train")]
    expected = [(2, (each[0] + each[1]) / 2), (3, each[2]), (4, each[3]), (6, (each[4] + each[5]) / 2)]
    assert [step for step, _ in lines] == [step for step, _ in expected]
    assert [total for _, total in lines] == pytest.approx([total for _, total in expected])


def test_images_that_fill_no_batch_wait_for_another_epoch(data: Path, tmp_path: Path) -> None:
    summary = make_trainer(data, tmp_path, replace(SMALL, batch_size=10, accumulation=2, epochs=1)).fit()
    assert summary.steps == 1


def test_loader_workers_change_nothing(data: Path, gap_run: Path, tmp_path: Path) -> None:
    make_trainer(data, tmp_path, run=replace(HURRIED, workers=1)).fit()
    assert_same(final_state(gap_run), final_state(tmp_path))
    assert timeless(events(gap_run)) == timeless(events(tmp_path))


def test_without_validation_images_the_accuracy_is_unknown(data: Path, tmp_path: Path) -> None:
    summary = make_trainer(data, tmp_path, replace(SMALL, epochs=1, batch_size=12), val_images=None).fit()
    assert math.isnan(summary.top1) and math.isnan(summary.top5)
    assert not events(tmp_path, "val")
    assert CheckpointFolder(tmp_path).is_finished()


@pytest.mark.parametrize("seed", [20261123, 2**63 - 1])
def test_large_seeds(data: Path, tmp_path: Path, seed: int) -> None:
    config = replace(SMALL, method="has", seed=seed, epochs=1, batch_size=6, optimiser=SGD)
    assert make_trainer(data, tmp_path, config).fit().steps == 2


def test_all_processes_wait_until_a_checkpoint_is_written(data: Path, tmp_path: Path) -> None:
    written: list[list[int]] = []

    class Noting(Processes):
        def wait(self) -> None:
            written.append(CheckpointFolder(tmp_path).steps())

    processes = Noting(rank=0, world_size=1, device=torch.device("cpu"))
    make_trainer(data, tmp_path, processes=processes).save()
    assert written == [[0]]


# --- what cannot work


def test_a_run_that_diverges_ends_with_advice_and_keeps_the_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    config = replace(SMALL, batch_norm=False, optimiser=OptimiserConfig(name="sgd", lr=1e20))
    with pytest.raises(TrainingDiverged, match=r"not finite.*--lr"):
        make_trainer(data, tmp_path, config).fit()
    assert CheckpointFolder(tmp_path).steps() == []
    assert not CheckpointFolder(tmp_path).is_finished()


@pytest.mark.parametrize(
    ("config", "processes", "message"),
    [
        (replace(SMALL, accumulation=3), ALONE, "batch size 4 does not divide into 1 processes with 3 gradient"),
        (SMALL, replace(ALONE, world_size=3), "batch size 4 does not divide into 3 processes with 1 gradient"),
        (replace(SMALL, batch_size=16), ALONE, "12 images"),
        (replace(SMALL, batch_size=16, accumulation=2), ALONE, "12 images do not fill one batch of 16"),
    ],
)
def test_batches_that_cannot_be_made(
    data: Path, tmp_path: Path, config: TrainConfig, processes: Processes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(data, tmp_path, config, processes=processes)


def test_the_perceptual_network_is_there_exactly_with_the_triplet_loss(data: Path, tmp_path: Path) -> None:
    for config, network in ((saliency(), None), (SMALL, torch.nn.Identity())):
        with pytest.raises(ValueError, match="exactly when the triplet loss is on"):
            make_trainer(data, tmp_path, config, perceptual=network)


def test_the_perceptual_network_sees_images_foregrounds_and_backgrounds(data: Path, tmp_path: Path) -> None:
    """F(x) without gradient, then foreground and background, whose sum is the image, in one call."""
    seen: list[tuple[torch.Tensor, bool]] = []

    class Spy(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((images.detach().clone(), torch.is_grad_enabled()))
            return functional.adaptive_avg_pool2d(images, 1).flatten(1)

    config = replace(saliency(use_map=False), epochs=1, batch_size=12, optimiser=SGD)
    make_trainer(data, tmp_path, config, perceptual=Spy()).fit()
    (images, first_gradient), (masked, second_gradient) = seen
    assert (first_gradient, second_gradient) == (False, True)
    assert images.shape == (12, 3, 64, 64) and masked.shape == (24, 3, 64, 64)
    torch.testing.assert_close(masked[:12] + masked[12:], images)
    assert images.min() >= 0 and 0.5 < images.max() <= 1


@pytest.mark.parametrize("cam_map_weight", [0.0, 4.0])
def test_the_printed_losses_give_the_class_weights_no_gradient(
    data: Path, tmp_path: Path, cam_map_weight: float
) -> None:
    """All losses but classification; what docs/losses.md says of the class activation map."""
    config = saliency(classification_weight=0.0, cam_map_weight=cam_map_weight)
    trainer = make_trainer(data, tmp_path, config)
    images = TrainingImages(records(data, split="train"), root=data, crop=config.crop, seed=0, index=DiscMaps())
    batch = to_device(images.__getitems__([SampleKey(0, position) for position in range(12)]), "cpu")
    output, terms = trainer._objective.compute(batch, seed=0, first=0)
    weights, features = torch.autograd.grad(terms.total, [trainer.model.classifier.linear.weight, output.features])
    assert features.abs().sum() > 0
    assert bool(weights.abs().sum() > 0) == (cam_map_weight > 0)


def test_distances_are_divided_by_those_to_a_black_image(data: Path, tmp_path: Path) -> None:
    lines = []
    for scale in ("none", "image"):
        config = replace(saliency(use_map=False, triplet_scale=scale), epochs=1, batch_size=12, optimiser=SGD)
        make_trainer(data, tmp_path / scale, config).fit()
        lines += events(tmp_path / scale, "train")
    images = TrainingImages(records(data, split="train"), root=data, crop=SMALL.crop, seed=0)
    batch = to_device(images.__getitems__([SampleKey(0, position) for position in range(12)]), "cpu")
    # A black image has no mean colour: the distances to it are the mean squares of the features.
    squares_b = MeanColours()(batch.images01_bchw).square().mean(dim=1)
    for name in ("d_pos", "d_neg"):
        assert squares_b.min() < lines[0][name] / lines[1][name] < squares_b.max()


def test_initial_weights_are_loaded_before_the_first_step(data: Path, tmp_path: Path) -> None:
    def zero(model: torch.nn.Module) -> None:
        torch.nn.init.zeros_(model.get_parameter("classifier.linear.weight"))

    make_trainer(data, tmp_path, replace(SMALL, epochs=1), initialise=zero).fit()
    # Scores that are the biases alone: near ln 3, however the biases are drawn.
    assert events(tmp_path, "train")[0]["total"] == pytest.approx(math.log(3), abs=0.05)
