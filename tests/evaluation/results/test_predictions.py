from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.boxes.geometry import boxes_in_image
from evaluation.boxes.overlaps import NO_BOX
from evaluation.image_scores import NO_BOXES, NO_MAP, SCORED, ImageScores, is_skipped
from evaluation.metrics.tally import Tally
from evaluation.names import ERROR_KINDS
from evaluation.results.predictions import (
    PredictionsError,
    read_predictions,
    write_predictions,
)
from tests.evaluation.scores_making import ALL_RULES, CLASSES, FIXED, IMAGE_WH, LOCALIZERS, random_images

PAIRS = [(localizer, rules.name) for localizer in LOCALIZERS for rules in ALL_RULES]
LEVELS = dict.fromkeys(PAIRS, 0)


def write(path: Path, images: list[ImageScores], levels: dict[tuple[str, str], int] = LEVELS) -> None:
    write_predictions(path, images, protocols=ALL_RULES, localizers=LOCALIZERS, levels=levels)


def test_the_file_to_the_byte(tmp_path: Path) -> None:
    truth = {"fixed": np.array([[0.0, 0.0, 9.0, 9.0]])}
    images = [
        ImageScores(
            index=0,
            image_id='a, "b"',
            label=1,
            wnid="n02",
            status=SCORED,
            notes=("constant map", "NaN or infinite map"),
            top_classes=np.array([1, 0]),
            top_probabilities=np.array([2 / 3, 1 / 3]),
            true_rank=0,
            image_wh=(448, 112),
            iou={("cam", "fixed"): np.array([0.5000004])},
            boxes={("cam", "fixed"): np.array([[-0.0, 1.25, 10.1234567, 9.0]])},
            ground_truth=truth,
        ),
        ImageScores(index=1, image_id="é", label=-1, wnid="", status=NO_MAP, ground_truth=truth),
        ImageScores(index=2, image_id="c", label=0, wnid="n01", status=NO_BOXES),
        ImageScores(
            index=3,
            image_id="d",
            label=0,
            wnid="n01",
            status=SCORED,
            image_wh=(448, 112),
            iou={("cam", "fixed"): np.zeros(1)},
            boxes={("cam", "fixed"): np.array([NO_BOX])},
            ground_truth=truth,
        ),
        ImageScores(
            index=4,
            image_id="e",
            label=0,
            wnid="n01",
            status=NO_BOXES,
            image_wh=(448, 112),
            boxes={("cam", "fixed"): np.array([[0.0, 0.0, 223.0, 224.0]])},
        ),
    ]
    path = tmp_path / "predictions.csv"
    write_predictions(path, images, protocols=[FIXED], localizers=["cam"], levels={("cam", "fixed"): 0})
    assert path.read_bytes().decode() == (
        "image_id,label,wnid,status,notes,predicted_class,predicted_score,true_rank,width,height,"
        "localizer,protocol,x0,y0,x1,y1,iou,verdict\n"
        '"a, ""b""",1,n02,scored,constant map; NaN or infinite map,1,0.666667,0,448,112,'
        "cam,fixed,0,0.62,21.25,4,0.5,correct\n"
        "é,-1,,no map,,,,-1,,,cam,fixed,,,,,,no box\n"
        "c,0,n01,no boxes,,,,-1,,,cam,fixed,,,,,,\n"
        "d,0,n01,scored,,,,-1,448,112,cam,fixed,,,,,0,no box\n"
        "e,0,n01,no boxes,,,,-1,448,112,cam,fixed,0,0,447,111,,\n"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_rows_say_what_the_tally_counts(tmp_path: Path) -> None:
    images = random_images(300, seed=3)
    tally = Tally(ALL_RULES, LOCALIZERS, class_wnids=CLASSES, bootstrap_samples=0)
    tally.add(images)
    levels = tally.reported_levels()
    assert max(levels.values()) > 0
    write(tmp_path / "p.csv", images, levels)
    rows = list(read_predictions(tmp_path / "p.csv"))
    assert [(row["image_id"], row["localizer"], row["protocol"]) for row in rows] == [
        (image.image_id, *pair) for image in images for pair in PAIRS
    ]
    for result in tally.results():
        pair = (result.localizer, result.protocol)
        of_pair = rows[PAIRS.index(pair) :: len(PAIRS)]
        verdicts = [row["verdict"] for row in of_pair]
        assert {word: verdicts.count(word) for word in ERROR_KINDS} == result.errors
        for image, row in zip(images, of_pair, strict=True):
            assert (row["verdict"] == "") == is_skipped(image.status)
            corners = [row[corner] for corner in ("x0", "y0", "x1", "y1")]
            if pair not in image.iou:
                assert {*corners, row["iou"], row["width"]} == {""}
                continue
            assert float(row["iou"]) == pytest.approx(image.iou[pair][levels[pair]], abs=5.1e-7)
            assert (row["width"], row["height"]) == tuple(map(str, IMAGE_WH))
            box_4 = image.boxes[pair][levels[pair]]
            if tuple(box_4) == NO_BOX:
                assert corners == [""] * 4
            else:
                expected = boxes_in_image(box_4[None], image_wh=IMAGE_WH)[0]
                np.testing.assert_allclose([float(corner) for corner in corners], expected, atol=0.0051)


text = st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters='\n",;'), min_size=1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(image_id=text, wnid=text, reason=text)
def test_any_text_comes_back(tmp_path: Path, image_id: str, wnid: str, reason: str) -> None:
    image = ImageScores(index=0, image_id=image_id, label=-1, wnid=wnid, status=f"map not usable: {reason}")
    write(tmp_path / "p.csv", [image])
    row, *_ = read_predictions(tmp_path / "p.csv")
    assert (row["image_id"], row["wnid"], row["status"]) == (image_id, wnid, f"map not usable: {reason}")


def test_a_file_name_that_is_no_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    image_id = b"caf\xe9".decode(errors="surrogateescape")
    write(tmp_path / "p.csv", [ImageScores(index=0, image_id=image_id, label=-1, wnid="", status=NO_MAP)])
    assert b"\ncaf\xe9," in (tmp_path / "p.csv").read_bytes()
    assert next(read_predictions(tmp_path / "p.csv"))["image_id"] == image_id


def test_a_failure_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("old")

    def images() -> Iterator[ImageScores]:
        yield from random_images(400)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_predictions(path, images(), protocols=ALL_RULES, localizers=LOCALIZERS, levels=LEVELS)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_id,", "image,", r"header: .*missing \['image_id'\]"),
        (",iou,", ",IoU,", r"missing \['iou'\].*remove theirs and evaluate again"),
        (",wnid,", ",label,", "each once"),
        ("no map", "no_map", "row 4: status: expected a status of an evaluated image, found 'no_map'"),
        ("no map,,,,-1", "no map,,,,", "row 4: true_rank: expected a whole number, found ''"),
        ("no map,,,,", "no map,,x,,", "row 4: predicted_class: expected a whole number or nothing, found 'x'"),
        ("no map,,,,", "no map,,,1e5,", "row 4: predicted_score: expected a number or nothing, found '1e5'"),
        (",,no box", ",nan,no box", "row 4: iou: expected a number or nothing, found 'nan'"),
        ("fixed,,", "fixed,1 2,", "row 4: x0: expected a number or nothing, found '1 2'"),
        (",no box\n", ",perhaps\n", "row 4: verdict: expected one of correct, wrong class"),
        (",no box\n", "\n", "row 4: expected 18 values, found 17"),
        ("image 0", '"image 0', "expected CSV as in RFC 4180, found"),
    ],
)
def test_other_content_is_refused_by_file_row_and_column(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "p.csv"
    write(path, [ImageScores(index=0, image_id="image 0", label=-1, wnid="", status=NO_MAP)])
    assert len(list(read_predictions(path))) == len(PAIRS)
    content = path.read_text()
    assert old in content
    path.write_text(new.join(content.rsplit(old, 1)))
    with pytest.raises(PredictionsError, match=message) as caught:
        list(read_predictions(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="not found"):
        list(read_predictions(tmp_path / "none.csv"))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(PredictionsError, match="header"):
        list(read_predictions(tmp_path / "empty.csv"))
