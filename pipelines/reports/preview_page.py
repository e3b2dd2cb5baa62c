"""Turns a folder of maps and its data set into one self-contained HTML page: what the maps are like, and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.drawing.overlays import Picture, jpeg_bytes
from pipelines.reports.html_pages import data_uri, write_page
from pipelines.reports.map_pictures import MapGallery
from pipelines.reports.map_survey import Histogram, MapSurvey, survey_maps
from pseudo_maps.shards import STATUS_OK

__all__ = ["configuration_in_words", "write_preview_page"]

THUMBNAIL_PX = 192
"""Longest side of a picture: as wide as a phone shows it, and about 8 KB as JPEG."""

_TEMPLATE = "preview.html.jinja"
_JPEG_QUALITY = 85
_CHART_SIZE = (320, 120)
"""Width and height of a chart's area of bars, in the units of its drawing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """A bar of a chart, in units of the drawing from its top left, and what it says on pointing at it."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chart:
    """A histogram as the template draws it."""

    title: str
    unit: str
    bars: list[_Bar]
    ticks: list[tuple[float, str]]
    """Place along the axis and label."""
    highest: int
    """Maps in the highest bar."""
    summary: str
    """The same in words, for readers who do not see it."""


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
    threshold: float = 0.5,
    seed: int = 0,
) -> int:
    """Write a page about the maps of a split, which needs no script, no network and no second file.

    Parameters
    ----------
    folder
        Folder of the shards; it may be incomplete.
    data, layout
        Data root of the images, and its layout; boxes, where it has any, are drawn in green.
    out
        HTML file to write; its folder is made when it is missing.
    image_ids
        Images to show, several in one word with commas between them if need be; by default ``count`` random ones.
    worst
        How many of the lowest peaks, and how many of the images that failed, to show.
    threshold
        The red box surrounds the largest contour above this fraction of the peak.
    seed
        Of the random choice, of images and of the maps that the coverage is measured on.

    Returns
    -------
    int
        How many images the page shows.

    Raises
    ------
    DatasetError
        An id that the data set or the maps do not have, or no image of the data has a map.
    ShardError, ManifestError
        Shards or manifest cannot be read.
    """
    gallery = MapGallery(folder, data=data, split=split, layout=layout, threshold=threshold)
    chosen = gallery.wanted(image_ids)
    survey = survey_maps(folder, split, worst=worst, random=0 if chosen else count, seed=seed)
    failed = [image.image_id for image in survey.failed[:worst]]
    groups = [
        _group(gallery, "Chosen images" if chosen else "A random sample", chosen or survey.random),
        _group(gallery, "Images without a map", failed),
        _group(gallery, "Lowest peaks", survey.worst),
    ]
    configuration = survey.provenance["configuration"]
    context = {
        "split": split,
        "survey": survey,
        "made": survey.counts[STATUS_OK],
        "kilobytes": f"{survey.size_bytes / max(survey.images, 1) / 1000:.1f}",
        "words": configuration_in_words(configuration),
        "settings": [*_spread(configuration), ("package version", str(survey.provenance["package_version"]))],
        "charts": _charts(survey),
        "groups": [group for group in groups if group["figures"]],
        "is_random": not chosen,
        "seed": seed,
        "threshold": threshold,
    }
    write_page(out, template=_TEMPLATE, context=context)
    return sum(len(group["figures"]) for group in groups)


def configuration_in_words(configuration: Mapping[str, Any]) -> str:
    """What maps are, from the configuration that their shards hold, for readers who do not know its names."""
    proposals = configuration.get("proposals")
    details = dict(proposals) if isinstance(proposals, Mapping) else {}
    method = str(configuration.get("method", "an unknown method"))
    if method == "geodesic":
        what = f"unsupervised geodesic object proposals, from {details.get('boundaries', 'unknown')} boundaries"
    else:
        what = f"the boxes of {method}"
    if "working_size" in details:
        what += f", found at up to {details['working_size']} pixels along the longer side"
    weighting = configuration.get("weighting", "an unknown rule")
    weights = "with equal weights" if weighting == "uniform" else f"weighted by {weighting}"
    return f"Each map is an average of {what}, {weights}; it is stored so that its maximum is 1."


def _group(gallery: MapGallery, title: str, image_ids: Sequence[str]) -> dict[str, Any]:
    """A title and the pictures of those images that the data have."""
    known = [image_id for image_id in image_ids if image_id in gallery]
    boxes = gallery.boxes(known)
    figures = []
    for image_id in known:
        shown = gallery.pictures(image_id, truth=boxes.get(image_id), square=False, longest_px=THUMBNAIL_PX)
        pictures = {"image": shown.image, "map": shown.heat, "overlay": shown.overlay, "box": shown.boxed}
        row = shown.row
        size = f"{row.width} x {row.height} px, " if row.width and row.height else ""
        numbers = f"{size}{row.proposals} proposals, peak {row.peak:.3f}" if row.status == STATUS_OK else row.status
        figures.append(
            {
                "image_id": image_id,
                "wnid": row.wnid,
                "numbers": numbers,
                "status": "" if row.status == STATUS_OK else row.status,
                "pictures": [(name, _thumbnail(picture)) for name, picture in pictures.items()],
            }
        )
    return {"title": title, "figures": figures}


def _thumbnail(picture: Picture | None) -> str:
    return "" if picture is None else data_uri(jpeg_bytes(picture, quality=_JPEG_QUALITY), kind="jpeg")


def _charts(survey: MapSurvey) -> list[_Chart]:
    made = survey.counts[STATUS_OK]
    measured = "all maps" if survey.sampled == made else f"{survey.sampled:,} of {made:,} maps, drawn at random"
    kinds: list[tuple[str, str, Histogram, Callable[[float], str]]] = [
        ("Peak", "maximum of the map before it was scaled", survey.peak, "{:.2f}".format),
        ("Coverage", f"share of pixels at half the peak or above; {measured}", survey.coverage, "{:.0%}".format),
        ("Proposals", "proposals that were averaged", survey.proposals, "{:,.0f}".format),
    ]
    return [_chart(title, unit, found, number=number) for title, unit, found, number in kinds if found.counts.any()]


def _chart(title: str, unit: str, histogram: Histogram, *, number: Callable[[float], str]) -> _Chart:
    width, height = _CHART_SIZE
    bars = []
    bar_width = width / len(histogram.counts)
    highest = int(histogram.counts.max())
    for place, count in enumerate(histogram.counts.tolist()):
        tall = height * count / highest
        low, high = (number(float(histogram.edges[place + end])) for end in (0, 1))
        text = f"{low} to {high}: {count:,} {'map' if count == 1 else 'maps'}"
        bars.append(_Bar(x=place * bar_width, y=height - tall, width=bar_width, height=tall, text=text))
    first, last = float(histogram.edges[0]), float(histogram.edges[-1])
    ticks = [(width * share, number(first + share * (last - first))) for share in (0.0, 0.5, 1.0)]
    summary = f"mean {number(histogram.mean)}, lowest {number(histogram.low)}, highest {number(histogram.high)}"
    return _Chart(title=title, unit=unit, bars=bars, ticks=ticks, highest=highest, summary=summary)


def _spread(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values of nested settings, spread out as ``a.b``."""
    pairs = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            pairs += _spread(value, f"{prefix}{name}.")
        else:
            text = ("no", "yes")[value] if isinstance(value, bool) else str(value)
            pairs.append((f"{prefix}{name}", text or "none"))
    return pairs
