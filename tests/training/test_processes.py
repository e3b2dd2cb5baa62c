"""The place among processes: alone, as torchrun's environment says, and what processes tell one another."""

import json

import pytest
import torch

from tests.training.train_program import start_two
from training.processes import Processes, start_processes

ALONE = Processes(rank=0, world_size=1, device=torch.device("cpu"))


def test_alone_without_torchrun() -> None:
    processes = start_processes("cpu")
    assert processes == ALONE
    assert processes.is_main
    assert not torch.distributed.is_initialized()


def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert start_processes("auto").device == torch.device("cpu")
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert start_processes("auto").device == torch.device("cuda")
    assert start_processes("cuda:1").device == torch.device("cuda:1")
    assert taken == [torch.device("cuda:0"), torch.device("cuda:1")]


def test_cuda_without_a_gpu_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"--device cuda:3: PyTorch .* finds no CUDA GPU"):
        start_processes("cuda:3")


def test_more_processes_than_gpus_say_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"process 3 of this machine has no GPU.*: 2 are there.*--nproc-per-node"):
        start_processes("auto")


def test_alone_nothing_is_exchanged() -> None:
    values = torch.tensor([1.0, 2.0])
    assert ALONE.add_up(values) is values and ALONE.gather(values) == [values]
    assert values.tolist() == [1.0, 2.0]
    assert ALONE.any(True) is True
    assert ALONE.any(False) is False
    assert ALONE.peak_memory_bytes() == 0
    ALONE.wait()
    ALONE.stop()


def test_two_processes_agree() -> None:
    with start_two("tests.training.processes_program") as (processes, _):
        found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    told = [False, True, True]
    assert found == [
        [0, 2, True, "cpu", [2.0, 10.0], told, True, [[1.0, 0.0], [1.0, 10.0]]],
        [1, 2, False, "cpu", [2.0, 10.0], told, True, [[1.0, 0.0], [1.0, 10.0]]],
    ]
