"""Poisson bootstrap: 95 % confidence intervals of rates over images that arrive in batches and are not kept.

Legend: I images, S bootstrap resamples, C counted columns.
It (Chamandy et al., "Estimating uncertainty for massive data streams", Google technical report
2012) replaces drawing N images with replacement by giving each image of each sample an independent weight of
distribution Poisson(1). So a sample is a weighted sum, batches can come in any order, and memory is S x C.
"""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from evaluation.schema import Rate

COVERAGE = 0.95
"""Coverage of the intervals printed beside rates."""

INTERVAL_KIND = "bootstrap 95 %"
"""Name of these intervals in result files."""
WILSON_KIND = "Wilson 95 %"
"""Name of the intervals of rates of 0 and 1, where all resamples are equal."""
_NORMAL_QUANTILE = NormalDist().inv_cdf((1 + COVERAGE) / 2)

_BITS = 16
"""Random bits a weight: probabilities are exact to 2^-17, and a table of 65,536 bytes stays in the cache."""

_WEIGHTS_PER_STEP = 16
"""One step of Philox's counter gives four 64-bit integers."""


def _poisson_table() -> npt.NDArray[np.uint8]:
    probabilities = [math.exp(-1) / math.factorial(count) for count in range(12)]
    ends = np.rint(np.cumsum(probabilities) * 2**_BITS)
    return np.searchsorted(ends, np.arange(2**_BITS), side="right").astype(np.uint8)


_POISSON_OF_BITS = _poisson_table()


def poisson_weights(indexes_i: npt.ArrayLike, *, samples: int, seed: int) -> npt.NDArray[np.uint8]:
    """Weights ``(I, S)`` uint8 of images in bootstrap samples: independent draws of Poisson(1), at most 8.

    ``indexes_i`` (I,) are the positions of the images in the data set. The weights of an image depend on its index,
    ``samples`` (S) and ``seed``, ``0 <= seed < 2**64``, alone: not on the batch, the order or the process. ValueError
    for an argument outside its range.

    The generator is Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by the seed,
    its counter set by the index: a run of neighbouring images is one draw.
    """
    index_i = np.asarray(indexes_i, dtype=np.int64)
    if index_i.ndim != 1 or (index_i < 0).any() or samples < 0 or not 0 <= seed < 2**64:
        raise ValueError("expected indexes (I,) >= 0, samples >= 0 and 0 <= seed < 2**64")
    weights_is = np.empty((len(index_i), samples), dtype=np.uint8)
    if weights_is.size == 0:
        return weights_is
    steps = -(-samples // _WEIGHTS_PER_STEP)
    run_starts = np.concatenate([[0], np.flatnonzero(np.diff(index_i) != 1) + 1, [len(index_i)]])
    for start, end in zip(run_starts[:-1].tolist(), run_starts[1:].tolist(), strict=True):
        generator = np.random.Philox(counter=int(index_i[start]) * steps, key=seed)
        bits_64 = generator.random_raw((end - start) * steps * 4)
        # Little-endian on every machine, so that results do not depend on it.
        bits = bits_64.astype("<u8").view("<u2").reshape(end - start, steps * _WEIGHTS_PER_STEP)
        weights_is[start:end] = _POISSON_OF_BITS[bits[:, :samples]]
    return weights_is


class WeightedSums:
    """Weighted number of hits of every bootstrap resample in every column."""

    def __init__(self, columns: int, *, samples: int) -> None:
        self.sums_sc = np.zeros((samples, columns), dtype=np.int32)
        """(S, C), enough for 2**31 / 8 images."""

    def add(self, weights_is: npt.NDArray[np.uint8], hits_ic: npt.NDArray[np.bool_]) -> None:
        """Add a batch: weights (I, S) as ``poisson_weights`` draws them, and which images hit, (I, C)."""
        if weights_is.shape[1] != self.sums_sc.shape[0] or hits_ic.shape != (len(weights_is), self.sums_sc.shape[1]):
            raise ValueError(f"expected (I, S) and (I, C), found {weights_is.shape} and {hits_ic.shape}")
        # float32 has the fast matrix product, and whole numbers below 2^24 (2 million images a batch) are exact in
        # it: 256 images x 1000 samples x 1275 columns take 11 ms on one core.
        products_sc = weights_is.T.astype(np.float32) @ hits_ic.astype(np.float32)
        self.sums_sc += products_sc.astype(np.int32)


def percentile_interval(values_s: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """The 2.5th and 97.5th percentile of the values of S resamples, NaN left out; None when none is left.

    A value is NaN where a resample of a tiny data set holds no image at all.
    """
    finite = values_s[~np.isnan(values_s)]
    if finite.size == 0:
        return None
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Score interval of a rate (Wilson, "Probable inference", JASA 1927), which has a width at 0 and 1 too.

    Examples
    --------
    >>> [round(end, 4) for end in wilson_interval(0, 10)]
    [0.0, 0.2775]
    """
    z2 = _NORMAL_QUANTILE**2
    rate = correct / images
    centre = (rate + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * (rate * (1 - rate) / images + z2 / (4 * images**2))) / (1 + z2 / images)
    # Exactly 0 or 1 where the rate is: the rest is rounding.
    return (centre - half if correct else 0.0), (centre + half if correct < images else 1.0)


def rate_of(correct: int, images: int, samples_s: npt.NDArray[np.float64]) -> Rate:
    """A share of images with the interval that its resamples ``(S,)`` give."""
    interval, kind = interval_of(correct / images, images, samples_s)
    return Rate(rate=correct / images, correct=correct, images=images, interval=interval, interval_kind=kind)


def interval_of(
    rate: float, images: int, samples_s: npt.NDArray[np.float64]
) -> tuple[tuple[float, float] | None, str | None]:
    """The interval of a rate from its resamples ``(S,)``, and how it was made; None and None without resamples."""
    interval = percentile_interval(samples_s)
    if interval is not None and rate in (0, 1):
        # A resample of images that are all right, or all wrong, tells nothing of others.
        return wilson_interval(round(rate * images), images), WILSON_KIND
    return interval, INTERVAL_KIND if interval is not None else None


def ratios_of(hits_s: npt.NDArray[np.int32], images_s: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Rates ``(S,)`` of the resamples from their hits and images, NaN where one holds no image."""
    ratios_s = np.full(len(hits_s), np.nan)
    np.divide(hits_s, images_s, out=ratios_s, where=images_s > 0)
    return ratios_s
