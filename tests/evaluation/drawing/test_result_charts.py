"""The charts of a protocol: what they name, what they leave out, and their files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from msgspec.structs import replace

from evaluation.drawing.result_charts import CHART_TITLES, NamedResult, result_chart, write_charts
from evaluation.schema import Histogram, parse_metrics
from tests.evaluation.example_metrics import metrics, plain


def named(protocol: str) -> list[NamedResult]:
    return [
        NamedResult(name=f"run: {one.localizer}", result=one, is_baseline=False)
        for one in parse_metrics(metrics()).results
        if one.protocol == protocol
    ]


@pytest.mark.parametrize("kind", CHART_TITLES)
def test_a_chart_names_its_protocol_and_results(kind: str) -> None:
    svg = result_chart(kind, named("wsoleval-v1"), protocol="wsoleval-v1")
    assert svg is not None
    for text in (f"{CHART_TITLES[kind]}, wsoleval-v1", "run: cam", "run: saliency"):
        assert text in svg.decode()


def test_overlaps_are_shown_as_shares_not_numbers() -> None:
    def drawn(*counts: int) -> bytes | None:
        edges = tuple(np.linspace(0, 1, len(counts) + 1).tolist())
        one = replace(named("cam")[0].result, iou_histogram=Histogram(edges=edges, counts=counts))
        return result_chart("overlaps", [NamedResult(name="a", result=one, is_baseline=False)], protocol="cam")

    few = drawn(1, 3)
    assert few == drawn(100, 300) and few != drawn(3, 1)
    assert drawn(0, 0) is not None


def test_without_what_it_shows_there_is_no_chart() -> None:
    assert result_chart("accuracy", named("cam"), protocol="cam") is None
    assert all(result_chart(kind, [], protocol="cam") is None for kind in CHART_TITLES)
    with pytest.raises(KeyError, match="circles"):
        result_chart("circles", named("cam"), protocol="cam")


def test_files_are_pictures_of_every_protocol_and_the_same_again(tmp_path: Path) -> None:
    checked = parse_metrics(metrics())
    for folder in ("a", "b"):
        write_charts(checked, tmp_path / folder)
    first, second = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / folder).iterdir())} for folder in ("a", "b")
    )
    assert list(first) == [
        "accuracy-wsoleval-v1.png",
        "errors-cam.png",
        "errors-wsoleval-v1.png",
        "overlaps-cam.png",
        "overlaps-wsoleval-v1.png",
    ]
    assert first == second
    assert len(set(first.values())) == 5
    for content in first.values():
        picture = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] == 960 and picture.std() > 5


def test_results_without_anything_to_draw_leave_the_folder_empty(tmp_path: Path) -> None:
    write_charts(parse_metrics(plain()), tmp_path / "figures")
    assert list((tmp_path / "figures").iterdir()) == []
