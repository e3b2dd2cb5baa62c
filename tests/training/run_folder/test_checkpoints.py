import errno
import io
import json
import os
import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from training.run_folder.checkpoints import (
    CheckpointError,
    CheckpointFolder,
    DamagedCheckpointWarning,
    load_checkpoint,
    save_checkpoint,
)


def state(value: int = 1) -> dict[str, Any]:
    return {"step": value, "weights": torch.full((40,), float(value)), "name": "gap", "nested": [1, (2.5, None, True)]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", state(3))
    found = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(found.pop("weights"), torch.full((40,), 3.0))
    assert found == {"step": 3, "name": "gap", "nested": [1, (2.5, None, True)]}
    assert names(tmp_path) == ["a.pt"]


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    """Also where one state shares objects that the other, read from a file, has several times."""
    shared = ("".join(["be", "ta"]), 0.5)
    state = {"groups": [{"betas": shared}, {"betas": shared}], "weights": torch.ones(3), shared[0]: 1}
    save_checkpoint(tmp_path / "a.pt", state)
    save_checkpoint(tmp_path / "b.pt", load_checkpoint(tmp_path / "a.pt"))
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_models_and_optimisers_come_back_to_the_bit(tmp_path: Path) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def train(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        torch.manual_seed(1)
        optimiser.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimiser.step()

    model, optimiser = build()
    train(model, optimiser)
    whole = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
    save_checkpoint(tmp_path / "a.pt", whole)
    train(model, optimiser)

    resumed, resumed_optimiser = build()
    found = load_checkpoint(tmp_path / "a.pt")
    resumed.load_state_dict(found["model"])
    resumed_optimiser.load_state_dict(found["optimiser"])
    train(resumed, resumed_optimiser)
    for name, value in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_checkpoint_is_a_plain_torch_file_with_a_marker(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", state())
    envelope = torch.load(tmp_path / "a.pt", weights_only=True)
    assert (envelope["format"], envelope["version"]) == ("saliency-aware-wsol checkpoint", 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": [1, np.float64(2.0)]}}, r"state\['a'\]\['b'\]\[1\] is a numpy\.float64"),
        ({"a": np.zeros(2)}, r"state\['a'\] is a numpy\.ndarray"),
        ({"path": Path("x")}, r"state\['path'\] is a pathlib\."),
        ({"a": {np.int64(1): 2}}, r"a key of state\['a'\] is a numpy\.int64"),
        ({"a": {1, 2}}, r"state\['a'\] is a builtins\.set"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, value: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path / "a.pt", value)
    assert names(tmp_path) == []


def test_every_truncation_is_a_checkpoint_error(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", state())
    whole = (tmp_path / "a.pt").read_bytes()
    path = tmp_path / "b.pt"
    lengths = sorted({*range(0, len(whole), 37), *range(40), *range(len(whole) - 40, len(whole))})
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert str(caught.value).startswith(f"{path}: not a checkpoint, or damaged ({length} bytes)")
        assert "\n" not in str(caught.value)


def test_a_changed_bit_of_a_tensor_is_found_although_torch_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, state())
    encoded = bytearray(path.read_bytes())
    place = bytes(encoded).index(torch.full((40,), 1.0).numpy().tobytes()) + 50
    encoded[place] ^= 4
    path.write_bytes(encoded)
    assert not torch.equal(torch.load(path, weights_only=True)["state"]["weights"], state()["weights"])
    with pytest.raises(CheckpointError, match=r"record .*data/0 has a wrong checksum; use another checkpoint"):
        load_checkpoint(path)


def _zip_of(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("form", ["pickle", "zip", "torch"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    target, path = tmp_path / "exploded", tmp_path / "bomb.pt"
    bomb = {"format": "saliency-aware-wsol checkpoint", "version": 1, "state": {"weights": _Bomb(target)}}
    if form == "torch":
        torch.save(bomb, path)
    else:
        pickled = pickle.dumps(bomb, protocol=2)
        path.write_bytes(pickled if form == "pickle" else _zip_of(pickled))
    with pytest.raises(CheckpointError, match="not a checkpoint, or damaged") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_foreign_files_are_refused_in_one_line(tmp_path: Path) -> None:
    text, empty, other, listed, archive = (tmp_path / name for name in "abcde")
    text.write_text("hello")
    empty.write_bytes(b"")
    torch.save(nn.Linear(2, 2).state_dict(), other)
    torch.save([1, 2], listed)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/constants.pkl", b"")
    for path, message in [
        (text, "not a checkpoint, or damaged"),
        (empty, "not a checkpoint, or damaged"),
        (archive, "not a checkpoint, or damaged"),
        (other, "of another program: the marker 'saliency-aware-wsol checkpoint' is missing"),
        (listed, "of another program"),
    ]:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("envelope", [{"version": 2, "state": {}}, {"version": 1, "state": 3}, {"state": {}}])
def test_other_versions_are_refused(tmp_path: Path, envelope: dict[str, Any]) -> None:
    torch.save({"format": "saliency-aware-wsol checkpoint", **envelope}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint of version .*, expected 1"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_missing_file_and_a_missing_folder_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        save_checkpoint(tmp_path / "none" / "a.pt", state())


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, state(1))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            save_checkpoint(path, {"weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_sync_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, state(1))

    def fail(descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)) as caught:
        save_checkpoint(path, state(2))
    assert names(tmp_path) == ["a.pt"]
    assert load_checkpoint(path)["step"] == 1
    if isinstance(failure, OSError):
        assert isinstance(caught.value, OSError) and caught.value.errno == errno.ENOSPC


def test_bytes_are_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        events.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path.resolve() else "file")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        assert source.parent == target.parent and source.name.startswith(".a.pt.")
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    save_checkpoint(tmp_path / "a.pt", state())
    assert events == ["file", "rename", "folder"]


def test_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "run", keep_last=2)
    assert folder.latest() is None and folder.steps() == []
    for step in (0, 5, 10, 123456789):
        assert folder.save(step, state(step)) == folder.path(step)
    assert names(tmp_path / "run") == ["checkpoint-00000010.pt", "checkpoint-123456789.pt"]
    found = folder.latest()
    assert found is not None
    assert (found.path, found.step, found.state["step"]) == (folder.path(123456789), 123456789, 123456789)


def test_other_files_are_left_alone_and_leftovers_of_a_killed_writer_removed(tmp_path: Path) -> None:
    others = ["best.pt", "checkpoint-1.pt", "checkpoint-00000001.pt.bak", ".checkpoint-notes", "log.jsonl"]
    leftovers = [f".{name}.host.77.tmp" for name in ("checkpoint-00000003.pt", "finished.json", "metrics.jsonl")]
    for name in [*others, *leftovers]:
        (tmp_path / name).write_text("x")
    folder = CheckpointFolder(tmp_path, keep_last=1)
    folder.latest()
    assert set(leftovers) < set(names(tmp_path))
    folder.save(3, state())
    folder.save(4, state())
    assert names(tmp_path) == sorted([*others, "checkpoint-00000004.pt"])


def test_a_damaged_newest_is_named_and_the_one_before_used(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2, 3):
        folder.save(step, state(step))
    for step in (2, 3):
        folder.path(step).write_bytes(folder.path(step).read_bytes()[:-7])
    with pytest.warns(DamagedCheckpointWarning) as caught:
        found = folder.latest()
    assert found is not None and found.step == found.state["step"] == 1
    for warning, step in zip(caught, (3, 2), strict=True):
        assert str(warning.message).startswith(f"{folder.path(step)}: not a checkpoint, or damaged")
        assert warning.filename == __file__


def test_no_readable_checkpoint_at_all_is_an_error(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state())
    folder.path(1).write_bytes(b"")
    with pytest.warns(DamagedCheckpointWarning), pytest.raises(CheckpointError, match="none of its 1 checkpoints"):
        folder.latest()


def test_pruning_prefers_the_good_checkpoint_to_a_damaged_later_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=1)
    folder.save(1, state(1))
    folder.path(9).write_bytes(b"damaged")
    with pytest.warns(DamagedCheckpointWarning):
        folder.latest()
    folder.save(2, state(2))
    assert names(tmp_path) == ["checkpoint-00000002.pt"]


def test_a_good_later_checkpoint_is_not_overtaken(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(9, state(9))
    with pytest.raises(CheckpointError, match=r"00000002\.pt: .*good checkpoint of the later step 9; resume from it"):
        folder.save(2, state(2))
    folder.save(9, state(10))
    found = folder.latest()
    assert found is not None and found.state["step"] == 10


def test_a_failed_save_deletes_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=1)
    folder.save(1, state(1))

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        folder.save(2, state(2))
    assert names(tmp_path) == ["checkpoint-00000001.pt"]


def test_the_completion_marker(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert not folder.is_finished()
    folder.save(1, state())
    assert not folder.is_finished()
    folder.mark_finished({"steps": 1, "loss": 0.5})
    assert folder.is_finished()
    assert json.loads((tmp_path / "finished.json").read_text()) == {"steps": 1, "loss": 0.5}
    with pytest.raises(ValueError, match="Out of range float"):
        folder.mark_finished({"loss": float("nan")})
    assert folder.is_finished() and names(tmp_path) == ["checkpoint-00000001.pt", "finished.json"]
    folder.save(2, state())
    assert not folder.is_finished()


@pytest.mark.parametrize("content", [b"", b'{"steps": 1', b"\xff\xfe", b"[]"])
def test_a_damaged_marker_does_not_finish_a_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "finished.json").write_bytes(content)
    assert not CheckpointFolder(tmp_path).is_finished()
    assert not CheckpointFolder(tmp_path / "finished.json").is_finished()


def test_bounds() -> None:
    with pytest.raises(ValueError, match="keep_last is 0"):
        CheckpointFolder("run", keep_last=0)
    with pytest.raises(ValueError, match="step is -1"):
        CheckpointFolder("run").path(-1)
