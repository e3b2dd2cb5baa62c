"""HTML page about the saliency maps of a split: counts, histograms, failed images and pictures."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.boxes.fixed_thresholds import CAM_FRACTION
from evaluation.drawing.overlays import Picture, picture_bytes
from evaluation.metrics.registry import GT_KNOWN_IOU
from pipelines.reports.html_pages import Table, data_uri, row_of, setting_texts, write_page
from pipelines.reports.map_pictures import MapGallery
from pipelines.reports.map_survey import Histogram, MapSurvey, survey_maps
from pseudo_maps.shards import STATUS_OK
from pseudo_maps.wording import counted

THUMBNAIL_PX = 192
"""Longest side of a picture: as wide as a phone shows it, and about 8 KB as JPEG."""


def write_preview_page(
    folder: Path,
    *,
    data: Path,
    split: str,
    out: Path,
    layout: str = "auto",
    image_ids: Sequence[str] = (),
    count: int = 12,
    worst: int = 12,
    threshold: float = CAM_FRACTION,
    seed: int = 0,
) -> int:
    """Write a page about the maps of a split, which needs no script, network or second file, and count its images.

    It shows ``image_ids`` (as ``MapGallery.listed`` reads them), else ``count`` random images; then ``worst`` images
    that failed and as many of the lowest peaks. ``seed`` is the random seed of the sample, and of the maps that the
    coverage is measured on. Errors as ``MapGallery`` and ``survey_maps``.
    """
    gallery = MapGallery(folder, data=data, split=split, layout=layout, threshold=threshold)
    chosen = gallery.listed(image_ids)
    survey = survey_maps(folder, split, worst=worst, random=0 if chosen else count, seed=seed)
    failed = [image.image_id for image in survey.failed[:worst]]
    groups = [
        _group(gallery, "Chosen images" if chosen else "A random sample", chosen or survey.random),
        _group(gallery, "Images without a map", failed),
        _group(gallery, "Lowest peaks", survey.worst),
    ]
    configuration = survey.provenance["configuration"]
    settings = {**setting_texts(configuration), "package version": survey.provenance["package_version"]}
    shares = {status: f"{100 * images / survey.images:.2f} %" for status, images in survey.counts.items()}
    statuses = [row_of(status, f"{survey.counts[status]:,}", share) for status, share in shares.items()]
    lost = [row_of(*image) for image in survey.failed]
    context = {
        "survey": survey,
        "made": survey.counts[STATUS_OK],
        "kilobytes": f"{survey.size_bytes / max(survey.images, 1) / 1000:.1f}",
        "title": f"Saliency maps of the split {split}",
        "description": described_configuration(configuration),
        "statuses": Table("Images by status", "lrr", ["status", "images", "share"], statuses),
        "failed": Table("Images without a map", "lll", ["image", "status", "file"], lost),
        "settings": Table("All settings", "ll", ["name", "value"], [row_of(*item) for item in settings.items()]),
        "charts": _charts(survey),
        "groups": [group for group in groups if group["maps"]],
        "is_random": not chosen,
        "seed": seed,
        "threshold": threshold,
    }
    write_page(out, template="preview.html.jinja", context=context)
    return sum(len(group["maps"]) for group in groups)


def described_configuration(configuration: Mapping[str, Any]) -> str:
    """A sentence or two about the maps from the configuration that their shards hold."""
    if configuration.get("method") == "refinement":
        network = configuration["network"]
        return (
            f"Each map is the geometric mean of another one and of the class activation map of the image's label, by "
            f"{network['arch']} at {network['input_size_px']} pixels. The other one: "
            + described_configuration(configuration["maps"]["configuration"])
        )
    proposals = configuration.get("proposals")
    details = dict(proposals) if isinstance(proposals, Mapping) else {}
    method = str(configuration.get("method", "an unknown method"))
    if method == "geodesic":
        what = f"unsupervised geodesic object proposals, from {details.get('boundaries', 'unknown')} boundaries"
    else:
        what = f"the boxes of {method}"
    if "working_size" in details:
        what += f", computed on images scaled to at most {details['working_size']} pixels"
    weighting = configuration.get("weighting", "an unknown rule")
    weights = "with equal weights" if weighting == "uniform" else f"weighted by {weighting}"
    return f"Each map is an average of {what}, {weights}; it is stored so that its maximum is 1."


def _group(gallery: MapGallery, title: str, image_ids: Sequence[str]) -> dict[str, Any]:
    """A title and the pictures of those images that the data have."""
    known = [image_id for image_id in image_ids if image_id in gallery]
    maps: list[dict[str, Any]] = []
    overlaps = []
    for image_id, pictures, iou in gallery.pictures(known, square=False, longest_px=THUMBNAIL_PX):
        row = gallery.index.row(image_id)
        size = f"{row.width} x {row.height} px, " if row.width and row.height else ""
        overlap = "" if iou is None else f", IoU {iou:.2f}"
        numbers = f"{size}{row.proposals} proposals, maximum before scaling {row.peak:.3f}{overlap}"
        overlaps += [] if iou is None else [iou]
        maps.append(
            {
                "image_id": image_id,
                "class": gallery.class_name(image_id),
                "numbers": numbers if row.status == STATUS_OK else row.status,
                "status": row.status,
                "pictures": [(name, _thumbnail(picture)) for name, picture in pictures.items()],
            }
        )
    right = sum(iou >= GT_KNOWN_IOU for iou in overlaps)
    localized = f"The box is right (IoU at least .5) in {right} of {counted(len(overlaps), 'map')} with ground truth."
    return {"title": title, "maps": maps, "localized": localized if overlaps else ""}


def _thumbnail(picture: Picture | None) -> str:
    return "" if picture is None else data_uri(picture_bytes(picture, suffix=".jpg"), kind="jpeg")


def _charts(survey: MapSurvey) -> list[dict[str, Any]]:
    """Bars and ticks with their texts, which the template draws, because wsol-prep imports no matplotlib."""
    made = survey.counts[STATUS_OK]
    measured = "all maps" if survey.sampled == made else f"{survey.sampled:,} of {made:,} maps, drawn at random"
    kinds: list[tuple[str, str, Histogram, Callable[[float], str]]] = [
        ("Peak", "maximum of the map before it was scaled", survey.peak, "{:.2f}".format),
        ("Coverage", f"share of pixels at half the peak or above; {measured}", survey.coverage, "{:.0%}".format),
        ("Proposals", "proposals that were averaged", survey.proposals, "{:,.0f}".format),
    ]
    return [
        {
            "title": title,
            "unit": unit,
            "bars": [
                (count / found.counts.max(), f"{number(low)} to {number(high)}: {counted(count, 'map')}")
                for count, (low, high) in zip(found.counts.tolist(), pairwise(found.edges), strict=True)
            ],
            "ticks": [number(edge) for edge in np.linspace(found.edges[0], found.edges[-1], 3)],
            "highest": counted(int(found.counts.max()), "map"),
            "summary": f"mean {number(found.mean)}, lowest {number(found.low)}, highest {number(found.high)}",
        }
        for title, unit, found, number in kinds
        if found.counts.any()
    ]
