"""Turns affinities between touching superpixels into how far apart they are for a random walk over the whole image.

A weak spot in a long contour separates as little as one random edge inside a texture does, seen locally. The walk
knows better: where a contour closes, both its sides are hard to reach from each other by any way. Only the slow
modes of the walk say so; the fast ones repeat the local affinities and are left out.

Legend: S superpixels; E edges (pairs of touching superpixels); M modes.

References
----------
Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000 (the eigenproblem ``(D - A) v = t D v``).
Qiu and Hancock, "Clustering and embedding using commute times", PAMI 2007 (the distance).
Arbelaez, Maire, Fowlkes and Malik, "Contour detection and hierarchical image segmentation", PAMI 2011 (boundaries
from a few eigenvectors, weighted by the inverse root of their eigenvalues).
"""

import numpy as np
import numpy.typing as npt

from pseudo_maps.kernels import Doubles, Ints, kernel

__all__ = ["commute_distances", "slow_modes"]

MODES = 8
"""Slowest modes of the walk that count. On COCO images 4, 8 and 16 give an average best overlap of .725, .727 and .717
(b1100): more modes follow single textures."""
ITERATIONS = 2
"""Inverse iterations from smooth waves over the frame. Only the span of the modes counts, not each one: on COCO images
one iteration ranks edges .002 worse (area under the curve) than two, three no better than two."""
RESTART = 1e-3
"""Share by which the diagonal exceeds the Laplacian's, which alone is singular; small beside the modes' decay."""
DEPENDENT = 1e-9
"""Share of a mode's energy below which it counts as made up of the others (tiny images have too few)."""


@kernel
def _factorise(edges: Ints, affinities: Doubles, place: Ints, band: Doubles, degrees: Doubles) -> None:
    """Make ``band[S, W]`` the upper factor of ``(1 + RESTART) D - A``: row k holds columns k to k + W - 1.

    Gaussian elimination without pivots, which a diagonally dominant matrix does not need.
    """
    count, width = band.shape
    for edge in range(edges.shape[0]):
        one, other = place[edges[edge, 0]], place[edges[edge, 1]]
        band[min(one, other), abs(one - other)] = -affinities[edge]
        degrees[one] += affinities[edge]
        degrees[other] += affinities[edge]
    for k in range(count):
        band[k, 0] = degrees[k] * (1.0 + RESTART)
    for k in range(count):
        inverse = 1.0 / band[k, 0]
        last = min(width, count - k)
        for i in range(1, last):
            if band[k, i] != 0.0:
                factor = band[k, i] * inverse
                for j in range(last - i):
                    band[k + i, j] -= factor * band[k, i + j]


@kernel
def _solve(band: Doubles, values: Doubles) -> None:
    """Replace ``values[S, M]`` by the solution of the system that ``_factorise`` prepared."""
    count, width = band.shape
    modes = values.shape[1]
    for k in range(count):
        inverse = 1.0 / band[k, 0]
        for i in range(1, min(width, count - k)):
            if band[k, i] != 0.0:
                factor = band[k, i] * inverse
                for m in range(modes):
                    values[k + i, m] -= factor * values[k, m]
    for k in range(count - 1, -1, -1):
        for i in range(1, min(width, count - k)):
            factor = band[k, i]
            if factor != 0.0:
                for m in range(modes):
                    values[k, m] -= factor * values[k + i, m]
        inverse = 1.0 / band[k, 0]
        for m in range(modes):
            values[k, m] *= inverse


@kernel
def _energies(edges: Ints, affinities: Doubles, values: Doubles) -> Doubles:
    """``values.T @ (D - A) @ values``, (M, M): the weighted products of differences across the edges."""
    modes = values.shape[1]
    energies = np.zeros((modes, modes), dtype=np.float64)
    for edge in range(edges.shape[0]):
        one, other = edges[edge, 0], edges[edge, 1]
        for m in range(modes):
            weighted = affinities[edge] * (values[one, m] - values[other, m])
            for n in range(modes):
                energies[m, n] += weighted * (values[one, n] - values[other, n])
    return energies


@kernel
def _quadratic_forms(edges: Ints, values: Doubles, inverse: Doubles) -> Doubles:
    """``d.T @ inverse @ d`` for the difference d of ``values[S, M]`` across every edge, (E,)."""
    modes = values.shape[1]
    forms = np.zeros(edges.shape[0], dtype=np.float64)
    for edge in range(edges.shape[0]):
        one, other = edges[edge, 0], edges[edge, 1]
        total = 0.0
        for m in range(modes):
            part = 0.0
            for n in range(modes):
                part += inverse[m, n] * (values[one, n] - values[other, n])
            total += part * (values[one, m] - values[other, m])
        forms[edge] = max(total, 0.0)
    return forms


def smooth_waves(positions_yx: npt.NDArray[np.float64], *, height: int, width: int) -> npt.NDArray[np.float64]:
    """Products of cosines over the frame at ``positions_yx[S, 2]`` pixels: the at most 8 of longest wave length.

    (S, M) float64 with M = min(8, S - 1): the slow modes of a walk over an image without boundaries.
    """
    wanted = min(MODES, len(positions_yx) - 1)
    orders = sorted(((x / width) ** 2 + (y / height) ** 2, x, y) for x in range(wanted + 1) for y in range(wanted + 1))
    y, x = ((positions_yx + 0.5) / (height, width) * np.pi).T
    # The first of the orders, 0 and 0, is the constant.
    waves: npt.NDArray[np.float64] = np.stack(
        [np.cos(across * x) * np.cos(down * y) for _, across, down in orders[1 : wanted + 1]], axis=1
    )
    return waves


def slow_modes(
    edges: npt.NDArray[np.int32],
    affinities: npt.NDArray[np.float64],
    positions_yx: npt.NDArray[np.float64],
    *,
    height: int,
    width: int,
) -> npt.NDArray[np.float64]:
    """Functions (S, M) float64 on the superpixels whose span is about that of the walk's M slowest modes.

    Parameters
    ----------
    edges
        (E, 2) int32 of a connected graph of at least two superpixels.
    affinities
        (E,) float64 > 0: the walk's chances.
    positions_yx
        (S, 2) float64: centres of the superpixels in pixels of the H x W frame.
    """
    region_count = len(positions_yx)
    # Numbered along the longer side neighbours lie close together: a narrow band is little work.
    order = np.argsort(positions_yx[:, 1 if width >= height else 0], kind="stable")
    place = np.empty(region_count, dtype=np.int32)
    place[order] = np.arange(region_count, dtype=np.int32)
    reach = int(np.abs(place[edges[:, 0]] - place[edges[:, 1]]).max())
    band = np.zeros((region_count, reach + 1), dtype=np.float64)
    degrees = np.zeros(region_count, dtype=np.float64)
    _factorise(edges, affinities, place, band, degrees)
    modes = smooth_waves(positions_yx[order], height=height, width=width)
    # The constant is slower than all others and separates nothing; without it here it does not come back.
    modes -= (degrees[:, None] * modes).sum(axis=0) / degrees.sum()
    for _ in range(ITERATIONS):
        modes *= degrees[:, None]
        _solve(band, modes)
    return modes[place]


def commute_distances(
    edges: npt.NDArray[np.int32],
    affinities: npt.NDArray[np.float64],
    positions_yx: npt.NDArray[np.float64],
    *,
    height: int,
    width: int,
) -> npt.NDArray[np.float64]:
    """Root of the commute time between the ends of every edge, (E,) float64 >= 0, in the walk's slow modes.

    For eigenvectors v with ``v.T D v = 1`` and eigenvalues t it is ``sqrt(vol * sum((v[i] - v[j])**2 / t))``, vol
    the sum of the degrees. Any other basis X of their span gives the same as
    ``sqrt(vol * d.T inv(X.T (D - A) X) d)`` with d the difference of X's rows, which spares the eigenproblem.
    Parameters as of ``slow_modes``. The result does not change when all affinities are multiplied.
    """
    modes = slow_modes(edges, affinities, positions_yx, height=height, width=width)
    energies = _energies(edges, affinities, modes)
    diagonal = np.diag(energies)
    scale = np.divide(1.0, np.sqrt(diagonal), where=diagonal > 0, out=np.zeros_like(diagonal))
    # The small diagonal keeps dependent modes from dividing by zero.
    scaled = energies * scale[:, None] * scale + DEPENDENT * np.eye(len(scale))
    inverse = np.linalg.inv(scaled) * scale[:, None] * scale
    volume = 2.0 * affinities.sum()
    distances: npt.NDArray[np.float64] = np.sqrt(volume * _quadratic_forms(edges, modes, inverse))
    return distances
