"""Writer of ``table.md``, ``table.csv`` and ``table.html``, which show the same numbers."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluation.drawing.charts import SeedDots, seed_chart
from evaluation.metrics.registry import METRICS
from pipelines.experiments.paper_table.notes import PAPER_NOTE, notes
from pipelines.experiments.paper_table.plan import run_name
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
from pipelines.reports.html_pages import svg_image, write_page
from pseudo_maps.files import write_atomically

TABLE_FILES = ("table.md", "table.csv", "table.html")
_TEMPLATE = "ablation_table.html.jinja"
_HEADINGS = tuple(METRICS[name].heading for name in PAPER_METRICS)
_NOTHING = "-"


class _Cell(NamedTuple):
    text: str
    by_seed: str = ""
    """Each seed's value, for pages that have room."""


class _Line(NamedTuple):
    name: str
    note: str
    """Localizer, in small letters."""
    cells: Sequence[_Cell]
    is_baseline: bool = False


class _Table(NamedTuple):
    caption: str
    headings: Sequence[str]
    """One for each cell of a line."""
    lines: Sequence[_Line]

    @property
    def is_paper(self) -> list[bool]:
        """Which columns are the paper's own."""
        return [heading.startswith("paper: ") for heading in self.headings]


class _Section(NamedTuple):
    """Everything of one architecture."""

    arch: str
    tables: Sequence[_Table]
    unfinished: Sequence[str]
    """Sentences about runs that are not in the tables."""


def write_tables(results: TableResults, out: Path) -> None:
    """Write all three files, each in one step; the same results give the same bytes.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    sections = [_section(results, arch) for arch in results.plan.archs]
    write_atomically(out / "table.md", _markdown(results, sections).encode(errors="replace"))
    write_atomically(out / "table.csv", _csv(results).encode(errors="replace"))
    write_page(
        out / "table.html",
        template=_TEMPLATE,
        context={
            "title": _title(results),
            "summary": _summary(results),
            "statements": notes(results),
            "paper_note": _paper_note(sections),
            "warnings": results.warnings,
            "unfinished": _unfinished_elsewhere(results),
            "sections": [(section, _charts(results, section.arch)) for section in sections],
        },
    )


def _title(results: TableResults) -> str:
    return f"The paper's tables on {results.plan.data.resolve().name}"


def _paper_note(sections: Sequence[_Section]) -> str:
    """What the paper's columns are, where there are any."""
    return PAPER_NOTE if any(any(table.is_paper) for section in sections for table in section.tables) else ""


def _summary(results: TableResults) -> str:
    planned, done = len(results.finished) + len(results.unfinished), len(results.finished)
    if done == planned:
        return f"All {planned} runs are finished."
    return f"{done} of {planned} runs are finished; the others are named below."


def _section(results: TableResults, arch: str) -> _Section:
    plan = results.plan
    tables = [_main_table(results, arch)]
    if REFERENCE_ROW in plan.rows and len(plan.rows) > 1:
        tables.append(_difference_table(results, arch))
    tables.append(_localizer_table(results, arch))
    names = [run_name(arch=arch, row=row, seed=seed) for row in plan.rows for seed in plan.seeds]
    unfinished = [f"{name}: {results.unfinished[name]}" for name in names if name in results.unfinished]
    return _Section(arch, tables, unfinished)


def _has_paper(results: TableResults, arch: str) -> bool:
    """Whether the paper has numbers for the first protocol of an architecture."""
    return arch in PAPER_NUMBERS and results.plan.protocols[0] == PAPER_PROTOCOL


def _of_row(results: TableResults, arch: str, row: str) -> list[Value]:
    """The paper's metrics of a row, with its first localizer under the first protocol."""
    where = (arch, row, ROWS[row].localizers[0], results.plan.protocols[0])
    return [results.value(*where, metric) for metric in PAPER_METRICS]


def _main_table(results: TableResults, arch: str) -> _Table:
    plan, paper = results.plan, _has_paper(results, arch)
    lines = []
    for row in plan.rows:
        values = _of_row(results, arch, row)
        measured = values[0].measured
        n = measured.n if measured else 0
        seeds = str(n) if n == len(plan.seeds) else f"{n} of {len(plan.seeds)}"
        cells = [*(_cell(value.measured) for value in values), _Cell(seeds)]
        cells += [_Cell(_plain(value.paper)) for value in values] if paper else []
        lines.append(_Line(ROWS[row].title, ROWS[row].localizers[0], cells))
    for row, localizer in results.untrained:
        first = _cell(results.value("", row, localizer, plan.protocols[0], "gt_known_loc").measured)
        lines.append(_Line(row, "no training", [first, *[_Cell(_NOTHING)] * (6 if paper else 3)], is_baseline=True))
    return _Table(
        f"{arch}, protocol {plan.protocols[0]}: mean ± standard deviation over seeds, %",
        [*_HEADINGS, "seeds", *(f"paper: {heading}" for heading in _HEADINGS if paper)],
        lines,
    )


def _difference_table(results: TableResults, arch: str) -> _Table:
    plan, paper = results.plan, _has_paper(results, arch)
    lines = []
    for row in (row for row in plan.rows if row != REFERENCE_ROW):
        values, cells = _of_row(results, arch, row), []
        for value in values:
            cells.append(_cell(value.difference, signed=True))
            cells += [_Cell(_plain(value.paper_difference, signed=True))] if paper else []
        pairs = values[0].difference
        lines.append(_Line(ROWS[row].title, ROWS[row].localizers[0], [*cells, _Cell(str(pairs.n if pairs else 0))]))
    headings = [text for heading in _HEADINGS for text in (heading, *([f"paper: {heading}"] if paper else []))]
    caption = f"{arch}, protocol {plan.protocols[0]}: less GAP of the same seed, percentage points"
    return _Table(caption, [*headings, "pairs"], lines)


def _localizer_table(results: TableResults, arch: str) -> _Table:
    plan = results.plan
    columns = [(protocol, metric) for protocol in plan.protocols for metric in ("gt_known_loc", "top1_loc")]

    def line(of_arch: str, row: str, localizer: str) -> _Line:
        cells = [_cell(results.value(of_arch, row, localizer, *column).measured) for column in columns]
        return _Line(ROWS[row].title, localizer, cells) if of_arch else _Line(row, "no training", cells, True)

    lines = [line(arch, row, localizer) for row in plan.rows for localizer in ROWS[row].localizers]
    lines += [line("", row, localizer) for row, localizer in results.untrained]
    oracles = {key.protocol for key, value in results.values.items() if value.is_oracle}
    headings = [
        f"{protocol}{' (oracle)' if protocol in oracles else ''}: {METRICS[metric].heading}"
        for protocol, metric in columns
    ]
    return _Table(f"{arch}, by localizer: mean ± standard deviation over seeds, %", headings, lines)


def _cell(values: SeedValues | None, *, signed: bool = False) -> _Cell:
    if values is None:
        return _Cell(_NOTHING)
    spread = "" if values.sd is None else f" ± {values.sd:.2f}"
    by_seed = ", ".join(_plain(value, signed=signed) for value in values.by_seed.values()) if values.n > 1 else ""
    return _Cell(f"{_plain(values.mean, signed=signed)}{spread}", by_seed)


def _plain(value: float | None, *, signed: bool = False) -> str:
    return _NOTHING if value is None else f"{value:{'+' if signed else ''}.2f}"


def _unfinished_elsewhere(results: TableResults) -> list[str]:
    """Sentences about unfinished runs that belong to no architecture."""
    prefixes = tuple(f"{arch} " for arch in results.plan.archs)
    return [f"{name}: {reason}" for name, reason in results.unfinished.items() if not name.startswith(prefixes)]


def _charts(results: TableResults, arch: str) -> list[dict[str, str]]:
    """GT-known Loc of every row and seed, one chart per protocol."""
    charts = []
    named = [(arch, row, ROWS[row].localizers[0], ROWS[row].title) for row in results.plan.rows]
    named = [(of_arch, row, localizer, f"{title} ({localizer})") for of_arch, row, localizer, title in named]
    named += [("", row, localizer, f"{row} (no training)") for row, localizer in results.untrained]
    for protocol in results.plan.protocols:
        dots = [
            SeedDots(name=name, values_n=[value / 100 for value in measured.by_seed.values()], is_baseline=not of_arch)
            for of_arch, row, localizer, name in named
            if (measured := results.value(of_arch, row, localizer, protocol, "gt_known_loc").measured)
        ]
        if dots:
            title = f"{arch}, protocol {protocol}"
            svg = seed_chart(dots, title=title, axis="GT-known Loc (%)")
            charts.append(svg_image(svg, alt=f"GT-known Loc of every row and seed, {title}; the numbers stand below"))
    return charts


def _markdown(results: TableResults, sections: Sequence[_Section]) -> str:
    lines = [f"# {_title(results)}", "", _summary(results), ""]
    lines += [f"- **{name}**: {text}" for name, text in notes(results)]
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


def _markdown_table(table: _Table) -> Iterator[str]:
    def line(texts: Sequence[str]) -> str:
        return f"| {' | '.join(texts)} |".replace("*", r"\*").replace("_", r"\_")

    yield line(["method", *table.headings])
    yield f"| --- |{' ---: |' * len(table.headings)}"
    for row in table.lines:
        yield line([f"{row.name} ({row.note})", *(cell.text for cell in row.cells)])


def _csv(results: TableResults) -> str:
    """A line for each value; percentages and percentage points, thresholds as fractions."""
    names = ["arch", "row", "localizer", "protocol", "metric", "unit", "mean", "sd", "n"]
    names += [f"seed_{seed}" for seed in results.plan.seeds]
    names += ["difference_to_gap", "difference_sd", "difference_n", "paper", "paper_difference_to_gap"]
    names += ["oracle_threshold", "note"]
    content = io.StringIO()
    writer = csv.DictWriter(content, names, lineterminator="\n", restval="")
    writer.writeheader()
    for key, value in results.values.items():
        measured, difference = value.measured, value.difference
        line: dict[str, object] = {
            **key._asdict(),
            "unit": "fraction" if key.metric == THRESHOLD_METRIC else "percent",
            "n": measured.n if measured else 0,
            "difference_n": difference.n if difference else 0,
            "paper": value.paper,
            "paper_difference_to_gap": value.paper_difference,
            "note": "; ".join(_notes(results, key)),
        }
        if key.metric not in CLASS_METRICS:
            line["oracle_threshold"] = "yes" if value.is_oracle else "no"
        if measured:
            line |= {"mean": _exact(measured.mean), "sd": _exact(measured.sd)}
            line |= {f"seed_{seed}": _exact(one) for seed, one in measured.by_seed.items() if seed is not None}
        if difference:
            line |= {"difference_to_gap": _exact(difference.mean), "difference_sd": _exact(difference.sd)}
        writer.writerow(line)
    return content.getvalue()


def _notes(results: TableResults, key: Key) -> Iterator[str]:
    """Why seeds of a value are missing."""
    if key.arch:
        for seed in results.plan.seeds:
            name = run_name(arch=key.arch, row=key.row, seed=seed)
            if name in results.unfinished:
                yield f"seed {seed}: {results.unfinished[name]}"


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
