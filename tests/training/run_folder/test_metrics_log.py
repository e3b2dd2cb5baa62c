"""``metrics.jsonl``: what is appended, what a resumed run drops, and TensorBoard when it is there."""

import builtins
import json
import math
import resource
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training.run_folder.metrics_log import MetricsLog


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(folder: Path, *steps: int, resume_step: int = 0) -> None:
    log = MetricsLog(folder, resume_step=resume_step)
    for step in steps:
        log.write("train", step=step, total=step / 2)
    log.close()


def test_one_line_an_event(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write("train", step=1, total=0.5, epoch=0.25)
    log.write("val", step=1, top1=0.125, note="text")
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"event": "train", "step": 1, "total": 0.5, "epoch": 0.25}\n'
        '{"event": "val", "step": 1, "top1": 0.125, "note": "text"}\n'
    )


def test_a_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write("train", step=1, total=0.5)
    assert lines(tmp_path) == [{"event": "train", "step": 1, "total": 0.5}]


def test_lines_of_later_steps_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 4, 5)
    write(tmp_path, 5, 6, resume_step=4)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 4, 5, 6]


def test_starting_anew_drops_everything(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    write(tmp_path, 1)
    assert [line["step"] for line in lines(tmp_path)] == [1]


@pytest.mark.parametrize("tail", ['{"event": "tr', '{"event": "train", "step"', "{", "\0\0\0", '{"event": "train"}'])
def test_a_half_written_last_line_is_dropped(tmp_path: Path, tail: str) -> None:
    write(tmp_path, 1, 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(tail)
    write(tmp_path, 3, resume_step=2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_kept_last_line_without_its_end_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"event": "train", "step": 1}')
    write(tmp_path, 2, resume_step=1)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    MetricsLog(tmp_path).write("train", step=1, total=math.nan, gradient_norm=math.inf, low=-math.inf, top1=0.5)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "metrics.jsonl").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert found == {"event": "train", "step": 1, "total": None, "gradient_norm": None, "low": None, "top1": 0.5}


@pytest.fixture
def full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_that_does_not_fit_is_told_once_and_leaves_no_part(tmp_path: Path, full_disk: None) -> None:
    said: list[str] = []
    log = MetricsLog(tmp_path, say=said.append)
    log.write("train", step=1, total=0.5)
    for _ in range(2):
        log.write("train", step=2, total=0.5, text="x" * 200)
    log.write("train", step=3, total=0.5)
    assert [line["step"] for line in lines(tmp_path)] == [1, 3]
    path = tmp_path / "metrics.jsonl"
    assert said == [f"warning: {path}: File too large; the log lacks lines, the checkpoints are not affected"]


@pytest.mark.parametrize(
    "line",
    [b"null", b"[1]", b"7", b'{"step": "1"}', b'{"step\xff": 1}', b'{"event": "tr', b"\0\0", b"[" * 99999, b""],
)
def test_a_damaged_line_is_dropped_and_told(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, 1, 2)
    path, said = tmp_path / "metrics.jsonl", list[str]()
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + second)
    MetricsLog(tmp_path, resume_step=2, say=said.append)
    assert path.read_bytes() == first + second
    assert said == [f"warning: {path}: damaged lines are dropped: 1, the first is 2"]


def test_a_log_that_cannot_be_used_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    path, said = tmp_path / "metrics.jsonl", list[str]()
    path.mkdir()
    log = MetricsLog(tmp_path, resume_step=2, say=said.append)
    log.write("train", step=3, total=0.5)
    assert said == [f"warning: {path}: Is a directory; the log lacks lines, the checkpoints are not affected"]


def test_lines_of_an_epoch_that_has_not_ended_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for event in ("train", "epoch", "val"):
        for step in (3, 6):
            log.write(event, step=step)
    before = lines(tmp_path)
    MetricsLog(tmp_path, resume_step=6)
    assert lines(tmp_path) == before
    MetricsLog(tmp_path, resume_step=6, epoch_open=True)
    assert [(line["event"], line["step"]) for line in lines(tmp_path)] == [
        ("train", 3),
        ("train", 6),
        ("epoch", 3),
        ("val", 3),
    ]


def test_and_the_run_goes_on_behind_the_part_that_fitted(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "step": 2, "to')
    write(tmp_path, 2, resume_step=1)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_tensorboard_that_is_not_installed_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **others: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"--tensorboard needs the extra.*saliency-aware-wsol\[tensorboard\]"):
        MetricsLog(tmp_path, tensorboard=True)
    MetricsLog(tmp_path).close()


class Writer:
    """Stands for torch's ``SummaryWriter``."""

    def __init__(self, folder: str, *, purge_step: int) -> None:
        self.calls: list[tuple[Any, ...]] = [("open", folder, purge_step)]
        made.append(self)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.calls.append((tag, scalar_value, global_step))

    def add_image(self, tag: str, img_tensor: torch.Tensor, global_step: int) -> None:
        self.calls.append((tag, tuple(img_tensor.shape), global_step))

    def close(self) -> None:
        self.calls.append(("close",))


made: list[Writer] = []


def test_tensorboard_is_told_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = MetricsLog(tmp_path, resume_step=6, tensorboard=True)
    log.write("train", step=7, total=0.5, top1=1, note="text")
    log.picture("saliency", torch.zeros(3, 4, 5), step=7)
    log.close()
    assert made[-1].calls == [
        # Events of step 7 and later are those of a process that died.
        ("open", str(tmp_path / "tensorboard"), 7),
        ("train/total", 0.5, 7),
        ("train/top1", 1.0, 7),
        ("saliency", (3, 4, 5), 7),
        ("close",),
    ]
    assert lines(tmp_path) == [{"event": "train", "step": 7, "total": 0.5, "top1": 1, "note": "text"}]


def test_real_tensorboard_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resume_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        log = MetricsLog(tmp_path, resume_step=resume_step, tensorboard=True)
        for step in steps:
            log.write("train", step=step, total=float(step + resume_step))
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/total")] == [(1, 1), (2, 2), (3, 5), (4, 6)]


def test_pictures_need_tensorboard_and_are_otherwise_nothing(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.picture("saliency", torch.zeros(3, 4, 5), step=1)
    log.close()
    assert list(tmp_path.iterdir()) == []
