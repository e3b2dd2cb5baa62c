"""Processes that train together under torchrun: rank, device, and sums over all of them.

Alone, without torchrun, everything here costs nothing.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

TIMEOUT = timedelta(minutes=25)
"""A process that waits longer than this for the others ends with an error instead of hanging a whole job.

Reads that hang hold a process up for 20 minutes before it ends (``pseudo_maps.reading``).
"""


@dataclass(frozen=True, slots=True)
class Processes:
    """Place of this process among those that train together."""

    rank: int
    """0 <= rank < world_size; rank 0 writes files and talks to the terminal."""
    world_size: int
    """Number of processes, 1 when alone."""
    device: torch.device
    """Device that this process computes on."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of a tensor over all processes; the tensor itself is changed."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The tensor of every process, in the order of ranks; all have the same shape."""
        if self.world_size == 1:
            return [values]
        gathered = [torch.empty_like(values) for _ in range(self.world_size)]
        distributed.all_gather(gathered, values)
        return gathered

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process gets the same answer."""
        if self.world_size == 1:
            return flag
        return bool(self.add_up(torch.tensor([float(flag)], device=self.device)).item())

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            distributed.barrier()

    def peak_memory_bytes(self) -> int:
        """Largest GPU memory that was in use in this process; 0 on a CPU."""
        return int(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else 0

    def stop(self) -> None:
        """Leave the group."""
        if self.world_size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


def start_processes(device: str = "auto") -> Processes:
    """Join the processes that torchrun started, or work alone.

    ``device`` is ``auto`` (CUDA when there is one), ``cpu``, ``cuda`` or ``cuda:N``. Under torchrun each process takes
    the GPU of its local rank. ValueError when CUDA is asked for where there is none, or when there are more local
    processes than GPUs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ValueError(f"--device {device}: PyTorch {torch.__version__} finds no CUDA GPU here")
        if world_size > 1:
            if local_rank >= torch.cuda.device_count():
                raise ValueError(
                    f"process {local_rank} of this machine has no GPU of its own: {torch.cuda.device_count()} are "
                    "there, so start torchrun with --nproc-per-node of at most that"
                )
            name = f"cuda:{local_rank}"
        torch.cuda.set_device(torch.device(name if ":" in name else "cuda:0"))
    if world_size > 1:
        backend = "nccl" if name.startswith("cuda") else "gloo"
        distributed.init_process_group(backend, timeout=TIMEOUT)
    return Processes(rank=rank, world_size=world_size, device=torch.device(name))
