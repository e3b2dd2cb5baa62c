"""A real dask scheduler and workers on 127.0.0.1: the same bytes as without, also when workers die."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.command_calls import REPOSITORY
from tests.counts import full
from tests.integration.fault_runs import (
    DEADLINE_S,
    contents,
    finish,
    hold_at,
    kill_workers,
    start_run,
)
from tests.integration.prep_command import QUICK, files, prep
from tests.integration.test_cluster_guide import ADDRESS, dask_recipe
from tests.world import World

pytest.importorskip("distributed", reason="needs dask: pip install 'saliency-aware-wsol[dask]'")

from pseudo_maps.runs.dask_engine import run_on_dask  # after the skip

WORKERS_KILLED = full(2, 4)


class Cluster:
    """The scheduler of docs/cluster.md and one-process workers in a process group of their own."""

    def __init__(self, folder: Path) -> None:
        self.processes: list[subprocess.Popen] = []
        self.group = 0
        self._folder = folder
        scheduler, self._worker, self.run_words = dask_recipe()
        file = folder / "scheduler.json"
        # A port of its own, so that tests can run beside each other.
        self._start([{"8786": "0"}.get(word, word) for word in scheduler], "--scheduler-file", file)
        give_up = time.monotonic() + DEADLINE_S
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < give_up and self.processes[0].poll() is None, self.log()
            time.sleep(0.05)
        self.address = json.loads(file.read_text())["address"]

    def start_worker(self) -> None:
        own = {ADDRESS: self.address, "2": "1"}
        self._start([own.get(word, word) for word in self._worker], "--local-directory", self._folder)

    def _start(self, words: Sequence[str], *more: object) -> None:
        with (self._folder / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words, "--no-dashboard", *map(str, more)],
                cwd=self._folder,
                # From the test's folder the workers find the package where the tests have it.
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])},
                stdout=log,
                stderr=log,
                process_group=self.group,
            )
        self.group = self.group or process.pid
        self.processes.append(process)

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def end(self) -> None:
        os.killpg(self.group, signal.SIGKILL)
        for process in self.processes:
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("dask-expected") / "maps"
    finish(start_run(out, 1))
    return contents(out)


def test_a_scheduler_without_workers_is_given_up(cluster: Cluster) -> None:
    results = run_on_dask(abs, [1], scheduler=cluster.address, max_losses=2, on_event=dict, worker_wait_s=0.5)
    with pytest.raises(RuntimeError, match=r"has had no worker for 0\.5 s"):
        list(results)


def test_a_wait_for_workers_is_told_once(cluster: Cluster) -> None:
    events: list[dict[str, object]] = []
    results = run_on_dask(
        abs,
        [1],
        scheduler=cluster.address,
        max_losses=2,
        on_event=lambda **event: events.append(event),
        worker_wait_s=0.6,
        notice_s=0.1,
    )
    with pytest.raises(RuntimeError, match="no worker"):
        list(results)
    (event,) = events
    assert "waiting for workers" in str(event["message"]) and cluster.address in str(event["message"])


def test_no_scheduler_is_an_error_that_names_the_address() -> None:
    address = "tcp://127.0.0.1:9"
    results = run_on_dask(abs, [1], scheduler=address, max_losses=2, on_event=dict, connect_limit_s=1)
    with pytest.raises(RuntimeError, match=f"no dask scheduler answers at {address}"):
        list(results)


def test_dask_workers_make_the_same_bytes_when_they_are_killed(
    cluster: Cluster, tmp_path: Path, expected: dict[str, str]
) -> None:
    for _ in range(full(1, 2)):
        cluster.start_worker()
    out = tmp_path / "maps"
    out.mkdir()
    hold_at(out, 1)
    run = start_run(out, 1, cluster.address)
    # The scheduler and the nannies that start workers again are to live; what they started may die.
    but = {process.pid for process in cluster.processes}
    kill_workers(run, out, times=WORKERS_KILLED, group=cluster.group, programs=("faulty_child", "spawn_main"), but=but)
    finish(run)
    assert contents(out) == expected


def test_the_recipe_of_the_guide_gives_the_bytes_of_a_plain_run(cluster: Cluster, world: World, tmp_path: Path) -> None:
    if len(cluster.processes) == 1:
        cluster.start_worker()
    out = tmp_path / "maps"
    own = {"ILSVRC": world.data, "maps": out, "train": "val", ADDRESS: cluster.address}
    done = prep(*[own.get(word, word) for word in cluster.run_words[1:]], *QUICK, "--shard-size", 3)
    assert done.exit_code == 0 and "10 ok of 10" in done.output, done.output
    assert files(out) == files(world.maps)


def test_an_error_of_the_work_itself_is_raised(cluster: Cluster) -> None:
    if len(cluster.processes) == 1:
        cluster.start_worker()
    results = run_on_dask(int, ["1", "no number"], scheduler=cluster.address, max_losses=2, on_event=dict)
    with pytest.raises(ValueError, match="no number"):
        list(results)
