"""Every benchmark starts by its file name alone, from the repository's folder, as its docstring says."""

from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from benchmarks import proposal_speed, supervision
from tests.command_calls import REPOSITORY, start_python
from tests.counts import full

SCRIPTS = sorted((REPOSITORY / "benchmarks").glob("*.py"))
PROCESSES = full(1, len(SCRIPTS))
"""Among which the scripts are shared out; each imports PyTorch."""

_HELP = """
import runpy, sys
from pathlib import Path

for script in sys.argv[1:]:
    # What python SCRIPT does, but for modules that another script has imported.
    sys.path[0], sys.argv = str(Path(script).parent), [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        print(f"END OF {script}: {end.code}")
"""


@pytest.mark.parametrize("first", range(PROCESSES))
def test_help_is_shown(first: int) -> None:
    scripts = SCRIPTS[first::PROCESSES]
    process = start_python("-c", _HELP, *scripts)
    rest, _ = process.communicate()
    for script in scripts:
        shown, end, rest = rest.partition(f"END OF {script}: 0\n")
        assert end and "usage" in shown.lower(), (script, shown)
    assert (rest, process.returncode) == ("", 0)


@pytest.mark.parametrize("script", [proposal_speed, supervision], ids=lambda script: script.__name__)
def test_a_folder_without_images_is_no_measurement(script: ModuleType, tmp_path: Path) -> None:
    result = CliRunner().invoke(script.main, ["--images", str(tmp_path)])
    assert result.exit_code == 2 and f"--images {tmp_path}: expected .jpg" in result.output
