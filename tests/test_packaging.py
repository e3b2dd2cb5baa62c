"""Do the files that install, start and check the project agree with each other?"""

import configparser
import importlib
import pkgutil
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import click
import pytest

import pseudo_maps
from tests.slow_tests import listed

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("pseudo_maps", "training", "evaluation", "pipelines")
WITHOUT_TORCH = {"torch", "torchvision"}
"""What training needs and making proposals does not."""


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string((REPOSITORY / "setup.cfg").read_text(encoding="utf-8"))
    return parser


def requirements(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def project_name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0]


def all_modules() -> list[str]:
    names = list(PACKAGES)
    for package in PACKAGES:
        path = [str(REPOSITORY / package)]
        names += [module.name for module in pkgutil.walk_packages(path, prefix=f"{package}.")]
    return names


def test_the_cpu_requirements_are_all_but_torch(setup: configparser.ConfigParser) -> None:
    installed = requirements(setup["options"]["install_requires"])
    assert {project_name(line) for line in installed} >= WITHOUT_TORCH
    expected = [line for line in installed if project_name(line) not in WITHOUT_TORCH]
    assert requirements((REPOSITORY / "requirements-cpu.txt").read_text(encoding="utf-8")) == expected


def test_every_requirement_has_a_lower_bound_and_is_met_here(setup: configparser.ConfigParser) -> None:
    for line in requirements(setup["options"]["install_requires"]):
        found = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)", line)
        assert found, f"{line!r}: expected name>=version"
        installed = [int(part) for part in re.findall(r"\d+", metadata.version(found[1]))[:3]]
        assert installed >= [int(part) for part in found[2].split(".")], line


def test_only_one_opencv_is_required(setup: configparser.ConfigParser) -> None:
    listed = setup["options"]["install_requires"] + "".join(setup["options.extras_require"].values())
    assert [project_name(line) for line in requirements(listed) if "opencv" in line] == [
        "opencv-contrib-python-headless"
    ]


def test_the_entry_points_are_commands(setup: configparser.ConfigParser) -> None:
    scripts = requirements(setup["options.entry_points"]["console_scripts"])
    names = [script.partition("=")[0].strip() for script in scripts]
    assert {"wsol-prep", "wsol-pipeline"} <= set(names) and len(set(names)) == len(names)
    for script in scripts:
        module, _, attribute = script.partition("=")[2].strip().partition(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), click.Command), script


def test_every_module_imports() -> None:
    modules = all_modules()
    for module in modules:
        importlib.import_module(module)
    assert {"pseudo_maps.runs.generation", "pipelines.datasets.clsloc", "pipelines.prep_cli"} <= set(modules)


def test_every_package_folder_is_installed_and_typed(setup: configparser.ConfigParser) -> None:
    wanted = requirements(setup["options.packages.find"]["include"])
    assert wanted == [f"{name}*" for name in PACKAGES]
    for name in PACKAGES:
        assert (REPOSITORY / name / "__init__.py").is_file() and (REPOSITORY / name / "py.typed").is_file()
        assert "py.typed" in setup["options.package_data"][name]
        # A folder of modules without __init__.py would be left out of a wheel without a word.
        for path in (REPOSITORY / name).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_the_version_has_one_source(setup: configparser.ConfigParser) -> None:
    assert setup["metadata"]["version"] == "attr: pseudo_maps.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", pseudo_maps.__version__)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("test", "pytest"),
        ("test-fast", "not slow"),
        ("slow-tests", "--record-slow"),
        ("viewers", "pytest tests/viewers"),
        ("demo", "wsol-pipeline demo"),
        ("lint", "ruff"),
        ("help", "make demo"),
    ],
)
def test_the_make_targets_parse(tmp_path: Path, target: str, command: str) -> None:
    done = subprocess.run(
        ["make", "-n", target, f"VENV={tmp_path / 'venv'}"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert command in done.stdout
    assert list(tmp_path.iterdir()) == [], "a dry run made something"


def test_the_list_of_slow_tests_has_no_test_that_is_gone() -> None:
    for name in listed():
        path, _, function = name.partition("::")
        assert f"def {function}(" in (REPOSITORY / path).read_text(), name


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_installs_once_for_each_state_of_the_dependencies(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").write_text("")

    def stamp(setup_text: str) -> str:
        (tmp_path / "setup.cfg").write_text(setup_text)
        done = subprocess.run(["make", "-n", "test"], cwd=tmp_path, capture_output=True, text=True, check=True)
        return re.search(r"touch (\S+)", done.stdout)[1]

    assert stamp("a") == stamp("a") != stamp("b")
    (tmp_path / ".venv").mkdir()
    (tmp_path / stamp("a")).touch()
    done = subprocess.run(["make", "-n", "test"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "pip install" not in done.stdout and "pytest" in done.stdout


def test_continuous_integration_runs_what_the_readme_says() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert {"make test", "make lint", "make viewers"} <= set(script.read_text(encoding="utf-8").splitlines())
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
