"""What the tests of faults share: runs in groups of processes, what they leave, and ways to kill them."""

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.command_calls import StartedProgram, start_program

DEADLINE_S = 300.0


def start_run(out: Path, *arguments: object) -> StartedProgram:
    """Begin ``faulty_run`` in a process group of its own, which its workers share."""
    return start_program(
        "tests.integration.faulty_run", out, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(run: StartedProgram) -> None:
    _, stderr = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 0, stderr


def kill_run(run: StartedProgram) -> None:
    """Kill a run with all its processes and wait until none of them is left."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    wait_until_alone(run)


def wait_until_alone(run: StartedProgram) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while any(group_of(process) == run.pid for process in processes()):
        assert time.monotonic() < give_up, "a process outlived its run"
        time.sleep(0.01)


def progress(out: Path) -> set[tuple[Path, str]]:
    """Committed shards, and the number of images that the processes for the images have made."""
    made = Path(f"{out}.made")
    found = {(path, "") for path in out.glob("*.h5")}
    return found | ({(made, str(made.stat().st_size))} if made.exists() else set())


def wait_for_progress(run: StartedProgram, out: Path) -> None:
    """Return as soon as the run has finished another image or shard, or itself."""
    before, give_up = progress(out), time.monotonic() + DEADLINE_S
    while progress(out) <= before and run.poll() is None:
        assert time.monotonic() < give_up, "the run does nothing"
        time.sleep(0.002)


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones included, but for the run logs."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder / "logs"
    }


def processes() -> Iterator[int]:
    yield from (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def status_fields(process: int) -> list[str]:
    """State, parent and group of a process as text, empty when it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def group_of(process: int) -> int | None:
    """Group of a process that runs."""
    fields = status_fields(process)
    return int(fields[2]) if fields and fields[0] not in "ZX" else None


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def kill_one_at_random(group: int, *, but: set[int], dice: random.Random) -> str | None:
    """SIGKILL for a worker or a process for images in a group; its command line, None when there was none."""
    found = {process: command_line(process) for process in processes() if process not in but}
    found = {
        process: line
        for process, line in found.items()
        if line and "tracker" not in line and group_of(process) == group
    }
    if not found:
        return None
    process = dice.choice(sorted(found))
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return found[process]
