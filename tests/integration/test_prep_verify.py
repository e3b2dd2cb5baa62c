"""``wsol-prep verify`` finds what is wrong, and ``--repair`` makes room for the same bytes."""

import os
import shlex
from pathlib import Path

import pytest

from pseudo_maps.files import host_name
from tests.integration.prep_command import damage, files, prep, propose, states
from tests.world import copy_of


def test_verify_says_that_all_is_well(maps: Path, data: Path) -> None:
    before = states(maps)
    for words in ([], ["--data", data], ["--split", "val"], ["--repair"]):
        result = prep("verify", maps, *words)
        assert result.exit_code == 0
        assert f"{maps}: val complete and undamaged\nval: 10 images, 10 ok\n" in result.output
        assert "0/0" not in result.stderr, "progress of nothing"
    assert states(maps) == before


@pytest.mark.parametrize("length", [None, 0, 100], ids=["a byte", "empty", "truncated"])
def test_verify_finds_damage_and_repair_makes_room_for_the_same_bytes(
    data: Path, made: Path, maps: Path, length: int | None
) -> None:
    damage(maps / "val-00001-of-00004.h5", length=length)
    before = states(maps)
    result = prep("verify", maps)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert f"checksum: {maps / 'val-00001-of-00004.h5'}: " in result.output
    assert "wsol-prep: error: 1 problem in" in result.output and "--repair" in result.output
    assert states(maps) == before, "verify alone changes nothing"
    result = prep("verify", maps, "--repair")
    assert result.exit_code == 1 and f"removed {maps / 'val-00001-of-00004.h5'}\n" in result.output
    assert not (maps / "val-00001-of-00004.h5").exists() and not (maps / "val-00001-of-00004.h5.sha256").exists()
    result = prep("verify", maps)
    assert result.exit_code == 1 and f"missing: {maps / 'val-00001-of-00004.h5'}: " in result.output
    assert "--repair" not in result.output, "there is nothing to remove"
    assert propose(data, maps, "--shard-size", "3").exit_code == 0
    assert files(maps) == files(made)
    assert prep("verify", maps, "--data", data).exit_code == 0


def test_verify_lists_everything_that_is_wrong(maps: Path) -> None:
    damage(maps / "val-00000-of-00004.h5")
    (maps / "val-00003-of-00004.h5").unlink()
    (maps / "val-00002-of-00004.h5.sha256").unlink()
    left = maps / ".val-00003-of-00004.h5.some-host.17.tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    result = prep("verify", maps)
    assert result.exit_code == 1
    kinds = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert sorted(kinds) == ["checksum", "checksum", "missing", "next", "stray", "temporary"]
    assert "5 problems" in result.output


def test_verify_takes_maps_of_a_limited_run_as_such(data: Path, tmp_path: Path) -> None:
    maps = tmp_path / "m"
    propose(data, maps, "--limit", "4", "--shard-size", "2")
    result = prep("verify", maps, "--data", data)
    assert result.exit_code == 0 and f"{maps}: val complete and undamaged\n" in result.output
    assert "note: val: the first 4 images of 10, as --limit 4 makes them\n" in result.output
    assert "note:" not in prep("verify", maps).output


@pytest.mark.parametrize("knows_data", [True, False])
@pytest.mark.parametrize("spoil", ["damaged", "missing"])
def test_verify_of_a_limited_run_names_the_command_that_mends_it(
    data: Path, tmp_path: Path, spoil: str, knows_data: bool
) -> None:
    maps = tmp_path / "m"
    propose(data, maps, "--limit", "4", "--shard-size", "2")
    whole = files(maps)
    damage(maps / "val-00001-of-00002.h5")
    if spoil == "missing":
        (maps / "val-00001-of-00002.h5").unlink()
    result = prep("verify", maps, "--repair", *(["--data", data] if knows_data else []))
    assert result.exit_code == 1, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("next: "))
    assert "--limit 4" in line
    assert prep(*shlex.split(line)[2:]).exit_code == 0
    assert files(maps) == whole
    assert prep("verify", maps, "--data", data).exit_code == 0


def test_verify_counts_the_rows_by_status(data: Path, tmp_path: Path) -> None:
    broken = copy_of(data, tmp_path / "data")
    for picture in sorted((broken / "Data/CLS-LOC/val").iterdir())[:2]:
        picture.write_bytes(b"no picture")
    propose(broken, tmp_path / "m", "--max-failed", "2")
    result = prep("verify", tmp_path / "m")
    assert result.exit_code == 0 and "complete and undamaged" in result.output
    assert "val: 10 images, 8 ok, 2 decode-error; for those that failed repair the files" in result.output


def test_repair_lists_the_hidden_files_that_it_leaves_and_why(maps: Path) -> None:
    shard, host = "val-00003-of-00004.h5", host_name()
    names = {
        f".{shard}.some-host.17.tmp": "some-host may still be making",
        f".{shard}.{host}.{os.getpid()}.tmp": f"process {os.getpid()}, which makes {shard}, is running",
        ".train-00000-of-00001.h5.some-host.17.tmp": None,
    }
    for name in names:
        (maps / name).touch()
    assert "left " not in prep("verify", maps).stdout
    result = prep("verify", maps, "--repair")
    assert result.exit_code == 0 and "complete and undamaged" in result.output
    left = [line for line in result.output.splitlines() if line.startswith("left ")]
    wanted = {f"left {maps / name}: {reason}" for name, reason in names.items() if reason}
    assert len(left) == 2 and all(any(line.startswith(start) for start in wanted) for line in left)
    assert "verify again 1 h after its last change" in result.output


def test_a_manifest_that_cannot_be_read_does_not_hide_the_count_of_problems(maps: Path) -> None:
    (maps / "val-00000-of-00004.h5").unlink()
    (maps / "val.manifest.json").unlink()
    # A folder in its place is refused by the system for every user, as a closed file is for most.
    (maps / "val.manifest.json").mkdir()
    result = prep("verify", maps)
    assert result.exit_code == 1 and "next:" not in result.output
    kinds = [line.split(":")[0] for line in result.output.splitlines()[-4:]]
    assert kinds == ["closed", "missing", "stray", "wsol-prep"]
    assert result.output.splitlines()[-1].startswith(f"wsol-prep: error: 3 problems in {maps}")


def test_verify_of_an_empty_folder_or_absent_split_fails(tmp_path: Path, made: Path) -> None:
    result = prep("verify", tmp_path)
    assert result.exit_code == 1 and "no shard and no manifest" in result.output
    result = prep("verify", made, "--split", "train")
    assert result.exit_code == 1 and "train.manifest.json" in result.output


def test_repair_leaves_other_files_alone(maps: Path) -> None:
    (maps / "notes.txt").write_text("mine")
    (maps / "val-00000-of-00004.h5.bak").write_bytes(b"mine")
    damage(maps / "val-00000-of-00004.h5")
    assert prep("verify", maps, "--repair").exit_code == 1
    assert (maps / "notes.txt").read_text() == "mine"
    assert (maps / "val-00000-of-00004.h5.bak").exists() and (maps / "val.manifest.json").exists()
