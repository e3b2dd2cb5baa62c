import functools
import operator
import re
from typing import Any

import pytest

from evaluation.results.tables import image_account, metrics_table, percent, reasons
from evaluation.schema import Counts, MetricsError, parse_metrics, protocols_in_order, read_metrics
from tests.evaluation.example_metrics import metrics, rate, result


def table_of(made: dict[str, object]) -> str:
    return metrics_table(parse_metrics(made))


def columns(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


# --- the table


def test_every_result_stands_above_the_baseline_of_its_protocol() -> None:
    lines = table_of(metrics()).splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("protocol"))
    assert [columns(line)[:2] for line in lines[heading + 1 : heading + 7]] == [
        ["cam", "cam"],
        ["cam", "saliency"],
        ["cam", "centred-gaussian *"],
        ["wsoleval-v1", "cam"],
        ["wsoleval-v1", "saliency"],
        ["wsoleval-v1", "centred-gaussian *"],
    ]


def test_numbers_are_percentages_under_their_heading() -> None:
    only = metrics(results=[result("cam", "wsoleval-v2", correct=101)], baselines=[])
    lines = table_of(only).splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith("protocol"))
    row = dict(zip(columns(lines[number]), columns(lines[number + 1]), strict=True))
    assert row["GT-known Loc"].startswith("50.50 [43.57, 57.43]")
    assert (row["Top-1 Loc"], row["Top-5 Loc"]) == ("33.50", "42.00")
    assert (row["MaxBoxAcc .3"], row["MaxBoxAcc .5"], row["MaxBoxAcc .7"]) == ("70.50", "50.50", "25.00")
    assert (row["MaxBoxAcc mean"], row["threshold"]) == ("48.67", "0.300 oracle")


def test_columns_end_at_the_same_place() -> None:
    lines = table_of(metrics()).splitlines()
    assert all(line == line.rstrip() for line in lines)
    heading = next(number for number, line in enumerate(lines) if line.startswith("protocol"))
    for name in ("GT-known Loc", "Top-5 Loc"):
        end = lines[heading].index(name) + len(name)
        for line in lines[heading + 1 : heading + 7]:
            assert line[end : end + 1] in ("", " ")
            assert "*" in line or line[end - 1] in "0123456789]"


def test_columns_that_nothing_fills_are_left_out() -> None:
    table = table_of(metrics(kind="maps", results=[result("pseudo-map", "cam", correct=90, classified=False)]))
    assert "Top-1 Loc" not in table and "Top-1 Class" not in table
    assert "Top-1 Loc" in table_of(metrics()) and "Top-1 Class" in table_of(metrics())


def test_images_are_accounted_for_on_the_first_line() -> None:
    first = table_of(metrics("gap")).splitlines()[0]
    assert first == (
        "gap (run): 205 images asked for = 200 scored (3 of them failed and counted as wrong: "
        "2 no map, 1 unreadable image) + 5 skipped (5 no boxes)"
    )


def test_without_failed_and_skipped_images_there_are_no_reasons() -> None:
    nothing = Counts(asked=4, scored=4, failed={}, skipped={}, notes={})
    assert image_account(nothing) == "4 images asked for = 4 scored + 0 skipped"


def test_a_data_set_without_scored_images_has_dashes() -> None:
    empty = result("cam", "cam", correct=1)
    none = {"rate": None, "correct": 0, "images": 0, "interval": None, "interval_kind": None}
    empty |= {"gt_known_loc": none, "top1_loc": none, "top5_loc": None}
    counts = {"asked": 3, "scored": 0, "failed": {}, "skipped": {"no boxes": 3}, "notes": {}}
    table = table_of(metrics(results=[empty], baselines=[], counts=counts, classification=None))
    assert columns(table.splitlines()[4])[:4] == ["cam", "cam", "-", "-"]


def test_no_results_is_said() -> None:
    assert table_of(metrics(results=[], baselines=[])).endswith("localization was not scored: every image was skipped")


@pytest.mark.parametrize(("fraction", "text"), [(0.54062, "54.06"), (0.0, "0.00"), (1.0, "100.00"), (None, "-")])
def test_percentages_have_two_decimals(fraction: float | None, text: str) -> None:
    assert percent(fraction) == text


def test_reasons_begin_with_the_commonest() -> None:
    assert reasons({"a": 1, "c": 5, "b": 1}) == "5 c, 1 a, 1 b"


def test_protocols_keep_their_order() -> None:
    one = parse_metrics(metrics())
    two = parse_metrics(metrics(results=[result("cam", "ts-cam", correct=3)]))
    assert protocols_in_order([one, two]) == ["cam", "wsoleval-v1", "ts-cam"]


# --- the schema


def test_a_checked_file_keeps_its_numbers() -> None:
    checked = parse_metrics(metrics())
    first = checked.results[1]
    assert (first.localizer, first.protocol, first.gt_known_loc.correct) == ("cam", "wsoleval-v1", 120)
    assert first.curve is not None and len(first.curve.gt_known_70) == len(first.curve.thresholds)
    assert first.max_box_acc is not None and list(first.max_box_acc) == ["0.3", "0.5", "0.7"]
    assert first.max_box_acc_v2 is not None and first.max_box_acc_v2.name == "V2 over largest boxes"
    assert checked.results[0].curve is None
    assert checked.baselines[0].top1_loc is None


ONE = ("results", 1)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        (("schema",), "wsol-metrics-0", r"m\.json: .*wsol-metrics-0.* `schema`"),
        (("kind",), "party", r"m\.json: .*'party'.* `kind`"),
        ((*ONE, "gt_known_loc"), {"rate": 0.5}, r"missing required field `correct`.* `results\[1\]\.gt_known_loc`"),
        ((*ONE, "gt_known_loc", "rate"), 54.06, r"<= 1.* `results\[1\]\.gt_known_loc\.rate`"),
        ((*ONE, "threshold"), "0.2", r"got `str`.* `results\[1\]\.threshold`"),
        ((*ONE, "gt_known_loc", "correct"), True, r"got `bool`.* `results\[1\]\.gt_known_loc\.correct`"),
        (("counts", "skipped"), {}, r"= 205 asked for .* got 200 \+ 0 .* `counts`"),
        (("counts", "failed"), {"no map": 201}, r"at most 200 failed, got .*201.* `counts`"),
        (
            (*ONE, "gt_known_loc", "interval"),
            [0.6, 0.4],
            r"lower end .* first, got \[0\.6, 0\.4\].* `results\[1\]\.gt_known_loc`",
        ),
        (
            (*ONE, "curve", "gt_known_0.5"),
            [0.1],
            r"Expected 25 values.* got \[1, 25\].* `results\[1\]\.curve`",
        ),
        ((*ONE, "iou_histogram", "edges"), [0, 1], r"Expected 21 edges of 20 counts.* `results\[1\]\.iou_histogram`"),
        ((*ONE, "errors", "mistake"), 1, r"'mistake'.* `results\[1\]\.errors`"),
        (("results",), {}, r"`array`, got `object`.* `results`"),
    ],
)
def test_a_damaged_entry_is_named(entry: tuple[Any, ...], value: object, message: str) -> None:
    made: Any = metrics()
    functools.reduce(operator.getitem, entry[:-1], made)[entry[-1]] = value
    with pytest.raises(MetricsError, match=message):
        parse_metrics(made, source="m.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected JSON"),
        (b"\xff", "expected JSON"),
        (b'{"schema": NaN}', "NaN"),
        (b"[]", "`object`, got `array`"),
    ],
)
def test_a_file_that_is_no_metrics_is_named(tmp_path, content: bytes, message: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(MetricsError, match=rf"metrics\.json: .*{message}"):
        read_metrics(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(MetricsError, match=r"metrics\.json: not found"):
        read_metrics(tmp_path / "metrics.json")


def test_a_rate_without_interval_is_shown_alone() -> None:
    bare = result("cam", "cam", correct=100)
    bare["gt_known_loc"] = rate(100) | {"interval": None, "interval_kind": None}
    table = table_of(metrics(results=[bare], baselines=[]))
    row = next(line for line in table.splitlines() if line.startswith("cam  "))
    assert "50.00" in row and "[" not in row
    assert table.splitlines()[-1] == "Percentages."
    assert "\nPercentages; GT-known Loc with its 95 % interval.\n" in table_of(metrics())


def test_what_was_looked_at_and_compared_with_stands_on_the_first_lines() -> None:
    views = "whole image squashed"
    lines = table_of(metrics(config={"boxes": "first", "views": views})).splitlines()
    assert lines[1:3] == ["ground truth: first box of each image only", f"views: {views}"]
    assert sum("views" in line for line in lines) == 1
    plain = table_of(metrics(config={"boxes": "all"}))
    assert "ground truth" not in plain and "views" not in plain
