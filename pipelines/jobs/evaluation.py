"""Evaluation of a network, of a folder of maps, or of the baselines alone: maps, scores, result folder."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.drawing.panels import PANELS_FILE, draw_panels, panel_indexes
from evaluation.image_scores import ImageScores
from evaluation.images import EvaluationSet
from evaluation.maps import MapSource, NoMaps, StoredMaps
from evaluation.masks import masks_digest
from evaluation.metrics.calibration import Calibration, calibrate
from evaluation.names import BASELINES, EvaluationKind
from evaluation.protocols import get_protocol
from evaluation.results.folder import EvaluationPlan, ResultFolder, find_metrics
from evaluation.results.predictions import PREDICTIONS_FILE, read_predictions
from evaluation.schema import Metrics, read_metrics
from evaluation.scoring import ScoringTask, score
from evaluation.workers import map_in_order
from pipelines.jobs.class_scores import ClassScores
from pseudo_maps.files import differences
from pseudo_maps.records import UNKNOWN_LABEL

if TYPE_CHECKING:
    from pipelines.jobs.network_maps import NetworkChoices
    from training.inference.config import Views

Advance = Callable[..., None]
"""Called with a number of further images that are done, and ``earlier=True`` where an earlier run has scored them."""


@dataclass(frozen=True, kw_only=True)
class EvaluationChoices:
    """Options that all evaluations share."""

    name: str
    """What tables and reports call the evaluation."""
    evaluation_set: EvaluationSet
    protocols: tuple[str, ...]
    boxes: str
    """Ground truth that counts, one of ``BOX_CHOICES``."""
    bootstrap_samples: int
    seed: int
    """Random seed of the bootstrap."""
    out: Path | None
    """Folder of the results; None prints only."""
    jobs: int
    """Processes that make and score boxes."""
    panels: int
    """Images in the picture of examples; 0 for none."""
    masks: Path | None = None
    """Folder of masks for PxAP, see ``evaluation.masks``; None leaves PxAP out."""
    threshold_from: Path | None = None
    """Results of other images whose best thresholds the sweep protocols take; None: the best on these."""


def evaluate_baselines(choices: EvaluationChoices, *, advance: Advance) -> Metrics:
    """Score the predictors that never look at the image."""
    return _evaluate(choices, NoMaps(), kind="baseline", advance=advance)


def evaluate_maps(
    choices: EvaluationChoices, source: StoredMaps, *, scores: ClassScores | None = None, advance: Advance
) -> Metrics:
    """Score a folder of maps as a localizer, with ``scores`` of a classifier; ValueError for a map that is none."""
    described: dict[str, object] = {"unused_maps": len(source.unused(choices.evaluation_set.records))}
    if scores is not None:
        source.classes = scores.by_image
        described["class_scores"] = {"sha256": scores.sha256}
    return _evaluate(choices, source, kind="maps", advance=advance, described=described)


def evaluate_network(
    choices: EvaluationChoices, network: "NetworkChoices", *, advance: Advance, say: Callable[[str], None]
) -> Metrics:
    """Score a trained network, its classes matched with those of the data by name; ``say`` is told where they differ.

    With several devices, each has a process of its own that scores its share of the images; their results meet in the
    journal. CheckpointError for a checkpoint that does not read or lacks a decoder that a localizer needs, ValueError
    for a class of the data that the network does not know or a result folder of another evaluation, RuntimeError where
    the process of a device failed.
    """
    from pipelines.jobs.devices import score_on_devices
    from pipelines.jobs.network_maps import NetworkMaps
    from training.data.workers import explaining_lost_workers

    alone = len(network.devices) == 1
    # With several devices this process leaves them to the others, and draws its few pictures on the CPU.
    source = NetworkMaps(
        network,
        choices.evaluation_set,
        device=network.devices[0] if alone else "cpu",
        centre=any(get_protocol(name).crops_centre for name in choices.protocols),
        out=choices.out,
    )
    if source.note:
        say(source.note)
    if source.learned:
        say(
            "warning: these images have the paths and classes of those that the network was trained on; scores of "
            "training images say nothing about new ones"
        )
    with explaining_lost_workers():
        return _evaluate(
            choices,
            source,
            kind="run",
            advance=advance,
            views={name: _views_under(name, network.views) for name in choices.protocols},
            unsaved=source.unsaved(),
            scores=None if alone else functools.partial(score_on_devices, source, jobs=choices.jobs),
        )


def _evaluate(
    choices: EvaluationChoices,
    source: MapSource,
    *,
    kind: EvaluationKind,
    advance: Advance,
    described: Mapping[str, object] | None = None,
    views: Mapping[str, str] | None = None,
    unsaved: frozenset[int] = frozenset(),
    scores: Callable[..., Iterator[list[ImageScores]]] | None = None,
) -> Metrics:
    """Maps of a source to scores to a result folder; ``unsaved`` images are scored again, to save their maps.

    ValueError for a result folder of another evaluation, and for a mask that is missing or cannot be scored.
    """
    images = choices.evaluation_set.images
    plan = EvaluationPlan(
        kind=kind,
        name=choices.name,
        evaluation_set=choices.evaluation_set,
        protocols=choices.protocols,
        localizers=source.localizers,
        boxes=choices.boxes,
        bootstrap_samples=choices.bootstrap_samples,
        seed=choices.seed,
        source={**source.config(), **(described or {})},
        views=views or {},
        calibration=_calibration(choices, source),
        masks=None if choices.masks is None else masks_digest(choices.evaluation_set, choices.masks),
        stamp=source.stamp(),
    )
    boxed = [image for image in images if len(image.boxes_xyxy)]
    if boxed and source.needs_labels and all(image.record.label == UNKNOWN_LABEL for image in images):
        raise ValueError(
            f"{choices.evaluation_set.root}: expected class labels for split {choices.evaluation_set.split!r}, because "
            "maps of a network are of a class; none of its images has one"
        )
    task = ScoringTask(
        root=choices.evaluation_set.root,
        protocols=plan.protocols,
        localizers=plan.localizers,
        masks=choices.masks,
        needs_labels=source.needs_labels,
    )
    with ResultFolder(choices.out, plan=plan) as folder, ExitStack() as held:
        finished = folder.finished()
        if finished is None or unsaved:
            held.enter_context(folder.alone())
            # Another one may have ended while this one waited.
            finished = folder.finished()
        if finished is not None and not unsaved:
            advance(len(images), earlier=True)
            return finished
        done = folder.journal.done()
        waiting = [
            batch
            for batch in choices.evaluation_set.batches(source.batch_size)
            if batch[0].index not in done or batch[0].index in unsaved
        ]
        if scored_earlier := len(images) - sum(map(len, waiting)):
            advance(scored_earlier, earlier=True)
        scored = (
            scores(waiting, task=task)
            if scores
            else map_in_order(functools.partial(score, task=task), source.maps(waiting), jobs=choices.jobs)
        )
        for batch in scored:
            folder.add(batch)
            advance(len(batch))
        if choices.out is not None and source.localizers:
            _draw(folder, choices, source)
        return folder.write()


def _calibration(choices: EvaluationChoices, source: MapSource) -> Calibration | None:
    """The thresholds to take over; ValueError where they were chosen on some of these images or for other maps."""
    if choices.threshold_from is None:
        return None
    path = find_metrics(choices.threshold_from)
    chosen_on = read_metrics(path)
    # Whatever the split is called: in some data sets two have the same images.
    theirs_of_data, own_of_data = chosen_on.config.get("data"), choices.evaluation_set.config()
    if isinstance(theirs_of_data, Mapping) and theirs_of_data.get("sha256") == own_of_data["sha256"]:
        raise ValueError(
            f"{path}: evaluation of the images to score, so its threshold is an oracle; give that of another split"
        )
    predictions = path.with_name(PREDICTIONS_FILE)
    if isinstance(theirs_of_data, Mapping) and theirs_of_data.get("split") == own_of_data["split"]:
        labels = {image.record.image_id: str(image.record.label) for image in choices.evaluation_set.images}
        rows = read_predictions(predictions) if predictions.is_file() else ()
        shared = dict.fromkeys(row["image_id"] for row in rows if labels.get(row["image_id"]) == row["label"])
        if shared:
            raise ValueError(
                f"{path}: evaluation of {len(shared)} of the {len(labels)} images to score too, such as "
                f"{next(iter(shared))!r}, so its threshold is partly an oracle; give one of other images"
            )
    theirs, ours = _map_settings(chosen_on.config), _map_settings({"boxes": choices.boxes, **source.config()})
    both = ours.keys() & theirs.keys()
    if differing := differences(*({name: one[name] for name in sorted(both)} for one in (theirs, ours))):
        raise ValueError(
            f"{path}: evaluation of another network or of maps made otherwise ({'; '.join(differing)}); give one with "
            "the same network, maps and options"
        )
    localizers = (*source.localizers, *BASELINES)
    return calibrate(chosen_on, localizers=localizers, protocols=choices.protocols, source=path)


def _map_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides maps and boxes of an evaluation whatever its images and machine, by the names that it has."""
    found = {name: config[name] for name in ("boxes", "network", "views") if name in config}
    if maps := config.get("maps"):
        found["range"] = maps.get("range", "as it is")
        if "provenance" in maps:
            made = maps["provenance"]["configuration"]
            # Score maps of a network tell which.
            found |= made["score_maps"] if isinstance(made, Mapping) and "score_maps" in made else {"maps": made}
    settings: dict[str, Any] = _without_images(found)
    return settings


def _without_images(value: Any) -> Any:
    of_images = ("sha256", "files", "image_bytes", "batch_size", "precision", "classes")
    if not isinstance(value, Mapping):
        return value
    return {name: _without_images(one) for name, one in value.items() if name not in of_images}


def _draw(folder: ResultFolder, choices: EvaluationChoices, source: MapSource) -> None:
    """The picture of examples, under the first protocol that shows the whole image and has boxes of it."""
    images = choices.evaluation_set.images
    wanted = set(panel_indexes(images, count=choices.panels))
    shown = [name for name in choices.protocols if not get_protocol(name).crops_centre]
    if not any(len(image.boxes_xyxy) for image in images):
        shown = [name for name in shown if not get_protocol(name).threshold_is_oracle]
    if wanted and shown:
        draw_panels(
            folder.folder / PANELS_FILE,
            [scores for scores in folder.journal if scores.index in wanted],
            choices.evaluation_set,
            maps_of=source.maps_of,
            localizers=source.localizers,
            protocol=shown[0],
            levels=folder.reported_levels(),
        )


def _views_under(protocol: str, views: "Views") -> str:
    """What the views mean under a protocol: the release of CAM sums ten crops, no other protocol does."""
    if protocol == "cam-release" and not views.ten_crop:
        one_view = len(views.scales) == 1 and not views.flip
        return f"{'one view' if one_view else views.describe()}; the release sums ten crops (--ten-crop)"
    if protocol != "cam-release" and views.ten_crop:
        return "sum of absolute ten-crop maps"
    return views.describe()
