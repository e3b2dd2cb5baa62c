"""Scoring by one process per device; their results meet in a queue."""

import functools
import queue
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluation.image_scores import ImageScores
from evaluation.images import BLOCK_IMAGES, EvaluationBatch
from evaluation.scoring import ScoringTask, score
from evaluation.workers import map_in_order
from pipelines.jobs.network_maps import NetworkMaps
from pseudo_maps.files import differences
from pseudo_maps.processes import StopWatch, end_with_parent, fork_server
from training.data.workers import explaining_lost_workers

_POLL_S = 5


def score_on_devices(
    source: NetworkMaps, batches: Sequence[EvaluationBatch], *, task: ScoringTask, jobs: int
) -> Iterator[list[ImageScores]]:
    """Scores of batches in any order, each device on its share of them; RuntimeError where one's process failed."""
    devices = source.choices.devices
    context = fork_server(__name__)
    results: Any = context.Queue(maxsize=4 * len(devices))
    network = functools.partial(
        NetworkMaps, source.choices, source.evaluation_set, centre=source.centre, out=source.out
    )
    # Saved maps of a shard are those of one device.
    parts = [batch[0].index // BLOCK_IMAGES if source.choices.save_maps else n for n, batch in enumerate(batches)]
    processes = []
    for number, device in enumerate(devices):
        share = [batch for part, batch in zip(parts, batches, strict=True) if part % len(devices) == number]
        # --jobs are those of all devices together.
        arguments = (network, device, source.config(), share, task, max(1, jobs // len(devices)), results)
        processes.append(context.Process(target=_score_share, args=arguments))
    for process in processes:
        process.start()
    try:
        running, watch = len(processes), StopWatch()
        while running:
            try:
                message = results.get(timeout=_POLL_S)
            except queue.Empty:
                dead = [process for process in processes if process.exitcode not in (None, 0)]
                if dead:
                    raise RuntimeError(
                        f"the process of a device ended with code {dead[0].exitcode}; run the same command again"
                    ) from None
                watch.look(process.pid for process in processes if process.pid and process.is_alive())
                continue
            if isinstance(message, str):
                raise RuntimeError(message)
            if message is None:
                running -= 1
            else:
                yield message
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(_POLL_S)
            # One that is stopped hears nothing else.
            process.kill()
            process.join()


def _score_share(
    network: Any,
    device: str,
    config: Mapping[str, Any],
    batches: Sequence[EvaluationBatch],
    task: ScoringTask,
    jobs: int,
    results: Any,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    try:
        with explaining_lost_workers():
            source = network(device=device)
            if changed := differences(config, source.config()):
                raise ValueError(f"{source.choices.checkpoint} changed while it was read: {'; '.join(changed)}")
            for scores in map_in_order(functools.partial(score, task=task), source.maps(batches), jobs=jobs):
                results.put(scores)
        results.put(None)
    except Exception as error:
        results.put(f"device {device}: {error}")
