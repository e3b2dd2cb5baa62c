"""The commands of docs/cluster.md: every one parses. Those for dask run in ``test_faults_dask``."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.prep_cli import main
from pseudo_maps.runs.array_tasks import array_share
from tests.command_calls import REPOSITORY
from tests.integration.prep_command import prep
from tests.world import World

GUIDE = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
ADDRESS = "tcp://127.0.0.1:8786"


def dask_recipe() -> list[list[str]]:
    """Words of scheduler, worker and run."""
    recipe = [shlex.split(block) for block in blocks("sh") if ADDRESS in block or "dask scheduler" in block]
    assert [words[:2] for words in recipe] == [["dask", "scheduler"], ["dask", "worker"], ["wsol-prep", "proposals"]]
    return recipe


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Words of every command of ours, the shell's variables as they are."""
    lines = [line for block in (*blocks("sh"), *blocks("bash")) for line in block.splitlines()]
    lines += re.findall(r'"(wsol-prep [^"]*)"', "".join(blocks("python")))
    lines = [line.removeprefix("exec ") for line in lines]
    return [shlex.split(line) for line in lines if line.startswith("wsol-prep ")]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[1:])[:60])
def test_every_command_parses(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ILSVRC", "maps"):
        (tmp_path / name).mkdir()
    if words[-1] == "--scheduler":
        words = [*words, ADDRESS]
    words = ["16" if word == "$SLURM_CPUS_PER_TASK" else word for word in words]
    name = words[1]
    with main.commands[name].make_context(name, words[2:]) as context:
        assert name == "compile" or "data" in context.params


def test_the_guide_has_commands_of_each_kind():
    texts = [" ".join(words[1:]) for words in commands()]
    for part in ("--task-index", "--backend dask", "verify", "--repair", "$SLURM_CPUS_PER_TASK", "compile", "status"):
        assert any(part in text for text in texts), part


def test_the_slurm_script_is_one_and_its_array_has_no_holes():
    (script,) = blocks("bash")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    first, last = map(int, re.search(r"^#SBATCH --array=(\d+)-(\d+)$", script, flags=re.MULTILINE).groups())
    environment = {
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_MAX": str(last),
        "SLURM_ARRAY_TASK_COUNT": str(last - first + 1),
    }
    shares = [
        array_share(task_index=None, task_count=None, environment={**environment, "SLURM_ARRAY_TASK_ID": str(task)})
        for task in range(first, last + 1)
    ]
    assert shares == [(index, last - first + 1) for index in range(last - first + 1)]


def test_the_jobqueue_example_is_python():
    (example,) = blocks("python")
    compile(example, "docs/cluster.md", "exec")


def test_the_costs_are_the_measured_ones_times_the_images():
    stated = re.search(r"(\d+) ms per image on one core and ([\d.]+) KB per map", GUIDE)
    image_ms, map_kb = map(float, stated.groups())
    rows = re.findall(r"^\| (?:ILSVRC|ImageNet)[^|]* \|(.*)\|$", GUIDE, flags=re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        images, shards, core_hours, _, _, size_gb = (
            cell.strip().split()[0].replace(",", "") for cell in row.split("|")
        )
        assert float(core_hours) == pytest.approx(int(images) * image_ms / 3.6e6, rel=0.06)
        assert float(size_gb) == pytest.approx(int(images) * map_kb / 1e6, rel=0.06)
        assert int(shards) == -(-int(images) // 1000)


def test_parts_of_a_split_are_merged_as_the_guide_says(world: World, tmp_path: Path, monkeypatch) -> None:
    for part in (0, 1):
        (tmp_path / f"part-{part}").mkdir()
        for path in world.maps.glob("val*"):
            if "-of-" not in path.name or int(path.name.split("-")[1]) % 2 == part:
                shutil.copy2(path, tmp_path / f"part-{part}")
    (block,) = (block for block in blocks("sh") if "sha256sum" in block)
    *lines, verify = block.replace("train", "val").splitlines()
    done = subprocess.run(["bash", "-e"], input="\n".join(lines), cwd=tmp_path, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    monkeypatch.chdir(tmp_path)
    result = prep(*[str(world.data) if word == "ILSVRC" else word for word in shlex.split(verify)[1:]])
    assert result.exit_code == 0 and "maps: val complete and undamaged" in result.output, result.output
    lines = prep("status", "maps", "--data", world.data).output.splitlines()
    assert lines == ["val: 10 of 10 images (100.0 %) in 4 of 4 shards; 0 failed"]
