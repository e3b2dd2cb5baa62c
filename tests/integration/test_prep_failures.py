"""Bad images cost ``wsol-prep`` nothing but themselves; what stops a run is one clear line."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from pipelines.prep_cli import main
from pseudo_maps.shards import MapIndex
from tests.command_calls import run_program, run_with_steps
from tests.integration.limits import files_of_at_most
from tests.integration.prep_command import (
    QUICK,
    VAL,
    damage,
    files,
    log_text,
    prep,
    propose,
    states,
    val_id,
)
from tests.world import copy_of

# --- images that are not as they should be


def image_bytes(size: tuple[int, int], image_format: str, *, mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, image_format)
    return buffer.getvalue()


BAD = {1: "decode-error", 3: "decode-error", 4: "decode-error", 6: "missing", 7: "unreadable"}
"""Number of the val image: its status when spoilt."""
ODD = {
    2: ((1, 1), "JPEG", "RGB"),
    5: ((5000, 1), "JPEG", "RGB"),
    8: ((70, 50), "PNG", "RGB"),
    9: ((70, 50), "JPEG", "CMYK"),
}
"""Number of the val image: size, format and mode of an unusual file that has to work."""


@pytest.fixture(scope="module")
def odd_data(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data with unusual images among the val images."""
    root = copy_of(data, tmp_path_factory.mktemp("odd") / "data")
    for number, (size, image_format, mode) in ODD.items():
        (root / VAL / f"{val_id(number)}.JPEG").write_bytes(image_bytes(size, image_format, mode=mode))
    return root


@pytest.fixture(scope="module")
def bad_data(odd_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with five more images spoilt."""
    root = Path(shutil.copytree(odd_data, tmp_path_factory.mktemp("bad") / "data"))
    paths = {number: root / VAL / f"{val_id(number)}.JPEG" for number in BAD}
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: len(whole) * 2 // 3])
    paths[3].write_bytes(b"")
    paths[4].write_text("<html><title>404 Not Found</title></html>")
    paths[6].unlink()
    paths[7].unlink()
    paths[7].mkdir()
    return root


@pytest.fixture(scope="module")
def odd_maps(odd_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("odd") / "maps"
    result = propose(odd_data, out, "--shard-size", "4")
    assert result.exit_code == 0, result.output
    assert "10 ok of 10" in result.output
    return out


@pytest.fixture(scope="module")
def bad_run(bad_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("bad") / "maps"
    return out, propose(bad_data, out, "--shard-size", "4")


def test_bad_images_are_exit_1_with_a_summary_by_reason(bad_run: tuple[Path, Result]) -> None:
    out, result = bad_run
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert f"maps:     5 ok of 10 in {out}\n" in result.output
    assert "failed:   5 (3 decode-error, 1 missing, 1 unreadable)\n" in result.output
    assert "wsol-prep: error: 5 images failed, more than --max-failed 0" in result.output
    (log,) = (out / "logs").iterdir()
    assert str(log) in result.output


def test_bad_images_do_not_touch_the_others(bad_run: tuple[Path, Result], odd_maps: Path) -> None:
    with_bad, without = MapIndex(bad_run[0], "val"), MapIndex(odd_maps, "val")
    for number in range(1, 11):
        image_id, row = val_id(number), with_bad.row(val_id(number))
        if number in BAD:
            assert (row.status, row.peak, row.proposals) == (BAD[number], 0.0, 0)
            assert not with_bad.read_uint8(image_id).any()
        else:
            assert row == without.row(image_id) and row.status == "ok" and row.proposals > 0
            assert with_bad.read_uint8(image_id).tobytes() == without.read_uint8(image_id).tobytes()
            assert with_bad.read_uint8(image_id).max() == 255


def test_unusual_images_keep_the_size_of_their_file(odd_maps: Path) -> None:
    index = MapIndex(odd_maps, "val")
    for number, (size, _, _) in ODD.items():
        row = index.row(val_id(number))
        assert (row.width, row.height) == size


def test_the_log_has_a_line_for_each_bad_image(bad_run: tuple[Path, Result]) -> None:
    lines = [line for line in log_text(bad_run[0]).splitlines() if '"failed-image"' in line]
    assert len(lines) == len(BAD)
    for number, status in BAD.items():
        (line,) = (line for line in lines if val_id(number) in line)
        assert f'"{status}"' in line


def test_a_folder_with_failed_images_is_complete_and_undamaged(bad_run: tuple[Path, Result], bad_data: Path) -> None:
    result = prep("verify", bad_run[0], "--data", bad_data)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("allowed", "code"), [(4, 1), (5, 0)])
def test_max_failed_is_the_largest_number_allowed(
    bad_run: tuple[Path, Result], bad_data: Path, tmp_path: Path, allowed: int, code: int
) -> None:
    out = Path(shutil.copytree(bad_run[0], tmp_path / "maps"))
    result = propose(bad_data, out, "--shard-size", "4", "--max-failed", allowed)
    assert result.exit_code == code
    assert "failed:   5 (3 decode-error, 1 missing, 1 unreadable)" in result.output
    assert "this run" not in result.output


def test_mended_images_are_made_by_retry_failed(
    bad_run: tuple[Path, Result], odd_data: Path, odd_maps: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(bad_run[0], tmp_path / "maps"))
    before = states(out)
    # Images 1, 3, 4 are in shard 0 and 6, 7 in shard 1; shard 2 holds good ones only.
    result = propose(odd_data, out, "--shard-size", "4")
    assert result.exit_code == 1 and states(out) == before
    result = propose(odd_data, out, "--shard-size", "4", "--retry-failed")
    assert result.exit_code == 0, result.output
    assert "1 finished, 8 images to do" in result.output and "10 ok of 10" in result.output
    assert files(out) == files(odd_maps)
    assert states(out)["val-00002-of-00003.h5"] == before["val-00002-of-00003.h5"]


def test_max_pixels_refuses_large_images(data: Path, tmp_path: Path) -> None:
    result = propose(data, tmp_path / "m", "--limit", "2", "--max-pixels", "4000")
    assert result.exit_code == 1
    assert "failed:   2 (2 decode-error)" in result.output and "limit of 4000" in log_text(tmp_path / "m")


# --- what stops a run is one clear line


def unexpected_lines(stderr: str) -> list[str]:
    """What a run printed besides its plan and its progress."""
    return [line for line in stderr.splitlines() if not re.match(r"(val|train|geodesic|selective-search)[ :]", line)]


def test_no_output_folder_can_be_made_below_a_file(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    done = propose(data, tmp_path / "file" / "m")
    assert done.exit_code == 1
    (line,) = unexpected_lines(done.stderr)
    assert line.startswith("wsol-prep: error: ") and str(tmp_path / "file") in line


def size_of_shards(folder: Path) -> int:
    return min(path.stat().st_size for path in folder.glob("*-0000[0-2]-*.h5"))


@pytest.mark.parametrize("share", [0.15, 0.5, 0.8, 0.99])
def test_a_full_disk_is_one_line_and_leaves_no_half_shard(data: Path, made: Path, tmp_path: Path, share: float) -> None:
    with files_of_at_most(int(share * size_of_shards(made))):
        done = propose(data, tmp_path / "m", "--shard-size", 3)
    check_full_disk(tmp_path / "m", done.exit_code, done.stderr)


@pytest.mark.full
def test_a_full_disk_of_workers_is_one_line_and_leaves_no_half_shard(data: Path, made: Path, tmp_path: Path) -> None:
    words = ("--data", data, "--split", "val", "--out", tmp_path / "m", *QUICK, "--shard-size", 3, "--jobs", 2)
    done = run_program("tests.integration.limited_prep", int(0.5 * size_of_shards(made)), "proposals", *words)
    check_full_disk(tmp_path / "m", done.returncode, done.stderr)


def check_full_disk(out: Path, exit_code: int, stderr: str) -> None:
    assert exit_code == 1, stderr
    assert {path.name for path in out.iterdir()} == {"val.manifest.json", "logs"}
    lines = unexpected_lines(stderr)
    assert len(lines) == 1, stderr
    assert re.fullmatch(rf"wsol-prep: error: {out}/val-0000\d-of-00004\.h5: cannot write the shard: .*", lines[0])
    assert "File too large" in lines[0]
    assert '"event": "stopped"' in log_text(out)


def test_after_a_full_disk_the_run_goes_on(data: Path, made: Path, tmp_path: Path) -> None:
    with files_of_at_most(12_000):
        assert propose(data, tmp_path / "m", "--shard-size", 3).exit_code == 1
    assert propose(data, tmp_path / "m", "--shard-size", 3).exit_code == 0
    assert files(tmp_path / "m") == files(made)


@pytest.mark.parametrize("content", ["a note, no forest\n", "%YAML:1.0\n---\nno: forest\n"], ids=["text", "other YAML"])
def test_a_file_that_is_no_forest_is_one_line(data: Path, tmp_path: Path, content: str) -> None:
    model = tmp_path / "model.yml"
    model.write_text(content)
    words = ["--boundaries", "structured-forest", "--boundary-model", model]
    out = tmp_path / "m"
    # What OpenCV itself prints would be seen too.
    code, text = run_with_steps(
        main, "proposals", "--data", data, "--split", "val", "--out", out, *QUICK, *words, prog_name="wsol-prep"
    )
    assert code == 1, text
    (line,) = (line for line in unexpected_lines(text) if line)
    assert line.startswith(f"wsol-prep: error: boundary model {model}: not a structured forest model")
    assert not out.exists()


def test_a_missing_split_is_one_line(data: Path, tmp_path: Path) -> None:
    result = propose(data, tmp_path / "m", split="test")
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert "expected images of split 'test', found none" in result.output
    assert not (tmp_path / "m").exists()


def test_a_damaged_shard_is_named_and_never_taken_for_finished(data: Path, maps: Path) -> None:
    damage(maps / "val-00001-of-00004.h5", length=100)
    result = propose(data, maps, "--shard-size", "3")
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "val-00001-of-00004.h5" in result.output
