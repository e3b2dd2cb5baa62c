import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import ChildDeath, ChildPool, ChildStartError, ImageLimits, MadeImage, MapChild
from tests.integration.fault_runs import leaping_clock

__all__ = ["leaping_clock"]

REPOSITORY = Path(__file__).resolve().parents[3]
CHILD = "tests.integration.faulty_child"
LIMITS = ImageLimits(time_s=1000, memory_mb=500)
SETTINGS = {"map_config": {"map_size": 4}, "root": "missing", "boundary_model": None}


@pytest.fixture
def pool() -> Iterator[ChildPool]:
    pool = ChildPool(CHILD)
    yield pool
    pool.close()
    assert children_of(os.getpid()) == []


def make(
    pool: ChildPool, names: Sequence[str], *, root: Path = Path("missing"), limits: ImageLimits = LIMITS
) -> list[MadeImage | ChildDeath]:
    records = [ImageRecord(image_id=name, path=name) for name in names]
    found = list(pool.make_images(records, settings=SETTINGS | {"root": str(root)}, limits=limits))
    assert [index for index, _ in found] == list(range(len(names)))
    return [outcome for _, outcome in found]


def test_images_come_back_in_order(pool: ChildPool) -> None:
    names = ["a", "b", "noise-c", "d"]
    found = make(pool, names)
    assert [(image.row.image_id, image.row.status) for image in found] == [(name, "ok") for name in names]
    assert found == make(pool, names), "what a process has done before must not show"


def test_file_names_that_are_no_utf8_come_back(pool: ChildPool) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    (image,) = make(pool, [name])
    assert image.row.path == name


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("segfault-1", "crashed", "SIGSEGV"),
        ("exit-1", "crashed", "exited with code 7"),
        ("once-1", "crashed", "SIGABRT"),
        ("hog-1", "out-of-memory", "more than the limit of 500 MB"),
    ],
)
def test_a_death_is_charged_to_the_image_at_work_alone(
    pool: ChildPool, name: str, status: str, message: str, tmp_path: Path
) -> None:
    before, death, after, last = make(pool, ["a", name, "b", "c"], root=tmp_path)
    assert isinstance(death, ChildDeath) and (death.status, death.killed) == (status, False)
    assert message in death.message
    undisturbed = make(pool, ["a", "x", "b", "c"])
    assert [before, after, last] == [undisturbed[0], undisturbed[2], undisturbed[3]]


def test_a_crash_tells_where_python_was(pool: ChildPool) -> None:
    (death,) = make(pool, ["segfault-1"])
    assert isinstance(death, ChildDeath)
    assert "faulty_child.py" in death.message and "string_at" in death.message


@pytest.mark.usefixtures("leaping_clock")
def test_a_hang_ends_at_the_time_limit(pool: ChildPool, tmp_path: Path) -> None:
    before, death, after = make(pool, ["a", "hang-1", "b"], root=tmp_path, limits=LIMITS)
    assert isinstance(death, ChildDeath) and death.status == "timeout" and "longer than 1000 s" in death.message
    assert isinstance(before, MadeImage) and isinstance(after, MadeImage)


def test_a_sigkill_from_outside_is_recorded_as_such(pool: ChildPool) -> None:
    death, after = make(pool, ["killed-1", "a"])
    assert isinstance(death, ChildDeath) and death.killed and death.status == "crashed"
    assert isinstance(after, MadeImage)


def test_an_answer_that_is_none_is_a_crash(pool: ChildPool) -> None:
    before, death, after = make(pool, ["a", "garbage-1", "b"])
    assert isinstance(death, ChildDeath) and death.status == "crashed" and "no answer" in death.message
    assert isinstance(before, MadeImage) and isinstance(after, MadeImage)


@pytest.mark.usefixtures("leaping_clock")
def test_waiting_for_the_caller_is_not_the_images_time(
    pool: ChildPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[MapChild] = []
    start_clock = MapChild.start_clock
    monkeypatch.setattr(MapChild, "start_clock", lambda child: children.append(child) or start_clock(child))
    records = [ImageRecord(image_id=str(number), path=str(number)) for number in range(3)]
    found = []
    for _, event in pool.make_images(records, settings=SETTINGS, limits=LIMITS):
        found.append(event)
        if len(found) == 1:
            assert children[-1]._connection.poll(60), "the second answer waits for the caller"
            (tmp_path / "the caller.leaps").touch()
    # Nor is the time before the first image.
    (tmp_path / "the caller again.leaps").touch()
    found += [event for _, event in pool.make_images(records[:1], settings=SETTINGS, limits=LIMITS)]
    assert [type(event) for event in found] == [MadeImage] * 4


def test_leaving_early_leaves_no_process_at_work(pool: ChildPool, tmp_path: Path) -> None:
    records = [ImageRecord(image_id="i", path="hang-1" if number else "a") for number in range(3)]
    events = pool.make_images(records, settings=SETTINGS | {"root": str(tmp_path)}, limits=LIMITS)
    next(events)
    (child,) = children_of(os.getpid())
    events.close()
    assert child not in children_of(os.getpid())


def test_a_child_is_kept_for_the_next_images_and_replaced_when_it_died_meanwhile(pool: ChildPool) -> None:
    make(pool, ["a"])
    (first,) = children_of(os.getpid())
    make(pool, ["b"])
    assert children_of(os.getpid()) == [first]
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert all(isinstance(event, MadeImage) for event in make(pool, ["c"]))
    assert children_of(os.getpid()) != [first]


def test_a_child_that_cannot_start_is_an_error_of_its_own() -> None:
    with pytest.raises(ChildStartError, match=r"(?s)does not start: exited with code 1.*No module named"):
        MapChild(module="pseudo_maps.no_such_module")


@pytest.mark.parametrize("limits", [{"time_s": 0.0}, {"time_s": -1.0}, {"time_s": float("nan")}, {"memory_mb": 0}])
def test_limits_are_above_zero(limits: dict) -> None:
    with pytest.raises(ValueError, match="expected limits above 0"):
        ImageLimits(**limits)


PARENT = """
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import ChildPool, ImageLimits
records = [ImageRecord(image_id="a", path="a"), ImageRecord(image_id="b", path="hang-b")]
settings = {"map_config": {"map_size": 4}, "root": "missing", "boundary_model": None}
pool = ChildPool("tests.integration.faulty_child")
for _ in pool.make_images(records, settings=settings, limits=ImageLimits()):
    print("made", flush=True)
"""


def test_a_child_in_the_middle_of_an_image_dies_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=REPOSITORY, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"made\n"
        (child,) = children_of(parent.pid)
        parent.kill()
    give_up = time.monotonic() + 60
    while is_at_work(child):
        assert time.monotonic() < give_up, "the child outlived its parent"
        time.sleep(0.01)


def children_of(process: int) -> list[int]:
    lists = (path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children"))
    return sorted(int(child) for children in lists for child in children if "faulty_child" in command_line(int(child)))


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def is_at_work(process: int) -> bool:
    # Empty for one that has ended and was not yet asked for its exit code.
    return command_line(process) != ""
