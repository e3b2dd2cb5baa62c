import dataclasses
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pseudo_maps.config import MapConfig
from pseudo_maps.map_making import make_map
from pseudo_maps.proposals import PRESETS
from pseudo_maps.records import ImageRecord
from pseudo_maps.runs.generation import Plan, RunConfig, Summary, default_shard_size, generate_maps, plan_run, warm_up
from pseudo_maps.shards import MapIndex, ShardReader, shard_name
from pseudo_maps.shards.manifest import ManifestMismatch, read_manifest
from pseudo_maps.shards.verify import verify_folder

CONFIG = MapConfig(proposals=dataclasses.replace(PRESETS["b650"], working_size=32), map_size=16)
IMAGES = 7
SHARD_SIZE = 3
BAD = {1: b"not an image", 4: None}
"""What lies in place of two of the images in the folder with failures; None is nothing at all."""


def records(count: int) -> list[ImageRecord]:
    return [ImageRecord(image_id=f"n1/{n}", path=f"images/{n}.png", wnid="n1", label=n % 2) for n in range(count)]


def write_image(root: Path, number: int) -> None:
    noise = np.random.default_rng(number).integers(0, 256, size=(24 + number, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((40, 24)).save(buffer, "PNG")
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / f"images/{number}.png").write_bytes(buffer.getvalue())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root of seven good images."""
    for number in range(IMAGES):
        write_image(tmp_path / "data", number)
    return tmp_path / "data"


@pytest.fixture
def bad_root(root: Path) -> Path:
    """The same with two images spoilt."""
    for number, content in BAD.items():
        path = root / f"images/{number}.png"
        path.unlink() if content is None else path.write_bytes(content)
    return root


def generate(
    root: Path,
    out: Path,
    *,
    config: MapConfig = CONFIG,
    images: int = IMAGES,
    on_images: Callable[..., None] = lambda _count, **_notes: None,
    **run: object,
) -> tuple[Plan, Summary]:
    run_config = RunConfig(root=root, out=out, backend="sequential", **run)
    wanted = records(images)
    plan = plan_run(wanted, split="val", configuration=config.as_json(), run=run_config, shard_size=SHARD_SIZE)
    return plan, generate_maps(wanted, plan=plan, config=config, run=run_config, on_images=on_images)


def shards_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.h5*")}


def log_entries(summary: Summary) -> list[dict]:
    return [json.loads(line) for line in summary.log_path.read_text().splitlines()]


# --- the size of shards


@given(st.integers(1, 2_000_000))
def test_default_shards_are_neither_tiny_nor_huge(images: int) -> None:
    size = default_shard_size(images)
    shards = -(-images // size)
    assert 16 <= size <= 1000
    assert shards <= 256 or size == 1000
    assert shards >= 200 or images < 16 * 256, "too few shards to share among the tasks of an array"


@given(st.integers(1, 2_000_000), st.integers(1, 2_000_000))
def test_default_shards_do_not_shrink_when_images_are_added(one: int, other: int) -> None:
    assert default_shard_size(min(one, other)) <= default_shard_size(max(one, other))


@pytest.mark.parametrize(
    ("images", "size", "shards"), [(1_281_167, 1000, 1282), (50_000, 196, 256), (500, 16, 32), (1, 16, 1)]
)
def test_default_shards_of_known_data_sets(images: int, size: int, shards: int) -> None:
    assert default_shard_size(images) == size
    assert -(-images // size) == shards


# --- the plan


@given(
    images=st.integers(1, 60), size=st.one_of(st.none(), st.integers(1, 70)), tasks=st.integers(1, 9), jobs=st.just(3)
)
def test_the_tasks_of_an_array_share_all_shards_and_agree(images: int, size: int | None, tasks: int, jobs: int) -> None:
    plans = [
        plan_run(
            records(images),
            split="val",
            configuration=CONFIG.as_json(),
            shard_size=size,
            run=RunConfig(root=Path("d"), out=Path("missing"), task_index=task, task_count=tasks, jobs=jobs),
        )
        for task in range(tasks)
    ]
    manifests = [plan.manifest for plan in plans]
    assert manifests.count(manifests[0]) == tasks
    assert sorted(shard for plan in plans for shard in plan.shards) == list(range(manifests[0].shards))
    assert all(plan.to_do == plan.shards for plan in plans)
    assert sum(plan.images_to_do for plan in plans) == images
    assert not Path("missing").exists(), "planning writes nothing"


@pytest.mark.parametrize(
    ("images", "size", "message"), [(0, None, "has no images"), (3, 0, "at least 1"), (3, -2, "found -2")]
)
def test_nothing_to_plan_is_an_error(images: int, size: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_run(
            records(images),
            split="val",
            configuration=CONFIG.as_json(),
            run=RunConfig(root=Path("d"), out=Path("o")),
            shard_size=size,
        )


# --- making the shards


def test_every_map_and_row_is_that_of_its_image(root: Path, tmp_path: Path) -> None:
    maps = tmp_path / "deep" / "maps"
    plan, summary = generate(root, maps)
    assert plan.to_do == (0, 1, 2) and plan.images_to_do == IMAGES
    shards = [shard_name("val", shard, 3) for shard in range(3)]
    checksums = [f"{name}.sha256" for name in shards]
    assert {path.name for path in maps.iterdir()} == {*shards, *checksums, "val.manifest.json", "logs"}
    assert read_manifest(maps, "val").configuration == CONFIG.as_json()
    for number, record in enumerate(records(IMAGES)):
        shard, row = divmod(number, SHARD_SIZE)
        made = make_map(record, root=str(root), config=CONFIG)
        with ShardReader(maps / shards[shard]) as reader:
            assert reader.provenance["configuration"] == CONFIG.as_json()
            assert reader.rows[row] == made.row
            np.testing.assert_array_equal(reader.read_uint8(row), made.map_uint8)
    assert verify_folder(maps, expected_ids={"val": [r.image_id for r in records(IMAGES)]}) == []
    assert summary.counts == Counter(ok=IMAGES) and summary.failed == 0 and summary.images_made == IMAGES
    assert summary.size_bytes == sum(path.stat().st_size for path in maps.glob("*.h5"))


def test_nothing_about_the_run_is_in_a_shard(root: Path, tmp_path: Path) -> None:
    generate(root, tmp_path / "one")
    moved = root.rename(tmp_path / "moved data")
    generate(moved, tmp_path / "two", jobs=2, task_index=0, task_count=1)
    assert shards_in(tmp_path / "one") == shards_in(tmp_path / "two")


def test_finished_shards_are_left_alone_and_lost_ones_made_again(root: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    generate(root, maps)
    before, content = states(maps), shards_in(maps)
    lost = shard_name("val", 1, 3)
    (maps / lost).unlink()
    plan, summary = generate(root, maps)
    assert plan.to_do == (1,) and plan.images_to_do == 3
    assert summary.images_made == 3 and summary.counts == Counter(ok=IMAGES)
    assert shards_in(maps) == content
    after = states(maps)
    assert {name for name in before if before[name] != after[name]} == {lost, f"{lost}.sha256"}


def test_a_finished_folder_is_only_counted(root: Path, tmp_path: Path) -> None:
    generate(root, tmp_path / "maps")
    before = states(tmp_path / "maps")
    plan, summary = generate(root, tmp_path / "maps")
    assert plan.to_do == () and plan.images_to_do == 0
    assert (summary.counts, summary.images_made, summary.log_path) == (Counter(ok=IMAGES), 0, None)
    assert states(tmp_path / "maps") == before
    assert len(list((tmp_path / "maps" / "logs").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"config": dataclasses.replace(CONFIG, map_size=8)}, "configuration.map_size"),
        ({"config": MapConfig(proposals=PRESETS["b650"], map_size=16)}, "configuration.proposals.working_size"),
        ({"images": IMAGES - 1}, "images"),
    ],
)
def test_other_settings_into_the_same_folder_are_refused(root: Path, tmp_path: Path, change: dict, key: str) -> None:
    generate(root, tmp_path / "maps")
    before, content = states(tmp_path / "maps"), shards_in(tmp_path / "maps")
    with pytest.raises(ManifestMismatch, match=rf"(?m)^  {re.escape(key)}: .* stored, .* now"):
        generate(root, tmp_path / "maps", **change)
    assert states(tmp_path / "maps") == before and shards_in(tmp_path / "maps") == content


def test_shards_of_other_settings_are_not_taken_for_finished_when_the_manifest_is_lost(
    root: Path, tmp_path: Path
) -> None:
    generate(root, tmp_path / "maps")
    (tmp_path / "maps" / "val.manifest.json").unlink()
    with pytest.raises(ManifestMismatch, match=r"(?m)^  configuration\.map_size: 16 stored, 8 now"):
        generate(root, tmp_path / "maps", config=dataclasses.replace(CONFIG, map_size=8))
    assert not (tmp_path / "maps" / "val.manifest.json").exists(), "it would contradict the shards"
    generate(root, tmp_path / "maps")
    assert verify_folder(tmp_path / "maps") == []


def test_tasks_of_an_array_together_make_what_one_run_makes(root: Path, tmp_path: Path) -> None:
    generate(root, tmp_path / "whole")
    for task, count, shards, images in ((5, 6, (), 0), (1, 2, (1,), 3), (0, 2, (0, 2), 4)):
        plan, summary = generate(root, tmp_path / "shared", task_index=task, task_count=count)
        assert plan.shards == shards
        assert summary.images_made == summary.counts.total() == images
    assert shards_in(tmp_path / "shared") == shards_in(tmp_path / "whole")


def test_what_a_killed_process_left_goes_away(root: Path, tmp_path: Path) -> None:
    from pseudo_maps.files import temporary_path

    (tmp_path / "maps").mkdir()
    own = temporary_path(tmp_path / "maps" / shard_name("val", 0, 3))
    # Not our number and above the kernel's largest: a process that cannot be there.
    stale = own.with_name(own.name.replace(f".{os.getpid()}.", ".4194305."))
    stale.write_bytes(b"half a shard")
    generate(root, tmp_path / "maps")
    assert not stale.exists()


# --- images that fail


def test_failed_images_cost_nothing_but_themselves(bad_root: Path, tmp_path: Path) -> None:
    generate(bad_root, tmp_path / "bad")
    for number in BAD:
        write_image(bad_root, number)
    generate(bad_root, tmp_path / "good")
    with_bad, without = (MapIndex(tmp_path / name, "val") for name in ("bad", "good"))
    for number, record in enumerate(records(IMAGES)):
        stored = with_bad.read_uint8(record.image_id)
        if number in BAD:
            assert with_bad.status(record.image_id) == {1: "decode-error", 4: "missing"}[number]
            assert not stored.any()
        else:
            assert with_bad.row(record.image_id) == without.row(record.image_id)
            np.testing.assert_array_equal(stored, without.read_uint8(record.image_id))
    assert verify_folder(tmp_path / "bad") == []


def test_failed_images_are_counted_and_logged(bad_root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    _, summary = generate(bad_root, tmp_path / "maps", on_images=lambda done, *, failed: seen.append((done, failed)))
    assert [sum(column) for column in zip(*seen, strict=True)] == [7, 2]
    assert summary.counts == {"ok": 5, "decode-error": 1, "missing": 1} and summary.failed == 2
    started, *failed, finished = log_entries(summary)
    assert [(entry["event"], entry["image_id"], entry["status"]) for entry in failed] == [
        ("failed-image", "n1/1", "decode-error"),
        ("failed-image", "n1/4", "missing"),
    ]
    assert all(str(bad_root) in entry["message"] for entry in failed)
    assert (started["event"], started["shards"], started["images"], started["task"]) == ("started", 3, 7, [0, 1])
    assert finished["event"] == "finished" and finished["counts"] == dict(summary.counts)
    _, later = generate(bad_root, tmp_path / "maps")
    assert later.failed == 2 and later.images_made == 0


def test_mended_images_are_made_only_when_asked_for(bad_root: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    generate(bad_root, maps)
    for number in BAD:
        write_image(bad_root, number)
    assert generate(bad_root, maps)[0].to_do == ()
    before = states(maps)
    plan, summary = generate(bad_root, maps, retry_failed=True)
    assert plan.to_do == (0, 1), "only the shards of images 1 and 4 hold failed images"
    assert summary.counts == Counter(ok=IMAGES)
    untouched = shard_name("val", 2, 3)
    assert states(maps)[untouched] == before[untouched]
    generate(bad_root, tmp_path / "fresh")
    assert shards_in(maps) == shards_in(tmp_path / "fresh")
    assert generate(bad_root, maps, retry_failed=True)[0].to_do == ()


# --- what stops a run


def test_a_folder_that_cannot_be_made_is_an_os_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        generate(root, tmp_path / "file" / "maps")


def test_a_shard_that_cannot_be_written_stops_the_run_and_keeps_the_others(root: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    # A folder of that name makes the last step, the renaming, fail, also for root.
    (maps / shard_name("val", 1, 3) / "inside").mkdir(parents=True)
    plan = plan_run(
        records(IMAGES),
        split="val",
        configuration=CONFIG.as_json(),
        run=RunConfig(root=root, out=maps),
        shard_size=SHARD_SIZE,
    )
    run = RunConfig(root=root, out=maps, backend="sequential")
    with pytest.raises(RuntimeError, match=r"val-00001-of-00003\.h5: cannot write the shard") as caught:
        generate_maps(records(IMAGES), plan=dataclasses.replace(plan, to_do=(0, 1, 2)), config=CONFIG, run=run)
    assert "\n" not in str(caught.value)
    assert [path.name for path in sorted(maps.glob("*.h5")) if path.is_file()] == [shard_name("val", 0, 3)]
    assert [path.name for path in maps.iterdir() if path.name.endswith(".tmp")] == []
    (log,) = (maps / "logs").iterdir()
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["event"] == "stopped" and "val-00001-of-00003.h5: cannot write the shard" in last["error"]
    assert datetime.fromisoformat(last["time"]) and last["images_made"] == SHARD_SIZE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_error_and_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir(mode=0o555)
    with pytest.raises(PermissionError, match="maps"):
        generate(root, maps)
    assert list(maps.iterdir()) == []


# --- warming up


def test_compilation_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    @numba.njit
    def double(value: int) -> int:
        return 2 * value

    monkeypatch.setattr("pseudo_maps.runs.generation.saliency_map", lambda *_image, **_settings: double(3))
    told = []
    for _ in range(2):
        warm_up(CONFIG, on_compile=lambda: told.append("compiling"))
    assert told == ["compiling"]


def test_a_bad_boundary_model_shows_when_warming_up(tmp_path: Path) -> None:
    config = MapConfig(proposals=dataclasses.replace(PRESETS["b650"], boundaries="structured-forest"))
    with pytest.raises(ValueError, match="needs a model file"):
        warm_up(config)
    model = tmp_path / "model.yml"
    model.write_text("a note, no forest\n")
    with pytest.raises(ValueError, match=re.escape(f"{model}: not a structured forest model")):
        warm_up(config, boundary_model=str(model))
