"""What the tests of faults share: runs in groups of processes, what they leave, and ways to kill them."""

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from pseudo_maps.processes import is_running
from tests.command_calls import StartedProgram, start_program
from tests.integration.prep_command import import_map_making

DEADLINE_S = 300.0


def start_run(out: Path, *arguments: object) -> StartedProgram:
    """Begin ``faulty_run`` in a process group of its own, which its workers share."""
    import_map_making()
    return start_program(
        "tests.integration.faulty_run", out, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(run: StartedProgram) -> None:
    _, stderr = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 0, stderr


def kill_run(run: StartedProgram) -> None:
    """Kill a run with all its processes and wait until none of them is left."""
    while run.poll() is None:
        try:
            os.killpg(run.pid, signal.SIGKILL)
            break
        except ProcessLookupError:
            # It has not yet made the group, or has ended.
            time.sleep(0.002)
    run.wait(DEADLINE_S)
    wait_until_alone(run)


def wait_until_alone(run: StartedProgram) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while any(group_of(process) == run.pid for process in processes()):
        assert time.monotonic() < give_up, "a process outlived its run"
        time.sleep(0.01)


def images_made(out: Path) -> int:
    """Images that the processes for the images of all tries have made."""
    try:
        return Path(f"{out}.made").stat().st_size
    except OSError:
        return 0


def hold_at(out: Path, images: int) -> None:
    """Let no run into a folder make more images than so many, those of all tries together."""
    before = Path(f"{out}.hold.new")
    before.write_text(str(images))
    before.replace(f"{out}.hold")


def let_go(out: Path) -> None:
    Path(f"{out}.hold").unlink()


def wait_for_images(run: StartedProgram, out: Path, images: int) -> None:
    """Return as soon as so many images have been made, or the run has ended."""
    wait_for(run, enough_images(out, images))


def new_file(out: Path, pattern: str) -> Callable[[], bool]:
    """Whether a folder has another file of such a name than now."""
    before = set(out.glob(pattern))
    return lambda: not before.issuperset(out.glob(pattern))


def enough_images(out: Path, images: int) -> Callable[[], bool]:
    """Whether so many images have been made."""
    return lambda: images_made(out) >= images


def wait_for(run: StartedProgram, condition: Callable[[], bool]) -> None:
    """Return as soon as something is so, or the run has ended."""
    give_up = time.monotonic() + DEADLINE_S
    while not condition() and run.poll() is None:
        assert time.monotonic() < give_up, "the run does nothing"
        time.sleep(0.002)


@pytest.fixture
def leaping_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test waits for a time limit: clocks leap by an hour while an image hangs, and for each file ``*.leaps``.

    Images and files are those of ``tmp_path``. A child may begin an image before its parent starts the clock for it,
    so the leap is at every look at the clock.
    """
    seen_hanging = 0

    def monotonic() -> float:
        nonlocal seen_hanging
        seen_hanging += any(is_running(int(path.suffixes[-2][1:])) for path in tmp_path.glob("*.hangs"))
        return time.monotonic() + 3600 * (seen_hanging + len(list(tmp_path.glob("*.leaps"))))

    monkeypatch.setattr("pseudo_maps.runs.child.time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))


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


def kill_workers(
    run: StartedProgram, out: Path, *, times: int, group: int, programs: Sequence[str], but: set[int]
) -> None:
    """Kill a process of a group again and again while the run makes images, which began with ``hold_at``.

    Each time another kind of process in turn, by what its command line has in it.
    """
    dice = random.Random(5)
    for number in range(times):
        images = images_made(out) + dice.randint(1, 6)
        hold_at(out, images)
        wait_for_images(run, out, images)
        wait_for(run, partial(kill_one, group, program=programs[number % len(programs)], but=but, dice=dice))
        assert run.poll() is None, run.output(2)
    let_go(out)


def kill_one(group: int, *, program: str, but: set[int], dice: random.Random) -> bool:
    """SIGKILL for one of a group whose command line has ``program`` in it; False when there is none."""
    found = sorted(
        process
        for process in processes()
        if process not in but and program in command_line(process) and group_of(process) == group
    )
    if not found:
        return False
    try:
        os.kill(dice.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
