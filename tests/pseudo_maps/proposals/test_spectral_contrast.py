import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals import ProposalConfig, propose
from pseudo_maps.proposals.boundaries import BoundaryStrength
from pseudo_maps.proposals.detectors import detect_boundaries
from pseudo_maps.proposals.filters import rgb_to_luv
from pseudo_maps.proposals.region_graph import RegionGraph, build_region_graph
from pseudo_maps.proposals.spectral_contrast import (
    appearance_bins,
    appearance_differences,
    combine_cues,
    commute_distances,
    region_histograms,
    slow_modes,
    smooth_waves,
    spectral_contrast_weights,
)
from pseudo_maps.proposals.superpixels import geodesic_superpixels

# --- appearance


Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def luv_image(lightness: npt.ArrayLike) -> Floats:
    """A grey image (u and v those of grey) of the given lightness 0..100."""
    level = np.asarray(lightness, dtype=np.float32) / 270
    return np.stack([level, np.full_like(level, 88 / 270), np.full_like(level, 134 / 270)])


def slow_texture_bins(lightness: Floats) -> npt.NDArray[np.int64]:
    """The texture bin pixel by pixel in float64, with the direction from the arc tangent."""
    padded = np.pad(lightness.astype(np.float64), 1, mode="edge")
    kernel_x = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    bins = np.zeros(lightness.shape, dtype=np.int64)
    for y, x in np.ndindex(lightness.shape):
        window = padded[y : y + 3, x : x + 3]
        gradient_x, gradient_y = (window * kernel_x).sum(), (window * kernel_x.T).sum()
        strength = sum(math.hypot(gradient_x, gradient_y) > step for step in (0.003, 0.008, 0.02))
        direction = math.floor(math.atan2(gradient_y, gradient_x) / math.pi * 8 + 0.5) % 8
        bins[y, x] = 0 if strength == 0 else 1 + 8 * (strength - 1) + direction
    return bins


def test_texture_bins_equal_the_slow_ones() -> None:
    rng = np.random.default_rng(3)
    luv = rgb_to_luv(rng.integers(0, 256, (40, 51, 3), dtype=np.uint8))
    # Contrasts of all strengths, from left to right.
    luv[0] *= np.linspace(0.02, 1, 51, dtype=np.float32)
    bins = appearance_bins(luv)
    assert bins.shape == (40, 51, 4) and bins.dtype == np.uint8
    assert set(bins[..., 3].ravel()) == set(range(25))
    np.testing.assert_array_equal(bins[..., 3], slow_texture_bins(luv[0]))


@pytest.mark.parametrize(
    ("turn_deg", "direction"), [(0, 0), (22.5, 1), (45, 2), (67.5, 3), (90, 4), (112.5, 5), (135, 6), (157.5, 7)]
)
def test_direction_of_a_slope(turn_deg: float, direction: int) -> None:
    y, x = np.mgrid[0:9, 0:9]
    turn = math.radians(turn_deg)
    # 0.01 a pixel on the scale of 0..0.37: the second of three strengths.
    slope = 40 + 2.7 * (math.cos(turn) * x + math.sin(turn) * y)
    assert (appearance_bins(luv_image(slope))[2:-2, 2:-2, 3] == 1 + 8 + direction).all()
    assert (appearance_bins(luv_image(90 - slope))[2:-2, 2:-2, 3] == 1 + 8 + direction).all()


def test_colour_bins_by_hand() -> None:
    # u is shifted by 88 and v by 134; grey is the middle of bin 8, 7.5 wide.
    luv = np.array([[[0, 24.5, 70.5], [6.2, 31.5, 77.5], [6.3, 32, 78], [100, 144, 190], [120, -50, 300]]]) / 270
    bins = appearance_bins(np.ascontiguousarray(np.moveaxis(luv, -1, 0), dtype=np.float32))
    assert bins[0, :, :3].tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1], [15, 15, 15], [15, 0, 15]]


def test_grey_pixels_share_their_colour_bins() -> None:
    grey = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert (appearance_bins(rgb_to_luv(grey))[..., 1:3] == 8).all()


def test_histograms_by_hand() -> None:
    bins = np.zeros((1, 4, 4), dtype=np.uint8)
    bins[0, :, 0] = (0, 5, 5, 15)
    bins[0, :, 3] = (0, 24, 3, 3)
    histograms = region_histograms(bins, np.array([[0, 1, 1, 1]], dtype=np.int32), region_count=2)
    assert histograms.shape == (2, 73) and histograms.dtype == np.float32
    # The end is repeated: what leaves the range comes back.
    assert histograms[0, :3].tolist() == [0.75, 0.25, 0]
    np.testing.assert_allclose(histograms[1, 3:8], np.array([0, 1, 2, 1, 0]) / 6)
    np.testing.assert_allclose(histograms[1, 13:16], np.array([0, 1, 3]) / 12)
    assert histograms[0, 48] == 1
    np.testing.assert_allclose(histograms[1, 48:][[3, 24]], [2 / 3, 1 / 3])
    for first, last in ((0, 16), (16, 32), (32, 48), (48, 73)):
        np.testing.assert_allclose(histograms[:, first:last].sum(axis=1), 1, rtol=1e-6)


def test_differences_equal_the_formula() -> None:
    rng = np.random.default_rng(5)
    bins = np.stack([rng.integers(0, high, (20, 30)) for high in (16, 3, 16, 25)], axis=2).astype(np.uint8)
    labels = (np.arange(600) // 60).reshape(20, 30).astype(np.int32)
    histograms = region_histograms(bins, labels, region_count=10)
    edges = np.array([(i, j) for i in range(10) for j in range(i)], dtype=np.int32)
    found = appearance_differences(histograms, edges)
    assert found.dtype == np.float32
    p, q = histograms[edges[:, 0]].astype(np.float64), histograms[edges[:, 1]].astype(np.float64)
    filled = p + q > 0
    expected = np.divide((p - q) ** 2, p + q, where=filled, out=np.zeros_like(p)).sum(axis=1) / 8
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_differences_reach_zero_and_one() -> None:
    histograms = np.zeros((3, 73), dtype=np.float32)
    histograms[:2, [0, 16, 32, 48]] = 1
    histograms[2, [5, 20, 40, 60]] = 1
    edges = np.array([[0, 1], [1, 2]], dtype=np.int32)
    assert appearance_differences(histograms, edges).tolist() == [0, 1]
    assert appearance_differences(histograms, edges[:0]).shape == (0,)


# --- random walk


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


# --- the detector


def textured_disc() -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """A noisy disc on ground of the same mean colour and other noise, and where it is."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:120, 0:160]
    inside = (y - 60) ** 2 + (x - 75) ** 2 < 40**2
    coarse = rng.integers(-50, 51, (30, 40)).repeat(4, axis=0).repeat(4, axis=1)
    level = 120 + np.where(inside, coarse, rng.integers(-15, 16, (120, 160)))
    return np.stack([level, level, level + np.where(inside, 12, 0)], axis=2).astype(np.uint8), inside


def segmented(image: Bytes, *, count: int = 200) -> tuple[BoundaryStrength, RegionGraph]:
    boundaries = detect_boundaries(image, detector="spectral-contrast")
    step_x, step_y = boundaries.superpixel_steps(superpixel_count=count)
    labels, region_count = geodesic_superpixels(step_x, step_y, count=count)
    return boundaries, build_region_graph(labels, region_count=region_count)


def test_superpixels_are_those_of_directed_sobel() -> None:
    image, _ = textured_disc()
    spectral = detect_boundaries(image, detector="spectral-contrast")
    sobel = detect_boundaries(image, detector="directed-sobel")
    np.testing.assert_array_equal(spectral.step_x, sobel.step_x)
    np.testing.assert_array_equal(spectral.step_y, sobel.step_y)


def test_the_rim_of_a_textured_disc_stands_out_more_than_before() -> None:
    image, inside = textured_disc()
    spectral, graph = segmented(image)
    sobel = detect_boundaries(image, detector="directed-sobel")
    share = np.bincount(graph.labels[inside], minlength=graph.region_count) / np.bincount(graph.labels.ravel())
    rim = (share[graph.edges] > 0.5).sum(axis=1) == 1
    auc = {}
    for name, weights in (("sobel", sobel.edge_weights(graph)), ("spectral", spectral.edge_weights(graph))):
        assert weights.shape == (len(graph.edges),) and weights.dtype == np.float32
        assert weights.min() >= 0 and weights.max() <= 1
        auc[name] = (weights[rim][:, None] > weights[~rim]).mean()
    assert auc["spectral"] > 0.97 > auc["sobel"], auc


def test_combined_weights_by_hand() -> None:
    found = combine_cues(np.array([0, 0.25, 1, 1, 0.5]), np.array([5, 4, 0, 1e9, 18]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0, 0.5, 0, 1, 0.75], atol=1e-4)
    rising = combine_cues(np.linspace(0, 1, 50), np.linspace(0, 30, 50))
    assert (np.diff(rising) > 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (1, 90), (90, 1), (3, 5), (40, 50)])
@pytest.mark.parametrize("kind", ["flat", "noise", "halves"])
def test_any_image_gives_finite_weights(shape: tuple[int, int], kind: str) -> None:
    image = np.full((*shape, 3), 200, dtype=np.uint8)
    if kind == "noise":
        image = np.random.default_rng(1).integers(0, 256, image.shape, dtype=np.uint8)
    elif kind == "halves":
        image[:, shape[1] // 2 :] = (0, 0, 90)
    boundaries, graph = segmented(image, count=min(60, shape[0] * shape[1]))
    weights = boundaries.edge_weights(graph)
    assert np.isfinite(weights).all() and weights.min(initial=0) >= 0 and weights.max(initial=0) <= 1
    if kind == "flat":
        assert (weights == 0).all()
    if kind == "halves" and shape == (40, 50):
        first_column = np.array([np.flatnonzero((graph.labels == s).any(axis=0))[0] for s in range(graph.region_count)])
        across = (first_column[graph.edges] >= 25).sum(axis=1) == 1
        assert weights[across].min() > weights[~across].max()


def test_weights_need_no_order_of_the_regions() -> None:
    # The same regions under other numbers have the same weights.
    image, _ = textured_disc()
    _, graph = segmented(image)
    bins_hwc = appearance_bins(rgb_to_luv(image))
    contrast = np.random.default_rng(2).uniform(0.1, 0.9, len(graph.edges)).astype(np.float32)
    weights = spectral_contrast_weights(graph, contrast, bins_hwc)
    number = np.random.default_rng(3).permutation(graph.region_count).astype(np.int32)
    other = build_region_graph(number[graph.labels], region_count=graph.region_count)
    place = {tuple(edge): i for i, edge in enumerate(other.edges.tolist())}
    order = np.array([place[min(a, b), max(a, b)] for a, b in number[graph.edges].tolist()])
    renumbered = np.empty_like(contrast)
    renumbered[order] = contrast
    found = spectral_contrast_weights(other, renumbered, bins_hwc)
    np.testing.assert_allclose(found[order], weights, atol=1e-5)


def test_same_image_same_proposals() -> None:
    image, _ = textured_disc()
    config = ProposalConfig(boundaries="spectral-contrast", superpixels=200, seeds=30)
    runs = [propose(image, config=config) for _ in range(2)]
    assert len(runs[0].masks) > 10
    assert runs[0].masks.tobytes() == runs[1].masks.tobytes() and runs[0].scores.tobytes() == runs[1].scores.tobytes()
