"""Writer of ``table.md``, ``table.csv`` and ``table.html``, which show the same numbers."""

import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from evaluation.drawing.charts import SeedDots, seed_chart
from evaluation.metrics.registry import METRICS
from evaluation.protocols import protocol_title
from pipelines.experiments.paper_table.notes import PAPER_NOTE, notes
from pipelines.experiments.paper_table.plan import PSEUDO_MAP_NAME, run_name
from pipelines.experiments.paper_table.results import (
    CLASS_METRICS,
    PAPER_METRICS,
    PAPER_PROTOCOL,
    THRESHOLD_METRIC,
    Key,
    SeedValues,
    TableResults,
    Value,
)
from pipelines.experiments.paper_table.rows import PAPER_NUMBERS, REFERENCE_ROW, ROWS
from pipelines.reports.html_pages import Cell, Chart, Row, Table, row_of, write_page
from pipelines.reports.plain_tables import markdown_table
from pseudo_maps.files import write_atomically

TABLE_FILES = ("table.md", "table.csv", "table.html")
_HEADINGS = tuple(METRICS[name].heading for name in PAPER_METRICS)
_NOTHING = "-"


class _Section(NamedTuple):
    """Everything of one architecture."""

    arch: str
    summary: str
    """Its best row, against GAP and the best of what takes no training and never looks at an image."""
    charts: Sequence[Chart]
    tables: Sequence[Table]
    unfinished: Sequence[str]
    """Sentences about runs that are not in the tables."""


def write_tables(results: TableResults, out: Path) -> None:
    """Write all three files, each in one step; the same results give the same bytes."""
    sections = [_section(results, arch) for arch in results.plan.archs]
    done, planned = len(results.finished), len(results.finished) + len(results.unfinished)
    of_archs = tuple(f"{arch} " for arch in results.plan.archs)
    context = {
        "title": f"The paper's tables on {results.plan.data.resolve().name}",
        "summary": f"All {planned} runs are finished."
        if done == planned
        else f"{done} of {planned} runs are finished; the others are named below.",
        "statements": notes(results),
        "paper_note": PAPER_NOTE if any(_has_paper(results, arch) for arch in results.plan.archs) else "",
        "markdown": partial(markdown_table, small_print=False),
        "warnings": results.warnings,
        "unfinished": [f"{name}: {why}" for name, why in results.unfinished.items() if not name.startswith(of_archs)],
        "sections": sections,
    }
    for kind in ("md", "html"):
        write_page(out / f"table.{kind}", template=f"ablation_table.{kind}.jinja", context=context)
    write_atomically(out / "table.csv", _csv(results).encode(errors="replace"))


def _section(results: TableResults, arch: str) -> _Section:
    plan = results.plan
    tables = [_main_table(results, arch)]
    if REFERENCE_ROW in plan.rows and len(plan.rows) > 1:
        tables.append(_difference_table(results, arch))
    tables.append(_localizer_table(results, arch))
    names = [run_name(arch=arch, row=row, seed=seed) for row in plan.rows for seed in plan.seeds]
    unfinished = [f"{name}: {results.unfinished[name]}" for name in names if name in results.unfinished]
    return _Section(arch, _summary(results, arch), _charts(results, arch), tables, unfinished)


def _summary(results: TableResults, arch: str) -> str:
    found = {row: _of_row(results, arch, row)[0] for row in results.plan.rows}
    means = {row: value.measured.mean for row, value in found.items() if value.measured.mean is not None}
    if not means:
        return "No row has a finished run."
    best = max(means, key=means.__getitem__)
    protocol = results.plan.protocols[0]
    seeds = found[best].measured.n
    text = f"Highest GT-known Loc under the protocol {protocol_title(protocol)}: “{ROWS[best].title}” with "
    text += f"{means[best]:.2f} % ({seeds} {'seed' if seeds == 1 else 'seeds'})"
    if best != REFERENCE_ROW and found[best].difference.mean is not None:
        text += f", {found[best].difference.mean:+.2f} points against GAP of the same seed"
    baselines = {
        localizer: results.value("", row, localizer, protocol, "gt_known_loc").measured.mean or 0.0
        for row, localizer in results.untrained
        if row != PSEUDO_MAP_NAME
    }
    if baselines:
        name = max(baselines, key=baselines.__getitem__)
        text += f". Without looking at an image, the {name} has {baselines[name]:.2f} %"
    return f"{text}."


def _has_paper(results: TableResults, arch: str) -> bool:
    """Whether the paper has numbers for the first protocol of an architecture."""
    return arch in PAPER_NUMBERS and results.plan.protocols[0] == PAPER_PROTOCOL


def _of_row(results: TableResults, arch: str, row: str) -> list[Value]:
    """The paper's metrics of a row, with its first localizer under the first protocol."""
    where = (arch, row, ROWS[row].localizers[0], results.plan.protocols[0])
    return [results.value(*where, metric) for metric in PAPER_METRICS]


def _main_table(results: TableResults, arch: str) -> Table:
    plan, paper = results.plan, _has_paper(results, arch)
    lines = []
    for row in plan.rows:
        values = _of_row(results, arch, row)
        n = values[0].measured.n
        seeds = str(n) if n == len(plan.seeds) else f"{n} of {len(plan.seeds)}"
        cells: list[Cell | str] = [*(_cell(value.measured) for value in values), seeds]
        cells += [_plain(value.paper) for value in values] if paper else []
        lines.append(row_of(Cell(ROWS[row].title, ROWS[row].localizers[0]), *cells))
    for row, localizer in results.untrained:
        first = _cell(results.value("", row, localizer, plan.protocols[0], "gt_known_loc").measured)
        rest = [_NOTHING] * (6 if paper else 3)
        lines.append(row_of(Cell(row, "no training"), first, *rest, kind="baseline"))
    return _table(
        f"{arch}, protocol {protocol_title(plan.protocols[0])}: mean ± standard deviation over seeds, %",
        [*_HEADINGS, "seeds", *(f"paper: {heading}" for heading in _HEADINGS if paper)],
        lines,
    )


def _difference_table(results: TableResults, arch: str) -> Table:
    plan, paper = results.plan, _has_paper(results, arch)
    lines = []
    for row in (row for row in plan.rows if row != REFERENCE_ROW):
        values = _of_row(results, arch, row)
        cells: list[Cell | str] = []
        for value in values:
            cells.append(_cell(value.difference, signed=True))
            cells += [_plain(value.paper_difference, signed=True)] if paper else []
        lines.append(row_of(Cell(ROWS[row].title, ROWS[row].localizers[0]), *cells, values[0].difference.n))
    headings = [text for heading in _HEADINGS for text in (heading, *([f"paper: {heading}"] if paper else []))]
    caption = (
        f"{arch}, protocol {protocol_title(plan.protocols[0])}: difference to GAP of the same seed, percentage points"
    )
    return _table(caption, [*headings, "seeds compared"], lines)


def _localizer_table(results: TableResults, arch: str) -> Table:
    plan = results.plan
    columns = [(protocol, metric) for protocol in plan.protocols for metric in ("gt_known_loc", "top1_loc")]

    def line(of_arch: str, row: str, localizer: str) -> Row:
        cells = [_cell(results.value(of_arch, row, localizer, *column).measured) for column in columns]
        name = Cell(ROWS[row].title, localizer) if of_arch else Cell(row, "no training")
        return row_of(name, *cells, kind="" if of_arch else "baseline")

    lines = [line(arch, row, localizer) for row in plan.rows for localizer in ROWS[row].localizers]
    lines += [line("", row, localizer) for row, localizer in results.untrained]
    oracles = {key.protocol for key, value in results.values.items() if value.is_oracle}
    headings = [
        f"{protocol_title(protocol)}{', oracle' if protocol in oracles else ''}: {METRICS[metric].heading}"
        for protocol, metric in columns
    ]
    return _table(f"{arch}, by localizer: mean ± standard deviation over seeds, %", headings, lines)


def _table(caption: str, headings: Sequence[str], rows: Sequence[Row]) -> Table:
    return Table(caption, "l" + "r" * len(headings), ["method", *headings], rows)


def _cell(values: SeedValues, *, signed: bool = False) -> Cell:
    """Mean and standard deviation; below them each seed's value."""
    spread = "" if values.sd is None else f" ± {values.sd:.2f}"
    by_seed = ", ".join(_plain(value, signed=signed) for value in values.by_seed.values()) if values.n > 1 else ""
    return Cell(f"{_plain(values.mean, signed=signed)}{spread}", by_seed)


def _plain(value: float | None, *, signed: bool = False) -> str:
    return _NOTHING if value is None else f"{value:{'+' if signed else ''}.2f}"


def _charts(results: TableResults, arch: str) -> list[Chart]:
    """GT-known Loc of every row and seed, one chart per protocol, all with the same axis."""
    drawn = {}
    first_of = {row: ROWS[row].localizers[0] for row in results.plan.rows}
    named = [(arch, row, localizer, f"{ROWS[row].title} ({localizer})") for row, localizer in first_of.items()]
    named += [("", row, localizer, f"{row} (no training)") for row, localizer in results.untrained]
    for protocol in results.plan.protocols:
        dots = [
            SeedDots(name=name, values_n=[value / 100 for value in measured.by_seed.values()], is_baseline=not of_arch)
            for of_arch, row, localizer, name in named
            if (measured := results.value(of_arch, row, localizer, protocol, "gt_known_loc").measured).n
        ]
        if dots:
            drawn[f"protocol {protocol_title(protocol)}"] = dots
    values = [100 * value for dots in drawn.values() for one in dots for value in one.values_n]
    charts = []
    for title, dots in drawn.items():
        percents = (min(values), max(values))
        svg = seed_chart(dots, title=f"{arch}\n{title}", axis="GT-known Loc (%)", percents=percents)
        alt = f"GT-known Loc of every row and seed, {arch}, {title}; the numbers stand below"
        charts.append(Chart(title, svg, alt))
    return charts


def _csv(results: TableResults) -> str:
    """A line for each value; percentages and percentage points, thresholds as fractions."""
    lines = [_csv_line(results, key, value) for key, value in results.values.items()]
    content = io.StringIO()
    writer = csv.DictWriter(content, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return content.getvalue()


def _csv_line(results: TableResults, key: Key, value: Value) -> dict[str, object]:
    measured, difference = value.measured, value.difference
    return {
        **key._asdict(),
        "unit": "fraction" if key.metric == THRESHOLD_METRIC else "percent",
        "mean": _exact(measured.mean),
        "sd": _exact(measured.sd),
        "n": measured.n,
        **{f"seed_{seed}": _exact(measured.by_seed.get(seed)) for seed in results.plan.seeds},
        "difference_to_gap": _exact(difference.mean),
        "difference_sd": _exact(difference.sd),
        "difference_n": difference.n,
        "paper": value.paper,
        "paper_difference_to_gap": value.paper_difference,
        "oracle_threshold": "" if key.metric in CLASS_METRICS else "yes" if value.is_oracle else "no",
        "note": "; ".join(_notes(results, key)),
    }


def _notes(results: TableResults, key: Key) -> Iterator[str]:
    """Why seeds of a value are missing."""
    if key.arch:
        for seed in results.plan.seeds:
            name = run_name(arch=key.arch, row=key.row, seed=seed)
            if name in results.unfinished:
                yield f"seed {seed}: {results.unfinished[name]}"


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
