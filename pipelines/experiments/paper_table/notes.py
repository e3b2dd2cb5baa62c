"""Notes above the tables: data, settings and protocols that the runs have in common."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evaluation.protocols import protocol_title
from pipelines.experiments.paper_table.options import TRAINING_OPTIONS
from pipelines.experiments.paper_table.results import TableResults
from pipelines.experiments.paper_table.rows import ROWS
from pipelines.reports.html_pages import setting_texts
from pseudo_maps.files import file_sha256

PAPER_INPUT_PX = 224
"""Side of the paper's input (section 2.5)."""
PAPER_NOTE = (
    "Columns marked “paper” are the paper's own numbers on ILSVRC (1,000 classes, 1.28 million training and 50,000 "
    "validation images; Chen and Hsu, ICASSP 2019, Tables 1 and 2): other data of another size, so compare the order "
    "of the rows and their distances, not the numbers."
)
SHA256_CHARACTERS = 64
_SHOWN_SEPARATELY = frozenset({"--recipe", "--epochs", "--batch-size", "--input-size", "--perceptual-weights"})
_NO_OPTIONS = frozenset({"arch", "row", "seed", "maps", "train_images"})


def notes(results: TableResults) -> list[tuple[str, str]]:
    """Heading and text of each note."""
    plan = results.plan
    found = [("Data", _data(results)), *_training(results)]
    seeds = f"{', '.join(map(str, plan.seeds))}; mean ± sample standard deviation (n - 1) over those that are finished"
    boxes = "; ".join(f"{ROWS[row].title}: {ROWS[row].localizers[0]}" for row in plan.rows)
    added = "; ".join(ROWS[row].title for row in plan.rows if not ROWS[row].in_paper)
    if added:
        found.append(("Rows that are not in the paper", f"{added}: L_cam is L_map on the class activation map"))
    return [*found, ("Seeds", seeds), ("Boxes in the main tables", boxes), *_protocols(results)]


def _either(values: Iterable[object]) -> str:
    """``3 or 4``: each value once."""
    return " or ".join(dict.fromkeys(map(str, values)))


def _data(results: TableResults) -> str:
    plan, counts = results.plan, [metrics.counts for metrics in results.finished.values()]
    # What the runs say comes before what was asked for: a report may be about runs of another --limit.
    recorded = [one["train_images"] for one in results.records.values() if "train_images" in one]
    train = _either(text.partition(" ")[0] for text in recorded or [plan.train_images])
    val = _either(count.asked for count in counts) or plan.val_images.partition(" ")[0]
    learned = _either(results.learned_images)
    text = (
        f"{plan.data.resolve().name} ({plan.train.layout}): {train} images to train on"
        f"{f' ({learned} learned from)' if learned not in ('', train) else ''}, {val} images of split "
        f"{plan.val.split} asked for, {len(plan.train.class_wnids)} classes"
    )
    if counts:
        scored, skipped = {count.scored for count in counts}, {sum(count.skipped.values()) for count in counts}
        text += f"; scored {_either(sorted(scored))}, skipped {_either(sorted(skipped))}"
    return text


def _training(results: TableResults) -> list[tuple[str, str]]:
    if not results.configurations:
        return []
    name, configuration = next(iter(results.configurations.items()))
    size = configuration["crop"]["input_size"]
    optimiser, schedule = configuration["optimiser"], configuration["schedule"]
    maps = setting_texts(_first(results, "maps") or {})
    found = {
        "Input": f"{size} x {size} pixels{'' if size == PAPER_INPUT_PX else f' (the paper: {PAPER_INPUT_PX})'}",
        "Training, the same in all rows": (
            f"recipe {results.records[name].get('--recipe', 'unknown')}: epochs {configuration['epochs']}, batches of "
            f"{configuration['batch_size']}, {optimiser['name']} at {optimiser['lr']:g}, weight decay "
            f"{optimiser['weight_decay']:g}, {schedule['kind']}, {configuration['precision']}, "
            f"init {configuration['init']}"
        ),
        "Further options": _shown_options(results),
        "Frozen network F": _weights(results, _first(results, "perceptual") or ""),
        "Pseudo maps": ", ".join(f"{name} {text}" for name, text in maps.items() if text != "none"),
    }
    return [(heading, text) for heading, text in found.items() if text]


def _weights(results: TableResults, identity: str) -> str:
    """F's weights by name, a file by its content."""
    if len(identity) != SHA256_CHARACTERS:
        return identity
    path = Path(results.plan.values["perceptual-weights"])
    is_given = path.is_file() and file_sha256(path) == identity
    return f"{f'{path.parent.name}/{path.name}, ' if is_given else 'file with '}SHA-256 {identity}"


def _shown_options(results: TableResults) -> str:
    """Options that were set to other values than the defaults of wsol-train, of all rows together."""
    defaults = {f"--{key}": option.to_info_dict()["default"] for key, option in TRAINING_OPTIONS.items()}
    changed: dict[str, Any] = {}
    for record in results.records.values():
        for option, value in record.items():
            if option in _NO_OPTIONS or option in _SHOWN_SEPARATELY or value == defaults.get(option):
                continue
            changed[option] = value
    return ", ".join(f"{option} {value}" for option, value in changed.items())


def _first(results: TableResults, key: str) -> Any:
    return next((value for one in results.configurations.values() if (value := one.get(key))), None)


def _protocols(results: TableResults) -> list[tuple[str, str]]:
    """What each protocol means, as metrics.json describes it."""
    found = []
    for protocol in results.plan.protocols:
        all_results = (
            result for metrics in results.finished.values() for result in (*metrics.results, *metrics.baselines)
        )
        result = next((one for one in all_results if one.protocol == protocol), None)
        if result is None:
            continue
        rules = [result.describe[rule] for rule in ("threshold", "box", "iou") if rule in result.describe]
        text = f"{result.describe.get('summary', '')} In detail: {'; '.join(rules)}".strip()
        if result.threshold_is_oracle:
            text += ". The threshold is chosen on the images that are scored, so these values are upper estimates"
        found.append((f"Protocol {protocol_title(protocol)}", text))
    return found
