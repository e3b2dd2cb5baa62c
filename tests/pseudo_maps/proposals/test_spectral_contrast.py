import numpy as np
import numpy.typing as npt
import pytest

from pseudo_maps.proposals import ProposalConfig, propose
from pseudo_maps.proposals.boundaries import BoundaryStrength
from pseudo_maps.proposals.detectors import detect_boundaries
from pseudo_maps.proposals.region_graph import RegionGraph, build_region_graph
from pseudo_maps.proposals.spectral_contrast import combine_cues, mean_positions, spectral_contrast_weights
from pseudo_maps.proposals.superpixels import geodesic_superpixels

Bytes = npt.NDArray[np.uint8]


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


def test_mean_positions_by_hand() -> None:
    labels = np.array([[0, 0, 1], [0, 1, 1]], dtype=np.int32)
    np.testing.assert_allclose(mean_positions(labels, region_count=2), [[1 / 3, 1 / 3], [2 / 3, 5 / 3]])


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
    boundaries, graph = segmented(image)
    contrast = np.random.default_rng(2).uniform(0.1, 0.9, len(graph.edges)).astype(np.float32)
    assert boundaries.appearance_bins is not None
    weights = spectral_contrast_weights(graph, contrast, boundaries.appearance_bins)
    number = np.random.default_rng(3).permutation(graph.region_count).astype(np.int32)
    other = build_region_graph(number[graph.labels], region_count=graph.region_count)
    place = {tuple(edge): i for i, edge in enumerate(other.edges.tolist())}
    order = np.array([place[min(a, b), max(a, b)] for a, b in number[graph.edges].tolist()])
    renumbered = np.empty_like(contrast)
    renumbered[order] = contrast
    found = spectral_contrast_weights(other, renumbered, boundaries.appearance_bins)
    np.testing.assert_allclose(found[order], weights, atol=1e-5)


def test_same_image_same_proposals() -> None:
    image, _ = textured_disc()
    config = ProposalConfig(boundaries="spectral-contrast", superpixels=200, seeds=30)
    runs = [propose(image, config=config) for _ in range(2)]
    assert len(runs[0].masks) > 10
    assert runs[0].masks.tobytes() == runs[1].masks.tobytes() and runs[0].scores.tobytes() == runs[1].scores.tobytes()
