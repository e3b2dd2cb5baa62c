"""Classes and images of a report, worst first, under the names that people know."""

from pathlib import Path

import pytest

from evaluation.results.predictions import PredictionsError
from pipelines.reports import breakdowns
from pipelines.reports.breakdowns import class_table, image_table
from pipelines.reports.comparison import load_runs
from pipelines.reports.html_pages import Cell, row_of
from pipelines.reports.report_rows import ReportRow, report_rows
from tests.evaluation.example_metrics import metrics
from tests.pipelines.report_page import comparable_runs, make_run

NAMES = {0: "tench", 1: "goldfish"}


def rows_of(runs: list[Path]) -> list[ReportRow]:
    rows = report_rows(load_runs(runs), protocol="cam", comparable=True)
    return [row for row in rows if not row.is_baseline and row.result.localizer == "cam"]


def test_classes_have_a_column_for_each_result_and_the_worst_stand_first(tmp_path: Path) -> None:
    rows = rows_of(comparable_runs(tmp_path))
    table = class_table(rows, NAMES)
    assert table is not None and table.headings == ["class", "images", "cam of gap", "cam of ours"]
    of_first = {score.label: score.gt_known_loc for score in rows[0].result.per_class}
    assert [float(row.cells[2].text) for row in table.rows] == pytest.approx(
        sorted(100 * (rate or 0) for rate in of_first.values()), abs=0.01
    )
    names = [row.cells[0].text for row in table.rows]
    assert {"tench", "goldfish", "n00000002"} <= set(names) and len(names) == len(of_first)
    assert class_table([], NAMES) is None


def test_images_stand_worst_first_and_only_where_all_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = comparable_runs(tmp_path)
    predictions = runs[1] / "predictions.csv"
    lines = predictions.read_text().splitlines()
    assert lines[1].startswith("image0,0,") and ",cam,cam,1,2,3,4,0.4," in lines[1]
    lines[1] = lines[1].replace(",1,2,3,4,0.4,", ",,,,,0,")
    predictions.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(breakdowns, "IMAGES_SHOWN", 3)
    table = image_table(rows_of(runs), NAMES)
    assert table is not None and table["images"] == 200 and table["classes"] == ["10", "11", "tench"]
    first, *others = table["table"].rows
    assert first == row_of("image0", "tench", Cell("0.50", "correct"), Cell("0.00", "part"))
    assert [row.cells[0].text for row in others] == ["image150", "image151"], "wrong in both"


def test_runs_without_predictions_have_no_table_of_images(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", metrics("a"), right=None)
    assert image_table(rows_of([run]), NAMES) is None


def test_names_of_classes_come_from_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    header = "localizer,protocol,label,wnid,name,images,gt_known_loc,top1_loc,top1_class"
    (run / "per_class.csv").write_text(f"{header}\ncam,cam,3,n003,great white shark,5,0.2,,\ncam,cam,4,n004,,5,0.2,,\n")
    assert load_runs([run])[0].class_names == {3: "great white shark", 4: "n004"}
    (run / "per_class.csv").write_text("label,wnid\n3,n003\n")
    with pytest.raises(PredictionsError, match=r"per_class\.csv: expected what wsol-eval wrote"):
        load_runs([run])
