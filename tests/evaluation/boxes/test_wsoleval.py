from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.boxes.geometry import FRAME_PX
from evaluation.boxes.overlaps import Candidates
from evaluation.boxes.wsoleval import (
    LEVELS,
    WSOLEVAL_THRESHOLDS,
    all_contours,
    boxes_at_thresholds,
    largest_contours,
    level_thresholds,
    normalise_score_map,
)
from tests.counts import full


def test_normalisation_at_the_same_size_is_min_max_cut_to_eight_bits() -> None:
    ramp = np.array([[-3.0, -2.0], [0.0, 5.0]])
    # (1 / 8, 3 / 8) * 255 = 31.875 and 95.625: cut, not rounded.
    assert normalise_score_map(ramp, height=2, width=2).tolist() == [[0, 31], [95, 255]]


def test_normalisation_resizes_before_it_takes_the_range() -> None:
    step = np.zeros((8, 8), dtype=np.float32)
    step[:, 4:] = 1
    resized = cv2.resize(step.astype(np.float64), (24, 16), interpolation=cv2.INTER_CUBIC)
    assert resized.min() < 0 and resized.max() > 1, "the cubic kernel overshoots at a step"
    expected = ((resized - resized.min()) / (resized.max() - resized.min()) * 255).astype(np.uint8)
    found = normalise_score_map(step, height=16, width=24)
    assert found.shape == (16, 24) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    # Taken in the other order, the flat halves would be 0 and 255 instead.
    assert 0 < found[8, 0] < found[8, 23] < 255


@pytest.mark.parametrize(
    "score_map",
    [
        np.zeros((7, 7)),
        np.full((14, 14), 0.3),  # the cubic weights alone make differences of 2e-16 of this
        np.full((7, 9), 123.456, dtype=np.float32),
        np.full((224, 224), 7, dtype=np.uint8),
        np.array([[0.0, np.nan], [1.0, 2.0]]),
        np.array([[0.0, np.inf], [1.0, 2.0]]),
        np.array([[-1.7e308, 1.7e308], [0.0, 0.0]]),
    ],
)
def test_normalisation_gives_zeros_for_maps_without_a_range(score_map: np.ndarray) -> None:
    found = normalise_score_map(score_map)
    assert found.shape == (FRAME_PX, FRAME_PX) and found.dtype == np.uint8 and not found.any()


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int64, np.float16, np.float32])
def test_normalisation_takes_any_real_dtype(dtype: type) -> None:
    mask = np.zeros((10, 12), dtype=dtype)
    mask[2:5, 3:7] = 1
    np.testing.assert_array_equal(
        normalise_score_map(mask, height=33, width=20),
        normalise_score_map(mask.astype(np.float64), height=33, width=20),
    )


@pytest.mark.parametrize("shape", [(4,), (2, 3, 3), (0, 5)])
def test_normalisation_refuses_what_is_no_map(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"expected a score map \(H, W\)"):
        normalise_score_map(np.zeros(shape))


# --- boxes


def plain_boxes(map_uint8: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The protocol word for word: one threshold, one contour search, one maximum after the other."""
    height, width = map_uint8.shape
    boxes = []
    for threshold in thresholds:
        level = int(threshold * np.max(map_uint8))
        _, binary = cv2.threshold(map_uint8, level, 255, cv2.THRESH_BINARY)
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
        best_area, best_box = -1.0, (0, 0, 0, 0)
        for contour in contours:
            area = cv2.contourArea(contour)
            if area > best_area:
                x, y, w, h = cv2.boundingRect(contour)
                best_area, best_box = area, (x, y, min(x + w, width - 1), min(y + h, height - 1))
        boxes.append(best_box)
    return np.array(boxes)


def plain_contours(map_uint8: np.ndarray, level: int) -> list[tuple[int, ...]]:
    """All boxes of the pixels above one level, the largest contour's first."""
    height, width = map_uint8.shape
    _, binary = cv2.threshold(map_uint8, level, 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if not contours:
        return [(0, 0, 0, 0)]
    largest = max(range(len(contours)), key=lambda index: cv2.contourArea(contours[index]))
    boxes = []
    for contour in (contours[largest], *contours[:largest], *contours[largest + 1 :]):
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append((x, y, min(x + w, width - 1), min(y + h, height - 1)))
    return boxes


def standing(candidates: Candidates, level: int) -> list[tuple[int, ...]]:
    stands_n = (candidates.first_level_n <= level) & (level <= candidates.last_level_n)
    return [tuple(int(side) for side in box) for box in candidates.boxes_n4[stands_n]]


def assert_same_contours(map_uint8: np.ndarray) -> int:
    """Compare every contour of every level; how many there are."""
    largest, every = largest_contours(map_uint8), all_contours(map_uint8)
    count = 0
    for level in range(LEVELS):
        expected = plain_contours(map_uint8, level)
        assert standing(largest, level) == expected[:1], f"level {level}"
        assert sorted(standing(every, level)) == sorted(expected), f"level {level}"
        count += len(expected)
    return count


def random_maps(kind: str, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng([ord(letter) for letter in kind])
    maps = []
    for index in range(count):
        # Noise has hundreds of contours a threshold, so the plain protocol takes its time there.
        largest = 33 if kind in ("rough", "dim", "pixels") else 65
        height, width = rng.integers(24, largest, size=2)
        noise = rng.random((height, width))
        if kind == "smooth":
            values = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(1.5, 8)))
        elif kind == "rough":
            values = noise if index % 4 == 0 else cv2.GaussianBlur(noise, (0, 0), 0.7)
        elif kind == "plateaus":
            smooth = cv2.GaussianBlur(noise, (0, 0), 2)
            values = np.floor((smooth - smooth.min()) / np.ptp(smooth) * rng.integers(2, 9))
        elif kind == "pixels":
            values = np.where(noise > 0.97, rng.random((height, width)), 0)
        elif kind == "lines":
            values = np.zeros((height, width))
            for _ in range(rng.integers(1, 12)):
                x0, x1, y0, y1 = (*rng.integers(0, width, 2).tolist(), *rng.integers(0, height, 2).tolist())
                if rng.random() < 0.5:
                    cv2.line(values, (x0, y0), (x1, y1), float(rng.uniform(0.1, 1)))
                else:
                    cv2.rectangle(values, (x0, y0), (x1, y1), float(rng.uniform(0.1, 1)))
        elif kind == "saturated":
            values = np.clip(cv2.GaussianBlur(noise, (0, 0), 3) * 12 - 5.5, 0, 1)
        elif kind == "bright":
            maps.append((200 + 55 * cv2.GaussianBlur(noise, (0, 0), 1)).astype(np.uint8))
            continue
        elif kind == "dim":
            maps.append(rng.integers(0, 4, size=(height, width), dtype=np.uint8))
            continue
        else:
            values = np.full((height, width), index % 3)
        maps.append(normalise_score_map(values, height=height, width=width))
    return maps


COUNTS = {
    "smooth": full(25, 250),
    "rough": full(5, 20),
    "plateaus": full(18, 180),
    "pixels": full(12, 120),
    "lines": full(18, 180),
    "saturated": full(18, 180),
    "bright": full(6, 32),
    "dim": full(6, 30),
    "constant": full(3, 8),
}
"""1000 maps in all under the full counts."""


@pytest.mark.parametrize("kind", COUNTS)
def test_contours_equal_plain_opencv_at_every_level(kind: str) -> None:
    contours = sum(assert_same_contours(map_uint8) for map_uint8 in random_maps(kind, COUNTS[kind]))
    assert contours >= LEVELS * COUNTS[kind]


@pytest.mark.parametrize("kind", COUNTS)
def test_boxes_equal_the_plain_protocol_at_every_threshold(kind: str) -> None:
    seen = set()
    count = min(COUNTS[kind], full(4, 15))
    for number, map_uint8 in enumerate(random_maps(kind, count)):
        found = boxes_at_thresholds(map_uint8, WSOLEVAL_THRESHOLDS)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, plain_boxes(map_uint8, WSOLEVAL_THRESHOLDS), err_msg=f"{number}")
        seen |= set(map(tuple, found.tolist()))
    assert len(seen) >= (1 if kind == "constant" else 2 * count), "these maps do not try much"


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 3), (5, 4)])
def test_contours_of_tiny_maps_equal_plain_opencv(shape: tuple) -> None:
    rng = np.random.default_rng(shape)
    for highest in (1, 2, 5, 255):
        for _ in range(full(4, 10)):
            assert_same_contours(rng.integers(0, highest, size=shape, endpoint=True, dtype=np.uint8))


def test_nested_rings_and_islands() -> None:
    map_uint8 = np.zeros((40, 40), dtype=np.uint8)
    for inset, grey in enumerate((90, 10, 200, 0, 255, 30, 120)):
        map_uint8[2 * inset + 1 : 39 - 2 * inset, 2 * inset + 1 : 39 - 2 * inset] = grey
    # Level 100: three outer contours inside each other, and the holes between them.
    assert len(standing(all_contours(map_uint8), 100)) == 5
    assert_same_contours(map_uint8)


def test_of_equal_contours_the_one_found_last_counts() -> None:
    map_uint8 = np.zeros((20, 20), dtype=np.uint8)
    map_uint8[2:5, 2:5] = map_uint8[2:5, 12:15] = map_uint8[10:13, 6:9] = 255
    assert standing(largest_contours(map_uint8), 0) == [(6, 10, 9, 13)]
    map_uint8[10:13, 6:9] = 0
    assert standing(largest_contours(map_uint8), 0) == [(12, 2, 15, 5)]


def test_a_hole_has_a_box_of_its_own() -> None:
    map_uint8 = np.zeros((20, 30), dtype=np.uint8)
    map_uint8[2:18, 3:27] = 200
    map_uint8[6:10, 10:14] = 50
    assert sorted(standing(all_contours(map_uint8), 49)) == [(3, 2, 27, 18)]
    assert sorted(standing(all_contours(map_uint8), 50)) == [(3, 2, 27, 18), (9, 5, 15, 11)]
    assert standing(all_contours(map_uint8), 200) == [(0, 0, 0, 0)]


@pytest.mark.real_data
def test_contours_of_real_images_equal_plain_opencv(real_data: Path) -> None:
    files = sorted((real_data / "ilsvrc10").rglob("val/*.JPEG"))[::25]
    assert len(files) == 20
    for file in files:
        grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        assert_same_contours(normalise_score_map(cv2.GaussianBlur(grey, (0, 0), 4)))
        assert_same_contours(normalise_score_map(grey[::4, ::4], height=56, width=56))


def test_each_level_has_its_lowest_threshold() -> None:
    thresholds_l = level_thresholds()
    assert thresholds_l.shape == (LEVELS,) and thresholds_l[0] == 0
    assert (thresholds_l * 255).astype(int).tolist() == list(range(LEVELS))
    assert ((thresholds_l[1:] - 0.001) * 255 < np.arange(1, LEVELS)).all()
    coarse = level_thresholds([0.5, 0.502, 0.1])
    assert coarse[127] == 0.5 and coarse[128] == 0.502 and np.isnan(coarse[126]) and coarse[25] == 0.1
    for outside in ([1.0], [-0.5], [np.nan]):
        with pytest.raises(ValueError, match="0 <= t"):
            level_thresholds(outside)


def test_box_reaches_one_beyond_its_contour_but_not_out_of_the_frame() -> None:
    map_uint8 = np.zeros((20, 30), dtype=np.uint8)
    map_uint8[3:8, 4:10] = 200
    assert boxes_at_thresholds(map_uint8, [0.5]).tolist() == [[4, 3, 10, 8]]
    map_uint8[3:, 4:] = 200
    assert boxes_at_thresholds(map_uint8, [0.5]).tolist() == [[4, 3, 29, 19]]


def test_pixels_must_be_strictly_above_the_truncated_level() -> None:
    map_uint8 = np.zeros((20, 20), dtype=np.uint8)
    map_uint8[2:18, 2:18] = 100
    map_uint8[5:9, 5:9] = 201
    # int(.5 * 201) = 100, so the wide square falls; int(.497 * 201) = 99, so it stands.
    assert boxes_at_thresholds(map_uint8, [0.5, 0.497]).tolist() == [[5, 5, 9, 9], [2, 2, 18, 18]]


def test_largest_means_polygon_area_not_pixels() -> None:
    map_uint8 = np.zeros((20, 40), dtype=np.uint8)
    map_uint8[15, 2:38] = 255  # 36 pixels, but a polygon without area
    map_uint8[4:7, 10:13] = 255  # 9 pixels, polygon area 4
    assert boxes_at_thresholds(map_uint8, [0.2]).tolist() == [[10, 4, 13, 7]]


def test_thresholds_come_back_in_the_order_given_and_empty_maps_give_zeros() -> None:
    map_uint8 = np.zeros((12, 12), dtype=np.uint8)
    assert boxes_at_thresholds(map_uint8, [0.0, 0.5]).tolist() == [[0, 0, 0, 0]] * 2
    map_uint8[2:9, 2:9] = 100
    map_uint8[4:6, 4:6] = 200
    wide, narrow, none = [2, 2, 9, 9], [4, 4, 6, 6], [0, 0, 0, 0]
    found = boxes_at_thresholds(map_uint8, [0.9, 0.1, 1.0, 0.9])
    assert found.tolist() == [narrow, wide, none, narrow]


@pytest.mark.parametrize(
    ("map_hw", "thresholds", "message"),
    [
        (np.zeros((5, 5)), [0.5], r"expected a map \(H, W\) uint8 with pixels, found float64 \(5, 5\)"),
        (np.zeros((5, 0), dtype=np.uint8), [0.5], "with pixels"),
        (np.zeros(5, dtype=np.uint8), [0.5], r"\(H, W\)"),
        (np.zeros((5, 5), dtype=np.uint8), [-0.1], "0 <= t <= 1"),
        (np.zeros((5, 5), dtype=np.uint8), [np.nan], "0 <= t <= 1"),
        (np.zeros((5, 5), dtype=np.uint8), 0.5, r"thresholds \(T,\)"),
    ],
)
def test_boxes_refuse_other_maps_and_thresholds(map_hw: np.ndarray, thresholds: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boxes_at_thresholds(map_hw, thresholds)


def test_the_threshold_grid_is_shared_and_cannot_be_changed() -> None:
    assert WSOLEVAL_THRESHOLDS.tolist() == [i * 0.001 for i in range(1000)]
    with pytest.raises(ValueError, match="read-only"):
        WSOLEVAL_THRESHOLDS[0] = 1
