"""Plain-text table of a ``metrics.json`` for the terminal."""

from collections.abc import Mapping

from evaluation.metrics.registry import METRICS
from evaluation.schema import Counts, Metrics, Rate, Result, protocols_in_order

_TEXT_COLUMNS = ("protocol", "localizer", "threshold")


def metrics_table(metrics: Metrics) -> str:
    """All results, each protocol with its baselines directly below, as lines of plain text.

    The first line accounts for every image that was asked for; below it stand the ground truth, where not all boxes
    count, and the views, where the configuration names them. Columns that no row has are left out. Of the
    localization metrics only GT-known Loc carries its interval, which keeps the lines short.
    """
    pixels = metrics.pixels
    account = image_account(metrics.counts)
    if pixels is not None and not metrics.all_results:
        account = f"{metrics.counts.asked} images asked for, none with boxes; {pixels.images} masks scored"
    lines = [f"{metrics.name} ({metrics.kind}): {account}"]
    if metrics.config.get("boxes") == "first":
        lines.append("ground truth: first box of each image only")
    if "views" in metrics.config:
        lines.append(f"views: {metrics.config['views']}")
    if metrics.counts.notes:
        lines.append(f"noted: {reasons(metrics.counts.notes)}")
    if metrics.classification is not None:
        top1, top5 = metrics.classification.top1, metrics.classification.top5
        lines.append(
            f"Top-1 Class {_with_interval(top1)}, Top-5 Class {_with_interval(top5)}, "
            f"{metrics.classification.images} images"
        )
    precision = []
    if pixels is not None:
        several = len(pixels.px_ap) > 1
        ours = ", ".join(f"{name} " * several + percent(px_ap) for name, px_ap in pixels.px_ap.items())
        gaussian = f"(centred Gaussian {percent(pixels.centred_gaussian_px_ap)})"
        precision = [f"PxAP {ours} {gaussian}, {pixels.images} masks, {pixels.failed} without map"]
    results = metrics.all_results
    if not results:
        return "\n".join([*lines, *(precision or ["localization was not scored: every image was skipped"])])
    has_intervals = any(result.gt_known_loc.interval is not None for result in results)
    unit = "Percentages; GT-known Loc with its 95 % interval." if has_intervals else "Percentages."
    rows = []
    for protocol in protocols_in_order([metrics]):
        rows += [_row(result, mark="") for result in metrics.results if result.protocol == protocol]
        rows += [_row(result, mark=" *") for result in metrics.baselines if result.protocol == protocol]
    lines += ["", *_aligned(rows), "", unit]
    if any(result.threshold_is_oracle for result in results):
        lines.append("oracle: the threshold is the best one on these very images, so the rate is an upper estimate.")
    for name in sorted({result.calibrated_on for result in results if result.calibrated_on}):
        lines.append(f"calibrated: thresholds are the best ones on {name}, for each MaxBoxAcc its own.")
    if metrics.baselines:
        lines.append("* baseline: never looks at the image.")
    names = {result.protocol: result.max_box_acc_v2.name for result in results if result.max_box_acc_v2}
    lines += [f"{METRICS['max_box_acc_v2'].heading} under {protocol}: {name}." for protocol, name in names.items()]
    return "\n".join([*lines, *precision])


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


def _row(result: Result, *, mark: str) -> dict[str, str]:
    """Cells by heading, those of the class alone left out: they stand above the table."""
    rates = {metric.heading: metric.read(result, None) for metric in METRICS.values()}
    threshold = "" if result.threshold is None else f"{result.threshold:.3f}"
    choice = " oracle" if result.threshold_is_oracle else " calibrated" if result.calibrated_on else ""
    return {
        "protocol": result.protocol,
        "localizer": result.localizer + mark,
        **{heading: "" if rate is None else percent(rate.rate) for heading, rate in rates.items()},
        METRICS["gt_known_loc"].heading: _with_interval(result.gt_known_loc),
        "threshold": threshold + choice,
    }


def _with_interval(rate: Rate) -> str:
    if rate.interval is None:
        return percent(rate.rate)
    return f"{percent(rate.rate)} [{percent(rate.interval[0])}, {percent(rate.interval[1])}]"


def _aligned(rows: list[dict[str, str]]) -> list[str]:
    """Heading and rows in columns as wide as their widest cell; text to the left, numbers to the right."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    lines = []
    for row in [{name: name for name in columns}, *rows]:
        cells = [
            row[name].ljust(widths[name]) if name in _TEXT_COLUMNS else row[name].rjust(widths[name])
            for name in columns
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
