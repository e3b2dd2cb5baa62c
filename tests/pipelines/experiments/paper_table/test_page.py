"""The three files of the table show what the metrics.json of the runs say, and what is missing."""

import csv
import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.experiments.paper_table.page import TABLE_FILES, write_tables
from pipelines.experiments.paper_table.plan import TablePlan, TableRun
from pipelines.experiments.paper_table.results import TableResults, collect_results
from tests.pipelines.report_page import Page
from tests.pipelines.table_runs import make_plan, runs_by_name, write_finished

GAP, OURS = (100, 110, 90), (130, 120, 125)
"""Of 200 images, those that the map of each seed localizes."""
CLASSIFIED = (150, 140, 160)


@pytest.fixture
def plan(tmp_path: Path) -> TablePlan:
    return make_plan(tmp_path)


@pytest.fixture
def runs(plan: TablePlan) -> dict[str, TableRun]:
    """All runs of the plan, finished."""
    runs = runs_by_name(plan)
    for seed in plan.seeds:
        write_finished(runs[f"alexnet-gap gap seed {seed}"], correct=GAP[seed], classified=130)
        write_finished(runs[f"alexnet-gap ours seed {seed}"], correct=OURS[seed], classified=CLASSIFIED[seed])
    write_finished(runs["baseline"], correct=0)
    write_finished(runs["pseudo-map"], correct=140)
    return runs


def collect(plan: TablePlan, runs: dict[str, TableRun]) -> TableResults:
    return collect_results(plan, list(runs.values()))


def written(results: TableResults) -> dict[str, str]:
    out = results.plan.out
    write_tables(results, out)
    return {name: (out / name).read_text(encoding="utf-8") for name in TABLE_FILES}


def csv_lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def csv_line(text: str, **wanted: str) -> dict[str, str]:
    (line,) = [line for line in csv_lines(text) if wanted.items() <= line.items()]
    return line


def markdown_cells(text: str) -> dict[str, list[list[str]]]:
    """By first cell the further cells of every line with it, in order of the tables."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            first, *rest = [cell.strip().replace("\\", "") for cell in line.strip("|").split("|")]
            found.setdefault(first, []).append(rest)
    return found


def html_cells(text: str) -> Iterator[list[str]]:
    page = Page(text)
    row: list[str] = []
    for element in page.all("tr", "th", "td"):
        if element["tag"] == "tr":
            if row:
                yield row
            row = []
        else:
            row.append(element["text"])
    yield row


def test_mean_sample_deviation_and_paired_difference(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    value = collect(plan, runs).value("alexnet-gap", "ours", "cam", "cam", "gt_known_loc")
    assert value.measured is not None and value.difference is not None
    rates = [correct / 2 for correct in OURS]
    assert list(value.measured.by_seed.items()) == list(enumerate(rates))
    assert value.measured.mean == pytest.approx(62.5)
    assert value.measured.sd == pytest.approx(2.5)  # of 65, 60, 62.5: squares 6.25 + 6.25 over 2
    paired = [(ours - gap) / 2 for ours, gap in zip(OURS, GAP, strict=True)]
    assert list(value.difference.by_seed.values()) == pytest.approx(paired) == [15, 5, 17.5]
    assert (value.paper, value.paper_difference) == (67.23, 12.33)


def test_the_csv_is_what_the_runs_say(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    text = written(collect(plan, runs))["table.csv"]
    checked = 0
    for row in plan.rows:
        contents = [json.loads(runs[f"alexnet-gap {row} seed {seed}"].metrics_file.read_text()) for seed in plan.seeds]
        for results in zip(*(content["results"] for content in contents), strict=True):
            wanted = {"row": row, "localizer": results[0]["localizer"], "protocol": results[0]["protocol"]}
            for metric in ("gt_known_loc", "top1_loc", "top5_loc", "max_box_acc_v2"):
                if results[0][metric] is None:
                    continue
                line = csv_line(text, metric=metric, **wanted)
                rates = [100 * result[metric]["rate"] for result in results]
                assert [float(line[f"seed_{seed}"]) for seed in plan.seeds] == pytest.approx(rates)
                assert float(line["mean"]) == pytest.approx(statistics.mean(rates))
                assert float(line["sd"]) == pytest.approx(statistics.stdev(rates))
                assert (line["n"], line["unit"]) == ("3", "percent")
                assert line["oracle_threshold"] == ("yes" if wanted["protocol"] == "wsoleval-v1" else "no")
                checked += 1
        line = csv_line(text, row=row, metric="top1_class")
        rates = [100 * content["classification"]["top1"]["rate"] for content in contents]
        assert float(line["mean"]) == pytest.approx(statistics.mean(rates))
    # Four localizers; three metrics under cam, four under wsoleval-v1.
    assert checked == 4 * (3 + 4)
    keys = [tuple(line[key] for key in ("arch", "row", "localizer", "protocol", "metric")) for line in csv_lines(text)]
    assert len(keys) == len(set(keys))


def test_the_three_files_agree(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    files = written(collect(plan, runs))
    markdown = markdown_cells(files["table.md"])
    for row, title in (("gap", "GAP (cam)"), ("ours", "Ours (cam)")):
        lines = [
            csv_line(files["table.csv"], row=row, metric=metric, protocol=protocol)
            if metric == "top1_class"
            else csv_line(files["table.csv"], row=row, metric=metric, protocol=protocol, localizer="cam")
            for metric, protocol in (("gt_known_loc", "cam"), ("top1_loc", "cam"), ("top1_class", ""))
        ]
        shown = [f"{float(line['mean']):.2f} ± {float(line['sd']):.2f}" for line in lines]
        assert markdown[title][0] == [*shown, "3", *(f"{float(line['paper']):.2f}" for line in lines)]
        cells = next(cells for cells in html_cells(files["table.html"]) if cells[0] == title.replace(" (cam)", "cam"))
        for cell, line, text in zip(cells[1:4], lines, shown, strict=True):
            assert cell == text + ", ".join(f"{float(line[f'seed_{seed}']):.2f}" for seed in plan.seeds)
    (difference,) = [cells for cells in markdown["Ours (cam)"] if cells[0].startswith("+")]
    line = csv_line(files["table.csv"], row="ours", metric="gt_known_loc", localizer="cam", protocol="cam")
    assert difference[:2] == [f"{float(line['difference_to_gap']):+.2f} ± {float(line['difference_sd']):.2f}", "+12.33"]
    assert line["paper_difference_to_gap"] == "12.33"


def test_the_result_is_said_in_words_first(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    files = written(collect(plan, runs))
    said = (
        "Highest GT-known Loc under the protocol CAM (20 % of the maximum): “Ours” with 62.50 % (3 seeds), +12.50 "
        "points against GAP of the same seed. Without looking at an image, the centred-gaussian has 54.00 %."
    )
    assert said in files["table.md"] and said in files["table.html"]


def test_what_takes_no_training_stands_below(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    files = written(collect(plan, runs))
    markdown = markdown_cells(files["table.md"])
    assert markdown["centred-gaussian (no training)"][0] == ["54.00", *"-" * 6]
    assert markdown["pseudo-map (no training)"][0] == ["70.00", *"-" * 6]
    assert markdown["pseudo-map (no training)"][1] == ["70.00", "-", "70.00", "-"]
    line = csv_line(files["table.csv"], row="pseudo-map", protocol="cam", metric="gt_known_loc")
    assert (line["mean"], line["sd"], line["n"], line["seed_0"], line["paper"]) == ("70.000000", "", "1", "", "")


def test_every_localizer_under_every_protocol(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    markdown = markdown_cells(written(collect(plan, runs))["table.md"])
    titles = ("CAM (20 % of the maximum)", "MaxBoxAcc (one threshold for all), oracle")
    columns = [f"{title}: {metric}" for title in titles for metric in ("GT-known Loc", "Top-1 Loc")]
    assert columns in markdown["method"]
    means = {localizer: markdown[f"Ours ({localizer})"][-1][0] for localizer in ("cam", "saliency", "cam*saliency")}
    assert means == {"cam": "62.50 ± 2.50", "saliency": "63.00 ± 2.50", "cam*saliency": "63.50 ± 2.50"}


def test_what_the_tables_must_not_be_read_without(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    for text in (files := written(collect(plan, runs)))["table.md"], Page(files["table.html"]).all("main")[0]["text"]:
        for words in (
            "10 images to train on, 205 images of split val asked for, 2 classes; scored 200, skipped 5",
            "112 x 112 pixels (the paper: 224)",
            "recipe default: epochs 7, batches of 16, adamw at 0.001",
            "--map-weight 2.0, --triplet-margin 0.5, --area-weight 0.25",
            "imagenet",
            "method geodesic, map_size 224",
            "0, 1, 2; mean ± sample standard deviation (n - 1)",
            "as wsoleval-v1 cuts. The threshold is chosen on the images that are scored, so these values are upper",
            "the paper's own numbers on ILSVRC (1,000 classes",
        ):
            assert words in text, words


def test_unfinished_runs_are_named_with_their_reasons(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    names = [f"alexnet-gap {row} seed {seed}" for row, seed in (("ours", 0), ("ours", 1), ("gap", 1), ("gap", 2))]
    for name in (*names, "pseudo-map"):
        runs[name].metrics_file.unlink()
    runs[names[0]].record.fail(runs[names[0]].steps[1], "the loss is not finite | at step 7")
    (runs[names[1]].folder / "finished.json").unlink()
    (runs[names[3]].folder / "finished.json").unlink()
    (runs[names[3]].folder / "table-run.json").unlink()
    # Records are read when the runs are planned.
    results = collect(plan, runs_by_name(plan))
    assert dict(results.unfinished) == {
        "alexnet-gap ours seed 0": "failed: the loss is not finite | at step 7",
        "alexnet-gap ours seed 1": "begun, not finished",
        "alexnet-gap gap seed 1": "trained, not evaluated yet",
        "alexnet-gap gap seed 2": "missing",
        "pseudo-map": "no maps of split val in maps; make them with wsol-prep proposals",
    }
    files = written(results)
    page = Page(files["table.html"]).all("main")[0]["text"]
    for name, reason in results.unfinished.items():
        assert f"- {name}: {reason}" in files["table.md"] and f"{name}: {reason}" in page
    assert "3 of 8 runs are finished" in files["table.md"]
    markdown = markdown_cells(files["table.md"])
    assert markdown["GAP (cam)"][0][:4] == ["50.00", "33.00", "65.00", "1 of 3"]
    assert markdown["Ours (cam)"][0][3] == "1 of 3"
    line = csv_line(files["table.csv"], row="ours", protocol="cam", metric="gt_known_loc", localizer="cam")
    assert (line["n"], line["difference_n"]) == ("1", "0")
    assert line["note"].startswith("seed 0: failed: the loss is not finite | at step 7; seed 1: begun, not finished")


def test_only_seeds_that_both_have_are_paired(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    runs["alexnet-gap gap seed 1"].metrics_file.unlink()
    line = csv_line(
        written(collect(plan, runs))["table.csv"], row="ours", protocol="cam", metric="gt_known_loc", localizer="cam"
    )
    assert (line["n"], line["difference_n"], line["difference_to_gap"]) == ("3", "2", "16.250000")


def test_a_damaged_run_is_a_failed_run(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    runs["alexnet-gap gap seed 0"].metrics_file.write_text("{")
    (runs["alexnet-gap ours seed 0"].folder / "finished.json").write_text("{}")
    unfinished = collect(plan, runs).unfinished
    assert re.match(r"failed: .*metrics\.json: expected JSON", unfinished["alexnet-gap gap seed 0"])
    assert re.match(r"failed: .*finished\.json: expected the configuration", unfinished["alexnet-gap ours seed 0"])


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "budget": ({"epochs": 8}, "epochs: 7 in the first, 8 in this"),
    "loss": ({"loss": {"map_kind": "bce"}}, 'loss.map_kind: "l2" in the first, "bce" in this'),
    "F": ({"perceptual": "random"}, 'perceptual: "imagenet" in the first, "random" in this'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_runs_of_other_settings_are_pointed_at(plan: TablePlan, runs: dict[str, TableRun], change: str) -> None:
    configuration, words = CHANGES[change]
    assert collect(plan, runs).warnings == ()
    write_finished(runs["alexnet-gap ours seed 2"], correct=100, configuration=configuration)
    results = collect(plan, runs)
    (warning,) = results.warnings
    assert warning == f"alexnet-gap ours seed 2 was trained with other settings than the first run: {words}."
    files = written(results)
    assert warning in files["table.md"]
    assert warning in Page(files["table.html"]).all("section")[0]["text"]


def test_runs_that_learned_from_other_images_are_named(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    for name, (run, images) in {name: (run, 9 + (run.row == "gap")) for name, run in runs.items() if run.row}.items():
        finished = run.folder / "finished.json"
        content = {**json.loads(finished.read_text()), "images": 10, "images_sha256": "all"}
        finished.write_text(json.dumps(content))
        assert collect(plan, {name: run}).warnings == ()
        finished.write_text(json.dumps({**content, "images": images, "images_sha256": str(images)}))
    results = collect(plan, runs)
    (warning,) = results.warnings
    gap, ours = (", ".join(f"alexnet-gap {row} seed {seed}" for seed in plan.seeds) for row in plan.rows)
    assert warning.startswith(
        f"Not all runs learned from the same images: {gap} (10 images), against {ours} (9 images). --on-missing skip"
    )
    files = written(results)
    assert warning in files["table.md"]
    assert "10 images to train on (9 or 10 learned from), 205 images of split val" in files["table.md"]


def test_runs_scored_on_other_images_are_pointed_at(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    content = write_finished(runs["alexnet-gap gap seed 2"], correct=90)
    content["config"]["data"] = "others"
    runs["alexnet-gap gap seed 2"].metrics_file.write_text(json.dumps(content))
    (warning,) = collect(plan, runs).warnings
    assert warning.startswith("alexnet-gap gap seed 2 was scored on other images")


def test_an_architecture_of_our_own_has_no_columns_of_the_paper(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, archs=("resnet50-gap",), seeds=(0,))
    runs = runs_by_name(plan)
    write_finished(runs["resnet50-gap gap seed 0"], correct=100)
    files = written(collect(plan, runs))
    for name in ("table.md", "table.html"):
        assert "paper: GT-known Loc" not in files[name] and "paper's own numbers" not in files[name]
    assert {line["paper"] for line in csv_lines(files["table.csv"])} == {""}


def test_another_first_protocol_has_no_columns_of_the_paper(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    files = written(collect(replace(plan, protocols=("wsoleval-v1", "cam")), runs))
    assert (
        "protocol MaxBoxAcc (one threshold for all): mean" in files["table.md"]
        and "paper: GT-known" not in files["table.md"]
    )


def test_nothing_finished_is_a_table_of_what_is_missing(plan: TablePlan) -> None:
    files = written(collect(plan, runs_by_name(plan)))
    assert "0 of 8 runs are finished" in files["table.md"]
    assert markdown_cells(files["table.md"])["GAP (cam)"][0][:4] == ["-", "-", "-", "0 of 3"]
    assert not Page(files["table.html"]).all("img")


def test_the_page_stands_alone_and_is_the_same_twice(plan: TablePlan, runs: dict[str, TableRun]) -> None:
    first, second = written(collect(plan, runs)), written(collect(plan, runs))
    assert first == second
    page = Page(first["table.html"])
    pictures = page.all("img")
    assert len(pictures) == 2 and all(picture["attrs"]["src"].startswith("data:") for picture in pictures)
    assert not page.all("script", "link", "a")
    assert str(plan.out) not in "".join(first.values())
