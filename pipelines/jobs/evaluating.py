"""Turns the choices of ``wsol-eval`` into finished evaluations: of a network, of a folder of maps, of the baselines."""

import functools
import hashlib
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.drawing.panels import PANELS_FILE, draw_panels, panel_indexes
from evaluation.image_scores import ImageScores
from evaluation.images import EvaluationImage, EvaluationSet
from evaluation.maps import MapSource
from evaluation.metrics.baselines import centred_gaussian_map
from evaluation.metrics.pixels import PixelPrecision
from evaluation.names import EvaluationKind
from evaluation.protocols import get_protocol
from evaluation.results.folder import EvaluationPlan, ResultFolder
from evaluation.results.schema import Metrics, PixelScores
from evaluation.scoring import ImageMaps, ScoringTask, score_images
from evaluation.workers import map_in_order
from pipelines.jobs.choices import EvaluationChoices, NetworkChoices
from pipelines.jobs.score_map_shards import SHARD_ROWS
from pseudo_maps.files import file_sha256
from pseudo_maps.images import decode_image
from pseudo_maps.processes import end_with_parent

__all__ = ["evaluate_baselines", "evaluate_maps", "evaluate_network"]

IMAGES_AT_ONCE = 64
"""Images that a worker scores, and that the journal stores, together: a tenth of a second to a second of work."""


Advance = Callable[[int], None]


def evaluate_baselines(choices: EvaluationChoices, *, advance: Advance) -> Metrics:
    """Score the predictors that never look at the image; returns its metrics."""
    plan = _plan(choices, kind="baseline", localizers=())
    return _evaluate(plan, choices, score=functools.partial(_score_without_maps, choices), advance=advance)


def evaluate_maps(choices: EvaluationChoices, source: MapSource, *, masks: Path | None, advance: Advance) -> Metrics:
    """Score a folder of maps as a localizer; returns its metrics.

    Parameters
    ----------
    choices
        What is scored, and how.
    source
        The maps.
    masks
        Folder of ``<image id>.png`` for PxAP: 0 background, 255 object, 128 ignored; None leaves PxAP out.
    advance
        Told how many images more are done.

    Raises
    ------
    ValueError
        A map or mask that cannot be scored, a missing mask, or a result folder of another evaluation.
    """
    unused = source.unused(choices.evaluation_set.records)
    described = {**source.config(), "unused_maps": len(unused)}
    if masks is not None:
        described["masks"] = {"sha256": _masks_digest(choices.evaluation_set, masks)}
    plan = _plan(choices, kind="maps", localizers=(source.localizer,), source=described, stamp=source.stamp())
    task = _task(choices, plan.localizers)
    function = functools.partial(_score_stored, source=source, task=task)

    def score(images: Sequence[EvaluationImage]) -> Iterator[list[ImageScores]]:
        return map_in_order(function, _pieces(images), jobs=choices.jobs)

    return _evaluate(
        plan,
        choices,
        score=score,
        advance=advance,
        maps_of=source.maps_of,
        pixels=None if masks is None else lambda: _pixel_scores(choices.evaluation_set, source, masks),
    )


def evaluate_network(choices: EvaluationChoices, network: NetworkChoices, *, advance: Advance) -> Metrics:
    """Score a trained network; returns its metrics.

    With several devices, each has a process of its own that scores its share of the images; no process waits for
    another, and their results meet in the journal.

    Raises
    ------
    CheckpointError
        The checkpoint does not read, or lacks a decoder that a localizer needs.
    ValueError
        The network has another number of classes than the data, or a result folder of another evaluation.
    RuntimeError
        The process of a device failed.
    """
    from pipelines.jobs.network_evaluation import NetworkEvaluation

    alone = len(network.devices) == 1
    # With several devices this process leaves them to the others, and draws its few pictures on the CPU.
    evaluation = NetworkEvaluation(choices, network, device=network.devices[0] if alone else "cpu")
    plan = _plan(choices, kind="run", localizers=evaluation.localizers, source=evaluation.source())
    score: Any = evaluation.score if alone else functools.partial(_score_on_devices, choices, network)
    return _evaluate(
        plan, choices, score=score, advance=advance, maps_of=evaluation.maps_of, again=evaluation.unsaved()
    )


def _plan(
    choices: EvaluationChoices,
    *,
    kind: EvaluationKind,
    localizers: tuple[str, ...],
    source: dict[str, Any] | None = None,
    stamp: str | None = None,
) -> EvaluationPlan:
    return EvaluationPlan(
        kind=kind,
        name=choices.name,
        evaluation_set=choices.evaluation_set,
        protocols=choices.protocols,
        localizers=localizers,
        boxes=choices.boxes,
        bootstrap_samples=choices.bootstrap_samples,
        seed=choices.seed,
        source=source or {},
        stamp=stamp,
    )


def _task(choices: EvaluationChoices, localizers: tuple[str, ...]) -> ScoringTask:
    return ScoringTask(root=choices.evaluation_set.root, protocols=choices.protocols, localizers=localizers)


def _evaluate(
    plan: EvaluationPlan,
    choices: EvaluationChoices,
    *,
    score: Callable[[Sequence[EvaluationImage]], Iterator[list[ImageScores]]],
    advance: Advance,
    maps_of: Callable[[EvaluationImage], ImageMaps] | None = None,
    pixels: Callable[[], PixelScores] | None = None,
    again: frozenset[int] = frozenset(),
) -> Metrics:
    with ResultFolder(choices.out, plan=plan) as folder:
        finished = folder.finished()
        if finished is not None and not again:
            advance(len(plan.evaluation_set.images))
            return finished
        folder.score(score, again=again, advance=advance)
        if choices.out is not None and maps_of is not None:
            _draw(folder, plan, choices, maps_of)
        return folder.write(pixels=pixels() if pixels else None)


def _draw(
    folder: ResultFolder,
    plan: EvaluationPlan,
    choices: EvaluationChoices,
    maps_of: Callable[[EvaluationImage], ImageMaps],
) -> None:
    """The picture of examples, under the first protocol that shows the whole image."""
    images = plan.evaluation_set.images
    wanted = set(panel_indexes(images, count=choices.panels))
    shown = [name for name in plan.protocols if not get_protocol(name).crops_centre]
    if wanted and shown:
        draw_panels(
            folder.folder / PANELS_FILE,
            [scores for scores in folder.journal() if scores.index in wanted],
            images,
            maps_of=maps_of,
            root=plan.evaluation_set.root,
            localizers=plan.localizers,
            protocol=shown[0],
            levels=folder.reported_levels(),
        )


def _pieces(images: Sequence[EvaluationImage]) -> Iterator[Sequence[EvaluationImage]]:
    return (images[first : first + IMAGES_AT_ONCE] for first in range(0, len(images), IMAGES_AT_ONCE))


def _score_without_maps(choices: EvaluationChoices, images: Sequence[EvaluationImage]) -> Iterator[list[ImageScores]]:
    function = functools.partial(_score_piece_without_maps, task=_task(choices, ()))
    return map_in_order(function, _pieces(images), jobs=choices.jobs)


def _score_piece_without_maps(images: Sequence[EvaluationImage], *, task: ScoringTask) -> list[ImageScores]:
    return score_images(images, [ImageMaps()] * len(images), task=task)


def _score_stored(images: Sequence[EvaluationImage], *, source: MapSource, task: ScoringTask) -> list[ImageScores]:
    return score_images(images, [source.maps_of(image) for image in images], task=task)


def _mask_path(image: EvaluationImage, masks: Path) -> Path:
    return masks / f"{image.record.image_id}.png"


def _masks_digest(evaluation_set: EvaluationSet, masks: Path) -> str:
    """SHA-256 over all masks, which must be there before the first map is scored."""
    digest = hashlib.sha256()
    for image in evaluation_set.images:
        path = _mask_path(image, masks)
        if not path.is_file():
            raise ValueError(f"{path}: no mask of image {image.record.image_id!r}, expected one for every image")
        digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def _pixel_scores(evaluation_set: EvaluationSet, source: MapSource, masks: Path) -> PixelScores:
    """PxAP of the maps, and beside it that of the centred Gaussian, over all images that are not blacklisted."""
    precision, baseline = PixelPrecision(), PixelPrecision()
    gaussian_hw = centred_gaussian_map()
    for image in evaluation_set.images:
        if image.blacklisted:
            continue
        path = _mask_path(image, masks)
        mask_hw = np.ascontiguousarray(decode_image(path).rgb_hwc[..., 0])
        try:
            precision.add(source.maps_of(image).whole.get(source.localizer), mask_hw)
            baseline.add(gaussian_hw, mask_hw)
        except ValueError as error:
            raise ValueError(f"image {image.record.image_id!r} with mask {path}: {error}") from error
    return precision.scores(baseline=baseline)


def _score_on_devices(
    choices: EvaluationChoices, network: NetworkChoices, images: Sequence[EvaluationImage]
) -> Iterator[list[ImageScores]]:
    """Let one process for each device score its share; their results come back in batches."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue(maxsize=4 * len(network.devices))
    processes = [
        context.Process(
            target=_score_share, args=(choices, network, device, _share(images, network, part=part), results)
        )
        for part, device in enumerate(network.devices)
    ]
    for process in processes:
        process.start()
    try:
        running = len(processes)
        while running:
            try:
                message = results.get(timeout=5)
            except queue.Empty:
                dead = [process for process in processes if process.exitcode not in (None, 0)]
                if dead:
                    raise RuntimeError(
                        f"the process of a device ended with code {dead[0].exitcode}; the same command goes on"
                    ) from None
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
            process.join()


def _share(images: Sequence[EvaluationImage], network: NetworkChoices, *, part: int) -> list[EvaluationImage]:
    """What one of the devices scores: whole shards when maps are stored, else batches in turn."""
    size = SHARD_ROWS if network.save_maps else network.batch_size
    # Shards hold so many batches, the last of which may be smaller.
    per_shard = -(-SHARD_ROWS // size)
    return [
        image
        for image in images
        if (image.index // SHARD_ROWS * per_shard + image.index % SHARD_ROWS // size) % len(network.devices) == part
    ]


def _score_share(
    choices: EvaluationChoices,
    network: NetworkChoices,
    device: str,
    images: Sequence[EvaluationImage],
    results: Any,
) -> None:
    from pipelines.jobs.network_evaluation import NetworkEvaluation

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    try:
        for batch in NetworkEvaluation(choices, network, device=device).score(images):
            results.put(batch)
        results.put(None)
    except Exception as error:
        results.put(f"device {device}: {error}")
