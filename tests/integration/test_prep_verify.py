"""``wsol-prep verify`` finds what is wrong, and ``--repair`` makes room for the same bytes."""

import os
from pathlib import Path

import pytest

from tests.integration.prep_command import PROGRAM, damage, files, prep, propose, states, subprocess_run


def test_verify_says_that_all_is_well(maps: Path, data: Path) -> None:
    before = states(maps)
    for words in ([], ["--data", data], ["--split", "val"], ["--repair"]):
        result = prep("verify", maps, *words)
        assert result.exit_code == 0
        assert f"{maps}: val complete and undamaged\n" in result.output
    assert states(maps) == before


def test_verify_prints_no_empty_progress(maps: Path) -> None:
    done = subprocess_run(PROGRAM, "verify", maps)
    assert done.returncode == 0
    assert "0/0" not in done.stderr


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


def test_verify_of_a_limited_run_against_all_data_tells(data: Path, tmp_path: Path) -> None:
    propose(data, tmp_path / "m", "--limit", "4")
    assert prep("verify", tmp_path / "m").exit_code == 0
    result = prep("verify", tmp_path / "m", "--data", data)
    assert result.exit_code == 1 and "states 4 images, the data have 10" in result.output
    assert "6 of the data are in no shard: 'synthetic_val_" in result.output and "--limit" in result.output
    assert "next:" not in result.output, "running again would make none of them"


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
