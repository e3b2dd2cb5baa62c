"""The place among processes: alone, as torchrun's environment says, and what processes tell one another."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.processes import Processes, start_processes

REPOSITORY = Path(__file__).resolve().parents[2]
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


PROGRAM = """
import json, torch
from training.processes import start_processes
group = start_processes("cpu")
values = torch.tensor([1.0, 10.0 * group.rank])
told = [group.any(False), group.any(group.rank == 1), group.any(True)]
gathered = [part.tolist() for part in group.gather(values)]
group.add_up(values)
group.wait()
group.stop()
left = not torch.distributed.is_initialized()
place = [group.rank, group.world_size, group.is_main, str(group.device)]
print(json.dumps([*place, values.tolist(), told, left, gathered]))
"""


@pytest.mark.slow
def test_two_processes_agree() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        place = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                env={**os.environ, **place, **meeting},
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    found = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    told = [False, True, True]
    assert found == [
        [0, 2, True, "cpu", [2.0, 10.0], told, True, [[1.0, 0.0], [1.0, 10.0]]],
        [1, 2, False, "cpu", [2.0, 10.0], told, True, [[1.0, 0.0], [1.0, 10.0]]],
    ]
