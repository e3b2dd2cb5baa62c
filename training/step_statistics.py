"""Statistics of every training step: queued on the device, summed step by step in float64.

The sums do not depend on when they are looked at, so a run that was stopped and resumed reports the same numbers.

Shapes: S queued rows, V values a row.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from training.health import HealthMonitor
from training.processes import Processes

_ROWS_AT_MOST = 50
"""Rows that wait on the device before they are copied, which waits for it once."""
_COUNT = "steps"


class StepStatistics:
    """Sums since the last log line and over the epoch, of the values of every process.

    ``monitor`` sees each row of this process's values.
    """

    def __init__(self, processes: Processes, monitor: HealthMonitor) -> None:
        self._processes, self._monitor = processes, monitor
        self._rows: list[Tensor] = []
        self._steps: list[int] = []
        self._names: list[str] = []
        self._logged = 0
        self.since_log: dict[str, float] = {}
        """Sums by name since the last log line, and their number of rows."""
        self.of_epoch: dict[str, float] = {}
        """The same over the epoch."""

    def add(self, step: int, values: Mapping[str, Tensor], *, watched: Mapping[str, Tensor]) -> None:
        """Queue a row of scalars without waiting for the device; ``watched`` ones are for the monitor alone.

        Names and their order are the same in every row.
        """
        self._names, self._logged = [*values, *watched], len(values)
        self._rows.append(torch.stack([value.detach().float() for value in (*values.values(), *watched.values())]))
        self._steps.append(step)
        if len(self._rows) >= _ROWS_AT_MOST:
            self.collect()

    def collect(self) -> None:
        """Copy the queue from the device, show it to the monitor, which may end the run, and add it to the sums."""
        if not self._rows:
            return
        steps, rows_sv = self._steps, torch.stack(self._rows)
        self._steps, self._rows = [], []
        for step, row in zip(steps, rows_sv.tolist(), strict=True):
            self._monitor.note(step, dict(zip(self._names, row, strict=True)))
        # One addition after the other, in the order of steps and processes: no sum depends on the length of the queue.
        of_processes = [part.tolist() for part in self._processes.gather(rows_sv)]
        for rows in zip(*of_processes, strict=True):
            for row in rows:
                for sums in (self.since_log, self.of_epoch):
                    for name, value in zip(self._names[: self._logged], row, strict=False):
                        sums[name] = sums.get(name, 0.0) + value
                    sums[_COUNT] = sums.get(_COUNT, 0.0) + 1


def pop_means(sums: dict[str, float]) -> dict[str, float]:
    """Means by name in alphabetical order; the sums are emptied."""
    count = sums.pop(_COUNT, 1.0)
    means = {name: sums[name] / count for name in sorted(sums)}
    sums.clear()
    return means
