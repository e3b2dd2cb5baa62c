from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.drawing.result_figures import FIGURE_TITLES, NamedResult, result_figure, write_figures
from evaluation.results.schema import parse_metrics
from tests.evaluation.example_metrics import metrics, plain


def named(protocol: str) -> list[NamedResult]:
    return [
        NamedResult(name=f"run: {one.localizer}", result=one, is_baseline=False)
        for one in parse_metrics(metrics()).results
        if one.protocol == protocol
    ]


@pytest.mark.parametrize("kind", FIGURE_TITLES)
def test_a_figure_names_its_protocol_and_results(kind: str) -> None:
    svg = result_figure(kind, named("wsoleval-v1"), protocol="wsoleval-v1")
    assert svg is not None
    for text in (f"{FIGURE_TITLES[kind]}, wsoleval-v1", "run: cam", "run: saliency"):
        assert text in svg.decode()


def test_without_what_it_shows_there_is_no_figure() -> None:
    assert result_figure("accuracy", named("cam"), protocol="cam") is None
    assert all(result_figure(kind, [], protocol="cam") is None for kind in FIGURE_TITLES)
    with pytest.raises(KeyError, match="circles"):
        result_figure("circles", named("cam"), protocol="cam")


def test_files_are_pictures_of_every_protocol_and_the_same_again(tmp_path: Path) -> None:
    checked = parse_metrics(metrics())
    for folder in ("a", "b"):
        write_figures(checked, tmp_path / folder)
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
    write_figures(parse_metrics(plain()), tmp_path / "figures")
    assert list((tmp_path / "figures").iterdir()) == []
