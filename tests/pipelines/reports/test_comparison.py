"""Runs read for the report: warnings, pairs of runs, and files that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.results.predictions import PredictionsError
from evaluation.schema import MetricsError
from pipelines.reports.comparison import comparison_warnings, load_runs, paired_counts, same_images
from tests.evaluation.example_metrics import IMAGES, metrics, plain, rate, result
from tests.pipelines.report_page import comparable_runs, make_run, report, summary_rows


def warnings_of(*runs: Path) -> list[str]:
    return comparison_warnings(load_runs(runs))


def test_runs_on_the_same_images_have_no_warning(tmp_path: Path) -> None:
    runs = comparable_runs(tmp_path)
    text, _ = report(tmp_path, *runs)
    assert warnings_of(*runs) == [] and same_images(load_runs(runs))
    assert 'class="warning"' not in text
    assert warnings_of(runs[0]) == []


def test_other_images_are_said_on_top_and_nothing_is_best(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", plain("a")), make_run(tmp_path / "b", plain("b", correct=150), prefix="other")]
    text, page = report(tmp_path, *runs)
    sentence = "different image sets: 205 images are in the first alone, 205 in the second alone."
    assert any(sentence in warning for warning in warnings_of(*runs))
    assert sentence in text and "These runs cannot be compared as they stand" in text
    assert text.index(sentence) < text.index("Results by protocol")
    assert not [element for element in page.all("span") if element["attrs"].get("class") == "best"]
    baselines = [row[:2] for row in summary_rows(text) if "baseline" in row[0]]
    assert baselines == [["baseline a", "centred-gaussian"], ["baseline b", "centred-gaussian"]] * 2


def test_what_several_runs_differ_by_is_said_once(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", plain("a"))]
    runs += [make_run(tmp_path / name, plain(name, correct=150), prefix="other") for name in "bcd"]
    (warning,) = warnings_of(*runs)
    assert warning.startswith("“a” and “b”, “c”, “d”: different image sets: ")


def test_baselines_are_no_news_on_other_images(tmp_path: Path) -> None:
    made = metrics("b")
    for baseline in made["baselines"]:
        baseline["gt_known_loc"] = rate(109)
    first = make_run(tmp_path / "a")
    (warning,) = warnings_of(first, make_run(tmp_path / "b", made, prefix="other"))
    assert "different image sets" in warning
    (warning,) = warnings_of(first, make_run(tmp_path / "c", made))
    assert "centred-gaussian (protocol CAM (20 % of the maximum)), centred-gaussian (protocol MaxBoxAcc (" in warning


def test_other_denominators_are_said_without_predictions(tmp_path: Path) -> None:
    counts = {"asked": IMAGES + 9, "scored": IMAGES, "failed": {}, "skipped": {"no boxes": 9}, "notes": {}}
    runs = [make_run(tmp_path / "a", right=None), make_run(tmp_path / "b", metrics("b", counts=counts), right=None)]
    found = warnings_of(*runs)
    assert len(found) == 2
    assert "different images were counted: 205 images asked for" in found[0] and "against 209" in found[0]
    assert "“a”, “b”: no predictions.csv" in found[1]


def test_other_labels_and_skips_are_said(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", labels=40)]
    assert [warning.split(": ")[1] for warning in warnings_of(*runs)] == ["100 images have another class label."]
    other = make_run(tmp_path / "c")
    rows = (other / "predictions.csv").read_text(encoding="utf-8").splitlines()
    rows = [row.replace("scored", "no boxes") if row.startswith("image0,") else row for row in rows]
    rows = [row.replace("no boxes", "scored") if row.startswith("image204,") else row for row in rows]
    (other / "predictions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert [warning.split(": ")[1] for warning in warnings_of(runs[0], other)] == [
        "2 images are scored in one run and skipped in the other."
    ]


def test_other_ground_truth_is_noticed_by_its_baseline(tmp_path: Path) -> None:
    made = metrics("b")
    made["baselines"][0]["gt_known_loc"] = rate(109)
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", made)]
    (warning,) = warnings_of(*runs)
    assert "the baseline centred-gaussian (protocol CAM (20 % of the maximum)), which never looks at an" in warning
    assert not same_images(load_runs(runs))


def test_other_ground_truth_that_no_baseline_shows_is_said(tmp_path: Path) -> None:
    first, other = plain("a"), plain("b")
    for made, digest in ((first, "one"), (other, "two")):
        made["config"]["data"] = {"sha256": digest}
    runs = [make_run(tmp_path / "a", first), make_run(tmp_path / "b", other)]
    (warning,) = warnings_of(*runs)
    assert (
        warning
        == "“a” and “b”: the same images, but other boxes, sizes that the boxes refer to, or blacklisted images."
    )


def test_predictions_of_another_run_with_as_many_images_are_refused(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", right=range(99))
    (other / "predictions.csv").replace(one / "predictions.csv")
    with pytest.raises(MetricsError, match=r"predictions.csv: cam under cam: expected .*'correct': 100.*'correct': 99"):
        load_runs([one])


def test_other_rules_under_the_same_name_are_said(tmp_path: Path) -> None:
    made = plain("b")
    for one in (*made["results"], *made["baselines"]):
        if one["protocol"] == "cam":
            one["describe"]["IoU"] = "exclusive, > .5"
    runs = [make_run(tmp_path / "a", plain("a")), make_run(tmp_path / "b", made)]
    (warning,) = warnings_of(*runs)
    assert (
        "the protocol CAM (20 % of the maximum) has other rules: IoU is “inclusive, >= .5”, against “exclusive, > .5”."
        in warning
    )
    text, _ = report(tmp_path, *runs)
    assert "Read this before comparing" in text


def test_runs_without_a_common_protocol_are_said(tmp_path: Path) -> None:
    made = metrics("b", results=[result("cam", "ts-cam", correct=90)], baselines=[])
    found = warnings_of(make_run(tmp_path / "a"), make_run(tmp_path / "b", made))
    assert [warning.split(": ")[1] for warning in found] == ["no protocol in common."]


def test_images_are_compared_one_by_one(tmp_path: Path) -> None:
    runs = comparable_runs(tmp_path)
    text, _ = report(tmp_path, *runs)
    pairs = paired_counts(load_runs(runs))
    assert [(pair.localizer, pair.protocol) for pair in pairs] == [
        (localizer, protocol) for localizer in ("cam", "saliency") for protocol in ("cam", "wsoleval-v1")
    ]
    # Right are 0..99 in the first and 30..149 in the other, of 200 scored.
    assert (pairs[0].both, pairs[0].only_first, pairs[0].only_other, pairs[0].neither) == (70, 30, 50, 50)
    gained, half = pairs[0].gained
    assert gained == 0.1
    # Standard error of a difference of paired shares: each image is worth -1, 0 or 1.
    worth = np.repeat([-1, 0, 1], [30, 120, 50])
    assert half == pytest.approx(1.959964 * worth.std() / np.sqrt(200), rel=1e-6)
    assert "+10.00 ± 8.65" in text


def test_images_that_either_run_skipped_are_not_paired(tmp_path: Path) -> None:
    counts = {"asked": 205, "scored": 150, "failed": {}, "skipped": {"no boxes": 55}, "notes": {}}
    runs = [
        make_run(tmp_path / "a", right=range(200)),
        make_run(tmp_path / "b", metrics("b", counts=counts), right=range(200)),
    ]
    pair = paired_counts(load_runs(runs))[0]
    assert (pair.both, pair.images) == (150, 150)


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, metrics("gap"), right=None) for name in "abc"]
    assert [run.label for run in load_runs(folders)] == ["gap", "gap (2)", "gap (3)"]
    nameless = make_run(tmp_path / "folder", metrics(""), right=None)
    assert load_runs([nameless])[0].label == "folder"


def test_predictions_of_another_run_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    lines = (run / "predictions.csv").read_text(encoding="utf-8").splitlines()
    results = len(metrics("a")["results"])

    def keep(lines: list[str]) -> None:
        (run / "predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    keep(lines[:-results])
    with pytest.raises(MetricsError, match=r"predictions\.csv: expected 205 images as in metrics\.json, found 204"):
        load_runs([run])
    expected = f"expected one row for each of {results} localizers and protocols, as the first image has, found"
    for spoilt, image, found in (
        (lines[:-1], "image204", f"{results - 1};"),
        ([*lines, lines[-1]], "image204", f"{results + 1};"),
        ([*lines, lines[1]], "image0", "1 more;"),
        ([*lines[:-1], lines[-2]], "image204", f"{results};"),
    ):
        keep(spoilt)
        with pytest.raises(PredictionsError, match=rf"predictions\.csv: image '{image}': {expected} {found}"):
            load_runs([run])
