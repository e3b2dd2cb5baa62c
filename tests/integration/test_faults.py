"""Whatever dies, hangs or is broken: every good image's map is that of an undisturbed run, and the run ends."""

import random
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest

from pseudo_maps.config import MapConfig
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import ImageLimits
from pseudo_maps.runs.generation import RunConfig, Summary, generate_maps, plan_run
from pseudo_maps.runs.shard_task import TRIES
from pseudo_maps.shards import MapIndex
from pseudo_maps.shards.verify import verify_folder
from tests.counts import full
from tests.integration.fault_runs import (
    command_line,
    contents,
    enough_images,
    finish,
    hold_at,
    images_made,
    kill_run,
    kill_workers,
    leaping_clock,
    let_go,
    new_file,
    start_run,
    wait_for,
    wait_for_images,
    wait_until_alone,
)
from tests.integration.faulty_run import SHARD_SIZE

__all__ = ["leaping_clock"]

RUNS_KILLED = full(4, 20)
WORKERS_KILLED = full(2, 6)
CHILD = "tests.integration.faulty_child"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run leaves that nothing disturbs."""
    out = tmp_path_factory.mktemp("expected") / "maps"
    finish(start_run(out, 1))
    return contents(out)


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path, expected: dict[str, str]) -> None:
    out, dice = tmp_path / "maps", random.Random(7)
    out.mkdir()
    for number in range(RUNS_KILLED):
        # While a run begins; with two workers; while one commits its first shard; with two workers.
        more = (1, dice.randint(1, 14), SHARD_SIZE, dice.randint(1, 14))[number % 4]
        # However late the kill comes, the run has not finished.
        made = images_made(out)
        hold_at(out, made + more + 5)
        beginning = new_file(out, ("logs/*", ".progress.*")[number // 4 % 2])
        reached = enough_images(out, made + more) if number % 4 else beginning
        run = start_run(out, 1 + number % 2)
        wait_for(run, reached)
        kill_run(run)
    let_go(out)
    finish(start_run(out, 2))
    assert contents(out) == expected
    assert verify_folder(out) == []


def test_the_death_of_the_submitting_process_alone_leaves_nothing_at_work(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    out = tmp_path / "maps"
    out.mkdir()
    hold_at(out, 18)
    run = start_run(out, 1)
    wait_for_images(run, out, 18)
    run.kill()
    run.communicate()
    wait_until_alone(run)
    let_go(out)
    finish(start_run(out, 1))
    assert contents(out) == expected


def test_loky_workers_and_their_children_that_are_killed_cost_nothing(tmp_path: Path, expected: dict[str, str]) -> None:
    out = tmp_path / "maps"
    out.mkdir()
    hold_at(out, 1)
    run = start_run(out, 2)
    kill_workers(run, out, times=WORKERS_KILLED, group=run.pid, programs=("faulty_child", "popen_loky"), but={run.pid})
    finish(run)
    assert contents(out) == expected


# --- images that end their process

FAULTS = {
    "segfault-1": "crashed",
    "exit-2": "crashed",
    "killed-3": "crashed",
    "hang-4": "timeout",
    "hog-5": "out-of-memory",
    "once-6": "ok",
    "noise-7": "ok",
}
FEW_FAULTS = ("segfault-1", "killed-3", "hang-4", "once-6", "noise-7")
"""Every way in which a run goes on; each try is a process to start. ``test_child`` has the other deaths."""
TOLD = {
    "segfault-1": "SIGSEGV",
    "exit-2": "exited with code 7",
    "hang-4": "took longer than 1000 s",
    "hog-5": "limit of 400 MB",
}
CONFIG = MapConfig(map_size=16)


def faulty_records(faults: Collection[str]) -> list[ImageRecord]:
    """Fatal images between good ones; those that are not among ``faults`` are good ones of other names."""
    names = []
    for number, fault in enumerate(FAULTS):
        names += [f"good-{number}a", fault if fault in faults or FAULTS[fault] == "ok" else f"good-{number}b"]
    names += [f"good-{number}" for number in range(20, 24)]
    return [ImageRecord(image_id=f"{number:02d}", path=name) for number, name in enumerate(names)]


def make_faulty(
    root: Path, out: Path, *, faults: Collection[str], time_s: float = 1000.0, backend: str = "sequential"
) -> Summary:
    limits = ImageLimits(time_s=time_s, memory_mb=400)
    config = RunConfig(root=root, out=out, child_module=CHILD, limits=limits, backend=backend, jobs=2)
    records = faulty_records(faults)
    plan = plan_run(records, split="val", configuration=CONFIG.as_json(), run=config, shard_size=9)
    return generate_maps(records, plan=plan, config=CONFIG, run=config)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> MapIndex:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "once-6.done").touch()
    assert make_faulty(folder, folder / "maps", faults=()).failed == 0
    return MapIndex(folder / "maps", "val")


def check_faulty(out: Path, undisturbed: MapIndex, *, faults: Collection[str]) -> None:
    found = MapIndex(out, "val")
    for record in faulty_records(faults):
        status = FAULTS.get(record.path, "ok")
        assert found.status(record.image_id) == status, record.path
        stored = found.read_uint8(record.image_id)
        if status == "ok":
            assert found.row(record.image_id) == undisturbed.row(record.image_id)
            assert stored.tobytes() == undisturbed.read_uint8(record.image_id).tobytes()
        else:
            assert not stored.any()
    assert verify_folder(out) == []
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("leaping_clock")
def test_images_that_end_their_process_cost_only_themselves(tmp_path: Path, undisturbed: MapIndex) -> None:
    faults = FAULTS if full(0, 1) else FEW_FAULTS
    summary = make_faulty(tmp_path, tmp_path / "maps", faults=faults)
    statuses = Counter(FAULTS[fault] for fault in faults)
    assert summary.counts == statuses + Counter(ok=len(faulty_records(faults)) - len(faults))
    check_faulty(tmp_path / "maps", undisturbed, faults=faults)
    assert summary.log_path is not None
    log = summary.log_path.read_text()
    assert [fault for fault in faults if TOLD.get(fault, "") not in log] == []
    children = (line for path in Path("/proc/self/task").glob("*/children") for line in path.read_text().split())
    assert [child for child in children if CHILD in command_line(int(child))] == []


@pytest.mark.full
def test_images_that_end_the_process_of_a_worker_cost_only_themselves(tmp_path: Path, undisturbed: MapIndex) -> None:
    # The clock of another process does not leap.
    summary = make_faulty(tmp_path, tmp_path / "maps", faults=FAULTS, time_s=10, backend="loky")
    assert summary.failed == len([status for status in FAULTS.values() if status != "ok"])
    check_faulty(tmp_path / "maps", undisturbed, faults=FAULTS)


def test_an_image_whose_process_others_killed_three_times_is_still_made(tmp_path: Path) -> None:
    records = [ImageRecord(image_id=name, path=name) for name in ("thrice-1", "good-1")]
    run = RunConfig(root=tmp_path, out=tmp_path / "maps", child_module=CHILD, backend="sequential")
    plan = plan_run(records, split="val", configuration=CONFIG.as_json(), run=run)
    assert generate_maps(records, plan=plan, config=CONFIG, run=run).counts == {"ok": 2}
    assert len(list(tmp_path.glob("thrice-1.*"))) == 3


def test_an_image_that_ends_its_process_every_time_is_given_up(tmp_path: Path) -> None:
    records = [ImageRecord(image_id=name, path=name) for name in ("good-1", "counted-1", "good-2")]
    run = RunConfig(root=tmp_path, out=tmp_path / "maps", child_module=CHILD, backend="sequential")
    plan = plan_run(records, split="val", configuration=CONFIG.as_json(), run=run)
    assert generate_maps(records, plan=plan, config=CONFIG, run=run).counts == {"ok": 2, "crashed": 1}
    assert len(list(tmp_path.glob("counted-1.*"))) == TRIES
    assert list(run.out.glob(".*")) == []


def test_a_child_that_does_not_start_stops_the_run_and_costs_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pseudo_maps.runs.child._START_PAUSE_S", 0.0)
    records = [ImageRecord(image_id="a", path="a")]
    run = RunConfig(root=tmp_path, out=tmp_path / "maps", child_module="pseudo_maps.nothing", backend="sequential")
    plan = plan_run(records, split="val", configuration=CONFIG.as_json(), run=run)
    with pytest.raises(RuntimeError, match=r"val-00000-of-00001\.h5: the process for the images does not start"):
        generate_maps(records, plan=plan, config=CONFIG, run=run)
    assert list((tmp_path / "maps").glob("*.h5")) == list((tmp_path / "maps").glob(".*")) == []
