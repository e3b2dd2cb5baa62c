"""Full disks, folders that must not be written to, and two runs at once: one clear line, and never half a shard."""

import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.command_calls import run_program, start_program
from tests.counts import full
from tests.integration.limits import bound_by_permissions, files_of_at_most
from tests.integration.prep_command import (
    QUICK,
    damage,
    error_lines,
    files,
    import_map_making,
    prep,
)

NO_DISK = 77

# --- folders and files that a user has no rights to


def test_a_read_only_folder_is_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir(mode=0o555)
    out = tmp_path / "m"
    with bound_by_permissions():
        done = prep("proposals", "--data", data, "--split", "val", "--out", out, *QUICK, "--limit", 1)
    (line,) = error_lines(done.stderr)
    assert done.exit_code == 1 and "Permission denied: " in line and str(out) in line
    assert list(out.iterdir()) == []


def test_a_read_only_place_for_a_preview_is_one_line(data: Path, made: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir(mode=0o555)
    out = tmp_path / "p" / "sheet.png"
    with bound_by_permissions():
        done = prep("preview", made, "--data", data, "--out", out)
    (line,) = error_lines(done.stderr)
    assert done.exit_code == 1 and line.endswith(f"Permission denied: '{out}'") and not out.exists()


def test_repair_leaves_what_it_may_not_read_or_remove(maps: Path) -> None:
    damage(maps / "val-00000-of-00004.h5")
    (maps / "val-00001-of-00004.h5").chmod(0)
    maps.chmod(0o555)
    before = {path.name for path in maps.iterdir()}
    with bound_by_permissions():
        done = prep("verify", maps, "--repair")
    maps.chmod(0o755)
    assert done.exit_code == 1 and len(error_lines(done.stderr)) == 1
    assert f"closed: {maps / 'val-00001-of-00004.h5'}: cannot be read (Permission denied)" in done.stdout
    assert f"left {maps / 'val-00000-of-00004.h5'}: it cannot be removed: Permission denied" in done.stdout
    assert {path.name for path in maps.iterdir()} == before


def test_a_manifest_that_may_not_be_read_condemns_nothing(maps: Path) -> None:
    (maps / "val.manifest.json").chmod(0)
    with bound_by_permissions():
        done = prep("verify", maps, "--repair")
    assert done.exit_code == 1 and len(error_lines(done.stderr)) == 1
    assert f"closed: {maps / 'val.manifest.json'}: cannot be read (Permission denied)" in done.stdout
    assert "removed" not in done.stdout


def test_committed_files_are_read_only_and_verify_leaves_them_so(maps: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in maps.glob("val-*")}
    assert set(modes.values()) == {0o444} and len(modes) == 8
    assert prep("verify", maps, "--repair").exit_code == 0
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in maps.glob("val-*")} == modes


# --- full disks


@pytest.mark.usefixtures("made")  # numba has written its cache then
def test_a_disk_without_room_for_the_manifest_is_one_line(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    with files_of_at_most(300):
        done = prep("proposals", "--data", data, "--split", "val", "--out", out, *QUICK)
    (line,) = error_lines(done.stderr)
    assert done.exit_code == 1
    assert line == f"wsol-prep: error: [Errno 27] File too large: '{out / 'val.manifest.json'}'"
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(("option", "name"), [("--out", "sheet.png"), ("--out", "sheet.jpg"), ("--html", "page.html")])
def test_a_preview_on_a_full_disk_is_one_line_and_leaves_the_old_one(
    data: Path, made: Path, tmp_path: Path, option: str, name: str
) -> None:
    (tmp_path / name).write_bytes(b"old")
    with files_of_at_most(2000):
        done = prep("preview", made, "--data", data, option, tmp_path / name)
    (line,) = error_lines(done.stderr)
    assert done.exit_code == 1
    assert line == f"wsol-prep: error: [Errno 27] File too large: '{tmp_path / name}'"
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == b"old"


def test_a_disk_that_becomes_full_costs_no_finished_shard(data: Path, made: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "m", tmp_path / "copy"
    out.mkdir()
    copy.mkdir()
    import_map_making()
    words = ("proposals", "--data", data, "--split", "val", *QUICK, "--shard-size", 3)
    done = run_program("tests.integration.small_disk_runs", out, copy, *words)
    if done.returncode == NO_DISK:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    assert (copy / "codes").read_text() == "1 0", done.stderr
    names = {path.name for path in (copy / "0").iterdir()}
    shards = {name for name in names if name.endswith(".h5")}
    assert 0 < len(shards) < 4, names
    assert names == {"logs", "val.manifest.json", *shards, *(f"{name}.sha256" for name in shards)}
    whole, kept = files(made), files(copy / "0")
    assert all(kept[name] == whole[name] for name in kept)
    (line,) = error_lines(done.stderr)
    assert re.fullmatch(rf"wsol-prep: error: {out}/val-0000\d-of-00004\.h5: cannot write .*: No space left .*", line)
    assert files(copy / "1") == whole


# --- two runs into the same folder at once

SAME, OTHER = ([f"{name}-{number}" for number in range(full(1, 3))] for name in ("same", "other"))
"""Folders that both make with the same settings, and with settings of their own."""


def test_two_runs_at_once_make_one_folder_or_one_is_refused(data: Path, tmp_path: Path) -> None:
    words = ["proposals", "--data", data, "--split", "val", *QUICK, "--shard-size", 1, "--limit", 5]
    for name in (*SAME, *OTHER):
        (tmp_path / "at once" / name).mkdir(parents=True)
    import_map_making()
    started = [
        start_program(
            "tests.integration.runs_at_once",
            f"run-{number}",
            map_size,
            tmp_path / "at once",
            *words,
            stderr=subprocess.PIPE,
        )
        for number, map_size in enumerate((16, 20))
    ]
    told = [program.communicate(timeout=300)[1] for program in started]
    assert [program.returncode for program in started] == [0, 0], told
    lines = error_lines("".join(told))
    assert len(lines) == len(OTHER) and all(line.startswith("wsol-prep: error: ") for line in lines)
    assert "".join(told).count("configuration.map_size: ") == len(OTHER)
    assert prep(*words, "--out", tmp_path / "alone").exit_code == 0
    for name in (*SAME, *OTHER):
        folder = tmp_path / "at once" / name
        ends = sorted((folder / f"run-{k}").read_text() for k in (0, 1))
        assert ends == (["exit 0", "exit 0"] if name in SAME else ["exit 0", "exit 1"])
        result = prep("verify", folder / "m", "--data", data)
        assert result.exit_code == 0, result.output
        assert name in OTHER or files(folder / "m") == files(tmp_path / "alone")
