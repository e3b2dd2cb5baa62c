"""Turns all shards of a split into a survey: counts, histograms, the failed, the worst and a random sample.

Shards are read one after the other and forgotten, so 1.28 million images take no more memory than a thousand.
"""

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pseudo_maps.shards import STATUS_OK, ShardError, ShardReader, list_shards
from pseudo_maps.shards.manifest import manifest_path, read_manifest

__all__ = ["FailedImage", "Histogram", "MapSurvey", "survey_maps"]

_SHARE_BINS = 20
"""Bars of a histogram of shares from 0 to 1: 5 % each."""
_PROPOSAL_BARS = 20
_HALF_PEAK = 128
"""Lowest stored value that is at least half the peak, which is stored as 255."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Numbers of maps by the interval that a value lies in; the last interval holds its upper end too."""

    edges: npt.NDArray[np.float64]
    """(N + 1,) rising."""
    counts: npt.NDArray[np.int64]
    """(N,) maps in each interval."""
    mean: float
    """Mean of the values themselves; NaN without any."""
    low: float
    """Lowest value; NaN without any."""
    high: float
    """Highest value; NaN without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedImage:
    """An image without a map."""

    image_id: str
    """Its id."""
    path: str
    """Its file, relative to the data root."""
    status: str
    """Why it has none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapSurvey:
    """What can be said of the maps of a split."""

    images: int
    """Rows of all shards that are there."""
    shards: int
    """Shards that are there."""
    missing_shards: int
    """Shards that the manifest states and that are not there; 0 without a manifest."""
    map_shape: tuple[int, int]
    """(H, W) of every map."""
    size_bytes: int
    """Bytes of the shards."""
    provenance: Mapping[str, Any]
    """Of the first shard."""
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
    """Read the tables of all shards of a split, and some maps.

    Parameters
    ----------
    folder
        Folder of the shards; it may be incomplete.
    worst, random, failed
        How many images of each kind to name at most.
    measured
        Maps to measure the coverage on at most; they are chosen at random, like the sample.
    seed
        Of the random choice, at least 0: equal seeds choose equal maps of equal folders, and a shard that is missing
        does not change the order of preference of the others' rows.

    Raises
    ------
    ShardError
        No shard, shards of several numberings, or a shard that cannot be read.
    ManifestError
        The manifest, where there is one, cannot be read.

    Notes
    -----
    Every row gets a random number, and the rows with the lowest numbers are the sample: so it is drawn while reading,
    without knowing how many rows will come. About 10 ms a shard of 1000 rows, maps measured included, and 52 MB.
    """
    paths = _shards(folder, split)
    manifest = read_manifest(folder, split) if manifest_path(folder, split).exists() else None
    collected = _Collected(worst=worst, random=random, failed=failed, measured=measured)
    for index, path in paths:
        with ShardReader(path) as reader:
            collected.add(reader, generator=np.random.default_rng([seed, index]), size_bytes=path.stat().st_size)
    shards = len(paths)
    return collected.survey(shards=shards, missing=0 if manifest is None else max(manifest.shards - shards, 0))


def _shards(folder: Path, split: str) -> list[tuple[int, Path]]:
    """Number and path of every shard of the split, in order."""
    found = list_shards(folder, split)
    if not found:
        raise ShardError(f"{folder}: no shard of the split {split!r}")
    counts = sorted({count for _, count in found})
    if len(counts) > 1:
        raise ShardError(
            f"{folder}: shards of {split} are numbered of {counts}; wsol-prep verify tells which are wrong"
        )
    return [(index, path) for (index, _), path in found.items()]


class _Collected:
    """What has been seen so far."""

    def __init__(self, *, worst: int, random: int, failed: int, measured: int) -> None:
        self._wanted = {"worst": worst, "random": random, "failed": failed, "measured": measured}
        self._images = self._size_bytes = 0
        self._counts: Counter[str] = Counter()
        self._proposals: Counter[int] = Counter()
        self._peak_counts: npt.NDArray[np.int64] = np.zeros(_SHARE_BINS, dtype=np.int64)
        self._peak_sum, self._peak_low, self._peak_high = 0.0, np.inf, -np.inf
        self._failed: list[FailedImage] = []
        self._worst: list[tuple[float, str]] = []
        # (minus the random number, place among all rows, id, coverage): the heap's first is the next to go.
        self._sample: list[tuple[float, int, str, float]] = []
        self._first: ShardReader | None = None

    def add(self, reader: ShardReader, *, generator: np.random.Generator, size_bytes: int) -> None:
        """Take the rows of a shard into account."""
        self._first = self._first or reader
        table = reader.table
        self._size_bytes += size_bytes
        self._counts.update(table["status"].tolist())
        is_ok = table["status"] == STATUS_OK
        for row in np.flatnonzero(~is_ok)[: self._wanted["failed"] - len(self._failed)].tolist():
            values = {name: str(table[name][row]) for name in ("image_id", "path", "status")}
            self._failed.append(FailedImage(**values))
        peaks = table["peak"][is_ok]
        ids = table["image_id"][is_ok]
        if len(peaks):
            # A peak above 1 cannot be: maps are means of masks.
            self._peak_counts += np.histogram(np.minimum(peaks, 1.0), bins=_SHARE_BINS, range=(0, 1))[0]
            self._peak_sum += float(peaks.sum())
            self._peak_low = min(self._peak_low, float(peaks.min()))
            self._peak_high = max(self._peak_high, float(peaks.max()))
            self._proposals.update(table["proposals"][is_ok].tolist())
            lowest = np.argsort(peaks, kind="stable")[: self._wanted["worst"]].tolist()
            candidates = [*self._worst, *((float(peaks[place]), str(ids[place])) for place in lowest)]
            self._worst = heapq.nsmallest(self._wanted["worst"], candidates)
        self._draw(reader, is_ok, generator.random(len(table)))
        self._images += len(table)

    def _draw(self, reader: ShardReader, is_ok: npt.NDArray[np.bool_], numbers: npt.NDArray[np.float64]) -> None:
        """Keep the rows with the lowest random numbers and measure them."""
        size = max(self._wanted["measured"], self._wanted["random"])
        if not size:
            return
        highest = -self._sample[0][0] if len(self._sample) == size else np.inf
        for row in np.flatnonzero(is_ok & (numbers < highest)).tolist():
            rank = -float(numbers[row])
            if len(self._sample) == size and rank <= self._sample[0][0]:
                continue
            covered = float((reader.read_uint8(row) >= _HALF_PEAK).mean())
            entry = (rank, self._images + row, str(reader.table["image_id"][row]), covered)
            if len(self._sample) < size:
                heapq.heappush(self._sample, entry)
            else:
                heapq.heapreplace(self._sample, entry)

    def survey(self, *, shards: int, missing: int) -> MapSurvey:
        """Everything together."""
        assert self._first is not None
        best = sorted(self._sample, reverse=True)
        measured = np.array([covered for *_, covered in best[: self._wanted["measured"]]])
        chosen = sorted((place, image_id) for _, place, image_id, _ in best[: self._wanted["random"]])
        made = self._counts[STATUS_OK]
        return MapSurvey(
            images=self._images,
            shards=shards,
            missing_shards=missing,
            map_shape=self._first.map_shape,
            size_bytes=self._size_bytes,
            provenance=self._first.provenance,
            counts={STATUS_OK: made}
            | {name: number for name, number in self._counts.most_common() if name != STATUS_OK},
            peak=Histogram(
                edges=np.linspace(0, 1, _SHARE_BINS + 1),
                counts=self._peak_counts,
                mean=self._peak_sum / made if made else np.nan,
                low=self._peak_low if made else np.nan,
                high=self._peak_high if made else np.nan,
            ),
            proposals=_proposal_histogram(self._proposals),
            coverage=Histogram(
                edges=np.linspace(0, 1, _SHARE_BINS + 1),
                counts=np.histogram(measured, bins=_SHARE_BINS, range=(0, 1))[0],
                mean=float(measured.mean()) if len(measured) else np.nan,
                low=float(measured.min()) if len(measured) else np.nan,
                high=float(measured.max()) if len(measured) else np.nan,
            ),
            sampled=len(measured),
            failed=tuple(self._failed),
            worst=tuple(image_id for _, image_id in self._worst),
            random=tuple(image_id for _, image_id in chosen),
        )


def _proposal_histogram(numbers: Counter[int]) -> Histogram:
    """Bars of equal, whole width, so that each holds as many possible numbers."""
    values = np.array(sorted(numbers), dtype=np.int64)
    weights = np.array([numbers[value] for value in values.tolist()], dtype=np.int64)
    if not len(values):
        return Histogram(
            edges=np.array([0.0, 1.0]), counts=np.zeros(1, dtype=np.int64), mean=np.nan, low=np.nan, high=np.nan
        )
    low, high = int(values[0]), int(values[-1])
    width = max(1, -(-(high - low + 1) // _PROPOSAL_BARS))
    edges = np.arange(low, high + width + 1, width, dtype=np.float64)
    counts = np.bincount((values - low) // width, weights=weights, minlength=len(edges) - 1).astype(np.int64)
    mean = float((values * weights).sum() / weights.sum())
    return Histogram(edges=edges, counts=counts, mean=mean, low=low, high=high)
