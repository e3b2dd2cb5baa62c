"""Every benchmark starts by its file name alone, from the repository's folder, as its docstring says."""

import contextlib
import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from benchmarks import proposal_speed, supervision
from tests.command_calls import REPOSITORY, start_python
from tests.counts import full

SCRIPTS = sorted((REPOSITORY / "benchmarks").glob("*.py"))


def help_here(script: Path) -> tuple[object, str]:
    """What ``python SCRIPT --help`` does, but for installed modules that this process has imported."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as shown:
        for name in [name for name in sys.modules if name.split(".")[0] in ("benchmarks", "tests")]:
            patch.delitem(sys.modules, name)
        others = (folder for folder in sys.path if folder not in ("", str(REPOSITORY)))
        patch.setattr(sys, "path", [str(script.parent), *others])
        patch.setattr(sys, "argv", [str(script), "--help"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
    return end.value.code, shown.getvalue()


def help_of_a_program(script: Path) -> tuple[object, str]:
    process = start_python(script, "--help")
    output, _ = process.communicate()
    return process.returncode, output


@pytest.mark.parametrize("call", (help_here, help_of_a_program)[: full(1, 2)])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_is_shown(script: Path, call: Callable[[Path], tuple[object, str]]) -> None:
    code, shown = call(script)
    assert not code and "usage" in shown.lower(), shown


@pytest.mark.parametrize("script", [proposal_speed, supervision], ids=lambda script: script.__name__)
def test_a_folder_without_images_is_no_measurement(script: ModuleType, tmp_path: Path) -> None:
    result = CliRunner().invoke(script.main, ["--images", str(tmp_path)])
    assert result.exit_code == 2 and f"--images {tmp_path}: expected .jpg" in result.output
