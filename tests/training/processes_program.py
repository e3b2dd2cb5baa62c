"""One of several processes that tell one another something: what it got, as a line of JSON."""

import json

import torch

from training.processes import start_processes

if __name__ == "__main__":
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
