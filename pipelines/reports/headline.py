"""First screen of a report: a few results beside the best baseline, what they mean, and one image."""

from collections.abc import Sequence
from typing import Any

from evaluation.results.tables import percent
from pipelines.reports.report_rows import ReportRow, best_baseline, points_against

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
    lines = [_line(row, baseline) for row in shown]
    if baseline is not None:
        lines.append(_line(baseline, None) | {"name": f"{baseline.result.localizer}, which never looks at the image"})
    return {
        "protocol": best.result.protocol,
        "baseline": baseline.result.localizer if baseline else "",
        "lines": lines,
        "sentences": [_best_sentence(best), *([_baseline_sentence(shown, baseline)] if baseline else [])],
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


def _line(row: ReportRow, baseline: ReportRow | None) -> dict[str, str]:
    rate = row.result.gt_known_loc
    interval = "" if rate.interval is None else f"{100 * rate.interval[0]:.1f} to {100 * rate.interval[1]:.1f}"
    against = "" if baseline is None else points_against(row, baseline)
    return {"name": row.name, "rate": percent(rate.rate), "interval": interval, "against": against}


def _best_sentence(best: ReportRow) -> str:
    result = best.result
    hedge = (
        " The threshold is the best one on these very images, so the rate is an upper estimate."
        if result.threshold_is_oracle
        else ""
    )
    return (
        f"Best is “{best.name}”: its box is right, with an overlap (IoU) of at least half, in {percent(best.rate)} % "
        f"of {result.gt_known_loc.images} images.{hedge}"
    )


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
    for table in tables:
        if table["protocol"] != rows[0].result.protocol:
            continue
        first = table["rows"][0]
        cells = {
            (column["run"], column["localizer"]): cell
            for column, cell in zip(table["columns"], first["cells"], strict=True)
        }
        wanted = {(row.runs[0].label, row.result.localizer): row.name for row in rows}
        predicted = [
            {"uri": cells[key]["uri"], "alt": cells[key]["alt"], "text": f"{name}, {cells[key]['text']}"}
            for key, name in wanted.items()
            if key in cells
        ]
        truth = {
            "uri": first["image"],
            "alt": f"{first['caption']} with its ground truth",
            "text": f"{first['caption']}, ground truth",
        }
        return [truth, *predicted] if predicted else []
    return []
