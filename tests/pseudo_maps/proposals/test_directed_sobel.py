import numpy as np
import numpy.typing as npt
import pytest

from pseudo_maps.proposals.directed_sobel import directed_sobel
from pseudo_maps.proposals.filters import rgb_to_luv

Doubles = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


def smoothing_matrix(size: int, radius: int) -> Doubles:
    """``matrix[i, j]``: how much pixel j counts in smoothed pixel i, mirrored at both ends."""
    matrix = np.zeros((size, size))
    for i in range(size):
        for k in range(-radius, radius + 1):
            j = i + k
            while not 0 <= j < size:
                j = -j - 1 if j < 0 else 2 * size - 1 - j
            matrix[i, j] += (radius + 1 - abs(k)) / (radius + 1) ** 2
    return matrix


def smoothed(values: Doubles, radius: int) -> Doubles:
    down, across = smoothing_matrix(values.shape[0], radius), smoothing_matrix(values.shape[1], radius)
    return np.stack([down @ channel @ across.T for channel in np.moveaxis(values, -1, 0)], axis=-1)


def slow_sobel(rgb_hwc: Bytes, scales: list[tuple[int, float]]) -> tuple[Doubles, Doubles]:
    """Section "directed Sobel" in float64, pixel by pixel."""
    luv = np.moveaxis(rgb_to_luv(rgb_hwc).astype(np.float64), 0, -1)
    height, width, _ = luv.shape
    dx, dy = np.zeros((height, width - 1)), np.zeros((height - 1, width))
    for radius, weight in scales:
        blurred = smoothed(luv, radius)
        for y in range(height):
            for x in range(width):
                if x + 1 < width:
                    dx[y, x] += weight * np.linalg.norm(blurred[y, x + 1] - blurred[y, x])
                if y + 1 < height:
                    dy[y, x] += weight * np.linalg.norm(blurred[y + 1, x] - blurred[y, x])
    strongest = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            touching = [dx[y, i] for i in (x - 1, x) if 0 <= i < width - 1]
            touching += [dy[i, x] for i in (y - 1, y) if 0 <= i < height - 1]
            strongest[y, x] = max(touching, default=0)
    contrast = np.sqrt(smoothed((strongest**2)[..., None], 5)[..., 0]) + 0.01
    for y in range(height):
        for x in range(width):
            if x + 1 < width:
                dx[y, x] /= max(contrast[y, x], contrast[y, x + 1])
            if y + 1 < height:
                dy[y, x] /= max(contrast[y, x], contrast[y + 1, x])
    common = max(dx.max(initial=0), dy.max(initial=0))
    return (dx / common, dy / common) if common > 0 else (dx, dy)


def random_image(height: int, width: int, *, block: int = 1) -> Bytes:
    rng = np.random.default_rng(height * 1000 + width)
    coarse = rng.integers(0, 256, (-(-height // block), -(-width // block), 3), dtype=np.uint8)
    return coarse.repeat(block, axis=0).repeat(block, axis=1)[:height, :width].copy()


@pytest.mark.parametrize(
    "image",
    [
        random_image(26, 37, block=6),
        random_image(21, 18),
        random_image(1, 25, block=4),
        random_image(25, 1, block=4),
        random_image(2, 2),
        random_image(3, 60, block=5),
    ],
    ids=lambda image: f"{image.shape[0]}x{image.shape[1]}",
)
def test_equals_the_specification(image: Bytes) -> None:
    boundaries = directed_sobel(image)
    assert len(boundaries.weight_maps) == 1
    coarse_x, coarse_y = boundaries.weight_maps[0]
    expected = (
        *slow_sobel(image, [(4, 0.25)]),
        *slow_sobel(image, [(4, 0.25), (8, 0.5), (16, 1)]),
    )
    for found, wanted in zip((boundaries.step_x, boundaries.step_y, coarse_x, coarse_y), expected, strict=True):
        assert found.dtype == np.float32 and found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (40, 50)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_uniform_images_have_no_boundary(shape: tuple[int, int], level: int) -> None:
    boundaries = directed_sobel(np.full((*shape, 3), level, dtype=np.uint8))
    # Smoothing may round 3e-8 differently in vectorised and left-over columns; scaled to a maximum of 1 that would
    # be a boundary as strong as any.
    flat = [boundaries.step_x, boundaries.step_y, *boundaries.weight_maps[0]]
    assert [part.shape for part in flat[:2]] == [(shape[0], shape[1] - 1), (shape[0] - 1, shape[1])]
    assert all((part == 0).all() for part in flat)


def test_white_ground_beside_an_object_has_no_invalid_values() -> None:
    # Large flat areas gave square roots of negative numbers in the authors' program.
    image = np.full((120, 160, 3), 255, dtype=np.uint8)
    image[40:80, 100:150] = (10, 40, 200)
    boundaries = directed_sobel(image)
    for part in (boundaries.step_x, boundaries.step_y, *boundaries.weight_maps[0]):
        assert np.isfinite(part).all() and part.min() >= 0 and part.max() <= 1
    assert boundaries.step_x[60, :80].max() < 0.01 < 0.5 < boundaries.step_x[60, 95:105].max()
