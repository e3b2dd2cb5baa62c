import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo_maps.proposals.selective_search import (
    SELECTIVE_SEARCH_MODES,
    SelectiveSearchConfig,
    average_boxes,
    selective_search_boxes,
)

Bytes = npt.NDArray[np.uint8]

needs_ximgproc = pytest.mark.skipif(not hasattr(cv2, "ximgproc"), reason="this OpenCV has no ximgproc")


def block_image() -> Bytes:
    image = np.full((60, 80, 3), (40, 80, 160), dtype=np.uint8)
    image[15:41, 20:66] = (220, 60, 30)
    noise = np.random.default_rng(2).integers(0, 12, image.shape, dtype=np.uint8)
    return image + noise


# --- boxes


@needs_ximgproc
@pytest.mark.parametrize("mode", SELECTIVE_SEARCH_MODES)
def test_boxes_are_distinct_inside_and_in_order(mode: str) -> None:
    boxes = selective_search_boxes(block_image(), mode=mode)
    assert boxes.dtype == np.int32 and len(boxes) >= 1
    x0, y0, x1, y1 = boxes.T
    assert (x0 >= 0).all() and (x0 <= x1).all() and (x1 < 80).all()
    assert (y0 >= 0).all() and (y0 <= y1).all() and (y1 < 60).all()
    rows = [tuple(box) for box in boxes.tolist()]
    assert rows == sorted(set(rows))


@needs_ximgproc
def test_the_object_is_among_the_boxes() -> None:
    boxes = selective_search_boxes(block_image())
    off = np.abs(boxes - [20, 15, 65, 40]).max(axis=1)
    assert off.min() <= 2


@needs_ximgproc
def test_colours_are_read_as_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    # OpenCV expects blue first: what it gets must be the mirrored channels.
    seen: list[Bytes] = []
    create = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation

    class Spy:
        def __init__(self) -> None:
            self.search = create()

        def setBaseImage(self, image: Bytes) -> None:
            seen.append(image.copy())
            self.search.setBaseImage(image)

        def __getattr__(self, name: str) -> object:
            return getattr(self.search, name)

    monkeypatch.setattr(cv2.ximgproc.segmentation, "createSelectiveSearchSegmentation", Spy)
    image = block_image()
    selective_search_boxes(image, mode="single")
    assert np.array_equal(seen[0], image[..., ::-1])


@needs_ximgproc
def test_the_set_of_boxes_is_the_same_every_time() -> None:
    found = [selective_search_boxes(block_image()).tobytes() for _ in range(3)]
    assert len(set(found)) == 1


@needs_ximgproc
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1)])
def test_lines_of_pixels_have_no_boxes(shape: tuple[int, int]) -> None:
    assert selective_search_boxes(np.zeros((*shape, 3), np.uint8)).shape == (0, 4)


@needs_ximgproc
@pytest.mark.parametrize("mode", SELECTIVE_SEARCH_MODES)
@pytest.mark.parametrize("shape", [(2, 2), (2, 9), (3, 3), (20, 20), (3, 200)])
def test_tiny_and_uniform_images_do_not_fail(shape: tuple[int, int], mode: str) -> None:
    for level in (0, 255):
        image = np.full((*shape, 3), level, np.uint8)
        boxes = selective_search_boxes(image, mode=mode)
        assert boxes.shape[1] == 4
        assert (boxes[:, 2:] < shape[::-1]).all()


def test_opencv_without_the_module_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(ValueError, match="install opencv-contrib-python-headless"):
        selective_search_boxes(block_image())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "slow"}, "mode: expected one of fast, quality, single, found 'slow'"),
        ({"working_size": 0}, "working_size: expected at least 1, found 0"),
    ],
)
def test_configuration_is_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelectiveSearchConfig(**options)  # type: ignore[arg-type]


# --- their average


@given(st.integers(1, 15), st.integers(1, 15), st.integers(1, 30), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_average_equals_drawn_boxes(height: int, width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.sort(rng.integers(0, width, (count, 2)), axis=1)
    y = np.sort(rng.integers(0, height, (count, 2)), axis=1)
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.int32)
    drawn = np.zeros((height, width))
    for x0, y0, x1, y1 in boxes.tolist():
        drawn[y0 : y1 + 1, x0 : x1 + 1] += 1
    average = average_boxes(boxes, height=height, width=width)
    assert average.dtype == np.float32 and average.shape == (height, width)
    assert np.array_equal(average, (drawn / count).astype(np.float32))


def test_no_boxes_average_to_zero() -> None:
    average = average_boxes(np.zeros((0, 4), np.int32), height=3, width=4)
    assert average.shape == (3, 4) and not average.any()
