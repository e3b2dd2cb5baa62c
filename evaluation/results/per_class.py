"""per_class.csv: rates of every class under every localizer and protocol, as ``metrics.json`` holds them.

Columns: ``localizer``, ``protocol``, ``label``, ``wnid``, ``name``, ``images`` (those of the class in the localization
denominators), ``gt_known_loc``, ``top1_loc`` and ``top1_class`` (fractions, empty where they do not exist).
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from evaluation.results.predictions import PredictionsError, decimal
from evaluation.schema import Metrics
from pseudo_maps.files import write_atomically

PER_CLASS_FILE = "per_class.csv"
"""Name of the file in a folder of results."""

_RATES = ("gt_known_loc", "top1_loc", "top1_class")


def write_per_class(path: Path, metrics: Metrics, *, names: Sequence[str]) -> None:
    """Write the file atomically; ``names`` are the human-readable names of the classes by label."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["localizer", "protocol", "label", "wnid", "name", "images", *_RATES])
    for result in metrics.all_results:
        for score in result.per_class:
            rates = [getattr(score, rate) for rate in _RATES]
            writer.writerow(
                [result.localizer, result.protocol, score.label, score.wnid, names[score.label], score.images]
                + ["" if rate is None else decimal(rate) for rate in rates]
            )
    # Class names may come from folder names that are not UTF-8.
    write_atomically(path, content.getvalue().encode("utf-8", errors="surrogateescape"))


def read_class_names(path: Path) -> dict[int, str]:
    """Names by label, the wnid where a class has none; empty without the file. PredictionsError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return {int(row["label"]): row["name"] or row["wnid"] for row in csv.DictReader(file, strict=True)}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise PredictionsError(f"{path}: expected what wsol-eval wrote, found: {error!r}; evaluate again") from error
