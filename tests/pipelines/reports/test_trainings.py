"""Logs of wsol-train as histories, and the charts and words that are made of them."""

import json
import math
from pathlib import Path

import pytest

from pipelines.reports.trainings import read_history, training_charts


def make_log(folder: Path, *, saliency: bool = False, epochs: int = 2, tail: str = "") -> Path:
    folder.mkdir(parents=True)
    lines = []
    for epoch in range(1, epochs + 1):
        lines.append({"event": "train", "step": epoch, "epoch": epoch - 0.5, "classification": 99.0})
        numbers = {"train_classification": 2.0 / epoch, "train_top1": 0.25 * epoch}
        if saliency:
            numbers |= {"train_map": 0.5 / epoch, "train_d_pos": 1.0, "train_d_neg": 2.0, "train_mean_saliency": 0.3}
        lines.append({"event": "epoch", "step": epoch, "epoch": epoch, **numbers})
        lines.append({"event": "val", "step": epoch, "epoch": epoch, "top1": 0.125 * epoch, "images": 8.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
    return folder


def test_numbers_come_by_epoch_and_the_steps_between_do_not(tmp_path: Path) -> None:
    history = read_history(make_log(tmp_path / "gap", tail='{"event": "epo'))
    assert history["train_classification"] == {1: 2.0, 2: 1.0}
    assert history["val_top1"] == {1: 0.125, 2: 0.25}
    assert "classification" not in history


def test_what_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    folder = make_log(tmp_path / "gap")
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "epoch", "step": 3, "epoch": 3, "train_classification": null}\n')
    assert math.isnan(read_history(folder)["train_classification"][3])


def test_a_folder_without_a_finished_epoch_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics\.jsonl: not found; expected the folder of a run of wsol-train"):
        read_history(tmp_path)
    with pytest.raises(ValueError, match=r"metrics\.jsonl: expected at least one finished epoch"):
        read_history(make_log(tmp_path / "new", epochs=0))


def test_charts_say_what_they_show_and_only_the_full_method_has_saliency(tmp_path: Path) -> None:
    histories = {name: read_history(make_log(tmp_path / name, saliency=name == "full")) for name in ("gap", "full")}
    loss, accuracy, saliency = training_charts(histories)
    assert loss.alt == "Classification loss, by epoch: gap ends at 1; full ends at 1."
    assert "gap on training crops ends at 50; gap on validation images ends at 25; full on" in accuracy.alt
    assert saliency.alt.startswith("Saliency of full while training, by epoch: map loss ends at 0.25; d_pos")
    for chart in (loss, accuracy, saliency):
        assert chart.content.startswith(b"<?xml")
