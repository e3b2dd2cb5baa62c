"""The commands of docs/cluster.md: every one parses, and those for dask run as they stand there."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.prep_cli import main
from pseudo_maps.runs.array_tasks import array_share
from tests.command_calls import REPOSITORY
from tests.integration.prep_command import QUICK, files, prep
from tests.world import World

GUIDE = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
ADDRESS = "tcp://127.0.0.1:8786"
START_LIMIT_S = 120


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


# The dask recipe, as it stands there


@pytest.fixture
def processes():
    """Programs that a test leaves running; they are ended with it, the last started first."""
    started: list[subprocess.Popen] = []
    yield started
    for process in reversed(started):
        process.terminate()
        process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        assert process.poll() is None, "the scheduler has ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the scheduler does not listen")


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


def test_the_dask_recipe_gives_the_bytes_of_a_plain_run(world: World, tmp_path: Path, processes) -> None:
    pytest.importorskip("distributed", reason="needs the extra 'dask'")
    recipe = [block for block in blocks("sh") if ADDRESS in block or "dask scheduler" in block]
    assert [block.split()[:2] for block in recipe] == [
        ["dask", "scheduler"],
        ["dask", "worker"],
        ["wsol-prep", "proposals"],
    ]
    # A port of its own, so that tests can run beside each other, and one worker: each takes five seconds to be ready.
    port = free_port()
    scheduler, worker, run = (
        shlex.split(block.replace("8786", str(port)).replace("--nworkers 2", "--nworkers 1")) for block in recipe
    )
    dask = [sys.executable, "-m", "dask"]
    # The child processes find this package.
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    quiet = {"cwd": tmp_path, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes.append(subprocess.Popen([*dask, *scheduler[1:], "--no-dashboard"], **quiet))
    wait_for_port(port, processes[-1])
    processes.append(subprocess.Popen([*dask, *worker[1:], "--no-dashboard"], **quiet))
    own = {"ILSVRC": world.data, "maps": tmp_path / "maps", "train": "val"}
    done = prep(*[own.get(word, word) for word in run[1:]], *QUICK, "--shard-size", 3)
    assert done.exit_code == 0 and "10 ok of 10" in done.output, done.output
    assert files(tmp_path / "maps") == files(world.maps)
