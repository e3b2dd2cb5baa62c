"""First screen of a report: a few results beside the best baseline, what they mean, and one image."""

from collections.abc import Sequence
from typing import Any

from evaluation.protocols import protocol_title
from evaluation.results.tables import percent
from pipelines.reports.html_pages import Cell, Table, rate_cell, row_of
from pipelines.reports.report_rows import SOURCE, ReportRow, best_baseline, points_against

_RESULTS_SHOWN = 5


def headline(rows: Sequence[ReportRow], pictures: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Table, sentences and pictures of the results ``rows`` of one protocol; None without a rate to show.

    The table has the results of ``main_rows``, then the baseline with the highest GT-known Loc. ``pictures`` are tables
    of ``picture_tables``: shown is their first image, which is not chosen by its results, with the boxes of the best
    and of the first result.
    """
    shown = main_rows(rows)
    if not shown:
        return None
    best = max(shown, key=_order)
    baseline = best_baseline(rows, of=best)
    oracle = " The threshold is the best one on these very images, so the rate is an upper estimate."
    sentences = [
        f"Best is “{best.name}”: its box is right, with an overlap (IoU) of at least half, in {percent(best.rate)} % "
        f"of {best.result.gt_known_loc.images} images.{oracle if best.result.threshold_is_oracle else ''}"
    ]
    lines = [
        row_of(
            row.runs[0].label,
            row.result.localizer,
            rate_cell(row.result.gt_known_loc),
            "-" if baseline is None else points_against(row, baseline),
        )
        for row in shown
    ]
    name = "a baseline" if baseline is None else baseline.result.localizer
    if baseline is not None:
        rate = rate_cell(baseline.result.gt_known_loc)
        sentences.append(_baseline_sentence(shown, baseline))
        lines.append(row_of("baseline", Cell(name, "never looks at the image"), rate, "-", kind="baseline"))
    caption = f"GT-known Loc under the protocol {protocol_title(best.result.protocol)}"
    return {
        "table": Table(caption, "llrr", [SOURCE, "localizer", "right (%)", f"against {name}"], lines),
        "sentences": sentences,
        "pictures": _pictures(pictures, [best, shown[0]]),
    }


def main_rows(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """At most five results, in their order, no baselines: the best of each run, then the best of the others."""
    ours = [row for row in rows if not row.is_baseline and row.rate is not None]
    best_first = sorted(ours, key=_order, reverse=True)
    best_of_runs = {row.runs[0].label: row for row in reversed(best_first)}
    chosen = sorted(best_of_runs.values(), key=_order, reverse=True)
    chosen += [row for row in best_first if row not in chosen]
    return [row for row in ours if row in chosen[:_RESULTS_SHOWN]]


def _order(row: ReportRow) -> float:
    return row.rate or 0.0


def _baseline_sentence(shown: Sequence[ReportRow], baseline: ReportRow) -> str:
    limit = _order(baseline)
    name = baseline.result.localizer
    better, worse, unclear = "Better than", "Worse than", "Too few images to tell apart from"
    found: dict[str, list[str]] = {better: [], worse: [], unclear: []}
    for row in shown:
        low, high = row.result.gt_known_loc.interval or (_order(row), _order(row))
        found[better if low > limit else worse if high < limit else unclear].append(f"“{row.name}”")
    return " ".join(f"{verdict} the {name}: {', '.join(names)}." for verdict, names in found.items() if names)


def _pictures(tables: Sequence[dict[str, Any]], rows: Sequence[ReportRow]) -> list[dict[str, str]]:
    """The first image with its ground truth, then with the map and box of each of ``rows`` that has a picture."""
    table = next((table for table in tables if table["protocol"] == rows[0].result.protocol), None)
    if table is None:
        return []
    first = table["rows"][0]
    columns = [(column["run"], column["localizer"]) for column in table["columns"]]
    cells = dict(zip(columns, first["cells"], strict=True))
    wanted = {(row.runs[0].label, row.result.localizer): row.name for row in rows}
    predicted = [cells[key] | {"text": f"{name}, {cells[key]['text']}"} for key, name in wanted.items() if key in cells]
    caption = first["caption"]
    truth = {"uri": first["image"], "alt": f"{caption} with its ground truth", "text": f"{caption}, ground truth"}
    return [truth, *predicted] if predicted else []
