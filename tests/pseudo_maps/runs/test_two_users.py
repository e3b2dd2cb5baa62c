"""A folder that two users write to: what one cannot read or write of the other's does not stop the run."""

import os
from pathlib import Path

import pytest

from pseudo_maps.config import MapConfig
from pseudo_maps.files import folder_lock, host_name
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.child import ImageLimits
from pseudo_maps.runs.generation import LOG_FOLDER, RunConfig, RunLog, plan_run
from pseudo_maps.runs.shard_task import ShardTask, make_shard
from pseudo_maps.shards.leftovers import remove_stale_temporaries
from tests.integration.limits import bound_by_permissions
from tests.pseudo_maps.shard_making import make_shard as write_shard


def test_a_log_folder_of_another_user_is_told_once(tmp_path: Path) -> None:
    (tmp_path / LOG_FOLDER).mkdir(mode=0o555)
    run = RunConfig(root=tmp_path, out=tmp_path)
    plan = plan_run(
        [ImageRecord(image_id="a", path="a.png")], split="val", configuration=MapConfig().as_json(), run=run
    )
    said: list[str] = []
    with bound_by_permissions():
        log = RunLog(run, plan, say=said.append)
        log.write(event="finished")
    assert said == [f"{log.path}: Permission denied; this run has no log, or not all of it"]


def test_a_shard_of_another_user_is_said_to_be_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "val-00000-of-00001.h5"
    write_shard(path, ["a"])
    path.chmod(0)
    task = ShardTask(path=path, records=(), settings={"map_config": {}}, limits=ImageLimits())
    with bound_by_permissions():
        assert make_shard(task).error == f"{path}: cannot read the shard: Permission denied"


def test_leftovers_of_another_user_stay(tmp_path: Path, dead_pid: int) -> None:
    left = tmp_path / f".val-00000-of-00003.h5.{host_name()}.{dead_pid}.tmp"
    left.touch()
    tmp_path.chmod(0o555)
    with bound_by_permissions():
        assert remove_stale_temporaries(tmp_path) == []
    tmp_path.chmod(0o755)
    assert left.exists()


def test_a_lock_file_that_a_killed_process_left_can_be_locked_by_another_user(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        with folder_lock(tmp_path, ".lock", wait_s=0, warn=pytest.fail):
            assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(mask)
