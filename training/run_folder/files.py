"""File names of a training run. Imports no torch, as reports and pipelines look for these files too."""

import json
from pathlib import Path
from typing import Any

FINISHED_FILE = "finished.json"
"""There when a run is finished, and only then: its summary and configuration."""
METRICS_LOG_FILE = "metrics.jsonl"
"""One line of JSON for each event of a run."""
LOCK_FILE = ".training.lock"
"""Locked by the run that writes to the folder, and there only meanwhile."""
CHECKPOINT_GLOB = "checkpoint-*.pt"
"""Pattern of all that ``checkpoint_name`` gives."""


def checkpoint_name(step: int) -> str:
    """File name of the checkpoint after ``step`` steps, such as ``checkpoint-00000012.pt``."""
    return f"checkpoint-{step:08d}.pt"


def read_finished(run_dir: Path) -> dict[str, Any] | None:
    """Summary and configuration of a finished run; None where the file is not there or not whole."""
    try:
        found = json.loads((run_dir / FINISHED_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) else None
