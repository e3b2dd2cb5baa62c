"""What README, docs and docstrings tell people to type, run, read and follow: commands, code, examples, links."""

import ast
import doctest
import importlib
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines import prep_cli
from pipelines.experiments.pipeline_file import read_pipeline_file
from pseudo_maps.proposals import PRESETS
from pseudo_maps.shards import shard_name
from tests.command_parsing import COMMANDS, refusal, spoken_options
from tests.integration.eval_command import make_checkpoint
from tests.pseudo_maps.shard_making import make_shard
from tests.world import World

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path
    for path in (
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "pseudo_maps").rglob("*.md")),
    )
}
MODULES = {"pipelines.prep_cli": "wsol-prep", "pipelines.train_cli": "wsol-train", "pipelines.eval_cli": "wsol-eval"}
"""What torchrun can be given in place of a program."""
FOREIGN_OPTIONS = (
    *("--no-deps", "--array", "--gres", "--requeue", "--nproc-per-node", "--check"),
    *("--host", "--tls-ca-file", "--tls-cert", "--tls-key"),
    "--shm-size",
)
"""Options of pip, SLURM, torchrun, sha256sum, dask and docker that the texts speak of."""
RUN_AS_THEY_STAND = ("README.md", "docs/training.md", "docs/python.md")
"""Documents whose Python needs no more than ``example_files`` makes."""


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Document and text of every fenced block of a language."""
    for name, path in DOCUMENTS.items():
        for block in re.findall(rf"(?ms)^```{language}\n(.*?)^```", path.read_text(encoding="utf-8")):
            yield name, block


def shell_commands(text: str) -> Iterator[list[str]]:
    """Simple commands of a piece of shell: lines joined, comments dropped, cut at pipes and the like."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r"\$\{?\w+\}?", "1", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in lexer:
            if set(word) <= set("();<>|&"):
                yield command
                command = []
            else:
                command.append(word)
        yield command


def problem(command: list[str]) -> str | None:
    """Why a command cannot be typed as it stands; None also for programs that are not ours."""
    for number, word in enumerate(command):
        program = MODULES.get(word, word.removeprefix("$(command -v ").removesuffix(")"))
        if program in COMMANDS:
            return refusal(program, command[number + 1 :])
        if word in ("python", "pytest") and command[number + 1 :] and not command[number + 1].startswith("-"):
            return script_problem(command[number + 1 :])
        if word == "make":
            targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
            unknown = [name for name in command[number + 1 :] if "=" not in name and name not in targets]
            return f"make has no target {unknown}" if unknown else None
    return None


def script_problem(words: list[str]) -> str | None:
    path = ROOT / words[0]
    if not path.exists():
        return f"{words[0]} does not exist"
    source = path.read_text(encoding="utf-8")
    unknown = [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in source]
    return f"{words[0]} has no {unknown}" if unknown else None


SHELL = [(name, command) for name, block in blocks("sh") for command in shell_commands(block) if command]
INLINE = [
    (name, re.sub(r"\s+", " ", code))
    for name, path in DOCUMENTS.items()
    for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8")))
]
PYTHON = list(blocks("python"))
TOML = list(blocks("toml"))


# --- commands


def test_shell_blocks_can_be_typed() -> None:
    problems = [(name, shlex.join(command), problem(command)) for name, command in SHELL]
    assert [one for one in problems if one[2]] == [] and len(problems) > 50


def test_commands_inside_sentences_are_pieces_of_commands() -> None:
    wrong = []
    for name, code in INLINE:
        words = code.split()
        if words[0] in COMMANDS:
            wrong.append((name, code, refusal(words[0], shlex.split(code)[1:], whole=False)))
        elif words[0] in ("python", "pytest", "make"):
            wrong.append((name, code, problem(shlex.split(code))))
    assert [one for one in wrong if one[2]] == [] and len(wrong) > 20


def test_options_inside_sentences_exist() -> None:
    known = {*spoken_options(), *FOREIGN_OPTIONS}
    for script in (ROOT / "benchmarks").glob("*.py"):
        known.update(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    # A changelog also speaks of what was and what is not there yet.
    texts = [(name, code) for name, code in INLINE if name != "CHANGELOG.md"]
    spoken = [(name, option) for name, code in texts for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", code)]
    assert [one for one in spoken if one[1] not in known] == [] and len(spoken) > 50


@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        ("wsol-prep verify maps --data ILSVRC", True),
        ("srun --ntasks=1 torchrun -m pipelines.train_cli --data D --out O --epochs 3", True),
        ("for seed in 0 1; do wsol-train --data D --out runs/$seed --seed $seed; done", True),
        ("wsol-prep proposals --data D --split val --out maps | tee log.txt", True),
        ("make VENV=x demo", True),
        ("ls -l", True),
        ("wsol-prep verify maps --dta ILSVRC", False),
        ("wsol-prep verify", False),
        ("wsol-prep proposals --data D --split vall --out maps", False),
        ("wsol-prep proposals --data D --split val --out maps surplus", False),
        ("wsol-train --data D --out O --epochs many", False),
        ("torchrun -m pipelines.train_cli --data D", False),
        ('torchrun --standalone "$(command -v wsol-train)" --data D --out O', True),
        ('torchrun --standalone "$(command -v wsol-train)" --data D', False),
        ("wsol-eval", False),
        ("wsol-eval score maps --data D", False),
        ("make cake", False),
        ("python benchmarks/nothing.py", False),
        ("python benchmarks/sweep.py --no-such-option", False),
    ],
)
def test_the_check_tells_right_from_wrong(line: str, accepted: bool) -> None:
    assert (not any(map(problem, shell_commands(line)))) == accepted


# --- pipeline files


@pytest.mark.parametrize(("name", "block"), TOML, ids=[name for name, _ in TOML])
def test_pipeline_files_are_taken(name: str, block: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(block, encoding="utf-8")
    assert read_pipeline_file(path).runs


# --- Python


def test_python_blocks_import_what_exists() -> None:
    ours = ("pseudo_maps", "training", "evaluation", "pipelines")
    for name, block in PYTHON:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ours:
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), name


def test_names_of_code_inside_sentences_exist() -> None:
    pattern = r"(?:pseudo_maps|training|evaluation|pipelines)(?:\.[A-Za-z_]\w*)+"
    named = {(name, code) for name, code in INLINE if re.fullmatch(pattern, code) and not code.endswith(".md")}
    for name, code in named:
        assert resolves(code.split(".")), f"{name}: {code}"
    assert len(named) > 15


def resolves(parts: list[str]) -> bool:
    """Whether a dotted name is a module, or something in one."""
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


@pytest.fixture(scope="module")
def example_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Python of README and docs reads: a photograph, maps, a run."""
    folder = tmp_path_factory.mktemp("world")
    pixels = np.random.default_rng(0).integers(0, 256, size=(60, 80, 3), dtype=np.uint8)
    (folder / "photos").mkdir()
    for name in ("photo.jpg", "photos/one.jpg"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "maps").mkdir()
    make_shard(folder / "maps" / shard_name("val", 0, 1), ["ILSVRC2012_val_00000293"])
    (folder / "runs" / "alexnet").mkdir(parents=True)
    make_checkpoint(folder / "runs" / "alexnet" / "checkpoint-00040036.pt", classes=2)
    return folder


@pytest.mark.parametrize(
    ("name", "block"),
    [one for one in PYTHON if one[0] in RUN_AS_THEY_STAND],
    ids=lambda value: value.partition("\n")[0],
)
def test_python_blocks_run(name: str, block: str, example_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example_files)
    (example_files / "block.py").write_text(block, encoding="utf-8")
    runpy.run_path(str(example_files / "block.py"))


def test_the_notebook_runs_on_the_results_of_the_demo(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo" / "runs").mkdir(parents=True)
    for name, made in (("data", world.data), ("maps", world.maps), ("runs/full-method", world.network)):
        (tmp_path / "demo" / name).symlink_to(made)
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs" / "python.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "python.ipynb", "exec"), names)
    assert names["found"].image.name == "synthetic_val_00000005.JPEG" and names["found"].score > 0


# --- links


def anchors(path: Path) -> set[str]:
    """Names that GitHub gives to the headings of a document."""
    text = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_links_lead_somewhere() -> None:
    broken = []
    for name, path in DOCUMENTS.items():
        text = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, anchor = target.partition("#")
            found = path.parent / file if file else path
            leads = found.exists() and (not anchor or anchor in anchors(found))
            if not leads and not re.match(r"[a-z]+:", target):
                broken.append(f"{name}: {target}")
    assert broken == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop().resolve()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        waiting += [path.parent / target for target in targets if not re.match(r"[a-z]+:", target)]
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= {path.name for path in reached}


def test_examples_of_docstrings_give_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    attempted, failed = 0, []
    for package in ("pseudo_maps", "training", "evaluation", "pipelines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if not re.search(r"(?m)^ *>>> ", path.read_text(encoding="utf-8")):
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            outcome = doctest.testmod(importlib.import_module(module))
            attempted += outcome.attempted
            failed += [module] if outcome.failed or not outcome.attempted else []
    assert failed == [] and attempted > 20


def test_the_picture_of_readme_was_made_with_the_settings_that_the_commands_below_it_have() -> None:
    with Image.open(ROOT / "docs/pictures/preview.jpg") as picture:
        settings = json.loads(picture.info["comment"])
    defaults = {option.name: option.default for option in prep_cli.main.commands["proposals"].params}
    preset = asdict(replace(PRESETS[defaults["preset"]], boundaries=defaults["boundaries"]))
    assert (settings["weighting"], settings["proposals"]) == (defaults["weighting"], preset)
