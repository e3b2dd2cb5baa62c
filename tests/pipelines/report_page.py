"""Runs of wsol-eval written by hand, and the report's page taken apart, for the tests of both."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from evaluation.results.predictions import IMAGE_COLUMNS, RESULT_COLUMNS
from pipelines.reports.evaluation_report import write_report
from tests.evaluation.example_metrics import metrics, plain

VOID = {"meta", "img", "source", "br"}


class Page(HTMLParser):
    """Elements of a page in order, as (tag, attributes, text inside), with tags checked to close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open[-1]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "parents": [parent["tag"] for parent in self.open]}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1]["tag"] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def all(self, *tags: str) -> list[dict[str, Any]]:
        return [element for element in self.elements if element["tag"] in tags]


def make_run(
    folder: Path,
    content: dict[str, Any] | None = None,
    *,
    right: Sequence[int] | None = range(100),
    prefix: str = "image",
    labels: int = 20,
) -> Path:
    """A run folder; ``right`` are the images with the right box and class, None for a run without predictions."""
    folder.mkdir(parents=True)
    content = content or metrics(folder.name)
    if right is not None:
        good = len(set(right) & set(range(content["counts"]["scored"])))
        verdicts = {"correct": good, "part": content["counts"]["scored"] - good}
        for made in content["results"]:
            made["errors"] = made["errors"] and {**dict.fromkeys(made["errors"], 0), **verdicts}
    (folder / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    if right is not None:
        lines = [",".join([*IMAGE_COLUMNS, *RESULT_COLUMNS])]
        for number in range(content["counts"]["asked"]):
            skipped = number >= content["counts"]["scored"]
            verdict = ",,,,," if skipped else f"1,2,3,4,{'0.5,correct' if number in right else '0.4,part'}"
            status = "no boxes" if skipped else "scored"
            lines += [
                f"{prefix}{number},{number % labels},,{status},,,,-1,,,{made['localizer']},{made['protocol']},{verdict}"
                for made in content["results"] or content["baselines"]
            ]
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def report(tmp_path: Path, *runs: Path) -> tuple[str, Page]:
    out = tmp_path / "out" / "report.html"
    write_report(runs, out)
    text = out.read_text(encoding="utf-8")
    return text, Page(text)


def summary_rows(text: str) -> list[list[str]]:
    """Texts of the cells of all results, row by row; the caption of a protocol's table is the row before its first."""
    rows = []
    for table in re.findall(r'<table class="summary">(.*?)</table>', text, flags=re.DOTALL):
        body = re.sub(r"<thead>.*?</thead>", "", table, flags=re.DOTALL)
        for row in re.findall(r"<(?:tr|caption).*?</(?:tr|caption)>", body, flags=re.DOTALL):
            cells = re.findall(r"<(?:t[hd]|caption)\b.*?</(?:t[hd]|caption)>", row, flags=re.DOTALL)
            rows.append([" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in cells])
    return rows


def comparable_runs(root: Path, *, charts: bool = False) -> list[Path]:
    """Two runs on the same images: images 0..99 are right in ``gap``, 30..149 in ``ours``."""
    content = metrics if charts else plain
    return [
        make_run(root / "gap", content("gap", correct=118), right=range(100)),
        make_run(root / "ours", content("ours", correct=130), right=range(30, 150)),
    ]
