"""Reads the source of the four packages and checks which way they import, and that they stay off unsafe readers.

pipelines -> {pseudo_maps, training, evaluation}. training and evaluation take of pseudo_maps what ``SHARED`` names,
and not one another. Nothing imports pipelines. No two modules import one another, however far apart. wsol-prep
imports torch for ``refine`` alone.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "pseudo_maps": {"pseudo_maps"},
    "training": {"training", "pseudo_maps"},
    "evaluation": {"evaluation", "pseudo_maps"},
    "pipelines": {"pipelines", "pseudo_maps", "training", "evaluation"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks"}
SHARED_OF_PSEUDO_MAPS = {"records", "images", "shards", "files", "reading", "kernels", "processes", "__version__"}
COMPUTED = "(a name known at run time only)"
NEVER_IMPORTED = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal")
NEVER_IMPORTED += ("xml.etree", "xml.dom", "xml.sax", "lxml")
OF_REFINE = {"pipelines.jobs.refinement", "pipelines.jobs.network_maps", "pipelines.jobs.localizer"}
"""What ``wsol-prep`` imports for its one command that looks at images with a network, and ``pipelines.Localizer``."""
READ_NOTHING = ("xml.etree.ElementTree.Element", "xml.etree.ElementTree.ParseError")
"""What defusedxml returns and raises: names for annotations and ``except``, not parsers."""


def module_files(*folders: str) -> dict[str, Path]:
    """Files by dotted module name."""
    files = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


MODULES = module_files(*MAY_IMPORT)
SCRIPTS = module_files("benchmarks")


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node except those below ``if TYPE_CHECKING``."""
    yield tree
    if is_type_checking(tree):
        children = tree.orelse
    else:
        children = ast.iter_child_nodes(tree)
    for child in children:
        yield from run_time_nodes(child)


def imports(tree: ast.Module, module: str, *, is_package: bool, run_time_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports anywhere; ``from a import b`` gives ``a.b``."""
    for node in run_time_nodes(tree) if run_time_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + (1 if is_package else 0)]
                base = ".".join([*parents, base] if base else parents)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            argument = node.args[0] if node.args else None
            yield argument.value if isinstance(argument, ast.Constant) else COMPUTED


def direction_problems(module: str, imported: Iterator[str]) -> list[str]:
    package = module.split(".")[0]
    problems = []
    for name in imported:
        target, *rest = name.split(".")
        if name == COMPUTED:
            problems.append(f"{module} imports {name}: nobody can check that")
        if target not in OURS:
            continue
        if target not in MAY_IMPORT[package]:
            problems.append(f"{module} imports {name}: {package} may not import {target}")
        elif target == "pseudo_maps" and package in ("training", "evaluation"):
            if not rest or rest[0] not in SHARED_OF_PSEUDO_MAPS:
                problems.append(f"{module} imports {name}: only {sorted(SHARED_OF_PSEUDO_MAPS)} are shared")
    return problems


def unsafe_readers(tree: ast.Module, module: str, *, is_package: bool = False) -> list[str]:
    problems = [
        f"{module} imports {name}"
        for name in imports(tree, module, is_package=is_package)
        if name not in READ_NOTHING and any(f"{name}.".startswith(f"{unsafe}.") for unsafe in NEVER_IMPORTED)
    ]
    meaning = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            meaning.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom):
            meaning.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        function = ".".join([meaning.get(first, first), *rest])
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if function in ("torch.load", "torch.serialization.load") and options.get("weights_only") != "True":
            problems.append(f"{module}: line {node.lineno}: torch.load without weights_only=True")
        if function in ("joblib.load", "pandas.read_pickle"):
            problems.append(f"{module}: line {node.lineno}: {function} reads pickles")
        if options.get("allow_pickle", "False") != "False":
            problems.append(f"{module}: line {node.lineno}: allow_pickle={options['allow_pickle']}")
    return problems


def is_package(path: Path) -> bool:
    return path.name == "__init__.py"


# --- the packages


def test_all_four_packages_are_walked() -> None:
    for package in MAY_IMPORT:
        assert package in MODULES
    assert {"pseudo_maps.images", "evaluation.boxes.geometry"} <= MODULES.keys()


def test_imports_go_one_way() -> None:
    problems = []
    for module, path in MODULES.items():
        problems += direction_problems(module, imports(parse(path), module, is_package=is_package(path)))
    assert problems == []


def imported_modules(module: str) -> set[str]:
    """The modules of ours that a module imports at any time, itself left out."""
    path = MODULES[module]
    found = set()
    for name in imports(parse(path), module, is_package=is_package(path), run_time_only=True):
        parts = name.split(".")
        prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        found.add(next((prefix for prefix in prefixes if prefix in MODULES), module))
    return found - {module}


def test_no_two_modules_import_one_another() -> None:
    TopologicalSorter({module: imported_modules(module) for module in MODULES}).prepare()


def test_no_two_rooms_import_one_another() -> None:
    """A room is a folder; the modules that lie directly in a package are rooms of their own."""

    def room(module: str) -> str:
        package, *rest = module.split(".")
        return ".".join([package, *rest[:1]])

    rooms: dict[str, set[str]] = {}
    for module in MODULES:
        if "." in module:
            rooms.setdefault(room(module), set()).update(map(room, imported_modules(module)))
    TopologicalSorter({name: used - {name} for name, used in rooms.items()}).prepare()


def test_no_unsafe_reader_is_used() -> None:
    problems = []
    for module, path in {**MODULES, **SCRIPTS}.items():
        problems += unsafe_readers(parse(path), module, is_package=is_package(path))
    assert problems == []


def test_every_module_says_what_it_does() -> None:
    assert [module for module, path in MODULES.items() if not (ast.get_docstring(parse(path)) or "").strip()] == []


def test_one_module_imports_timm_and_only_when_it_is_asked_for() -> None:
    def takes_timm(tree: ast.Module) -> bool:
        return any(name.split(".")[0] == "timm" for name in imports(tree, "", is_package=False))

    importers = [module for module, path in MODULES.items() if takes_timm(parse(path))]
    assert importers == ["training.networks.timm_networks"]
    at_once = [node for node in parse(MODULES[importers[0]]).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert at_once and not takes_timm(ast.Module(body=[*at_once], type_ignores=[]))


def test_importing_wsol_prep_does_not_import_torch() -> None:
    program = "import sys, pipelines.prep_cli; print([m for m in sys.modules if m.split('.')[0] == 'torch'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_nothing_that_wsol_prep_reaches_imports_torch_even_lazily() -> None:
    reached, waiting = dict.fromkeys(OF_REFINE, ""), [("pipelines.prep_cli", "the command line")]
    while waiting:
        module, importer = waiting.pop()
        if module in reached:
            continue
        reached[module] = importer
        path = MODULES[module]
        for name in imports(parse(path), module, is_package=is_package(path), run_time_only=True):
            assert name.split(".")[0] not in ("torch", "torchvision"), f"{module} (from {importer})"
            parts = name.split(".")
            prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
            waiting += [(prefix, module) for prefix in prefixes & MODULES.keys()]
    assert len(reached) > len(OF_REFINE) + 1


def tree_of_the_readme() -> set[str]:
    """Paths of the modules in the README's tree: two spaces of indentation for each folder."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is where")[2].split("```")[1]
    found, folders = set(), []
    for line in text.strip().splitlines():
        name = line.split()[0]
        folders = folders[: (len(line) - len(line.lstrip())) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.add("".join([*folders, name]))
    return found


def test_the_tree_of_the_readme_is_that_of_the_packages() -> None:
    there = {path.relative_to(ROOT).as_posix() for path in MODULES.values() if path.name != "__init__.py"}
    assert tree_of_the_readme() == there


# --- the checks themselves


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("evaluation.boxes", "from pseudo_maps.images import decode_image", True),
        ("evaluation.boxes", "from pseudo_maps import shards, records", True),
        ("evaluation.boxes", "from pseudo_maps import __version__", True),
        ("evaluation.boxes", "from evaluation import localization", True),
        ("evaluation.boxes", "import torch, numpy as np", True),
        ("evaluation.boxes", "from pseudo_maps.proposals import superpixels", False),
        ("evaluation.boxes", "from pseudo_maps.runs.engines import run_tasks", False),
        ("evaluation.boxes", "import pseudo_maps", False),
        ("evaluation.boxes", "from pseudo_maps import *", False),
        ("evaluation.boxes", "def f():\n    from training.losses import g", False),
        ("evaluation.boxes", "if TYPE_CHECKING:\n    import training", False),
        ("evaluation.boxes", "from ..training import losses", False),
        ("evaluation.boxes", "importlib.import_module('training.losses')", False),
        ("evaluation.boxes", "importlib.import_module(name)", False),
        ("evaluation.boxes", "import pipelines.datasets", False),
        ("evaluation.boxes", "from tests.conftest import VARIABLE", False),
        ("training.loop", "import pseudo_maps.shards as s", True),
        ("training.loop", "from evaluation.boxes import geometry", False),
        ("training.loop", "from pseudo_maps import map_making", False),
        ("pseudo_maps.shards", "from pseudo_maps.shards.index import MapIndex", True),
        ("pseudo_maps.shards", "from . import manifest", True),
        ("pseudo_maps.shards", "from pipelines import datasets", False),
        ("pseudo_maps.shards", "import evaluation.boxes", False),
        ("pipelines.prep_cli", "import training.loop, evaluation.boxes, pseudo_maps.shards.verify", True),
        ("pipelines.prep_cli", "import benchmarks.map_index", False),
    ],
)
def test_the_direction_check_tells_right_from_wrong(module: str, source: str, allowed: bool) -> None:
    problems = direction_problems(module, imports(ast.parse(source), module, is_package=False))
    assert (not problems) == allowed, problems


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("import pickletools2, xmlrpc", True),
        ("from defusedxml import ElementTree", True),
        ("import torch\ntorch.load(f, map_location='cpu', weights_only=True)", True),
        ("json.load(f)\nnp.load(f, allow_pickle=False)", True),
        ("from xml.etree.ElementTree import Element, ParseError", True),
        ("from xml.etree.ElementTree import Element, fromstring", False),
        ("import pickle", False),
        ("def f():\n    from pickle import loads", False),
        ("import xml.etree.ElementTree as ET", False),
        ("from xml.etree import ElementTree", False),
        ("from xml import sax", False),
        ("import torch\ntorch.load(f)", False),
        ("import torch as t\nt.load(f, weights_only=False)", False),
        ("from torch import load as read\nread(f)", False),
        ("import torch\ntorch.load(f, weights_only=flag)", False),
        ("import joblib\njoblib.load(f)", False),
        ("np.load(f, allow_pickle=True)", False),
    ],
)
def test_the_reader_check_tells_right_from_wrong(source: str, allowed: bool) -> None:
    problems = unsafe_readers(ast.parse(source), "some.module")
    assert (not problems) == allowed, problems


def test_relative_imports_are_resolved_from_modules_and_packages() -> None:
    found = imports(ast.parse("from .clsloc import a\nfrom . import b"), "pipelines.datasets", is_package=True)
    assert list(found) == ["pipelines.datasets.clsloc.a", "pipelines.datasets.b"]
    found = imports(ast.parse("from .boxes import a\nfrom .. import b"), "pipelines.datasets.x", is_package=False)
    assert list(found) == ["pipelines.datasets.boxes.a", "pipelines.b"]


def test_type_checking_imports_are_not_run_time_imports() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    import torch\nelse:\n    import a\ndef f():\n    import b")
    assert sorted(imports(tree, "m", is_package=False, run_time_only=True)) == ["a", "b"]
    assert sorted(imports(tree, "m", is_package=False)) == ["a", "b", "torch"]
