"""Damage of every kind is found by ``wsol-prep verify``, removed by ``--repair``, and made again to the same bytes."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pseudo_maps.files import host_name
from tests.integration.prep_command import damage, files, prep, propose, states
from tests.pseudo_maps.shard_making import renew_checksum
from tests.world import copy_of

SHARD = "val-00001-of-00004.h5"


def edited(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    """Damage through HDF5, with a checksum that agrees, as a faulty writer would do it."""

    def apply(maps: Path) -> None:
        (maps / SHARD).chmod(0o644)
        with h5py.File(maps / SHARD, "r+") as file:
            change(file)
        renew_checksum(maps / SHARD)

    return apply


def set_configuration(file: h5py.File) -> None:
    provenance = json.loads(bytes(file.attrs["provenance"]))
    provenance["configuration"]["map_size"] = 31
    file.attrs["provenance"] = np.bytes_(json.dumps(provenance).encode())


def swap_checksums(maps: Path) -> None:
    shutil.copy(maps / "val-00002-of-00004.h5.sha256", maps / f"{SHARD}.new")
    (maps / f"{SHARD}.new").replace(maps / f"{SHARD}.sha256")


def take_row_from_last(maps: Path) -> None:
    """Shard 1 in place of the last, which has one row only: two rows too many."""
    last = maps / "val-00003-of-00004.h5"
    last.unlink()
    shutil.copy(maps / SHARD, last)
    renew_checksum(last)


def leave_temporary(maps: Path) -> None:
    left = maps / f".{SHARD}.node7.12.tmp"
    left.write_bytes(b"half a shard")
    os.utime(left, (0, 0))


DAMAGE = {
    "flipped byte": (lambda maps: damage(maps / SHARD), "checksum"),
    "truncated": (lambda maps: damage(maps / SHARD, length=3000), "checksum"),
    "empty": (lambda maps: damage(maps / SHARD, length=0), "checksum"),
    "no checksum": (lambda maps: (maps / f"{SHARD}.sha256").unlink(), "checksum"),
    "another's checksum": (swap_checksums, "checksum"),
    "no HDF5": (lambda maps: [damage(maps / SHARD, length=9), renew_checksum(maps / SHARD)], "unreadable"),
    "schema version": (edited(lambda file: file.attrs.__setitem__("schema_version", 7)), "unreadable"),
    "configuration": (edited(set_configuration), "configuration"),
    "rows": (take_row_from_last, "rows"),
    "missing": (lambda maps: (maps / SHARD).unlink(), "missing"),
    "numbering": (lambda maps: shutil.copy(maps / SHARD, maps / "val-00001-of-00009.h5"), "stray"),
    "temporary": (leave_temporary, "temporary"),
}
"""What is done to a folder, and the kind of problem that verify has to find."""


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_removed_and_made_again_to_the_same_bytes(
    data: Path, made: Path, maps: Path, name: str
) -> None:
    spoil, kind = DAMAGE[name]
    spoil(maps)
    before = states(maps)
    result = prep("verify", maps)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert kind in {line.split(":")[0] for line in result.stdout.splitlines()}
    assert states(maps) == before, "verify alone changes nothing"
    result = prep("verify", maps, "--repair", "--data", data)
    removed = {line.removeprefix("removed ") for line in result.stdout.splitlines() if line.startswith("removed ")}
    assert removed == {str(maps / name) for name in before.keys() - states(maps).keys()}
    if kind in ("temporary", "stray"):
        assert result.exit_code == 0 and "complete and undamaged" in result.output
    else:
        assert result.exit_code == 1 and result.stderr.splitlines()[-1].startswith("wsol-prep: error: ")
        (line,) = (line for line in result.stdout.splitlines() if line.startswith("next: wsol-prep "))
        assert prep(*shlex.split(line)[2:]).exit_code == 0
    assert files(maps) == files(made)
    assert prep("verify", maps, "--data", data).exit_code == 0


def test_repair_of_several_damages_at_once(data: Path, made: Path, maps: Path) -> None:
    damage(maps / "val-00000-of-00004.h5")
    damage(maps / "val-00002-of-00004.h5", length=50)
    (maps / f"{SHARD}.sha256").unlink()
    leave_temporary(maps)
    result = prep("verify", maps, "--repair")
    assert result.exit_code == 1 and "4 problems in" in result.stderr and "removed 6 files" in result.stderr
    assert f"next: wsol-prep proposals --data {data} --split val --out {maps} " in result.stdout
    assert propose(data, maps, "--shard-size", "3").exit_code == 0
    assert files(maps) == files(made)


def test_repair_says_what_it_left_and_why(maps: Path) -> None:
    damage(maps / SHARD)
    (maps / f".{SHARD}.{host_name()}.{os.getpid()}.tmp").touch()
    before = states(maps)
    result = prep("verify", maps, "--repair")
    assert result.exit_code == 1 and states(maps) == before
    assert f"left {maps / SHARD}: a running process is making the shard" in result.output
    assert "removed" not in result.output and "next:" not in result.output


def test_with_a_bad_manifest_repair_tells_the_cure_and_the_cure_works(data: Path, made: Path, maps: Path) -> None:
    manifest = maps / "val.manifest.json"
    manifest.write_text(manifest.read_text()[:-40])
    before = states(maps)
    result = prep("verify", maps, "--repair")
    assert result.exit_code == 1 and states(maps) == before and "next:" not in result.output
    assert "remove it when no task is running and give its command again" in result.stdout
    manifest.unlink()
    assert propose(data, maps, "--shard-size", "3").exit_code == 0
    assert files(maps) == files(made)


def test_other_data_condemn_no_shard(data: Path, maps: Path, tmp_path: Path) -> None:
    other = copy_of(data, tmp_path / "other")
    names = other / "ImageSets/CLS-LOC/val.txt"
    lines = names.read_text().splitlines()
    names.write_text("\n".join(lines[1:]) + "\n")
    before = states(maps)
    result = prep("verify", maps, "--data", other, "--repair")
    assert result.exit_code == 1 and states(maps) == before and "next:" not in result.output
    assert f"1 of the shards are not in the data: {lines[0].split()[0]!r}" in result.stdout
