"""Turns the results of a plan into ``table.md``, ``table.csv`` and ``table.html``, which show the same figures."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.drawing.charts import SeedDots, seed_chart
from evaluation.metrics.registry import METRICS
from pipelines.experiments.paper_table.plan import TablePlan, run_name
from pipelines.experiments.paper_table.results import (
    CLASS_METRICS,
    PAPER_PROTOCOL,
    THRESHOLD_METRIC,
    Figure,
    SeedValues,
    TableResults,
)
from pipelines.experiments.paper_table.rows import PAPER_NUMBERS, REFERENCE_ROW, ROWS
from pipelines.experiments.paper_table.statements import PAPER_NOTE, statements
from pipelines.reports.html_pages import svg_image, write_page
from pseudo_maps.files import write_atomically

__all__ = ["TABLE_FILES", "write_tables"]

TABLE_FILES = ("table.md", "table.csv", "table.html")
_TEMPLATE = "ablation_table.html.jinja"
_METRIC_NAMES = {name: METRICS[name].heading for name in ("gt_known_loc", "top1_loc", "top1_class")}
"""Metrics of the paper's tables."""
_NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A figure as text."""

    text: str
    by_seed: str = ""
    """Each seed's value, for pages that have room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line of a table that is read by people."""

    name: str
    note: str
    """What boxes are taken from; in small letters."""
    cells: tuple[_Cell, ...]
    is_baseline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table that is read by people."""

    caption: str
    headings: tuple[str, ...]
    """One a cell."""
    is_paper: tuple[bool, ...]
    """Which columns are the paper's own."""
    lines: tuple[_Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """Everything of one architecture."""

    arch: str
    tables: tuple[_Table, ...]
    unfinished: tuple[str, ...]
    """Sentences about runs that are not in the tables."""


def write_tables(results: TableResults, out: Path) -> None:
    """Write all three files, each in one step; the same results give the same bytes.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    sections = [_section(results, arch=arch) for arch in results.plan.archs]
    write_atomically(out / "table.md", _markdown(results, sections).encode(errors="replace"))
    write_atomically(out / "table.csv", _csv(results).encode(errors="replace"))
    write_page(
        out / "table.html",
        template=_TEMPLATE,
        context={
            "title": _title(results),
            "summary": _summary(results),
            "statements": statements(results),
            "paper_note": _paper_note(sections),
            "warnings": results.warnings,
            "unfinished": _unfinished_elsewhere(results),
            "sections": [(section, _charts(results, arch=section.arch)) for section in sections],
        },
    )


def _title(results: TableResults) -> str:
    return f"The paper's tables on {results.plan.data.resolve().name}"


def _paper_note(sections: Sequence[_Section]) -> str:
    """What the paper's columns are; nothing where there are none."""
    return PAPER_NOTE if any(any(table.is_paper) for section in sections for table in section.tables) else ""


def _summary(results: TableResults) -> str:
    planned, done = len(results.finished) + len(results.unfinished), len(results.finished)
    if done == planned:
        return f"All {planned} runs are finished."
    return f"{done} of {planned} runs are finished; the others are named below."


def _section(results: TableResults, *, arch: str) -> _Section:
    plan = results.plan
    tables = [_main_table(results, arch=arch)]
    if REFERENCE_ROW in plan.rows and len(plan.rows) > 1:
        tables.append(_difference_table(results, arch=arch))
    tables.append(_localizer_table(results, arch=arch))
    names = [run_name(arch=arch, row=row, seed=seed) for row in plan.rows for seed in plan.seeds]
    return _Section(
        arch=arch,
        tables=tuple(tables),
        unfinished=tuple(f"{name}: {results.unfinished[name]}" for name in names if name in results.unfinished),
    )


def _main_table(results: TableResults, *, arch: str) -> _Table:
    plan = results.plan
    protocol = plan.protocols[0]
    paper = arch in PAPER_NUMBERS and protocol == PAPER_PROTOCOL
    lines = []
    for row in plan.rows:
        localizer = ROWS[row].localizers[0]
        figures = _figures(results, arch=arch, row=row, localizer=localizer, protocol=protocol)
        cells = [*(_cell(figure) for figure in figures), _Cell(text=_seeds(results, figures[0]))]
        if paper:
            cells += [_Cell(text=_plain(figure.paper if figure else None)) for figure in figures]
        lines.append(_Line(name=ROWS[row].title, note=localizer, cells=tuple(cells)))
    empty = _Cell(text=_NOTHING)
    for row, localizer in results.untrained:
        figure = results.figure(arch="", row=row, localizer=localizer, protocol=protocol, metric="gt_known_loc")
        cells = [_cell(figure), *[empty] * (6 if paper else 3)]
        lines.append(_Line(name=row, note="no training", cells=tuple(cells), is_baseline=True))
    ours, theirs = tuple(_METRIC_NAMES.values()), tuple(f"paper: {name}" for name in _METRIC_NAMES.values())
    return _Table(
        caption=f"{arch}, protocol {protocol}: mean ± standard deviation over seeds, %",
        headings=(*ours, "seeds", *(theirs if paper else ())),
        is_paper=(*[False] * 4, *([True] * 3 if paper else ())),
        lines=tuple(lines),
    )


def _difference_table(results: TableResults, *, arch: str) -> _Table:
    plan = results.plan
    protocol = plan.protocols[0]
    paper = arch in PAPER_NUMBERS and protocol == PAPER_PROTOCOL
    lines = []
    for row in plan.rows:
        if row == REFERENCE_ROW:
            continue
        localizer = ROWS[row].localizers[0]
        figures = _figures(results, arch=arch, row=row, localizer=localizer, protocol=protocol)
        cells = []
        for figure in figures:
            cells.append(_value_cell(figure.difference if figure else None, signed=True))
            if paper:
                cells.append(_Cell(text=_plain(figure.paper_difference if figure else None, signed=True)))
        pairs = figures[0].difference if figures[0] else None
        cells.append(_Cell(text=str(pairs.n if pairs else 0)))
        lines.append(_Line(name=ROWS[row].title, note=localizer, cells=tuple(cells)))
    headings: list[str] = []
    for name in _METRIC_NAMES.values():
        headings += [name, f"paper: {name}"] if paper else [name]
    return _Table(
        caption=f"{arch}, protocol {protocol}: less GAP of the same seed, percentage points",
        headings=(*headings, "pairs"),
        is_paper=(*(heading.startswith("paper") for heading in headings), False),
        lines=tuple(lines),
    )


def _localizer_table(results: TableResults, *, arch: str) -> _Table:
    plan = results.plan
    metrics = ("gt_known_loc", "top1_loc")

    def cells(*, of_arch: str, row: str, localizer: str) -> tuple[_Cell, ...]:
        return tuple(
            _cell(results.figure(arch=of_arch, row=row, localizer=localizer, protocol=protocol, metric=metric))
            for protocol in plan.protocols
            for metric in metrics
        )

    lines = [
        _Line(name=ROWS[row].title, note=localizer, cells=cells(of_arch=arch, row=row, localizer=localizer))
        for row in plan.rows
        for localizer in ROWS[row].localizers
    ]
    lines += [
        _Line(name=row, note="no training", cells=cells(of_arch="", row=row, localizer=localizer), is_baseline=True)
        for row, localizer in results.untrained
    ]
    oracles = {figure.protocol for figure in results.figures if figure.is_oracle}
    headings = tuple(
        f"{protocol}{' (oracle)' if protocol in oracles else ''}: {_METRIC_NAMES[metric]}"
        for protocol in plan.protocols
        for metric in metrics
    )
    return _Table(
        caption=f"{arch}, by localizer: mean ± standard deviation over seeds, %",
        headings=headings,
        is_paper=(False,) * len(headings),
        lines=tuple(lines),
    )


def _figures(results: TableResults, *, arch: str, row: str, localizer: str, protocol: str) -> list[Figure | None]:
    """Figures of the three metrics of the paper's tables."""
    return [
        results.figure(arch=arch, row=row, localizer=localizer, protocol=protocol, metric=metric)
        for metric in _METRIC_NAMES
    ]


def _cell(figure: Figure | None) -> _Cell:
    return _value_cell(figure.values if figure else None)


def _value_cell(values: SeedValues | None, *, signed: bool = False) -> _Cell:
    if values is None:
        return _Cell(text=_NOTHING)
    spread = "" if values.sd is None else f" ± {values.sd:.2f}"
    by_seed = ", ".join(_plain(value, signed=signed) for value in values.by_seed.values()) if values.n > 1 else ""
    return _Cell(text=f"{_plain(values.mean, signed=signed)}{spread}", by_seed=by_seed)


def _plain(value: float | None, *, signed: bool = False) -> str:
    return _NOTHING if value is None else f"{value:{'+' if signed else ''}.2f}"


def _seeds(results: TableResults, figure: Figure | None) -> str:
    """How many seeds are behind a line: ``3``, or ``2 of 3``."""
    planned, n = len(results.plan.seeds), figure.values.n if figure and figure.values else 0
    return str(n) if n == planned else f"{n} of {planned}"


def _unfinished_elsewhere(results: TableResults) -> list[str]:
    """Sentences about unfinished runs that belong to no architecture."""
    archs = results.plan.archs
    return [
        f"{name}: {reason}"
        for name, reason in results.unfinished.items()
        if not any(name.startswith(f"{arch} ") for arch in archs)
    ]


def _charts(results: TableResults, *, arch: str) -> list[dict[str, str]]:
    """GT-known Loc of every row and seed, a picture for each protocol."""
    charts = []
    for protocol in results.plan.protocols:
        dots = []
        named = [(arch, row, ROWS[row].localizers[0], ROWS[row].title) for row in results.plan.rows]
        named += [("", row, localizer, row) for row, localizer in results.untrained]
        for of_arch, row, localizer, title in named:
            figure = results.figure(
                arch=of_arch, row=row, localizer=localizer, protocol=protocol, metric="gt_known_loc"
            )
            if figure is not None and figure.values is not None:
                values = [value / 100 for value in figure.values.by_seed.values()]
                name = f"{title} ({localizer})" if of_arch else f"{title} (no training)"
                dots.append(SeedDots(name=name, values_n=values, is_baseline=not of_arch))
        if not dots:
            continue
        title = f"{arch}, protocol {protocol}"
        svg = seed_chart(dots, title=title, axis="GT-known Loc (%)")
        charts.append(svg_image(svg, alt=f"GT-known Loc of every row and seed, {title}; the numbers stand below"))
    return charts


def _markdown(results: TableResults, sections: Sequence[_Section]) -> str:
    lines = [f"# {_title(results)}", "", _summary(results), ""]
    lines += [f"- **{name}**: {text}" for name, text in statements(results)]
    if results.warnings:
        lines += ["", "**These runs do not belong side by side:**", "", *(f"- {text}" for text in results.warnings)]
    for section in sections:
        lines += ["", f"## {section.arch}"]
        for table in section.tables:
            lines += ["", f"{table.caption}.", "", *_markdown_table(table)]
        if section.unfinished:
            lines += ["", "Not in these tables:", "", *(f"- {text}" for text in section.unfinished)]
    elsewhere = _unfinished_elsewhere(results)
    if elsewhere:
        lines += ["", "## Without training", "", "Not in these tables:", "", *(f"- {text}" for text in elsewhere)]
    note = _paper_note(sections)
    return "\n".join([*lines, *(["", note] if note else []), ""])


def _markdown_table(table: _Table) -> list[str]:
    rows = [["method", *table.headings]]
    rows += [[f"{line.name} ({line.note})", *(cell.text for cell in line.cells)] for line in table.lines]
    lines = [f"| {' | '.join(_escaped(text) for text in row)} |" for row in rows]
    return [lines[0], f"| --- |{' ---: |' * len(table.headings)}", *lines[1:]]


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*").replace("_", r"\_")


def _csv(results: TableResults) -> str:
    """A line a figure; percentages and percentage points, thresholds as fractions."""
    plan = results.plan
    names = ["arch", "row", "localizer", "protocol", "metric", "unit", "mean", "sd", "n"]
    names += [f"seed_{seed}" for seed in plan.seeds]
    names += ["difference_to_gap", "difference_sd", "difference_n", "paper", "paper_difference_to_gap"]
    names += ["oracle_threshold", "note"]
    content = io.StringIO()
    writer = csv.DictWriter(content, names, lineterminator="\n", restval="")
    writer.writeheader()
    for figure in results.figures:
        values, difference = figure.values, figure.difference
        line: dict[str, object] = {
            "arch": figure.arch,
            "row": figure.row,
            "localizer": figure.localizer,
            "protocol": figure.protocol,
            "metric": figure.metric,
            "unit": "fraction" if figure.metric == THRESHOLD_METRIC else "percent",
            "n": values.n if values else 0,
            "difference_n": difference.n if difference else 0,
            "paper": "" if figure.paper is None else figure.paper,
            "paper_difference_to_gap": "" if figure.paper_difference is None else figure.paper_difference,
            "oracle_threshold": "yes" if figure.is_oracle else "no",
            "note": "; ".join(_notes(plan, figure, results.unfinished)),
        }
        if figure.metric in CLASS_METRICS:
            line["oracle_threshold"] = ""
        if values:
            line |= {"mean": _exact(values.mean), "sd": _exact(values.sd)}
            line |= {f"seed_{seed}": _exact(value) for seed, value in values.by_seed.items() if seed is not None}
        if difference:
            line |= {"difference_to_gap": _exact(difference.mean), "difference_sd": _exact(difference.sd)}
        writer.writerow(line)
    return content.getvalue()


def _notes(plan: TablePlan, figure: Figure, unfinished: Mapping[str, str]) -> list[str]:
    """Why seeds of a figure are missing."""
    if not figure.arch:
        return []
    names = {seed: run_name(arch=figure.arch, row=figure.row, seed=seed) for seed in plan.seeds}
    return [f"seed {seed}: {unfinished[name]}" for seed, name in names.items() if name in unfinished]


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
