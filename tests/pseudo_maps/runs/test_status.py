"""``wsol-prep status``: shards, logs and progress folders in, the state of all runs out."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.jobs.map_status import status_lines
from pseudo_maps.files import host_name
from pseudo_maps.processes import is_running
from pseudo_maps.runs.generation import LOG_FOLDER, LOG_STAMP, Plan, RunConfig, RunLog, Summary
from pseudo_maps.runs.status import SILENT_S, SplitStatus, split_status
from pseudo_maps.shards import shard_name
from pseudo_maps.shards.manifest import ManifestError, read_manifest
from tests.pseudo_maps.shard_making import make_folder

BEGIN_S = 1_700_000_000.0
SHARDS = 4
NOBODY = 4194305
"""No process has this id."""


def made(folder: Path, *, keep: tuple[int, ...], seconds: float = 50.0) -> None:
    """Four shards of three, three, three and one images, of which some are there, written after ``seconds``."""
    make_folder(folder, images=10, shard_size=3, failed=["val_1"])
    for shard in range(SHARDS):
        path = folder / shard_name("val", shard, SHARDS)
        if shard in keep:
            os.utime(path, (BEGIN_S + seconds,) * 2)
        else:
            path.unlink()


def log(folder: Path, *, host: str, process: int, task: tuple[int, int] = (0, 1), begin_s: float = 0.0, **end) -> None:
    started = datetime.fromtimestamp(BEGIN_S + begin_s, UTC)
    path = folder / LOG_FOLDER / f"val-{started.strftime(LOG_STAMP)}-{host}-{process}.jsonl"
    path.parent.mkdir(exist_ok=True)
    entries = [{"event": "started", "time": started.isoformat(), "task": task}, *([end] if end else [])]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    os.utime(path, (BEGIN_S + begin_s,) * 2)


def at_work(folder: Path, *, host: str, process: int, shards: dict[int, str], seconds: float = 99.0) -> None:
    place = folder / f".progress.{host}.{process}.0123abcd"
    place.mkdir()
    for shard, text in shards.items():
        path = place / shard_name("val", shard, SHARDS)
        path.write_text(text)
        os.utime(path, (BEGIN_S + seconds,) * 2)
    os.utime(place, (BEGIN_S + seconds,) * 2)


def status(folder: Path, seconds: float = 100.0) -> SplitStatus:
    return split_status(folder, "val", now_s=BEGIN_S + seconds)


def test_done_failed_and_rate_are_summed_over_the_tasks_of_an_array(tmp_path: Path) -> None:
    made(tmp_path, keep=(0, 1))
    log(tmp_path, host="node.one", process=7, task=(0, 2))
    log(tmp_path, host="node-two", process=7, task=(1, 2), begin_s=50)
    at_work(tmp_path, host="node.one", process=7, shards={2: "2 1\n", 0: "3 1\n"})
    at_work(tmp_path, host="node-two", process=7, shards={3: "1 0\n"})
    found = status(tmp_path)
    # Shard 0 is finished although its file is still there.
    assert (found.finished_shards, dict(found.counts)) == (2, {"ok": 5, "decode": 1})
    assert (found.done, found.failed, found.images_at_work) == (9, 2, 3)
    # Five images of one in 100 s, four of the other in 50 s.
    assert found.images_per_s == pytest.approx(5 / 100 + 4 / 50)
    assert [(run.host, run.task, run.images, run.state) for run in found.runs] == [
        ("node.one", 0, 5, "at work"),
        ("node-two", 1, 4, "at work"),
    ]
    assert found.missing_tasks == [] and found.unended == []


def test_runs_that_ended_are_told_from_those_that_were_lost(tmp_path: Path) -> None:
    made(tmp_path, keep=(0,))
    log(tmp_path, host="a", process=1, task=(0, 4), event="stopped", error="SIGTERM", time="2023-11-14T22:14:20+00:00")
    log(tmp_path, host="b", process=2, task=(1, 4), event="finished", time="later")
    log(tmp_path, host="c", process=3, task=(2, 4))
    log(tmp_path, host=host_name(), process=NOBODY, task=(3, 4))
    assert not is_running(NOBODY)
    at_work(tmp_path, host="c", process=3, shards={2: "1 0\n"})
    found = status(tmp_path, seconds=99 + SILENT_S)
    assert {run.host: run.state for run in found.runs} == {
        **{"a": "stopped", "b": "finished", "c": "at work"},
        host_name(): "lost",
    }
    assert found.runs[0].note == "SIGTERM at 2023-11-14T22:14:20+00:00"
    assert found.missing_tasks == [0, 3] and [run.task for run in found.unended] == [0, 3]
    found = status(tmp_path, seconds=160 + SILENT_S)
    (silent,) = (run for run in found.runs if run.host == "c")
    assert (silent.state, silent.note) == ("unknown", "no sign for 16 minutes")
    assert found.missing_tasks == [0, 2, 3] and [run.task for run in found.unended] == [0, 2, 3]
    # What it has begun may have to be made again.
    assert (found.images_at_work, found.images_per_s) == (0, 0)
    # Begun again.
    log(tmp_path, host="d", process=4, task=(0, 4), begin_s=900)
    found = status(tmp_path, seconds=901)
    assert found.missing_tasks == [3] and [run.task for run in found.unended] == [3]


def test_images_belong_to_the_run_that_made_them(tmp_path: Path) -> None:
    made(tmp_path, keep=(0, 1), seconds=50)
    log(tmp_path, host="a", process=1, event="stopped", error="SIGTERM", time="then")
    log(tmp_path, host="a", process=2, begin_s=60)
    found = status(tmp_path)
    assert [run.images for run in found.runs] == [6, 0] and found.images_per_s == 0


def test_damage_is_named_and_other_files_are_passed_over(tmp_path: Path) -> None:
    made(tmp_path, keep=(0, 1, 2))
    damaged = tmp_path / shard_name("val", 1, SHARDS)
    damaged.chmod(0o644)
    damaged.write_bytes(b"no shard")
    (tmp_path / LOG_FOLDER).mkdir()
    for name in ("val-x.jsonl", "val-two-20260101T000000-h-1.jsonl", "val-20260101T000000-h-1.jsonl"):
        (tmp_path / LOG_FOLDER / name).write_text('{"event": "started"}\n')
    found = status(tmp_path)
    assert (found.finished_shards, found.damaged, found.runs) == (2, [damaged.name], [])


def test_the_lines_say_all_of_it(tmp_path: Path) -> None:
    made(tmp_path, keep=(0, 1, 2))
    log(tmp_path, host="a", process=1, task=(0, 3), event="stopped", error="SIGTERM", time="2023-11-14T22:14:20+00:00")
    log(tmp_path, host=host_name(), process=os.getpid(), task=(1, 3))
    os.utime(tmp_path / shard_name("val", 1, SHARDS))
    lines = status_lines(tmp_path, splits=["val"], data=None, layout="auto")
    assert lines[0] == "val: 9 of 10 images (90.0 %) in 3 of 4 shards; 1 failed (1 decode)"
    assert lines[1].startswith("val: no run at work") and lines[2] == f"val: 2 runs seen on 2 hosts: a, {host_name()}"
    assert lines[3] == "val: 3 of 3 tasks without a run at work or finished: 0, 1, 2"
    assert lines[4] == "val: task 0 of 3 on a (process 1): stopped, SIGTERM at 2023-11-14T22:14:20+00:00"
    assert lines[5].endswith("lost, its process is gone, and its log has no end")
    log(tmp_path, host="far", process=1, task=(2, 3))
    os.utime(next((tmp_path / LOG_FOLDER).glob("*far*")), (0, 0))
    lines = status_lines(tmp_path, splits=["val"], data=None, layout="auto")
    assert lines[1].startswith("val: no run known to be at work")
    assert re.fullmatch(r"val: task 2 of 3 on far \(process 1\): unknown, no sign for \d+ minutes", lines[-1])


@pytest.mark.parametrize(
    ("error", "told"),
    [(SystemExit(143), "SIGTERM"), (KeyboardInterrupt(), "SIGINT"), (RuntimeError("disk full"), "disk full")],
)
def test_the_log_of_a_run_notes_how_it_was_stopped(tmp_path: Path, error: BaseException, told: str) -> None:
    made(tmp_path, keep=(0, 1))
    run = RunConfig(root=tmp_path, out=tmp_path)
    plan = Plan(split="val", manifest=read_manifest(tmp_path, "val"), shards=(), to_do=(2, 3), images_to_do=4)
    with pytest.raises(type(error)), RunLog(run, plan).until_end(Summary(images_made=3)):
        assert [one.state for one in split_status(tmp_path, "val").runs] == ["at work"]
        raise error
    (one,) = split_status(tmp_path, "val").runs
    assert one.state == "stopped" and told in one.note and one.note.endswith("+00:00")


def test_a_folder_without_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no maps yet"):
        status_lines(tmp_path, splits=[], data=None, layout="auto")
    with pytest.raises((ManifestError, FileNotFoundError), match="val"):
        status(tmp_path)


def test_a_line_that_a_full_disk_cut_off_hides_neither_the_run_nor_its_end(tmp_path: Path) -> None:
    made(tmp_path, keep=(0, 1))
    run = RunConfig(root=tmp_path, out=tmp_path)
    plan = Plan(split="val", manifest=read_manifest(tmp_path, "val"), shards=(), to_do=(2, 3), images_to_do=4)
    log_of_run = RunLog(run, plan, say=lambda _: None)
    with log_of_run.path.open("a") as file:
        file.write('{"event": "failed", "ima')
    path, log_of_run.path = log_of_run.path, Path("/dev/full")
    log_of_run.write(event="failed")
    log_of_run.path = path
    with pytest.raises(OSError, match="disk"), log_of_run.until_end(Summary()):
        raise OSError("disk full")
    (one,) = split_status(tmp_path, "val").runs
    assert one.state == "stopped" and "disk full" in one.note
