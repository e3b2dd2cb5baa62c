"""Turns a template and what it shows into one self-contained HTML page."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from pseudo_maps.files import write_atomically

__all__ = ["data_uri", "write_page"]


def write_page(out: Path, *, template: str, context: Mapping[str, Any]) -> None:
    """Write a page, in place of one that exists; its folder is made when it is missing.

    Parameters
    ----------
    out
        HTML file to write.
    template
        Name of a file in ``pipelines/reports/templates``.
    context
        What its names stand for. Text is escaped, and a name that is missing is an error.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = environment.get_template(template).render(context)
    out.parent.mkdir(parents=True, exist_ok=True)
    # A class may be named after a file name that is no UTF-8.
    write_atomically(out, page.encode("utf-8", errors="replace"))


def data_uri(content: bytes, *, kind: str) -> str:
    """A picture as text that stands in the page itself; ``kind`` is ``png``, ``jpeg`` or ``svg+xml``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
