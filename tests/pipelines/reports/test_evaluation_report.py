"""The report: a whole page, its tables, charts and classes, and hostile names."""

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from defusedxml import ElementTree

from evaluation.metrics.tally import Tally
from evaluation.results.predictions import write_predictions
from evaluation.schema import Metrics, MetricsError, write_json
from pipelines.reports.comparison import comparison_warnings, load_runs, paired_counts, same_images
from pipelines.reports.evaluation_report import write_report
from tests.evaluation.example_metrics import metrics, plain, rate, result
from tests.evaluation.scores_making import ALL_RULES, CLASSES, LOCALIZERS, random_images
from tests.pipelines.report_page import Page, comparable_runs, make_run, report, summary_rows

PIXELS = {
    **{"px_ap": {"cam": 0.6125}, "images": 20, "failed": 0, "frame_px": 224, "centred_gaussian_px_ap": 0.5},
    **dict.fromkeys(("object_pixels", "background_pixels", "ignored_pixels"), 7),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page, list[Path]]:
    """The page of two comparable runs."""
    root = tmp_path_factory.mktemp("two")
    runs = comparable_runs(root, charts=True)
    return *report(root, *runs), runs


# --- the page


def test_the_page_is_self_contained(two: tuple[str, Page, list[Path]]) -> None:
    text, page, _ = two
    assert text.startswith("<!DOCTYPE html>")
    assert not page.all("link", "iframe", "object")
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert not script["attrs"] and f"script-src 'sha256-{digest}'" in text, "the one script that may run"
    for element in page.elements:
        for name, value in element["attrs"].items():
            assert not name.startswith("on"), element
            if name in ("src", "srcset", "href"):
                assert value.startswith("data:image/"), value[:60]
    (style,) = page.all("style")
    assert "url(" not in style["text"] and "@import" not in style["text"]
    assert "default-src 'none'" in text


def test_the_page_is_accessible(two: tuple[str, Page, list[Path]]) -> None:
    _, page, _ = two
    (html,) = page.all("html")
    assert html["attrs"]["lang"] == "en"
    assert any(meta["attrs"].get("name") == "viewport" for meta in page.all("meta"))
    assert all(image["attrs"]["alt"].strip() for image in page.all("img"))
    assert all(heading["attrs"].get("scope") for heading in page.all("th"))
    identifiers = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(identifiers) == len(set(identifiers))
    named = [element["attrs"]["aria-labelledby"] for element in page.elements if "aria-labelledby" in element["attrs"]]
    assert named and set(named) <= set(identifiers)
    levels = [int(heading["tag"][1]) for heading in page.all("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_tables_scroll_and_can_be_reached_by_keyboard(two: tuple[str, Page, list[Path]]) -> None:
    text, page, _ = two
    scrolling = [element for element in page.all("div") if "scroll" in element["attrs"].get("class", "").split()]
    assert len(scrolling) >= len(page.all("table")) > 5
    assert all(element["attrs"]["tabindex"] == "0" and element["attrs"]["aria-label"] for element in scrolling)
    assert "prefers-color-scheme: dark" in text


def test_every_table_row_is_as_wide_as_its_heading(two: tuple[str, Page, list[Path]]) -> None:
    text, _, _ = two
    for table in re.findall(r"<table.*?</table>", text, flags=re.DOTALL):
        widths = set()
        for row in re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL):
            spans = re.findall(r'<t[hd][^>]*?(?:colspan="(\d+)")?>', row)
            widths.add(sum(int(span or 1) for span in spans))
        assert len(widths) == 1, table[:200]


def test_the_same_runs_give_the_same_bytes(two: tuple[str, Page, list[Path]], tmp_path: Path) -> None:
    text, _, runs = two
    write_report([run / "metrics.json" for run in runs], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"], "no temporary file stays"


def test_results_stand_above_the_baseline_of_their_protocol(two: tuple[str, Page, list[Path]]) -> None:
    rows = summary_rows(two[0])
    per_protocol = [[run, localizer] for run in ("gap", "ours") for localizer in ("cam", "saliency")]
    per_protocol.append(["baseline", "centred-gaussian"])
    titles = [
        "Protocol CAM (20 % of the maximum), rates in %",
        "Protocol MaxBoxAcc (one threshold for all), rates in %",
    ]
    assert [row[:2] for row in rows] == [name for title in titles for name in ([title], *per_protocol)]


def test_a_table_has_the_metrics_of_its_protocol_and_a_dash_where_a_row_has_none(
    two: tuple[str, Page, list[Path]],
) -> None:
    text, page, _ = two
    tables = [table["text"] for table in page.all("table") if table["attrs"].get("class") == "summary"]
    assert ["MaxBoxAcc mean" in table for table in tables] == [False, True]
    assert all("network or maps" in table and "localizer" in table for table in tables)
    assert "A dash stands where" in text
    (cam, sweep) = (row for row in summary_rows(text) if row[:2] == ["baseline", "centred-gaussian"])
    assert cam[4:] == ["-"] * 5 + ["200 3 failed, 5 skipped"]
    assert sweep[4:9] == ["-"] * 5 and "-" not in sweep[9:]


def test_values_of_a_row(two: tuple[str, Page, list[Path]]) -> None:
    rows = summary_rows(two[0])
    gap_v1 = rows[7]
    assert gap_v1[:4] == ["gap", "cam", "0.300 oracle", "59.00 52.2 to 65.8"]
    assert gap_v1[4] == "5.00 above centred-gaussian", "108 of 200 is the baseline"
    assert [cell.split()[0] for cell in gap_v1[5:13]] == [
        "39.00",
        "49.00",
        "65.00",
        "85.00",
        "79.00",
        "59.00",
        "29.50",
        "55.83",
    ]
    assert gap_v1[13] == "200 3 failed, 5 skipped"
    assert rows[11][3].startswith("54.00")
    assert "oracle" not in rows[1][2]


def test_the_best_of_several_baselines_is_the_one_to_be_above_under_each_protocol(tmp_path: Path) -> None:
    made = plain("gap", correct=120)
    for localizer, correct in (("centred-square", {"cam": 112, "wsoleval-v1": 100}), ("whole-frame", {"cam": 80})):
        for protocol, right in correct.items():
            extra = result(localizer, protocol, correct=right, classified=False)
            made["baselines"].append(extra | {"curve": None, "iou_histogram": None, "errors": None})
    text, _ = report(tmp_path, make_run(tmp_path / "a", made, right=None))
    shown = {row[1]: row[4] for row in summary_rows(text)[1:3]}
    assert shown == {"cam": "4.00 above centred-square", "saliency": "9.00 above centred-square"}
    assert [row[4] for row in summary_rows(text) if row[:2] == ["gap", "cam"]][1] == "6.00 above centred-gaussian"


def test_views_and_a_single_ground_truth_box_are_said_of_each_run(tmp_path: Path) -> None:
    contents = [plain("one", config={"boxes": "first"}), plain("ten", config={"boxes": "all"})]
    for content in contents:
        for made in content["results"]:
            made["describe"]["views"] = f"{content['name']} crops"
    runs = [make_run(tmp_path / content["name"], content) for content in contents]
    _, page = report(tmp_path, *runs)
    cells = [element["text"] for element in page.all("td")]
    assert cells.count("first box only") == cells.count("all boxes") == 1
    rules = [element["text"] for element in page.all("dt", "dd")]
    for name in ("one", "ten"):
        assert rules.count(f"views of {name}") == rules.count(f"{name} crops") == 2, "once a protocol"
    assert "views" not in rules
    # Views belong to the run; the protocol means the same.
    assert comparison_warnings(load_runs(runs)) == []


def test_the_best_result_is_marked_but_no_baseline_and_no_tie(two: tuple[str, Page, list[Path]]) -> None:
    text, page, _ = two
    assert "Underlined: the highest rate of a column, baselines left out" in text
    best = [element["text"] for element in page.all("span") if element["attrs"].get("class") == "best"]
    assert best.count("70.00") == 3, "GT-known under both protocols and MaxBoxAcc .5"
    assert "54.00" not in best, "the baseline"
    assert "85.00" not in best, "Top-5 Class of both runs"


def test_where_nothing_is_marked_no_mark_is_explained(tmp_path: Path) -> None:
    contents = [plain(name) for name in "ab"]
    for content in contents:
        content["results"] = [made for made in content["results"] if made["localizer"] == "cam"]
    text, page = report(tmp_path, *(make_run(tmp_path / content["name"], content) for content in contents))
    assert not [element for element in page.all("span") if element["attrs"].get("class") == "best"]
    assert "Underlined" not in text and "These runs cannot" not in text


def test_reasons_are_given_for_images_that_failed_or_were_skipped(two: tuple[str, Page, list[Path]]) -> None:
    text, _, _ = two
    for words in ("2 no map, 1 unreadable image", "5 no boxes", "4 constant map"):
        assert text.count(words) == 2


def test_charts_are_pictures_for_light_and_dark_pages(two: tuple[str, Page, list[Path]]) -> None:
    _, page, _ = two
    start = "data:image/svg+xml;base64,"
    charts = [image["attrs"] for image in page.all("img") if image["attrs"]["src"].startswith(start)]
    assert [chart["alt"].split(",")[0] for chart in charts] == [
        "Overlap of the boxes",
        "Kinds of error",
        "Accuracy against threshold",
        "Overlap of the boxes",
        "Kinds of error",
    ]
    assert "cam of gap: best 58." in charts[2]["alt"]
    contents = {base64.b64decode(chart["src"].removeprefix(start)) for chart in charts}
    assert len(contents) == 5
    for content in contents:
        assert ElementTree.fromstring(content).tag.endswith("svg") and b"prefers-color-scheme: dark" in content


def test_settings_that_only_one_run_has_do_not_differ(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, plain(name, config=config)) for name, config in (("a", {"x": 1}), ("b", {}))]
    text, _ = report(tmp_path, *runs)
    assert "Configuration</summary>" in text and '<tr class="differs">' not in text


def test_settings_that_differ_are_marked(tmp_path: Path) -> None:
    config = {"data": "ilsvrc10", "split": "val", "views": {"scales": [1.0], "flip": False}}
    runs = [make_run(tmp_path / "a", plain()), make_run(tmp_path / "b", plain("b", config=config))]
    text, _ = report(tmp_path, *runs)
    assert "Configuration (1 differ)" in text and "Versions</summary>" in text
    (marked,) = re.findall(r'<tr class="differs">(.*?)</tr>', text)
    assert [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", marked)] == [
        "views.scales",
        "1.0, 1.25",
        "1.0",
        "differs",
    ]
    assert "views.flip" in text and ">no</td>" in text


def test_pixel_scores_are_shown_where_there_are_masks(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", plain(pixels=PIXELS))
    _, page = report(tmp_path, run)
    cells = [element["text"] for element in page.all("th", "td")]
    place = cells.index("61.25")
    assert cells[place - 2 : place + 2] == ["gap", "cam", "61.25", "20"]
    assert cells[place + 6 : place + 9] == ["baselinegap", "centred-gaussian", "50.00"]


def test_a_run_without_anything_but_metrics(tmp_path: Path) -> None:
    made = metrics("bare", kind="maps", results=[], baselines=[])
    text, page = report(tmp_path, make_run(tmp_path / "a", made, right=None))
    assert "Localization was not scored: every image was skipped" in text and 'class="warning"' not in text
    assert not page.all("img") and "Top-1 Class" not in page.all("table")[0]["text"]


def test_results_of_the_baseline_command_are_baselines(tmp_path: Path) -> None:
    made = metrics(
        "boxes", kind="baseline", results=[result("whole-frame", "cam", correct=82, classified=False)], baselines=[]
    )
    runs = [make_run(tmp_path / "gap", plain()), make_run(tmp_path / "boxes", made, right=[])]
    text, _ = report(tmp_path, *runs)
    assert [row[:2] for row in summary_rows(text)][1:5] == [
        ["gap", "cam"],
        ["gap", "saliency"],
        ["baseline gap", "centred-gaussian"],
        ["baseline boxes", "whole-frame"],
    ]


# --- hostile names


HOSTILE = '</title><script>alert("$1")</script>&amp;\'"'


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    made = metrics(HOSTILE, correct=90, config={HOSTILE: HOSTILE, "list": [HOSTILE]}, versions={HOSTILE: "1"})
    made["counts"] |= {"failed": {HOSTILE: 1}, "notes": {HOSTILE: 2}}
    for one in (*made["results"], *made["baselines"]):
        one["describe"] = {HOSTILE: HOSTILE}
        one["per_class"][0]["wnid"] = "<script>"
    for one in made["results"][:1]:
        one["localizer"] = one["protocol"] = HOSTILE
    run = make_run(tmp_path / "a", made, right=None)
    text, page = report(tmp_path, run)
    assert len(page.all("script")) == 1 and text.count("<script") == 1, "the page's own"
    assert "&lt;script&gt;" in text
    assert page.all("title")[0]["text"] == f"Localization results: {HOSTILE}"
    assert any(element["text"] == "<script>" for element in page.all("th"))
    assert page.all("html")[0]["attrs"] == {"lang": "en"}


def test_names_that_are_no_unicode_do_not_stop_the_page(tmp_path: Path) -> None:
    made = plain("a\udcff")
    made["results"][0]["errors"] = metrics()["results"][0]["errors"]
    made["results"][0]["per_class"][0]["wnid"] = "b\udcff"
    text, _ = report(tmp_path, make_run(tmp_path / "a", made, right=None))
    assert "a?" in text and "b?" in text


# --- what cannot be read


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "a.html")


def test_a_folder_without_metrics_is_named_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        MetricsError, match=r"metrics\.json: not found, nor .*/evaluation/metrics\.json; .*wsol-eval run "
    ):
        write_report([tmp_path], tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_network_stands_for_the_evaluation_in_it(tmp_path: Path) -> None:
    evaluation = make_run(tmp_path / "network" / "evaluation", plain("network"))
    of_evaluation, _ = report(tmp_path, evaluation)
    assert report(tmp_path, tmp_path / "network")[0] == of_evaluation
    # Its own results come first.
    (tmp_path / "network" / "metrics.json").write_text(json.dumps(plain("own")))
    text, _ = report(tmp_path, tmp_path / "network")
    assert "own" in text


# --- with the evaluator's own writers


def evaluated_run(folder: Path, *, images: int = 60, seed: int = 0) -> Path:
    """A run folder as the evaluator's own tally and writer fill it, with its first localizer as a baseline."""
    scores = random_images(images, seed=seed)
    tally = Tally(ALL_RULES, LOCALIZERS, class_wnids=CLASSES, baselines=["cam"], bootstrap_samples=20)
    tally.add(scores)
    folder.mkdir(parents=True)
    made = Metrics(
        kind="run",
        name=folder.name,
        counts=tally.counts(),
        classification=tally.classification(),
        results=tally.results(),
        baselines=tally.results(baselines=True),
        pixels=None,
        config={},
        versions={},
    )
    write_json(folder / "metrics.json", made)
    write_predictions(
        folder / "predictions.csv",
        scores,
        protocols=ALL_RULES,
        localizers=LOCALIZERS,
        levels=tally.reported_levels(),
    )
    return folder


def test_what_the_evaluator_writes_can_be_reported(tmp_path: Path) -> None:
    runs = [evaluated_run(tmp_path / "one"), evaluated_run(tmp_path / "two")]
    loaded = load_runs(runs)
    assert same_images(loaded) and comparison_warnings(loaded) == []
    pairs = paired_counts(loaded)
    assert [(pair.localizer, pair.protocol) for pair in pairs] == [("saliency", "sweep"), ("saliency", "fixed")]
    for pair, made in zip(pairs, loaded[0].metrics.results, strict=True):
        assert (pair.both, pair.only_first, pair.only_other) == (made.gt_known_loc.correct, 0, 0)
        assert pair.images == loaded[0].metrics.counts.scored
    text, _ = report(tmp_path, *runs)
    assert [row[:2] for row in summary_rows(text)] == [
        name
        for protocol in ("sweep", "fixed")
        for name in (
            [f"Protocol {protocol}, rates in %"],
            ["one", "saliency"],
            ["two", "saliency"],
            ["baseline", "cam"],
        )
    ]


def test_without_a_scored_image_there_is_still_a_page(tmp_path: Path) -> None:
    text, _ = report(tmp_path, evaluated_run(tmp_path / "none", images=0))
    assert "Localization was not scored: every image was skipped" in text


def test_a_baseline_appears_once_and_without_rates_that_depend_on_the_run(tmp_path: Path) -> None:
    contents = [plain(name) for name in "abc"]
    for content, right in zip(contents, (70, 80, None), strict=True):
        content["results"] = []
        content["baselines"] = [result("centred-gaussian", "wsoleval-v1", correct=108)]
        content["baselines"][0] |= {"iou_histogram": None, "errors": None}
        content["baselines"][0] |= {"top1_loc": None if right is None else rate(right)}
    runs = {content["name"]: make_run(tmp_path / content["name"], content, right=None) for content in contents}
    text, page = report(tmp_path, *runs.values())
    assert [row[:2] for row in summary_rows(text)][1:] == [["baseline", "centred-gaussian"]]
    assert "35.00" not in text and "40.00" not in text
    (chart,) = [image["attrs"]["alt"] for image in page.all("img")]
    assert chart.count("centred-gaussian") == 1
    # Intervals come from random samples: the same boxes all the same.
    contents[1]["baselines"][0]["gt_known_loc"]["interval"] = [0.1, 0.9]
    (runs["b"] / "metrics.json").write_text(json.dumps(contents[1]), encoding="utf-8")
    text, _ = report(tmp_path, runs["c"], runs["b"])
    assert "40.00" in summary_rows(text)[1][5], "the only one that knows classes"
