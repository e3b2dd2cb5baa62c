"""Reports as Markdown, CSV and LaTeX, and their charts as files."""

import csv
import re
from pathlib import Path

import pytest

from pipelines.reports.comparison import load_runs
from pipelines.reports.evaluation_report import write_report
from tests.evaluation.example_metrics import metrics, plain
from tests.pipelines.report_page import comparable_runs, make_run

HOSTILE = r"a|b_c & 50% <i> \end{table} #$~^*"


def written(tmp_path: Path, suffix: str, *runs: Path) -> str:
    write_report(runs, tmp_path / "new" / f"report{suffix}")
    return (tmp_path / "new" / f"report{suffix}").read_text(encoding="utf-8")


def test_csv_has_every_rate_with_its_interval(tmp_path: Path) -> None:
    runs = comparable_runs(tmp_path)
    rows = list(csv.DictReader(written(tmp_path, ".csv", *runs).splitlines()))
    loaded = load_runs(runs)
    assert [(row["run"], row["localizer"], row["protocol"]) for row in rows] == [
        (run.label, *pair)
        for run in loaded
        for pair in [("", ""), *((result.localizer, result.protocol) for result, _ in run.results)]
    ]
    by_row = {(row["run"], row["localizer"], row["protocol"]): row for row in rows}
    for run in loaded:
        own = by_row[run.label, "", ""]
        assert (own["top1_class"], own["gt_known_loc"], own["images"], own["failed"]) == ("0.65", "", "200", "3")
        for result, is_baseline in run.results:
            row = by_row[run.label, result.localizer, result.protocol]
            assert row["baseline"] == ("yes" if is_baseline else "no")
            assert row["threshold_choice"] == ("oracle" if result.threshold_is_oracle else "fixed")
            found = [float(row[name]) for name in ("gt_known_loc", "gt_known_loc_low", "gt_known_loc_high")]
            assert found == pytest.approx([result.gt_known_loc.rate, *(result.gt_known_loc.interval or ())], abs=1e-6)
            assert (row["max_box_acc_0.3"] == "") == (result.max_box_acc is None)


def test_px_ap_stands_by_localizer(tmp_path: Path) -> None:
    pixels = {"px_ap": {"cam": 0.25, "saliency": 0.5}, "images": 7, "failed": 0, "centred_gaussian_px_ap": 0.2}
    pixels |= dict.fromkeys(("object_pixels", "background_pixels", "ignored_pixels", "frame_px"), 1)
    run = make_run(tmp_path / "a", metrics("a", results=[], baselines=[], pixels=pixels), right=None)
    rows = list(csv.DictReader(written(tmp_path, ".csv", run).splitlines()))
    assert [(row["localizer"], row["images"], row["px_ap"]) for row in rows] == [
        ("", "200", ""),
        ("cam", "7", "0.25"),
        ("saliency", "7", "0.5"),
    ]
    text = written(tmp_path, ".md", run)
    assert "| a | cam | 25.00 | 7 |" in text and "| a | saliency | 50.00 | 7 |" in text


def test_markdown_has_a_table_for_each_protocol(tmp_path: Path) -> None:
    text = written(tmp_path, ".md", *comparable_runs(tmp_path))
    assert re.findall(r"(?m)^#+ .*$", text) == [
        "# Localization results: gap, ours",
        "## Images",
        "## Protocol CAM (20 % of the maximum), rates in %",
        "## Protocol MaxBoxAcc (one threshold for all), rates in %",
    ]
    for table in re.findall(r"(?m)(?:^\|.*\n)+", text):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    # 130 + 10 and 118 of 200 images; the larger is the best of its column.
    assert re.search(r"(?m)^\| ours \| saliency \| 0\.200 \| \*\*70\.00 \(63\.6 to 76\.4\)\*\* ", text)
    assert re.search(r"(?m)^\| gap \| cam \| 0\.200 \| 59\.00 \(", text)
    assert "| baseline | centred-gaussian | 0.200 | 54.00 (" in text


def test_latex_is_balanced_and_names_are_text(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", plain(HOSTILE)), make_run(tmp_path / "b", plain("b", correct=130))]
    text = written(tmp_path, ".tex", *runs)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for name in ("table", "tabular"):
        assert body.count(rf"\begin{{{name}}}") == body.count(rf"\end{{{name}}}") == 3
    assert r"a|b\_c \& 50\% <i> \textbackslash{}end\{table\} \#\$\textasciitilde{}\textasciicircum{}*" in body
    unescaped = re.sub(r"\\[&%$#_{}]", "", body)
    assert unescaped.count("{") == unescaped.count("}") and not re.search(r"[%$#_]", unescaped)
    for block in re.findall(r"(?s)\\begin\{tabular\}\{(l+r+)\}(.*?)\\end", body):
        rows = [line for line in re.sub(r"\\&", "", block[1]).splitlines() if line.endswith(r"\\")]
        assert {line.count("&") + 1 for line in rows} == {len(block[0])} and len(rows) > 2
    assert r"\textbf{70.00}" in body
    markdown = written(tmp_path, ".md", *runs)
    assert r"a\|b\_c & 50% \<i>" in markdown


def test_runs_that_do_not_belong_together_are_said(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", plain("a")), make_run(tmp_path / "b", plain("b", correct=150), prefix="other")]
    (warning,) = write_report(runs, tmp_path / "r.csv")
    assert "different image sets" in warning
    for suffix, bold in ((".md", "**"), (".tex", r"\textbf")):
        text = written(tmp_path, suffix, *runs)
        assert "different image sets" in text and bold not in text


def test_charts_are_files_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "gap", metrics("gap"))
    write_report([run], tmp_path / "r.md", charts=tmp_path / "figures")
    expected = {"cam-overlaps", "cam-errors", *(f"wsoleval-v1-{kind}" for kind in ("accuracy", "overlaps", "errors"))}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {f"{name}.pdf" for name in expected}
    assert all(path.read_bytes().startswith(b"%PDF") for path in (tmp_path / "figures").iterdir())


def test_what_a_table_cannot_show_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "gap", plain("gap"))
    with pytest.raises(ValueError, match=r"r\.tex: tables without an introduction: give a name that ends in \.html"):
        write_report([run], tmp_path / "r.tex", introduction="words")
    with pytest.raises(ValueError, match=r"r\.csv: tables without curves of trainings"):
        write_report([run], tmp_path / "r.csv", training=[tmp_path])
    assert not list(tmp_path.glob("r.*"))
