"""Bad input to ``wsol-eval``: a defined result that is counted, or one clear line that names the image or the file."""

import csv
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from pseudo_maps.shards import shard_name
from tests.integration.eval_command import bump, evaluate, evaluated, make_listed_data, metrics_of, result_of
from tests.integration.prep_command import damage, prep, val_id
from tests.pseudo_maps.shard_making import flip_byte, make_shard

BOX = (10.0, 5.0, 29.0, 14.0)
"""A quarter of the 40 x 20 pixels in their middle."""
NAMES = ("a", "b", "c", "d")
QUIET = ("--panels", 0)
SHOWN = ("--panels", 10, "--protocol", "cam")
"""Spoilt images are drawn too."""


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with a box each."""
    return make_listed_data(tmp_path_factory.mktemp("listed") / "data", {name: [BOX] for name in NAMES})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good map of each of the four images, to be spoilt."""
    (tmp_path / "maps").mkdir()
    for name in NAMES:
        np.save(tmp_path / "maps" / f"{name}.npy", bump())
    return tmp_path / "maps"


def verdicts(out: Path) -> list[str]:
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["localizer"] == "pseudo-map"]
    return [row["verdict"] for row in rows if row["protocol"] == "cam"]


def refused(*words: object, named: str, out: Path) -> str:
    """What a command says that ends with 1, in one line that holds ``named``, and leaves no result."""
    result = evaluate(*words, "--out", out)
    assert result.exit_code == 1, result.output
    *_, last = result.output.strip().splitlines()
    assert last.startswith("wsol-eval: error: ") and "Traceback" not in result.output
    assert named in last
    assert not (out / "metrics.json").exists() and not (out / "predictions.csv").exists()
    return last


# --- maps that are scored all the same


@pytest.mark.parametrize(
    ("map_hw", "note", "verdict"),
    [
        (np.full((14, 14), np.nan), "NaN or infinite map", "no box"),
        (np.where(np.eye(14) > 0, np.nan, bump(side=14)), "NaN or infinite map", "no box"),
        (np.where(np.eye(14) > 0, np.inf, bump(side=14)), "NaN or infinite map", "no box"),
        (np.where(np.eye(14) > 0, -np.inf, bump(side=14)), "NaN or infinite map", "no box"),
        (np.zeros((14, 14)), "constant map", "no box"),
        # A constant above 0 is the whole frame, of which the box is a quarter.
        (np.full((14, 14), 3, dtype=np.int16), "constant map", "more"),
        (np.full((1, 1), 0.1), "constant map", "more"),
    ],
    ids=["all NaN", "a NaN", "an infinity", "minus infinity", "zeros", "a constant", "one pixel"],
)
def test_odd_maps_have_a_defined_result_and_a_note(
    listed: Path, folder: Path, tmp_path: Path, map_hw: np.ndarray, note: str, verdict: str
) -> None:
    np.save(folder / "b.npy", map_hw)
    metrics = evaluated(tmp_path / "out", "maps", folder, "--data", listed, *SHOWN)
    assert metrics["counts"] == {"asked": 4, "scored": 4, "failed": {}, "skipped": {}, "notes": {note: 1}}
    assert verdicts(tmp_path / "out") == ["correct", verdict, "correct", "correct"]
    assert result_of(metrics, "pseudo-map", "cam")["gt_known_loc"]["rate"] == 0.75
    assert result_of(metrics, "centred-gaussian", "cam")["gt_known_loc"]["images"] == 4


@pytest.mark.parametrize(
    "map_hw",
    [
        bump() > 0.4,
        (200 * bump()).astype(np.uint8),
        (200 * bump()).astype(np.int64),
        bump().astype(np.float16),
        bump().astype(np.longdouble),
        bump().astype(">f8"),
        np.asfortranarray(bump()),
    ],
    ids=["bool", "uint8", "int64", "float16", "long double", "big-endian", "column by column"],
)
def test_real_numbers_of_any_type_and_order_are_scored(
    listed: Path, folder: Path, tmp_path: Path, map_hw: np.ndarray
) -> None:
    for name in NAMES:
        np.save(folder / f"{name}.npy", map_hw)
    protocols = ("cam", "wsoleval-v1")
    words = [word for protocol in protocols for word in ("--protocol", protocol)]
    metrics = evaluated(tmp_path / "out", "maps", folder, "--data", listed, *QUIET, *words)
    for protocol in protocols:
        assert result_of(metrics, "pseudo-map", protocol)["gt_known_loc"]["rate"] == 1.0


# --- maps that are no maps


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((0, 5)), "float64 of shape (0, 5)"),
        (np.zeros((7, 7, 2)), "found (7, 7, 2)"),
        (np.zeros(49), "float64 of shape (49,)"),
        (np.array(1.0), "float64 of shape ()"),
        (np.ones((7, 7)) * 1j, "complex128 of shape (7, 7)"),
        (np.full((7, 7), "high"), "<U4 of shape (7, 7)"),
        (np.array([[{"score": 1}]], dtype=object), "allow_pickle=False"),
    ],
    ids=["empty", "3-D", "1-D", "0-D", "complex", "text", "objects"],
)
@pytest.mark.parametrize("protocol", ["cam", "wsoleval-v1", "psol-crop"])
def test_maps_that_cannot_be_scored_are_one_line_with_the_id(
    listed: Path, folder: Path, tmp_path: Path, array: np.ndarray, found: str, protocol: str
) -> None:
    np.save(folder / "b.npy", array)
    words = ("maps", folder, "--data", listed, *QUIET, "--protocol", protocol)
    last = refused(*words, named=found, out=tmp_path / "out")
    assert "image 'val/b.png'" in last
    # The same map in a worker process is the same line.
    if protocol == "cam" and array.shape == (0, 5):
        assert refused(*words, "--jobs", 2, named=found, out=tmp_path / "two") == last


def test_a_file_that_is_no_array_is_named(listed: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "c.npy").write_bytes(b"PK\x03\x04 half an archive")
    last = refused("maps", folder, "--data", listed, *QUIET, named=str(folder / "c.npy"), out=tmp_path / "out")
    assert "image 'val/c.png'" in last


# --- ids that are missing, there twice, or unknown


def test_an_image_without_map_is_wrong_and_counted(listed: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "c.npy").unlink()
    metrics = evaluated(tmp_path / "out", "maps", folder, "--data", listed, *SHOWN)
    assert metrics["counts"]["failed"] == {"no map": 1} and metrics["counts"]["scored"] == 4
    assert verdicts(tmp_path / "out") == ["correct", "correct", "no box", "correct"]
    for one in metrics["results"]:
        assert one["gt_known_loc"]["images"] == 4 and one["gt_known_loc"]["correct"] <= 3


def test_maps_of_none_of_the_images_are_refused(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "z.npy", bump())
    last = refused("maps", tmp_path / "maps", "--data", listed, *QUIET, named="no map", out=tmp_path / "out")
    assert "'z.npy'" in last and "'val/a.png'" in last


def test_maps_of_unknown_images_are_told_and_change_nothing(listed: Path, folder: Path, tmp_path: Path) -> None:
    words = ("maps", folder, "--data", listed, *QUIET, "--protocol", "cam")
    before = evaluated(tmp_path / "before", *words)
    for name in ("y", "z"):
        np.save(folder / f"{name}.npy", np.full((3, 3), np.nan))
    result = evaluate(*words, "--out", tmp_path / "after")
    assert "warning: 2 maps" in result.output
    after = metrics_of(tmp_path / "after")
    assert after["results"] == before["results"] and after["counts"] == before["counts"]


def test_two_maps_of_one_image_are_named(listed: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "val").mkdir()
    np.save(folder / "val" / "c.npy", bump())
    last = refused("maps", folder, "--data", listed, *QUIET, named="image 'val/c.png'", out=tmp_path / "out")
    assert str(folder / "c.npy") in last and str(folder / "val" / "c.npy") in last


def test_an_id_listed_twice_is_named(tmp_path: Path) -> None:
    data = make_listed_data(tmp_path / "data", {"a": [BOX], "b": [BOX]})
    (data / "image_ids.txt").write_text("val/a.png\nval/b.png\nval/a.png\n")
    last = refused("baseline", "--data", data, named="val/a.png", out=tmp_path / "out")
    assert "image_ids.txt" in last


def test_an_unknown_id_in_the_blacklist_is_named(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "blacklist.txt").write_text("val/a.png\nval/unknown.png\n")
    words = ("baseline", "--data", listed, "--blacklist", tmp_path / "blacklist.txt")
    last = refused(*words, named="val/unknown.png", out=tmp_path / "out")
    assert "blacklist.txt: line 2" in last


# --- shards


def maps_of_first(folder: Path, images: int, *, failed: Sequence[str] = ()) -> Path:
    """A folder of one shard with maps of the first val images."""
    folder.mkdir()
    make_shard(
        folder / shard_name("val", 0, 1),
        [val_id(number + 1) for number in range(images)],
        failed=failed,
        size_wh=(0, 0),
    )
    return folder


def test_failed_rows_of_shards_are_wrong_with_their_status(data: Path, tmp_path: Path) -> None:
    maps = maps_of_first(tmp_path / "maps", 10, failed=[val_id(3)])
    metrics = evaluated(tmp_path / "out", "maps", maps, "--data", data, *SHOWN)
    assert metrics["counts"]["failed"] == {"map not usable: decode": 1}
    assert metrics["counts"]["scored"] == 10
    assert verdicts(tmp_path / "out")[2] == "no box"


def test_shards_of_fewer_images_leave_the_others_without_map(data: Path, tmp_path: Path) -> None:
    maps = maps_of_first(tmp_path / "maps", 4)
    metrics = evaluated(tmp_path / "out", "maps", maps, "--data", data, *QUIET, "--protocol", "cam")
    assert (metrics["counts"]["asked"], metrics["counts"]["failed"]) == (10, {"no map": 6})


def test_maps_of_the_first_images_are_told_with_the_limit_that_scores_those(data: Path, tmp_path: Path) -> None:
    words = ("maps", maps_of_first(tmp_path / "maps", 4), "--data", data, *QUIET, "--protocol", "cam")
    told = f"wsol-eval: warning: {tmp_path / 'maps'} has maps of 4 of 10 images; an image without one counts as wrong"
    assert f"{told}; --limit 4 takes those that have one\n" in evaluate(*words).stderr
    assert "has maps of" not in evaluate(*words, "--limit", 4).stderr


def test_maps_of_some_other_images_are_told_without_a_limit(data: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for number in (1, 3):
        np.save(tmp_path / "maps" / f"{val_id(number)}.npy", bump())
    done = evaluate("maps", tmp_path / "maps", "--data", data, *QUIET, "--protocol", "cam")
    assert "has maps of 2 of 10 images; an image without one counts as wrong\n" in done.stderr


def test_a_missing_shard_is_told_with_the_command_that_tells_how_to_make_it(data: Path, maps: Path) -> None:
    (maps / "val-00001-of-00004.h5").unlink()
    done = evaluate("maps", maps, "--data", data, *QUIET)
    assert done.exit_code == 1 and "1 of 4 shards of val missing: val-00001-of-00004.h5; " in done.stderr
    line = re.search("`wsol-prep (verify .*) --data DATA` prints the command that makes them", done.stderr)
    assert line is not None
    assert "next: wsol-prep proposals " in prep(*shlex.split(line[1]), "--data", data).stdout


@pytest.mark.parametrize(
    "spoil",
    [lambda path: damage(path, length=2000), lambda path: path.unlink()],
    ids=["cut off", "gone"],
)
def test_damaged_shards_are_named(data: Path, maps: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(maps / "val-00001-of-00004.h5")
    refused("maps", maps, "--data", data, *QUIET, named="val-00001-of-00004.h5", out=tmp_path / "out")


def test_a_damaged_map_is_named_by_its_shard_and_image(data: Path, maps: Path, tmp_path: Path) -> None:
    path = maps / "val-00001-of-00004.h5"
    with h5py.File(path) as file:
        place = file["saliency/maps"].id.get_chunk_info(2).byte_offset
    flip_byte(path, place + 20)
    last = refused("maps", maps, "--data", data, *QUIET, named=path.name, out=tmp_path / "out")
    # Shards of three rows: the third of the second.
    assert val_id(6) in last


# --- images


def test_images_without_boxes_are_skipped_and_counted(tmp_path: Path) -> None:
    data = make_listed_data(tmp_path / "data", {"a": [BOX], "b": [], "c": [BOX], "d": []})
    (tmp_path / "maps").mkdir()
    for name in NAMES:
        np.save(tmp_path / "maps" / f"{name}.npy", bump())
    metrics = evaluated(tmp_path / "out", "maps", tmp_path / "maps", "--data", data, *SHOWN)
    assert metrics["counts"] == {"asked": 4, "scored": 2, "failed": {}, "skipped": {"no boxes": 2}, "notes": {}}
    assert verdicts(tmp_path / "out") == ["correct", "", "correct", ""]
    assert result_of(metrics, "pseudo-map", "cam")["gt_known_loc"] | {"interval": None, "interval_kind": None} == {
        "rate": 1.0,
        "correct": 2,
        "images": 2,
        "interval": None,
        "interval_kind": None,
    }


def test_a_blacklist_of_everything_leaves_nothing_to_score(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "blacklist.txt").write_text("".join(f"val/{name}.png\n" for name in NAMES))
    metrics = evaluated(
        tmp_path / "out", "baseline", "--data", listed, "--blacklist", tmp_path / "blacklist.txt", "--protocol", "cam"
    )
    assert metrics["counts"] == {"asked": 4, "scored": 0, "failed": {}, "skipped": {"blacklisted": 4}, "notes": {}}
    assert metrics["baselines"] == []


def test_an_image_that_alone_tells_its_size_and_does_not_decode_is_wrong(folder: Path, tmp_path: Path) -> None:
    data = make_listed_data(tmp_path / "data", {name: [BOX] for name in NAMES}, sizes=False)
    (data / "val" / "b.png").write_bytes(b"no image")
    (data / "val" / "d.png").unlink()
    metrics = evaluated(tmp_path / "out", "maps", folder, "--data", data, *SHOWN)
    assert metrics["counts"]["failed"] == {"unreadable image": 2} and metrics["counts"]["scored"] == 4
    assert verdicts(tmp_path / "out") == ["correct", "no box", "correct", "no box"]
    # Its boxes have no frame, so the baselines are wrong too.
    assert result_of(metrics, "whole-frame", "cam")["errors"]["no box"] == 2


def test_an_image_whose_size_is_known_need_not_decode(folder: Path, tmp_path: Path) -> None:
    data = make_listed_data(tmp_path / "data", {name: [BOX] for name in NAMES})
    (data / "val" / "b.png").unlink()
    metrics = evaluated(tmp_path / "out", "maps", folder, "--data", data, *SHOWN)
    assert metrics["counts"] == {"asked": 4, "scored": 4, "failed": {}, "skipped": {}, "notes": {}}


def test_boxes_outside_the_image_are_no_boxes(tmp_path: Path) -> None:
    data = make_listed_data(tmp_path / "data", {"a": [BOX], "b": [(50.0, 5.0, 60.0, 9.0)]})
    metrics = evaluated(tmp_path / "out", "baseline", "--data", data, "--protocol", "cam")
    assert metrics["counts"]["skipped"] == {"no boxes": 1}


# --- folders of results


def test_results_of_other_settings_are_kept_and_named(listed: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("maps", folder, "--data", listed, *QUIET, "--protocol", "cam", "--out", out)
    assert evaluate(*words).exit_code == 0
    before = (out / "metrics.json").read_bytes()
    for other, named in (
        (("--protocol", "ts-cam"), 'protocols: ["cam"] stored, ["cam", "ts-cam"] now'),
        (("--seed", 3), "bootstrap.seed: 0 stored, 3 now"),
        (("--limit", 2), "data.images: 4 stored, 2 now"),
        (("--boxes", "first"), 'boxes: "all" stored, "first" now'),
    ):
        result = evaluate(*words, *other)
        assert result.exit_code == 1
        expected = f"wsol-eval: error: {out}/metrics.json: results of another evaluation ("
        (last,) = (line for line in result.output.splitlines() if line.startswith(expected))
        assert named in last and last.endswith("); use another --out")
    result = evaluate("baseline", "--data", listed, "--out", out)
    assert result.exit_code == 1 and '(kind: "maps" stored, "baseline" now)' in result.output
    assert (out / "metrics.json").read_bytes() == before


def test_maps_that_changed_are_scored_anew(listed: Path, folder: Path, tmp_path: Path) -> None:
    words = ("maps", folder, "--data", listed, *QUIET, "--protocol", "cam")
    assert result_of(evaluated(tmp_path / "out", *words), "pseudo-map", "cam")["gt_known_loc"]["correct"] == 4
    state = (folder / "a.npy").stat()
    np.save(folder / "a.npy", bump(centre_xy=(0.0, 0.0)))
    # Also where the clock of the file system is coarse.
    os.utime(folder / "a.npy", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert result_of(evaluated(tmp_path / "out", *words), "pseudo-map", "cam")["gt_known_loc"]["correct"] == 3


def test_something_else_in_place_of_metrics_is_kept_and_named(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("mine")
    result = evaluate("baseline", "--data", listed, "--out", tmp_path)
    assert result.exit_code == 1 and f"{tmp_path}/metrics.json" in result.output
    assert (tmp_path / "metrics.json").read_text() == "mine"
