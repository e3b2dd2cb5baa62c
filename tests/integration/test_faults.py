"""Whatever dies, hangs or is broken: every good image's map is that of an undisturbed run, and the run ends."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from pseudo_maps.config import MapConfig
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import ImageLimits
from pseudo_maps.runs.generation import RunConfig, Summary, generate_maps, plan_run
from pseudo_maps.runs.shard_task import TRIES
from pseudo_maps.shards import MapIndex
from pseudo_maps.shards.verify import verify_folder
from tests.integration.fault_runs import (
    contents,
    finish,
    kill_one_at_random,
    kill_run,
    start_run,
    wait_for_progress,
    wait_until_alone,
)

RUNS_KILLED = 20
CHILD = "tests.integration.faulty_child"
LIMITS = ImageLimits(time_s=8.0, memory_mb=400)
"""The time lets a busy machine fill the memory."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run leaves that nothing disturbs."""
    out = tmp_path_factory.mktemp("expected") / "maps"
    finish(start_run(out, 1))
    return contents(out)


@pytest.mark.slow
def test_a_run_killed_at_20_random_moments_ends_with_the_same_bytes(tmp_path: Path, expected: dict[str, str]) -> None:
    out, dice = tmp_path / "maps", random.Random(7)
    out.mkdir()
    for number in range(RUNS_KILLED):
        run = start_run(out, 1 + number % 2)
        if number % 4:
            # Most moments of all are in the starting of Python, and would tell little. A shard takes 0.24 s or more.
            wait_for_progress(run, out)
            time.sleep(dice.uniform(0, 0.3))
        else:
            time.sleep(dice.uniform(0, 2))
        kill_run(run)
    finish(start_run(out, 2))
    assert contents(out) == expected
    assert verify_folder(out) == []


@pytest.mark.slow
def test_the_death_of_the_submitting_process_alone_leaves_nothing_at_work(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    out = tmp_path / "maps"
    out.mkdir()
    run = start_run(out, 1)
    wait_for_progress(run, out)
    run.kill()
    run.communicate()
    wait_until_alone(run)
    finish(start_run(out, 1))
    assert contents(out) == expected


@pytest.mark.slow
def test_loky_workers_and_their_children_killed_at_random_cost_nothing(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    out, dice = tmp_path / "maps", random.Random(12)
    out.mkdir()
    run = start_run(out, 2)
    killed: list[str] = []
    while len(killed) < 6 and run.poll() is None:
        wait_for_progress(run, out)
        time.sleep(dice.uniform(0, 0.05))
        line = kill_one_at_random(run.pid, but={run.pid}, dice=dice)
        killed += [] if line is None else [line]
    finish(run)
    assert (
        len(killed) == 6 and any("faulty_child" in line for line in killed) and any("loky" in line for line in killed)
    )
    assert contents(out) == expected


@pytest.mark.slow
def test_two_runs_into_one_folder_at_once_make_the_same_shards(tmp_path: Path, expected: dict[str, str]) -> None:
    out = tmp_path / "maps"
    runs = [start_run(out, 1) for _ in range(2)]
    for run in runs:
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
CONFIG = MapConfig(map_size=16)


def faulty_records(*, disturbed: bool) -> list[ImageRecord]:
    """Fatal images between good ones; undisturbed, the fatal ones are good ones of other names."""
    names = []
    for number, fault in enumerate(FAULTS):
        names += [f"good-{number}a", fault if disturbed or FAULTS[fault] == "ok" else f"good-{number}b"]
    names += [f"good-{number}" for number in range(20, 24)]
    return [ImageRecord(image_id=f"{number:02d}", path=name) for number, name in enumerate(names)]


def make_faulty(root: Path, out: Path, *, disturbed: bool, **run: object) -> Summary:
    config = RunConfig(root=root, out=out, child_module=CHILD, limits=LIMITS, **{"backend": "sequential", **run})
    records = faulty_records(disturbed=disturbed)
    plan = plan_run(records, split="val", config=CONFIG, run=config, shard_size=9)
    return generate_maps(records, plan=plan, config=CONFIG, run=config)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> MapIndex:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "once-6.done").touch()
    assert make_faulty(folder, folder / "maps", disturbed=False).failed == 0
    return MapIndex(folder / "maps", "val")


def check_faulty(out: Path, undisturbed: MapIndex) -> None:
    found = MapIndex(out, "val")
    for record in faulty_records(disturbed=True):
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


@pytest.mark.slow
@pytest.mark.parametrize("run", [{}, {"backend": "loky", "jobs": 2}], ids=["one process", "two workers"])
def test_images_that_end_their_process_cost_only_themselves(
    tmp_path: Path, undisturbed: MapIndex, run: dict[str, object]
) -> None:
    summary = make_faulty(tmp_path, tmp_path / "maps", disturbed=True, **run)
    assert summary.counts == Counter(FAULTS.values()) + Counter(ok=len(faulty_records(disturbed=True)) - len(FAULTS))
    check_faulty(tmp_path / "maps", undisturbed)
    assert summary.log_path is not None
    log = summary.log_path.read_text()
    assert (
        "SIGSEGV" in log and "exited with code 7" in log and "took longer than 8 s" in log and "limit of 400 MB" in log
    )


def test_an_image_whose_process_others_killed_three_times_is_still_made(tmp_path: Path) -> None:
    records = [ImageRecord(image_id=name, path=name) for name in ("thrice-1", "good-1")]
    run = RunConfig(root=tmp_path, out=tmp_path / "maps", child_module=CHILD, backend="sequential")
    plan = plan_run(records, split="val", config=CONFIG, run=run)
    assert generate_maps(records, plan=plan, config=CONFIG, run=run).counts == {"ok": 2}
    assert len(list(tmp_path.glob("thrice-1.*"))) == 3


def test_an_image_that_ends_its_process_every_time_is_given_up(tmp_path: Path) -> None:
    records = [ImageRecord(image_id=name, path=name) for name in ("good-1", "counted-1", "good-2")]
    run = RunConfig(root=tmp_path, out=tmp_path / "maps", child_module=CHILD, backend="sequential")
    plan = plan_run(records, split="val", config=CONFIG, run=run)
    assert generate_maps(records, plan=plan, config=CONFIG, run=run).counts == {"ok": 2, "crashed": 1}
    assert len(list(tmp_path.glob("counted-1.*"))) == TRIES
    assert list(run.out.glob(".*")) == []


def test_a_child_that_does_not_start_stops_the_run_and_costs_no_image(tmp_path: Path) -> None:
    records = [ImageRecord(image_id="a", path="a")]
    run = RunConfig(root=tmp_path, out=tmp_path / "maps", child_module="pseudo_maps.nothing", backend="sequential")
    plan = plan_run(records, split="val", config=CONFIG, run=run)
    with pytest.raises(RuntimeError, match=r"val-00000-of-00001\.h5: the process for the images does not start"):
        generate_maps(records, plan=plan, config=CONFIG, run=run)
    assert list((tmp_path / "maps").glob("*.h5")) == list((tmp_path / "maps").glob(".*")) == []
