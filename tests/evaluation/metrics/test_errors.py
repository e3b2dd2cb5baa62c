import numpy as np
import pytest

from evaluation.boxes.overlaps import NO_BOX
from evaluation.image_scores import NO_MAP, SCORED, ImageScores
from evaluation.metrics.errors import classify_errors, image_verdicts
from evaluation.names import ERROR_KINDS
from tests.evaluation.scores_making import FIXED, Rules, random_boxes

OBJECT = (0, 0, 9, 9)


def verdict(box: object, truths: object, *, correct: bool = False, wrong_class: bool = False) -> str:
    kinds = classify_errors(
        np.array([[box]], dtype=np.float64),
        correct_il=np.array([[correct]]),
        wrong_class_i=np.array([wrong_class]),
        ground_truth=[np.array(truths, dtype=np.float64).reshape(-1, 4)],
    )
    return ERROR_KINDS[kinds[0, 0]]


@pytest.mark.parametrize(
    ("box", "truths", "expected"),
    [
        # Half of the box inside is not yet a part: 5 of 10 columns, and 5 of 10 of the object.
        ((5, 0, 14, 9), [OBJECT], "other"),
        # 6 of 10 columns inside.
        ((4, 0, 13, 9), [OBJECT], "part"),
        ((2, 2, 4, 4), [OBJECT], "part"),
        # The object exactly filled to .7 by a box three times as wide: 7 columns of 21.
        ((3, 0, 23, 9), [OBJECT], "more"),
        ((4, 0, 24, 9), [OBJECT], "other"),
        ((0, 0, 99, 9), [OBJECT], "more"),
        ((50, 50, 60, 60), [OBJECT], "other"),
        ((50, 50, 60, 60), [], "other"),
        # Two objects wholly inside.
        ((0, 0, 99, 9), [OBJECT, (80, 0, 89, 9)], "multi-instance"),
        # .3 of the second object is not above the limit, .4 is; before "part" in order.
        ((0, 0, 22, 9), [OBJECT, (20, 0, 29, 9)], "more"),
        ((0, 0, 23, 9), [OBJECT, (20, 0, 29, 9)], "multi-instance"),
        # Part of the object with the higher IoU, though all of another, tiny one is covered.
        ((4, 0, 13, 9), [(13, 9, 13, 9), OBJECT], "multi-instance"),
        # Of two objects that overlap the box only slightly, the better one decides.
        ((0, 0, 19, 9), [(0, 0, 1, 99), (5, 0, 19, 99)], "part"),
        (NO_BOX, [OBJECT], "no box"),
    ],
)
def test_hand_made_errors(box: tuple[int, ...], truths: list[tuple[int, ...]], expected: str) -> None:
    assert verdict(box, truths) == expected
    assert verdict(box, truths, wrong_class=True) == "wrong class"
    if expected != "no box":
        assert verdict(box, truths, correct=True) == "correct"
    assert verdict(box, truths, correct=True, wrong_class=True) == "wrong class"


def by_hand(box: list[float], truths: list[list[float]]) -> str:
    """The published order, one box at a time, in plain Python."""

    def area(b: list[float]) -> float:
        return (b[2] - b[0] + 1) * (b[3] - b[1] + 1)

    def shared(b: list[float], t: list[float]) -> float:
        width = min(b[2], t[2]) - max(b[0], t[0]) + 1
        height = min(b[3], t[3]) - max(b[1], t[1]) + 1
        return max(0.0, width) * max(0.0, height)

    if sum(shared(box, truth) / area(truth) > 0.3 for truth in truths) > 1:
        return "multi-instance"
    best = max(truths, key=lambda truth: shared(box, truth) / (area(box) + area(truth) - shared(box, truth)))
    if shared(box, best) / area(box) > 0.5:
        return "part"
    return "more" if shared(box, best) / area(best) >= 0.7 else "other"


def test_all_images_and_levels_agree_with_plain_python() -> None:
    rng = np.random.default_rng(5)
    images, levels = 60, 12
    # Small coordinates make limits and repetitions common.
    boxes = random_boxes(rng, images * levels) // 20
    boxes = np.repeat(boxes.reshape(images, levels, 4), 2, axis=1)
    truths = [random_boxes(rng, int(rng.integers(1, 5))) // 20 for _ in range(images)]
    none = np.zeros((images, 2 * levels), dtype=np.bool_)
    found = classify_errors(boxes, correct_il=none, wrong_class_i=none[:, 0], ground_truth=truths)
    expected = [
        [by_hand(box, truth.tolist()) for box in row.tolist()] for row, truth in zip(boxes, truths, strict=True)
    ]
    assert [[ERROR_KINDS[kind] for kind in row] for row in found.tolist()] == expected
    assert {word for row in expected for word in row} == {"multi-instance", "part", "more", "other"}


def test_correct_follows_top1_with_class_scores_and_gt_known_without() -> None:
    rules = Rules(name="fixed", top1_exclusive=True)

    def image(**fields: object) -> ImageScores:
        return ImageScores(
            index=0,
            image_id="x",
            wnid="",
            ground_truth={"fixed": np.array([[0.0, 0, 9, 9]])},
            **{"label": 1, "status": "scored"} | fields,
        )

    first = {"top_classes": np.array([1]), "top_probabilities": np.array([1.0]), "true_rank": 0}
    other = {"top_classes": np.array([2]), "top_probabilities": np.array([1.0]), "true_rank": 1}
    images = [
        image(**first),
        image(**other),
        image(),
        image(status=NO_MAP, **first),
        image(status=NO_MAP, **other),
    ]
    boxes = np.array([[[0.0, 0, 9, 19]]] * 3 + [[list(NO_BOX)]] * 2)
    iou = np.array([[0.5]] * 3 + [[0.0]] * 2)
    found = image_verdicts(images, protocol=rules, iou_il=iou, boxes_il4=boxes)
    # Exactly .5 is not above it: with class scores the box that holds all of the object is "more".
    assert [ERROR_KINDS[kind] for kind in found[:, 0]] == ["more", "wrong class", "correct", "no box", "wrong class"]


def test_the_box_of_a_map_in_which_nothing_stands_out_is_no_box() -> None:
    rules = Rules(name="fixed", fallback_box=(0.0, 0.0, 1.0, 1.0))

    def verdicts(box: list[float], iou: float, *, rank: int = -1, by: Rules = rules) -> str:
        classes = {"top_classes": np.array([5]), "top_probabilities": np.array([1.0])} if rank > 0 else {}
        image = ImageScores(
            index=0,
            image_id="x",
            label=1,
            wnid="",
            status=SCORED,
            true_rank=rank,
            ground_truth={"fixed": np.array([[0.0, 0, 9, 9]])},
            **classes,
        )
        boxes = np.array([[box]])
        (kind,) = image_verdicts([image], protocol=by, iou_il=np.array([[iou]]), boxes_il4=boxes)[0]
        assert boxes.tolist() == [[box]]
        return ERROR_KINDS[kind]

    assert verdicts([0.0, 0.0, 1.0, 1.0], 0.04) == "no box"
    assert verdicts([0.0, 0.0, 1.0, 2.0], 0.06) == "part"
    assert verdicts([0.0, 0.0, 1.0, 1.0], 0.04, by=Rules(name="fixed")) == "part"
    assert verdicts([0.0, 0.0, 1.0, 1.0], 0.04, rank=1) == "wrong class"
    # Counted as right by the protocol, however it came about.
    assert verdicts([0.0, 0.0, 1.0, 1.0], 0.5) == "correct"


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="I ground truths, found"):
        image_verdicts([], protocol=FIXED, iou_il=np.zeros((1, 1)), boxes_il4=np.zeros((1, 1, 4)))
