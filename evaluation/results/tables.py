"""Turns the content of a ``metrics.json`` into a plain table for the terminal."""

from collections.abc import Mapping

from evaluation.results.schema import Counts, Metrics, Rate, Result, parse_metrics

__all__ = ["image_account", "metrics_table", "percent", "protocols_in_order", "reasons"]

_GAP = "  "


def metrics_table(metrics: Mapping[str, object]) -> str:
    """All results of a ``metrics.json``, each protocol with its baselines directly below, as lines of plain text.

    Parameters
    ----------
    metrics
        The content of the file, schema ``wsol-metrics-1``. Rates are fractions; the table shows percentages.

    Returns
    -------
    str
        Lines without trailing spaces, the last one without newline. The first line accounts for every image that
        was asked for; below it stand the ground truth, where not all boxes count, and the views, where the
        configuration names them. Columns that no row has are left out. Of the localization figures only GT-known
        Loc carries its interval, which keeps the lines short; the file has those of the other rates, but none by class
        and none of PxAP.

    Raises
    ------
    MetricsError
        The content does not follow the schema.
    """
    checked = parse_metrics(metrics)
    lines = [f"{checked.name} ({checked.kind}): {image_account(checked.counts)}"]
    if checked.config.get("boxes") == "first":
        lines.append("ground truth: first box of each image only")
    if "views" in checked.config:
        lines.append(f"views: {checked.config['views']}")
    if checked.counts.notes:
        lines.append(f"noted: {reasons(checked.counts.notes)}")
    if checked.classification is not None:
        top1, top5 = checked.classification.top1, checked.classification.top5
        lines.append(
            f"Top-1 Class {_with_interval(top1)}, Top-5 Class {_with_interval(top5)}, "
            f"{checked.classification.images} images"
        )
    rows = _rows(checked)
    if not rows:
        return "\n".join([*lines, "no results"])
    has_intervals = any(result.gt_known_loc.interval is not None for result in _all(checked))
    unit = "Percentages; GT-known Loc with its 95 % interval." if has_intervals else "Percentages."
    lines += ["", *_aligned(rows), "", unit]
    if any(row["threshold"].endswith("oracle") for row in rows):
        lines.append("oracle: the threshold is the best one on these very images, so the figure is an upper estimate.")
    if checked.baselines:
        lines.append("* baseline: never looks at the image.")
    names = {result.protocol: result.max_box_acc_v2_name for result in _all(checked) if result.max_box_acc_v2}
    lines += [f"V2 under {protocol}: {name}." for protocol, name in names.items()]
    return "\n".join(lines)


def image_account(counts: Counts) -> str:
    """One sentence in which the images scored and those skipped, by reason, add up to those asked for.

    Examples
    --------
    >>> image_account(Counts(asked=5, scored=4, failed={"no map": 1}, skipped={"no boxes": 1}, notes={}))
    '5 images asked for = 4 scored (1 of them failed and counted as wrong: 1 no map) + 1 skipped (1 no boxes)'
    """
    scored, skipped = f"{counts.scored} scored", f"{sum(counts.skipped.values())} skipped"
    failed = sum(counts.failed.values())
    if failed:
        scored += f" ({failed} of them failed and counted as wrong: {reasons(counts.failed)})"
    if counts.skipped:
        skipped += f" ({reasons(counts.skipped)})"
    return f"{counts.asked} images asked for = {scored} + {skipped}"


def reasons(counts: Mapping[str, int]) -> str:
    """Numbers of images by reason, the commonest first: ``3 no map, 1 unreadable image``."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item)))


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with two decimals, as papers print it (``0.54062`` is ``54.06``); a dash for none."""
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def protocols_in_order(runs: list[Metrics]) -> list[str]:
    """Names of all protocols of several files, in the order in which they first appear."""
    return list(dict.fromkeys(result.protocol for run in runs for result in _all(run)))


def _all(metrics: Metrics) -> tuple[Result, ...]:
    return metrics.results + metrics.baselines


def _rows(metrics: Metrics) -> list[dict[str, str]]:
    rows = []
    for protocol in protocols_in_order([metrics]):
        rows += [_row(result, mark="") for result in metrics.results if result.protocol == protocol]
        rows += [_row(result, mark=" *") for result in metrics.baselines if result.protocol == protocol]
    return rows


def _row(result: Result, *, mark: str) -> dict[str, str]:
    by_iou = result.max_box_acc or {}
    threshold = "" if result.threshold is None else f"{result.threshold:.3f}"
    return {
        "protocol": result.protocol,
        "localizer": result.localizer + mark,
        "GT-known Loc": _with_interval(result.gt_known_loc),
        "Top-1 Loc": _optional(result.top1_loc),
        "Top-5 Loc": _optional(result.top5_loc),
        **{f"Max .{iou.removeprefix('0.')}": _optional(rate) for iou, rate in by_iou.items()},
        "V2": _optional(result.max_box_acc_v2),
        "threshold": threshold + (" oracle" if result.threshold_is_oracle else ""),
    }


def _optional(rate: Rate | None) -> str:
    return "" if rate is None else percent(rate.rate)


def _with_interval(rate: Rate) -> str:
    if rate.interval is None:
        return percent(rate.rate)
    return f"{percent(rate.rate)} [{percent(rate.interval[0])}, {percent(rate.interval[1])}]"


def _aligned(rows: list[dict[str, str]]) -> list[str]:
    """Rows with a heading in columns as wide as their widest cell; words to the left, numbers to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    # MaxBoxAcc columns come from the first row that has them, which may stand after the last fixed column.
    names.sort(key=lambda name: (name in ("V2", "threshold"), name == "threshold"))
    names = [name for name in names if any(row.get(name) for row in rows)]
    widths = {name: max(len(name), *(len(row.get(name, "")) for row in rows)) for name in names}
    lines = []
    for row in [{name: name for name in names}, *rows]:
        cells = [
            row.get(name, "").ljust(widths[name])
            if name in ("protocol", "localizer", "threshold")
            else row.get(name, "").rjust(widths[name])
            for name in names
        ]
        lines.append(_GAP.join(cells).rstrip())
    return lines
