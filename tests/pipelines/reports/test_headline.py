"""The first screen of a report: which results it shows, beside which baseline, and what its sentences claim."""

from pathlib import Path

import pytest

from pipelines.reports.comparison import load_runs
from pipelines.reports.headline import headline
from pipelines.reports.report_rows import report_rows
from tests.evaluation.example_metrics import metrics, result
from tests.pipelines.report_page import make_run


def shown(folder: Path, corrects: dict[str, dict[str, int]], *, baseline: int = 100) -> dict:
    """The headline of runs with so many of 200 images right under ``cam``, by run and localizer."""
    runs = []
    for name, by_localizer in corrects.items():
        results = [result(localizer, "cam", correct=correct) for localizer, correct in by_localizer.items()]
        square = result("centred-square", "cam", correct=baseline, classified=False)
        square |= {"curve": None, "iou_histogram": None, "errors": None}
        runs.append(make_run(folder / name, metrics(name, results=results, baselines=[square]), right=None))
    found = headline(report_rows(load_runs(runs), protocol="cam", comparable=True), [])
    assert found is not None
    return found


def test_each_result_stands_beside_the_baseline(tmp_path: Path) -> None:
    found = shown(tmp_path, {"gap": {"cam": 70}, "ours": {"cam": 90, "saliency": 160}})
    assert [tuple(cell.text for cell in line.cells) for line in found["table"].rows] == [
        ("gap", "cam", "35.00", "15.00 below"),
        ("ours", "cam", "45.00", "5.00 below"),
        ("ours", "saliency", "80.00", "30.00 above"),
        ("baseline", "centred-square", "50.00", "-"),
    ]
    best, against = found["sentences"]
    assert best.startswith("Best is “saliency of ours”: its box is right") and "80.00 % of 200 images" in best
    assert "Worse than the centred-square: “cam of gap”." in against
    assert "Too few images to tell apart from the centred-square: “cam of ours”." in against


def test_what_is_better_is_said(tmp_path: Path) -> None:
    found = shown(tmp_path, {"gap": {"cam": 150}})
    assert found["sentences"][1] == "Better than the centred-square: “cam of gap”."


def test_five_results_at_most_with_one_of_each_run(tmp_path: Path) -> None:
    many = {f"map-{number}": 100 + number for number in range(6)}
    found = shown(tmp_path, {"bad": {"cam": 10}, "good": many})
    names = [" ".join(cell.text for cell in line.cells[:2]) for line in found["table"].rows]
    assert names == ["bad cam", *(f"good map-{number}" for number in (2, 3, 4, 5)), "baseline centred-square"]


def test_without_a_result_there_is_no_headline(tmp_path: Path) -> None:
    assert headline([], []) is None


@pytest.mark.parametrize("chosen", ["cam of run", "saliency of other"])
def test_pictures_are_those_of_the_best_and_of_the_first_result(chosen: str, tmp_path: Path) -> None:
    first, best = {"cam": 60}, {"saliency": 120}
    made = [
        make_run(
            tmp_path / name,
            metrics(name, results=[result(one, "cam", correct=count) for one, count in by.items()], baselines=[]),
            right=None,
        )
        for name, by in (("run", first), ("other", best))
    ]
    rows = report_rows(load_runs(made), protocol="cam", comparable=True)
    cells = [{"uri": f"data:{name}", "alt": name, "text": "IoU 0.70"} for name in ("run", "other")]
    table = {
        "protocol": "cam",
        "columns": [{"run": "run", "localizer": "cam"}, {"run": "other", "localizer": "saliency"}],
        "rows": [{"caption": "n1 image", "image": "data:truth", "cells": cells}],
    }
    found = headline(rows, [{**table, "protocol": "psol-crop"}, table])
    assert found is not None
    texts = [picture["text"] for picture in found["pictures"]]
    assert texts[0] == "n1 image, ground truth" and f"{chosen}, IoU 0.70" in texts and len(texts) == 3
