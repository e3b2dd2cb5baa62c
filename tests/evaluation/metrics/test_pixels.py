import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from evaluation.image_scores import NO_BOXES, ImageScores
from evaluation.metrics.pixels import PIXEL_BASELINE, average_precision, count_pixels, pixel_scores

FRAME = 224
THRESHOLDS = np.arange(0, 1, 0.001)


def in_frame(map_hw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scores = cv2.resize(map_hw, (FRAME, FRAME), interpolation=cv2.INTER_CUBIC)
    scores = scores - scores.min()
    return scores / scores.max()


def by_definition(scores: npt.NDArray[np.float64], objects: npt.NDArray[np.bool_]) -> float:
    """Area under precision against recall with pixels predicted that score at least t, t from 1 down to 0."""
    area, recall_before = 0.0, 0.0
    for threshold in [1.0, *THRESHOLDS[::-1]]:
        predicted = scores >= threshold
        if not predicted.any():
            continue
        hits = (predicted & objects).sum()
        recall = hits / objects.sum()
        area += hits / predicted.sum() * (recall - recall_before)
        recall_before = recall
    return area


def counted(index: int, mask: npt.NDArray[np.uint8], **maps: npt.NDArray[np.generic]) -> ImageScores:
    """An image without boxes, with the pixels of its maps and of a baseline that scores 0 everywhere."""
    pixels = {name: count_pixels(map_hw, mask) for name, map_hw in {PIXEL_BASELINE: np.zeros((1, 1)), **maps}.items()}
    return ImageScores(index=index, image_id=f"{index}", label=0, wnid="n", status=NO_BOXES, pixels=pixels)


def random_mask(rng: np.random.Generator, *, ignored: bool) -> npt.NDArray[np.uint8]:
    mask = np.where(rng.random((FRAME, FRAME)) < 0.3, 255, 0)
    if ignored:
        mask[40:90, 10:200] = 128
    return mask.astype(np.uint8)


def precision_of(*images: tuple[npt.NDArray[np.generic], npt.NDArray[np.uint8]]) -> float:
    counts = [count_pixels(map_hw, mask) for map_hw, mask in images]
    return average_precision(np.sum(counts, axis=0, dtype=np.int64), images=len(images))


def test_several_images_agree_with_the_definition_on_their_pooled_pixels() -> None:
    rng = np.random.default_rng(0)
    images, pooled_scores, pooled_objects = [], [], []
    for size in (7, 14, 28):
        map_hw = rng.random((size, size + 1))
        mask = random_mask(rng, ignored=True)
        images.append((map_hw, mask))
        scores, valid = in_frame(map_hw), mask != 128
        pooled_scores.append(scores[valid])
        pooled_objects.append(mask[valid] == 255)
    expected = by_definition(np.concatenate(pooled_scores), np.concatenate(pooled_objects))
    assert precision_of(*images) == pytest.approx(expected, abs=1e-12)


def test_a_map_of_the_frames_size_that_follows_the_mask() -> None:
    rng = np.random.default_rng(1)
    mask = random_mask(rng, ignored=False)
    map_hw = rng.random((FRAME, FRAME)) + (mask == 255)
    precision = precision_of((map_hw, mask))
    assert precision == pytest.approx(by_definition(in_frame(map_hw), mask == 255), abs=1e-12)
    assert precision > 0.99


def test_a_perfect_map_scores_one_and_its_inverse_the_share_of_objects_at_most() -> None:
    mask = np.zeros((FRAME, FRAME), dtype=np.uint8)
    mask[:56] = 255
    assert precision_of(((mask == 255).astype(np.uint8), mask)) == 1.0
    # Every object pixel comes last, together: precision is then the share of objects.
    assert precision_of((mask == 0, mask)) == 0.25


@pytest.mark.parametrize(
    "map_hw", [np.full((5, 5), 0.3), np.array([[0.0, np.nan]]), np.array([[0.0, np.inf]]), np.zeros((1, 1))]
)
def test_maps_without_information_give_the_share_of_objects(map_hw: npt.NDArray[np.float64]) -> None:
    mask = np.zeros((FRAME, FRAME), dtype=np.uint8)
    mask[:56] = 255
    assert precision_of((map_hw, mask)) == 0.25


def test_masks_of_other_sizes_come_to_the_frame_by_nearest_neighbour() -> None:
    mask = np.array([[255, 0], [128, 0]], dtype=np.uint8)
    quarter = (FRAME // 2) ** 2
    assert msgspec.to_builtins(pixel_scores([counted(0, mask)], localizers=["cam"])) == {
        "px_ap": {"cam": 1 / 3},
        "images": 1,
        "failed": 1,
        "object_pixels": quarter,
        "background_pixels": 2 * quarter,
        "ignored_pixels": quarter,
        "frame_px": FRAME,
        "centred_gaussian_px_ap": 1 / 3,
    }


def test_every_localizer_has_its_precision_and_images_without_a_map_score_nothing() -> None:
    mask = np.zeros((FRAME, FRAME), dtype=np.uint8)
    mask[:56] = 255
    right = (mask == 255).astype(np.float64)
    uncounted = ImageScores(index=2, image_id="2", label=0, wnid="n", status=NO_BOXES)
    images = [counted(0, mask, cam=right, saliency=1 - right), counted(1, mask), uncounted]
    scores = pixel_scores(images, localizers=["cam", "saliency"])
    assert (scores.images, scores.failed, scores.centred_gaussian_px_ap) == (2, 1, 0.25)
    # Half of the object pixels before everything else, the others together with all that is left.
    assert scores.px_ap == {"cam": 0.5 + 0.5 * 0.25, "saliency": pytest.approx(0.5 * 0 + 0.25)}


def test_scores_on_a_threshold_belong_to_the_bin_above_it() -> None:
    # Background one unit in the last place below the objects: pooled into one bin, precision would be 1/3.
    map_hw = np.zeros((FRAME, FRAME))
    map_hw[0], map_hw[1], map_hw[2] = 1.0, THRESHOLDS[300], np.nextafter(THRESHOLDS[300], 0)
    mask = np.zeros((FRAME, FRAME), dtype=np.uint8)
    mask[1] = 255
    assert precision_of((map_hw, mask)) == 1 / 2


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.array([[0, 1]], dtype=np.uint8), r"found \[1\]"),
        (np.zeros((2, 2), dtype=np.int64), "found int64"),
        (np.zeros((2, 2, 1), dtype=np.uint8), r"\(2, 2, 1\)"),
        (np.zeros((0, 2), dtype=np.uint8), r"\(0, 2\)"),
    ],
)
def test_other_masks_are_refused(mask: npt.NDArray[np.uint8], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count_pixels(np.eye(3), mask)


def test_maps_of_other_shapes_are_refused() -> None:
    for shape in ((3,), (2, 2, 3), (0, 4)):
        with pytest.raises(ValueError, match="expected a score map"):
            count_pixels(np.zeros(shape), np.zeros((4, 4), dtype=np.uint8))


def test_without_object_pixels_there_is_no_value() -> None:
    with pytest.raises(ValueError, match="no object pixel in 1 masks"):
        precision_of((np.eye(3), np.zeros((4, 4), dtype=np.uint8)))
