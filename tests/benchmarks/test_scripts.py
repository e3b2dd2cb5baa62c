"""Every benchmark starts by its file name alone, from the repository's folder, as its docstring says."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from benchmarks import proposal_speed, supervision

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_is_shown(script: Path) -> None:
    result = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout.lower()


@pytest.mark.parametrize("script", [proposal_speed, supervision], ids=lambda script: script.__name__)
def test_a_folder_without_images_is_no_measurement(script: ModuleType, tmp_path: Path) -> None:
    result = CliRunner().invoke(script.main, ["--images", str(tmp_path)])
    assert result.exit_code == 2 and f"--images {tmp_path}: expected .jpg" in result.output
