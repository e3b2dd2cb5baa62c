import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pseudo_maps.proposals.filters import tent_filter


def mirrored(index: int, size: int) -> int:
    """Walks off one end and comes back with the end repeated: ... 1 0 | 0 1 2 | 2 1 ..., as often as needed."""
    while not 0 <= index < size:
        index = -index - 1 if index < 0 else 2 * size - 1 - index
    return index


def convolved(values: npt.NDArray[np.float32], radius: int) -> npt.NDArray[np.float64]:
    """Sum over all offsets of the two-dimensional kernel, one output pixel after the other."""
    height, width = values.shape[:2]
    offsets = range(-radius, radius + 1)
    result = np.zeros(values.shape, dtype=np.float64)
    for y in range(height):
        for x in range(width):
            for dy in offsets:
                for dx in offsets:
                    weight = (radius + 1 - abs(dy)) * (radius + 1 - abs(dx)) / (radius + 1) ** 4
                    result[y, x] += weight * values[mirrored(y + dy, height), mirrored(x + dx, width)]
    return result


@pytest.mark.parametrize("radius", [0, 1, 2, 4, 8, 16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (2, 9, 3), (1, 1, 3), (5, 6, 3)])
def test_equals_direct_convolution(shape: tuple[int, ...], radius: int) -> None:
    # Most of these images are smaller than the radius: they are mirrored several times over.
    values = np.random.default_rng(radius).random(shape, dtype=np.float32)
    smoothed = tent_filter(values, radius=radius)
    assert smoothed.shape == shape and smoothed.dtype == np.float32
    np.testing.assert_allclose(smoothed, convolved(values, radius), atol=2e-6)


def test_equals_direct_convolution_on_an_image_larger_than_the_radius() -> None:
    values = np.random.default_rng(0).random((17, 23, 3), dtype=np.float32)
    np.testing.assert_allclose(tent_filter(values, radius=3), convolved(values, 3), atol=2e-6)


def test_impulse_shows_the_kernel() -> None:
    impulse = np.zeros((9, 9), dtype=np.float32)
    impulse[4, 4] = 81
    tent = np.array([0, 0, 1, 2, 3, 2, 1, 0, 0])
    np.testing.assert_allclose(tent_filter(impulse, radius=2), np.outer(tent, tent), atol=1e-5)


def test_edge_pixel_is_repeated_outside() -> None:
    values = np.array([[4, 0, 0, 0]], dtype=np.float32)
    assert tent_filter(values, radius=1).tolist() == [[3, 1, 0, 0]]


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(0, 1, width=32)),
    st.integers(1, 16),
)
@settings(max_examples=60, deadline=None)
def test_result_lies_between_the_extremes(values: npt.NDArray[np.float32], radius: int) -> None:
    smoothed = tent_filter(values, radius=radius)
    assert smoothed.min() >= 0  # exactly: the detector takes square roots
    assert smoothed.min() >= values.min() - 1e-5 and smoothed.max() <= values.max() + 1e-5


def test_no_residue_on_flat_ground_beside_strong_values() -> None:
    values = np.zeros((40, 40), dtype=np.float32)
    values[:, :3] = 1000
    smoothed = tent_filter(values, radius=5)
    assert (smoothed[:, 8:] == 0).all() and (smoothed[:, :8] > 0).all()


def test_channels_do_not_mix_and_the_input_stays() -> None:
    values = np.zeros((8, 9, 3), dtype=np.float32)
    values[..., 1] = np.random.default_rng(1).random((8, 9))
    before = values.copy()
    smoothed = tent_filter(values, radius=4)
    assert (smoothed[..., [0, 2]] == 0).all()
    np.testing.assert_allclose(smoothed[..., 1], tent_filter(np.ascontiguousarray(values[..., 1]), radius=4), atol=1e-6)
    assert np.array_equal(values, before)
