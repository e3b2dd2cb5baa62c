import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.commute_times import commute_distances, slow_modes, smooth_waves

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


def grid(height: int, width: int) -> tuple[Ints, Doubles]:
    """Edges of a 4-neighbour grid, and its nodes' positions (y, x)."""
    number = np.arange(height * width, dtype=np.int32).reshape(height, width)
    pairs = [number[:, :-1], number[:, 1:]], [number[:-1], number[1:]]
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
    return edges, np.argwhere(number >= 0).astype(np.float64)


def walled(height: int, width: int, *, gap: int) -> tuple[Ints, Doubles, Doubles]:
    """A grid whose columns 4 and 5 are nearly separate except in row ``gap``; affinities and which edges cross."""
    edges, positions = grid(height, width)
    columns = positions[edges, 1]
    crossing = (columns[:, 0] == 4) & (columns[:, 1] == 5)
    affinities = np.where(crossing & (positions[edges[:, 0], 0] != gap), 1e-3, 1.0)
    return edges, positions, affinities


def laplacian(edges: Ints, affinities: Doubles, count: int) -> tuple[Doubles, Doubles]:
    """``D - A`` as a dense matrix, and the degrees."""
    dense = np.zeros((count, count))
    for (one, other), affinity in zip(edges, affinities, strict=True):
        dense[one, one] += affinity
        dense[other, other] += affinity
        dense[one, other] -= affinity
        dense[other, one] -= affinity
    return dense, np.diag(dense).copy()


def ritz_distances(edges: Ints, affinities: Doubles, span: Doubles) -> Doubles:
    """Root of the commute time from the eigenvectors within the columns of ``span[S, M]``, by dense decompositions."""
    dense, degrees = laplacian(edges, affinities, len(span))
    basis, _ = np.linalg.qr(np.sqrt(degrees)[:, None] * span)
    basis /= np.sqrt(degrees)[:, None]
    values, turns = np.linalg.eigh(basis.T @ dense @ basis)
    vectors = basis @ turns
    np.testing.assert_allclose(vectors.T @ (degrees[:, None] * vectors), np.eye(span.shape[1]), atol=1e-9)
    differences = vectors[edges[:, 0]] - vectors[edges[:, 1]]
    roots: Doubles = np.sqrt(degrees.sum() * (differences**2 / values).sum(axis=1))
    return roots


def slowest_eigenvectors(edges: Ints, affinities: Doubles, count: int, *, modes: int) -> Doubles:
    """Eigenvectors of ``(D - A) v = t D v`` with the smallest t, without the constant."""
    dense, degrees = laplacian(edges, affinities, count)
    root = np.sqrt(degrees)
    _, vectors = np.linalg.eigh(dense / root[:, None] / root)
    slowest: Doubles = vectors[:, 1 : modes + 1] / root[:, None]
    return slowest


@pytest.mark.parametrize(("height", "width"), [(7, 12), (12, 7), (1, 30), (30, 1), (3, 3)])
def test_no_eigenproblem_is_needed(height: int, width: int) -> None:
    edges, positions = grid(height, width)
    affinities = np.random.default_rng(height).uniform(0.05, 1, len(edges))
    found = commute_distances(edges, affinities, positions, height=height, width=width)
    span = slow_modes(edges, affinities, positions, height=height, width=width)
    np.testing.assert_allclose(found, ritz_distances(edges, affinities, span), rtol=1e-3)


def test_two_iterations_come_close_to_the_eigenvectors() -> None:
    edges, positions, affinities = walled(12, 10, gap=3)
    found = commute_distances(edges, affinities, positions, height=12, width=10)
    eigenvectors = slowest_eigenvectors(edges, affinities, 120, modes=8)
    assert np.corrcoef(found, ritz_distances(edges, affinities, eigenvectors))[0, 1] > 0.95


@given(st.integers(1, 6), st.integers(2, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_with_as_many_modes_as_regions_it_is_the_whole_commute_time(height: int, width: int, seed: int) -> None:
    if height * width > 9:
        height, width = 1, 9
    edges, positions = grid(height, width)
    affinities = np.random.default_rng(seed).uniform(0.1, 1, len(edges))
    found = commute_distances(edges, affinities, positions, height=height, width=width)
    dense, degrees = laplacian(edges, affinities, height * width)
    inverse = np.linalg.pinv(dense)
    a, b = edges.T
    resistances = inverse[a, a] + inverse[b, b] - 2 * inverse[a, b]
    np.testing.assert_allclose(found, np.sqrt(degrees.sum() * resistances), rtol=1e-3)


def test_a_gap_in_a_wall_is_far_to_cross_too() -> None:
    edges, positions, affinities = walled(20, 10, gap=9)
    distances = commute_distances(edges, affinities, positions, height=20, width=10)
    gap = (positions[edges[:, 0]] == (9, 4)).all(axis=1) & (positions[edges[:, 1]] == (9, 5)).all(axis=1)
    wall = affinities < 1
    # All whole edges have the same affinity: only the walk tells the gap from the others.
    assert distances[gap] > 2 * np.median(distances[~wall])
    assert distances[wall].min() > distances[~wall].max()


def test_factor_of_all_affinities_does_not_matter() -> None:
    edges, positions, affinities = walled(9, 11, gap=2)
    one = commute_distances(edges, affinities, positions, height=9, width=11)
    np.testing.assert_allclose(commute_distances(edges, affinities * 7, positions, height=9, width=11), one, rtol=1e-9)


def test_solves_the_linear_system() -> None:
    edges, positions = grid(6, 9)
    affinities = np.random.default_rng(1).uniform(1e-6, 1, len(edges))
    dense, degrees = laplacian(edges, affinities, 54)
    modes = smooth_waves(positions, height=6, width=9)
    modes -= degrees @ modes / degrees.sum()
    for _ in range(2):
        modes = np.linalg.solve(dense + 1e-3 * np.diag(degrees), degrees[:, None] * modes)
    found = slow_modes(edges, affinities, positions, height=6, width=9)
    np.testing.assert_allclose(found, modes, rtol=1e-7, atol=1e-9 * abs(modes).max())


def test_waves_by_hand() -> None:
    waves = smooth_waves(np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), height=1, width=3)
    np.testing.assert_allclose(waves, [[np.sqrt(3) / 2, 0.5], [0, -1], [-np.sqrt(3) / 2, 0.5]], atol=1e-15)


def test_dependent_modes_do_no_harm() -> None:
    # All at one place: every wave is constant, nothing is left of it, and no distance can be told.
    edges = np.array([[0, 1], [1, 2]], dtype=np.int32)
    distances = commute_distances(edges, np.ones(2), np.zeros((3, 2)), height=4, width=4)
    assert np.isfinite(distances).all()


def test_same_input_same_bytes() -> None:
    edges, positions, affinities = walled(15, 12, gap=7)
    runs = {commute_distances(edges, affinities, positions, height=15, width=12).tobytes() for _ in range(3)}
    assert len(runs) == 1
