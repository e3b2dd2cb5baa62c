import os
from pathlib import Path

from pseudo_maps.files import host_name
from pseudo_maps.runs.progress import ProgressWatch, ShardProgress, remove_stale_progress


def test_all_images_are_reported_at_the_end_and_the_folder_is_gone(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    with ProgressWatch(tmp_path, on_images=lambda done, failed: reported.append((done, failed))) as watch:
        for shard in ("a", "b"):
            progress = ShardProgress(watch.folder, name=shard)
            for number in range(5):
                progress.add(failed=number == 4)
            watch.finish(shard, done=5, failed=1)
    assert [sum(column) for column in zip(*reported, strict=True)] == [10, 2]
    assert list(tmp_path.iterdir()) == []


def test_images_of_shards_at_work_are_reported_before_the_shards_end(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    with ProgressWatch(tmp_path, on_images=lambda done, failed: reported.append((done, failed))) as watch:
        assert watch.folder.stat().st_mode & 0o777 == 0o755, "another user may read it"
        ShardProgress(watch.folder, name="a").add(failed=True)
        watch.finish("b", done=3, failed=0)
    assert [sum(column) for column in zip(*reported, strict=True)] == [4, 1]


def test_shards_that_another_run_made_are_told_apart(tmp_path: Path) -> None:
    reported: list[tuple[int, dict[str, int]]] = []
    with ProgressWatch(tmp_path, on_images=lambda done, **notes: reported.append((done, notes))) as watch:
        watch.finish("a", done=3, failed=1, made=False)
        watch.finish("b", done=2, failed=0)
    assert sorted(reported) == [(2, {"failed": 0}), (3, {"failed": 1, "earlier": True})]


def test_progress_never_goes_back(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    with ProgressWatch(tmp_path, on_images=lambda done, failed: reported.append((done, failed))) as watch:
        watch._report()
        assert reported == [], "no image was made"
        (watch.folder / "a").write_text("5 2\n")
        watch._report()
        # A new worker has begun the shard of a lost one, and writes.
        (watch.folder / "a").write_text("1 0\n")
        watch._report()
        (watch.folder / "a").write_text("")
        watch._report()
        (watch.folder / "a").write_text("7 2\n")
    assert reported == [(5, 2), (2, 0)]


def test_a_lost_worker_that_still_writes_does_not_count_twice(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    with ProgressWatch(tmp_path, on_images=lambda done, failed: reported.append((done, failed))) as watch:
        late = ShardProgress(watch.folder, name="a")
        watch.finish("a", done=3, failed=1)
        late.add(failed=False)
    assert reported == [(3, 1)]


def test_a_worker_without_a_folder_goes_on(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "gone"):
        ShardProgress(folder, name="a").add(failed=False)


def test_only_the_folders_of_dead_processes_of_this_host_are_removed(tmp_path: Path) -> None:
    gone = tmp_path / f".progress.{host_name()}.4194305.0123abcd"
    kept = [
        tmp_path / f".progress.{host_name()}.{os.getpid()}.abcd_12x",
        tmp_path / ".progress.another.host.4194305.0123abcd",
        tmp_path / ".progress",
    ]
    for folder in (gone, *kept):
        folder.mkdir()
    (gone / "val-00000-of-00001.h5").write_text("3 0\n")
    remove_stale_progress(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_progress_folder_from_before_the_process_of_its_number_is_stale(tmp_path: Path) -> None:
    ours, stale = (tmp_path / f".progress.{host_name()}.{os.getpid()}.{token}" for token in ("a", "b"))
    ours.mkdir()
    stale.mkdir()
    os.utime(stale, (10**9, 10**9))
    remove_stale_progress(tmp_path)
    assert list(tmp_path.iterdir()) == [ours]
