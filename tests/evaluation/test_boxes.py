import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.boxes import (
    FRAME_PX,
    WSOLEVAL_THRESHOLDS,
    box_iou_inclusive,
    boxes_at_thresholds,
    normalise_score_map,
    scale_boxes_truncated,
)

coordinate = st.integers(0, 30)
box = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


# --- overlap


def test_published_vector_of_the_overlap() -> None:
    assert box_iou_inclusive([[1, 2, 5, 6]], [[3, 1, 4, 5]])[0, 0] == 8 / 27


def test_overlap_of_hand_made_boxes() -> None:
    frame, pixel, neighbour = (0, 0, 9, 9), (4, 4, 4, 4), (5, 4, 5, 4)
    iou = box_iou_inclusive([frame, pixel], [frame, pixel, neighbour])
    assert iou.tolist() == [[1, 0.01, 0.01], [0.01, 1, 0]]


@given(st.lists(box, max_size=5), st.lists(box, max_size=5))
@settings(max_examples=100, deadline=None)
def test_overlap_counts_the_shared_pixels(boxes_a: list, boxes_b: list) -> None:
    def pixels(x0: int, y0: int, x1: int, y1: int) -> set[tuple[int, int]]:
        return {(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}

    a, b = np.array(boxes_a).reshape(-1, 4), np.array(boxes_b).reshape(-1, 4)
    iou = box_iou_inclusive(a, b)
    assert iou.shape == (len(a), len(b)) and iou.dtype == np.float64
    for i, box_a in enumerate(boxes_a):
        for j, box_b in enumerate(boxes_b):
            shared, either = pixels(*box_a) & pixels(*box_b), pixels(*box_a) | pixels(*box_b)
            assert iou[i, j] == len(shared) / len(either)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], r"expected boxes \(N, 4\), found shape \(4,\)"),
        ([[1, 2, 3]], r"found shape \(1, 3\)"),
        ([[0, 0, 1, 1], [5, 0, 4, 9]], r"boxes_b_xyxy: row 1: expected x0 <= x1.*found \[5\.0, 0\.0"),
        ([[0, 0, np.nan, 1]], "row 0"),
    ],
)
def test_overlap_refuses_what_is_no_box(boxes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_iou_inclusive([[0, 0, 1, 1]], boxes)


# --- scaling


def test_published_vector_of_the_scaling() -> None:
    scaled = scale_boxes_truncated([[1, 2, 4, 3]], from_wh=(10, 20), to_wh=(35, 10))
    assert scaled.tolist() == [[3, 1, 14, 1]] and scaled.dtype == np.int64


@given(box, st.integers(1, 5000), st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_scaling_multiplies_then_divides_then_truncates(corners: tuple, width: int, height: int) -> None:
    x0, y0, x1, y1 = map(float, corners)
    expected = [int(x0 * 224.0 / width), int(y0 * 224.0 / height)]
    expected += [int(x1 * 224.0 / width), int(y1 * 224.0 / height)]
    scaled = scale_boxes_truncated([corners], from_wh=(width, height), to_wh=(224, 224))
    assert scaled.tolist() == [expected]


def test_scaling_of_whole_pixels_is_integer_division_at_every_size() -> None:
    # Dividing first would give 45 * (224 / 80) = 125.999... and 125 for the pixel that lands on 126.
    for width in range(1, 513):
        x = np.arange(width)
        boxes = np.stack([x, x, x, x], axis=1)
        scaled = scale_boxes_truncated(boxes, from_wh=(width, width), to_wh=(224, 224))
        np.testing.assert_array_equal(scaled, boxes * 224 // width)


def test_scaling_cuts_towards_zero_and_takes_no_boxes() -> None:
    assert scale_boxes_truncated([[-1, -3, 1, 3]], from_wh=(2, 2), to_wh=(1, 1)).tolist() == [[0, -1, 0, 1]]
    assert scale_boxes_truncated(np.zeros((0, 4)), from_wh=(2, 2), to_wh=(1, 1)).shape == (0, 4)


@pytest.mark.parametrize(("from_wh", "to_wh"), [((0, 5), (224, 224)), ((5, 5), (224, -1))])
def test_scaling_refuses_frames_without_area(from_wh: tuple, to_wh: tuple) -> None:
    with pytest.raises(ValueError, match="positive width and height"):
        scale_boxes_truncated([[0, 0, 1, 1]], from_wh=from_wh, to_wh=to_wh)


# --- normalisation


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


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("smooth", 50),
        ("rough", 16),
        ("plateaus", 35),
        ("pixels", 25),
        ("lines", 36),
        ("saturated", 30),
        ("bright", 12),
        ("dim", 10),
        ("constant", 3),
    ],
)
def test_boxes_equal_the_plain_protocol_at_every_threshold(kind: str, count: int) -> None:
    seen = set()
    for number, map_uint8 in enumerate(random_maps(kind, count)):
        found = boxes_at_thresholds(map_uint8, WSOLEVAL_THRESHOLDS)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, plain_boxes(map_uint8, WSOLEVAL_THRESHOLDS), err_msg=f"{number}")
        seen |= set(map(tuple, found.tolist()))
    assert len(seen) >= (1 if kind == "constant" else 2 * count), "these maps do not try much"


def test_boxes_of_a_full_size_map_equal_the_plain_protocol() -> None:
    blurred = cv2.GaussianBlur(np.random.default_rng(5).random((14, 14)), (0, 0), 1)
    map_uint8 = normalise_score_map(blurred)
    np.testing.assert_array_equal(
        boxes_at_thresholds(map_uint8, WSOLEVAL_THRESHOLDS), plain_boxes(map_uint8, WSOLEVAL_THRESHOLDS)
    )


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
