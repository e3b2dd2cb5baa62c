"""Self-contained HTML pages from templates, and the tables, texts and pictures that all of them need."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from evaluation.protocols import protocol_title
from evaluation.results.tables import percent
from evaluation.schema import Rate
from pseudo_maps.files import write_atomically


class Chart(NamedTuple):
    """A chart of a report, for its page or as a file of its own."""

    name: str
    """Name of the file, without suffix."""
    content: bytes
    alt: str
    """What it shows, for readers who do not see it."""

    @property
    def uri(self) -> str:
        """An SVG as the source of an ``img`` element."""
        return data_uri(self.content, kind="svg+xml")


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    note: str = ""
    """Small print below."""
    is_best: bool = False
    """Whether it is the best of its column."""


class Row(NamedTuple):
    """A row of a table, which begins with its name."""

    cells: Sequence[Cell]
    kind: str = ""
    """``baseline``, ``differs`` or nothing: how it is set apart."""


class Table(NamedTuple):
    """A table of a page, or of a file of its own."""

    caption: str
    align: str
    """A letter for each column, as in LaTeX: ``l`` text, ``r`` numbers."""
    headings: Sequence[str]
    rows: Sequence[Row]


def row_of(*cells: Cell | str | int, kind: str = "") -> Row:
    """A row of cells, of which some are texts or numbers alone."""
    return Row([cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in cells], kind)


def rate_cell(rate: Rate, *, best: float | None = None) -> Cell:
    """A rate as a percentage, with its interval below; it may be the ``best`` one."""
    interval = "" if rate.interval is None else f"{100 * rate.interval[0]:.1f} to {100 * rate.interval[1]:.1f}"
    return Cell(percent(rate.rate), interval, rate.rate is not None and rate.rate == best)


def write_page(out: Path, *, template: str, context: Mapping[str, Any]) -> None:
    """Write a page from a file in ``templates``, in place of one that exists; its folder is made when it is missing.

    The context's text is escaped in HTML, and a name that it lacks is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines.reports"),
        autoescape=jinja2.select_autoescape(("html.jinja",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # As the Content-Security-Policy names the one script that may run.
    environment.filters["protocol_title"] = protocol_title
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    page = environment.get_template(template).render(context)
    out.parent.mkdir(parents=True, exist_ok=True)
    # A class may be named after a file name that is not UTF-8.
    write_atomically(out, page.encode("utf-8", errors="replace"))


def data_uri(content: bytes, *, kind: str) -> str:
    """A picture as the source of an ``img`` element; ``kind`` is ``jpeg`` or ``svg+xml``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def setting_texts(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Values of nested settings as text, by names such as ``views.flip``."""
    texts: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            texts |= setting_texts(value, f"{prefix}{name}.")
        else:
            texts[f"{prefix}{name}"] = _text(value)
    return texts


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "", {}) else str(value)
