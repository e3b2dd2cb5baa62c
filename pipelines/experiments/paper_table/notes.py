"""Notes above the tables: data, settings and protocols that the runs have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.experiments.paper_table.options import TRAINING_OPTIONS
from pipelines.experiments.paper_table.results import TableResults
from pipelines.experiments.paper_table.rows import ROWS
from pseudo_maps.files import file_sha256

__all__ = ["PAPER_NOTE", "notes"]

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
    # What the runs say comes before what was asked for: a report may be about runs of another --limit.
    train = {record["train_images"]: None for record in results.records.values() if "train_images" in record}
    val = {f"{metrics.counts.asked} images": None for metrics in results.finished.values()}
    numbers = [
        " or ".join(dict.fromkeys(text.partition(" ")[0] for text in texts))
        for texts in (train or [plan.train_images], val or [plan.val_images])
    ]
    left_out = ""
    if results.learned_images and list(map(str, results.learned_images)) != [numbers[0]]:
        left_out = f" ({' or '.join(map(str, results.learned_images))} learned from)"
    found = [
        (
            "Data",
            f"{plan.data.resolve().name} ({plan.train.layout}): {numbers[0]} images to train on{left_out}, "
            f"{numbers[1]} images of split {plan.val.split} asked for, {len(plan.train.class_wnids)} classes"
            f"{_scored(results)}",
        )
    ]
    if results.configurations:
        found += _training(results)
    found += [
        (
            "Seeds",
            f"{', '.join(map(str, plan.seeds))}; mean ± sample standard deviation (n - 1) over those that are finished",
        ),
        (
            "Boxes in the main tables",
            "; ".join(f"{ROWS[row].title}: {ROWS[row].localizers[0]}" for row in plan.rows),
        ),
    ]
    found += _protocols(results)
    return found


def _scored(results: TableResults) -> str:
    counts = [metrics.counts for metrics in results.finished.values()]
    if not counts:
        return ""
    numbers = sorted({count.scored for count in counts})
    skipped = sorted({sum(count.skipped.values()) for count in counts})
    return f"; scored {' or '.join(map(str, numbers))}, skipped {' or '.join(map(str, skipped))}"


def _training(results: TableResults) -> list[tuple[str, str]]:
    name = next(iter(results.configurations))
    configuration, record = results.configurations[name], results.records[name]
    size = configuration["crop"]["input_size"]
    optimiser, schedule = configuration["optimiser"], configuration["schedule"]
    found = [
        ("Input", f"{size} x {size} pixels{'' if size == PAPER_INPUT_PX else f' (the paper: {PAPER_INPUT_PX})'}"),
        (
            "Training, the same in all rows",
            f"recipe {record.get('--recipe', 'unknown')}: epochs {configuration['epochs']}, batches of "
            f"{configuration['batch_size']}, {optimiser['name']} at {optimiser['lr']:g}, weight decay "
            f"{optimiser['weight_decay']:g}, {schedule['kind']}, {configuration['precision']}, "
            f"init {configuration['init']}",
        ),
    ]
    options = _shown_options(results)
    if options:
        found.append(("Further options", options))
    weights = _first(results, "perceptual")
    if weights:
        found.append(("Frozen network F", _weights(results, weights)))
    maps = _first(results, "maps")
    if maps:
        found.append(("Pseudo maps", ", ".join(f"{key} {value}" for key, value in _leaves(maps))))
    return found


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


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            found += _leaves(item, f"{prefix}{key}.")
        elif item not in (None, ""):
            found.append((f"{prefix}{key}", item))
    return found


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
        found.append((f"Protocol {protocol}", text))
    return found
