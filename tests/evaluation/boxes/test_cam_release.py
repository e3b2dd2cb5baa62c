import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from evaluation.boxes.cam_release import RELEASE_GREY_LEVELS, cam_release_box, pooled_boxes


def grey_map(height: int = 224, width: int = 224) -> NDArray[np.uint8]:
    return np.zeros((height, width), dtype=np.uint8)


def box_of(map_hw: NDArray) -> list:
    candidates = cam_release_box(map_hw)
    assert len(candidates.first_level_n) == len(candidates.boxes_n4)
    assert not candidates.first_level_n.any() and not candidates.last_level_n.any()
    return candidates.boxes_n4.tolist()


def rectangles_by_scipy(grey_hw: NDArray[np.uint8]) -> list[tuple[int, int, int, int]]:
    """Boxes before clamping: components by labelling, holes as background that misses the border, widened by 1."""
    found = []
    for level in (20, 100, 110):
        mask = grey_hw > level
        if mask.any() and not mask.all():
            distance = ndimage.distance_transform_edt(mask)
            mask = np.floor(distance * (255.0 / distance.max()) + 0.5) > 10
        labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(labels):
            found.append((columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start))
        outside = np.pad(~mask, 1, constant_values=True)
        labels, _ = ndimage.label(outside)
        for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            if index != labels[0, 0]:
                width, height = columns.stop - columns.start + 2, rows.stop - rows.start + 2
                found.append((columns.start - 2, rows.start - 2, width, height))
    return found


def clamped(rectangle: tuple[int, int, int, int], height: int, width: int) -> tuple[int, int, int, int]:
    def limit(value: int, low: int, high: int) -> int:
        return low if value < low else min(value, high)

    x, y, w, h = rectangle
    return limit(x, 0, width - 5), limit(y, 0, height - 5), limit(w, 0, width - x - 5), limit(h, 0, height - y - 5)


def test_levels_are_those_of_the_released_scripts() -> None:
    assert RELEASE_GREY_LEVELS == (20, 100, 110)


def test_a_map_built_for_the_published_boxes_gives_them() -> None:
    # Boxes published with the release: 41 145 362 202 and 102 188 242 126. A rectangle 370 x 210 has a greatest
    # distance of 105, so distances of 105 * 10.5 / 255 = 4.3 stay and 4 pixels go on each side; one of 246 x 130 has
    # 65, hence 2.7, and 2 go.
    grey = grey_map(400, 500)
    grey[141:351, 37:407] = 60
    grey[186:316, 100:346] = 255
    # The two upper levels find the smaller box alike.
    assert pooled_boxes(grey).tolist() == [[41, 145, 362, 202], [102, 188, 242, 126], [102, 188, 242, 126]]


def test_small_shapes_keep_their_border_pixels() -> None:
    grey = grey_map()
    grey[50:98, 60:108] = 255  # greatest distance 24, and 24 * 10.5 / 255 = .99
    assert pooled_boxes(grey)[0].tolist() == [60, 50, 48, 48]
    grey[50:100, 60:110] = 255  # 25: 1.03
    assert pooled_boxes(grey)[0].tolist() == [61, 51, 48, 48]


@pytest.mark.parametrize(
    ("plateau", "value", "boxes"),
    [(0, 20, 0), (0, 21, 1), (30, 100, 1), (30, 101, 2), (0, 110, 2), (0, 111, 3)],
)
def test_grey_levels_are_exclusive(plateau: int, value: int, boxes: int) -> None:
    grey = grey_map()
    grey[10:30, 10:30] = plateau
    grey[10:20, 10:20] = value
    # One box for each level that is exceeded.
    assert len(pooled_boxes(grey)) == boxes


def test_the_borderline_distance_is_decided_as_in_double_precision() -> None:
    # Greatest distance 170, where 255 / 170 = 1.5 and a distance of 7 becomes 10.5, rounded to 11: it stays.
    grey = np.full((341, 600), 255, dtype=np.uint8)
    grey[0, :] = grey[-1, :] = 0
    grey[:, 0] = grey[:, -1] = 0
    assert pooled_boxes(grey)[0].tolist() == [7, 7, 586, 327]


def test_holes_give_boxes_of_their_own() -> None:
    grey = grey_map()
    grey[40:80, 40:80] = 255
    grey[50:70, 55:65] = 0
    # The hole's box runs along the pixels around it.
    assert np.unique(pooled_boxes(grey), axis=0).tolist() == [[40, 40, 40, 40], [54, 49, 12, 22]]


def test_boxes_stay_five_pixels_off_the_right_and_lower_side() -> None:
    grey = grey_map()
    grey[200:, 190:] = 255
    assert pooled_boxes(grey)[0].tolist() == [190, 200, 29, 19]
    assert box_of(grey) == [[190, 200, 219, 219]]


def test_a_shape_inside_the_margin_gets_swapped_corners() -> None:
    grey = grey_map()
    grey[100:110, 222:] = 255
    assert pooled_boxes(grey)[0].tolist() == [219, 100, -3, 10]
    assert box_of(grey) == [[216, 100, 219, 110]]


def test_full_constant_and_empty_maps() -> None:
    assert pooled_boxes(np.full((50, 60), 255, dtype=np.uint8))[0].tolist() == [0, 0, 55, 45]
    assert pooled_boxes(grey_map()).shape == (0, 4)
    for value in (0.3, -2.0, 1e-320, 1e308):
        assert box_of(np.full((7, 9), value)) == [[0, 0, 219, 219]]
    assert box_of(np.array([[1.0]])) == [[0, 0, 219, 219]]
    assert box_of(np.zeros((7, 7))) == []
    assert box_of(np.zeros((1, 1))) == []


def test_negative_scores_count_by_their_size() -> None:
    scores = np.zeros((224, 224))
    scores[10:20, 10:20] = 1
    scores[100:120, 100:140] = -1
    assert box_of(scores) == [[100, 100, 140, 120]]


@pytest.mark.parametrize(("share", "box"), [(20.49, [100, 100, 110, 110]), (20.51, [10, 10, 30, 30])])
def test_the_map_is_rounded_to_eight_bit(share: float, box: list) -> None:
    scores = np.zeros((224, 224))
    scores[10:30, 10:30] = share / 255 * 7
    scores[100:110, 100:110] = 7
    assert box_of(scores) == [box]


@pytest.mark.parametrize("smoothness", [2, 4, 8, 25])
def test_boxes_agree_with_scipy(smoothness: float) -> None:
    rng = np.random.default_rng(int(smoothness))
    for height, width in ((224, 224), (90, 130), (224, 224)):
        scores = np.abs(ndimage.gaussian_filter(rng.normal(size=(height, width)), smoothness))
        grey = np.floor(scores / scores.max() * 255 + 0.5).astype(np.uint8)
        expected = [clamped(rectangle, height, width) for rectangle in rectangles_by_scipy(grey)]
        found = [tuple(box) for box in pooled_boxes(grey).tolist()]
        assert sorted(found) == sorted(expected)
        assert [w * h for _, _, w, h in found] == sorted((w * h for _, _, w, h in found), reverse=True)
        if (height, width) == (224, 224):
            x, y, w, h = found[0]
            assert box_of(scores) == [[min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h)]]


@pytest.mark.parametrize("shape", [(7, 7), (14, 14), (28, 20), (224, 28), (256, 256), (300, 90)])
def test_maps_of_other_sizes_are_interpolated_as_by_matlab(shape: tuple[int, int]) -> None:
    # Pillow's bicubic kernel is MATLAB's; its borders are not, so the map is mirrored there beforehand.
    height, width = shape
    for seed in range(6):
        scores = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), min(shape) / 12)
        mirrored = Image.fromarray(
            np.pad(scores, ((height, height), (width, width)), mode="symmetric").astype(np.float32)
        )
        resized = np.asarray(mirrored.resize((3 * 224, 3 * 224), Image.Resampling.BICUBIC))[224:448, 224:448]
        assert box_of(scores) == box_of(np.abs(resized))


@pytest.mark.parametrize("wrong", [np.zeros((2, 3, 4)), np.zeros(5), np.zeros((0, 4)), np.zeros((4, 4), complex)])
def test_wrong_maps_are_refused(wrong: NDArray) -> None:
    with pytest.raises(ValueError, match="expected a score map"):
        cam_release_box(wrong)
    with pytest.raises(ValueError, match="expected a grey map"):
        pooled_boxes(wrong)
