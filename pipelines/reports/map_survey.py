"""Survey of all saliency maps of a split: counts, histograms, failed images, lowest peaks and a random sample."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pseudo_maps.shards import STATUS_OK, ShardReader, list_shards
from pseudo_maps.shards.manifest import manifest_path, read_manifest

_BARS = 20
"""Bars of a histogram at most; those of shares are 5 % each."""
_HALF_PEAK = 128
"""Lowest stored value that is at least half the peak, which is stored as 255."""
_ROW = np.dtype([("shard", int), ("row", int), ("image_id", object), ("peak", float), ("rank", float)])
"""A map that may be shown or measured; the maps with the lowest random ranks are the sample."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Maps by the interval that a value lies in; the last interval includes its upper end."""

    edges: npt.NDArray[np.float64]
    """(N + 1,) rising."""
    counts: npt.NDArray[np.int64]
    """(N,) maps in each interval."""
    mean: float
    """Of the values themselves; NaN without any, like the lowest and the highest one."""
    low: float
    high: float


class FailedImage(NamedTuple):
    """An image without a map."""

    image_id: str
    status: str
    path: str
    """Its file, relative to the data root."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapSurvey:
    """Counts, histograms and chosen images of a split."""

    images: int
    """Rows of all shards that exist."""
    shards: int
    missing_shards: int
    """Shards of the manifest that do not exist; 0 without a manifest."""
    map_shape: tuple[int, int]
    """(H, W) of every map."""
    size_bytes: int
    provenance: Mapping[str, Any]
    """Of the last shard."""
    counts: Mapping[str, int]
    """Images by status, ``STATUS_OK`` first, then by number."""
    peak: Histogram
    """Of the peaks of all maps, before they were scaled."""
    proposals: Histogram
    """Of the number of proposals of all maps."""
    coverage: Histogram
    """Of the share of pixels at half the peak or above, of ``sampled`` maps."""
    sampled: int
    """Maps that the coverage was measured on: all, or a random sample."""
    failed: tuple[FailedImage, ...]
    """The first images without a map, in the order of the rows."""
    worst: tuple[str, ...]
    """Ids of the maps with the lowest peaks, lowest first."""
    random: tuple[str, ...]
    """Ids of randomly chosen maps, in the order of the rows."""


def survey_maps(
    folder: Path,
    split: str,
    *,
    worst: int = 12,
    random: int = 12,
    failed: int = 200,
    measured: int = 2000,
    seed: int = 0,
) -> MapSurvey:
    """Read the tables of all shards of a split, and some maps; 10 ms a shard of 1000 rows. Shards may be missing.

    ``worst``, ``random`` and ``failed`` are the images of each kind to name, ``measured`` the maps to measure the
    coverage on, at most. Equal random seeds choose equal maps of equal folders, and a missing shard does not change the
    order of preference of the other shards' rows. ``MapIndex`` says whether the shards belong together.
    """
    paths = {index: path for (index, _), path in list_shards(folder, split).items()}
    manifest = read_manifest(folder, split) if manifest_path(folder, split).exists() else None
    counts: Counter[str] = Counter()
    failures: list[FailedImage] = []
    peaks, proposals = [], []
    lowest = sample = np.empty(0, dtype=_ROW)
    for shard, path in paths.items():
        with ShardReader(path) as reader:
            table, provenance, map_shape = reader.table, reader.provenance, reader.map_shape
        counts.update(table["status"].tolist())
        is_ok = table["status"] == STATUS_OK
        for row in np.flatnonzero(~is_ok)[: failed - len(failures)].tolist():
            failures.append(FailedImage(*(str(table[name][row]) for name in FailedImage._fields)))
        peaks.append(table["peak"][is_ok])
        proposals.append(table["proposals"][is_ok])
        made = np.empty(int(is_ok.sum()), dtype=_ROW)
        made["shard"], made["row"] = shard, np.flatnonzero(is_ok)
        made["image_id"], made["peak"] = table["image_id"][is_ok], peaks[-1]
        made["rank"] = np.random.default_rng([seed, shard]).random(len(table))[is_ok]
        lowest = _first(np.concatenate([lowest, made]), by="peak", count=worst)
        sample = _first(np.concatenate([sample, made]), by="rank", count=max(measured, random))
    coverages = _coverages(paths, sample[:measured])
    return MapSurvey(
        images=counts.total(),
        shards=len(paths),
        missing_shards=0 if manifest is None else max(manifest.shards - len(paths), 0),
        map_shape=map_shape,
        size_bytes=sum(path.stat().st_size for path in paths.values()),
        provenance=provenance,
        counts={STATUS_OK: 0} | dict(sorted(counts.most_common(), key=lambda item: item[0] != STATUS_OK)),
        # A peak above 1 cannot be: maps are means of masks.
        peak=_histogram(np.minimum(np.concatenate(peaks), 1.0), edges=np.linspace(0, 1, _BARS + 1)),
        proposals=_proposal_histogram(np.concatenate(proposals)),
        coverage=_histogram(coverages, edges=np.linspace(0, 1, _BARS + 1)),
        sampled=len(coverages),
        failed=tuple(failures),
        worst=tuple(map(str, lowest["image_id"])),
        random=tuple(map(str, np.sort(sample[:random], order=["shard", "row"])["image_id"])),
    )


def _first(rows: npt.NDArray[Any], *, by: str, count: int) -> npt.NDArray[Any]:
    """The rows with the lowest values, in their order."""
    return rows[np.argsort(rows[by], kind="stable")[:count]]


def _coverages(paths: Mapping[int, Path], rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Of each map (N,) the share of pixels at half the peak or above."""
    coverages = []
    for shard in np.unique(rows["shard"]).tolist():
        with ShardReader(paths[shard]) as reader:
            for row in rows["row"][rows["shard"] == shard].tolist():
                coverages.append((reader.read_uint8(row) >= _HALF_PEAK).mean())
    return np.array(coverages, dtype=np.float64)


def _histogram(values_n: npt.NDArray[Any], *, edges: npt.NDArray[np.float64]) -> Histogram:
    counts, _ = np.histogram(values_n, bins=edges)
    shown = (values_n.mean(dtype=float), values_n.min(), values_n.max()) if len(values_n) else (np.nan,) * 3
    mean, low, high = map(float, shown)
    return Histogram(edges=edges, counts=counts, mean=mean, low=low, high=high)


def _proposal_histogram(proposals_n: npt.NDArray[Any]) -> Histogram:
    """Bars of equal, whole width, so that each holds as many possible numbers."""
    low, high = (int(proposals_n.min()), int(proposals_n.max())) if len(proposals_n) else (0, 0)
    width = max(1, -(-(high - low + 1) // _BARS))
    return _histogram(proposals_n, edges=np.arange(low, high + width + 1, width, dtype=np.float64))
