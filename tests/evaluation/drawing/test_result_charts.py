"""The charts of a protocol: what they name, what they leave out, and their files."""

import numpy as np
import pytest
from msgspec.structs import replace

from evaluation.drawing import result_charts
from evaluation.drawing.charts import Line
from evaluation.drawing.result_charts import CHART_TITLES, NamedResult, result_chart
from evaluation.schema import Histogram, parse_metrics
from tests.evaluation.example_metrics import metrics


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
    for text in (CHART_TITLES[kind], "protocol MaxBoxAcc (one threshold for all)", "run: cam", "run: saliency"):
        assert text in svg.decode()


def test_overlaps_are_shown_as_shares_not_numbers() -> None:
    def drawn(*counts: int) -> bytes | None:
        edges = tuple(np.linspace(0, 1, len(counts) + 1).tolist())
        one = replace(named("cam")[0].result, iou_histogram=Histogram(edges=edges, counts=counts))
        return result_chart("overlaps", [NamedResult(name="a", result=one, is_baseline=False)], protocol="cam")

    few = drawn(1, 3)
    assert few == drawn(100, 300) and few != drawn(3, 1)
    assert drawn(0, 0) is not None


def test_overlaps_count_from_each_value_up(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Line] = []
    monkeypatch.setattr(result_charts, "line_chart", lambda lines, **_: drawn.extend(lines) or b"")
    histogram = Histogram(edges=(0.0, 0.25, 0.5, 0.75, 1.0), counts=(4, 3, 2, 1))
    one = replace(named("cam")[0].result, iou_histogram=histogram)
    result_chart("overlaps", [NamedResult(name="a", result=one, is_baseline=False)], protocol="cam")
    (line,) = drawn
    assert list(line.x_n) == [0, 0.25, 0.5, 0.75, 1] and list(line.y_n) == [100, 60, 30, 10, 0]


def test_without_what_it_shows_there_is_no_chart() -> None:
    assert result_chart("accuracy", named("cam"), protocol="cam") is None
    assert all(result_chart(kind, [], protocol="cam") is None for kind in CHART_TITLES)
    with pytest.raises(KeyError, match="circles"):
        result_chart("circles", named("cam"), protocol="cam")
